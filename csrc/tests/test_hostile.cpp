// What the fuzzers began with and what they found: tests/corpus.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "hostile.h"
#include "waiting.h"

namespace refavs {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> corpus(const char* name) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(fs::path(REFAVS_CORPUS) / name))
    files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::string bytes_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int read(const std::string& bytes) {
  return read_hostile_file(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), kAtLast);
}

TEST(Hostile, FilesEndInFramesOrAnError) {
  int files_with_frames = 0;
  for (const fs::path& path : corpus("demuxer")) {
    SCOPED_TRACE(path);
    files_with_frames += read(bytes_of(path)) > 0;
  }
  EXPECT_GE(files_with_frames, 15);
}

TEST(Hostile, FilesThatAreCutEndToo) {
  for (const fs::path& path : corpus("demuxer")) {
    SCOPED_TRACE(path);
    const std::string bytes = bytes_of(path);
    for (size_t share : {1, 2, 3}) read(bytes.substr(0, bytes.size() * share / 4));
  }
}

TEST(Hostile, SoundIsCountedWhateverItsTimes) {
  for (const fs::path& path : corpus("sound")) {
    SCOPED_TRACE(path);
    const std::string bytes = bytes_of(path);
    read_hostile_sound(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
}

TEST(Hostile, AddressesTellNoSecretAndReachNoLocalHost) {
  for (const fs::path& path : corpus("address")) {
    SCOPED_TRACE(path);
    read_hostile_address(bytes_of(path));
  }
}

}  // namespace
}  // namespace refavs
