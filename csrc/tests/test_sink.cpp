#include <gtest/gtest.h>

#include <ctime>
#include <filesystem>

#include "error.h"
#include "files.h"
#include "ingest.h"
#include "sink.h"
#include "streams.h"
#include "waiting.h"

namespace refavs {
namespace {

constexpr int kWidth = 33, kHeight = 17;

SinkOptions options(const Folder& folder, const std::string& source = "") {
  SinkOptions options;
  options.path = folder.path() + "/out.mp4";
  options.width = kWidth;
  options.height = kHeight;
  options.frame_rate = 25.0;
  options.source = source;
  return options;
}

void write(Sink* sink, double pts_s) {
  const std::vector<uint8_t> gray(kWidth * kHeight * 3, 100);
  ASSERT_TRUE(sink->write(gray.data(), kWidth * 3, pts_s, kAtLast));
}

size_t files_in(const Folder& folder) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& file : std::filesystem::directory_iterator(folder.path()))
    ++count;
  return count;
}

TEST(Sink, WhatIsWrittenCanBeRead) {
  const Folder folder;
  Sink sink(options(folder));
  for (int i = 0; i < 30; ++i) write(&sink, 0.04 * i);
  sink.close();
  IngestOptions reading;
  reading.size = 8;
  reading.normalization = {{0.0f, 0.0f, 0.0f}, {1.0f, 1.0f, 1.0f}};
  Ingest ingest(file_address(folder.path() + "/out.mp4"), reading);
  Frame frame;
  int frames = 0;
  while (ingest.next(&frame, kAtLast) == Ingest::Status::kFrame) {
    EXPECT_NEAR(frame.pts_s, 0.04 * frames++, 1e-6);
    EXPECT_NEAR(frame.picture.rgb().rgb.get()[0], 100, 3);
  }
  EXPECT_EQ(frames, 30);
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(Sink, IsLetGoOfInEveryStateAndLeavesNothing) {
  const Folder folder;
  for (int pictures = 0; pictures < 12; ++pictures) {
    Sink sink(options(folder));
    for (int i = 0; i < pictures; ++i) write(&sink, 0.04 * i);
    if (pictures % 2) continue;  // the destructor does it
    EXPECT_LT(time_of([&] { sink.abort(); }), kPromptly);
  }
  Sink empty(options(folder));
  EXPECT_THROW(empty.close(), SinkError);
  EXPECT_EQ(files_in(folder), 0u);
}

TEST(Sink, TimesThatAreNoneAreRefused) {
  const Folder folder;
  Sink sink(options(folder));
  const std::vector<uint8_t> gray(kWidth * kHeight * 3, 100);
  write(&sink, 1.0);
  for (double pts_s : {1.0, 0.5, -1.0, 1e300, double(INFINITY), double(NAN), 1e13})
    EXPECT_THROW(sink.write(gray.data(), kWidth * 3, pts_s, kAtLast), SinkError) << pts_s;
  write(&sink, 1.5);
  sink.close();
}

// The sound behind a long hole is decoded whole, and taken from in pieces.
TEST(Sink, AHoleInTheSoundIsNoEndlessWork) {
  const Folder folder;
  const std::string source = folder.write(
      "a.nut",
      nut_file({1, 1000}, {{0, 0}, {0, 16000}, {200'000, 16000}, {200'000, 0}, {201'000, 0}}));
  Sink sink(options(folder, source));
  EXPECT_EQ(sink.sound(), "encoded");
  const std::clock_t began = std::clock();
  write(&sink, 0.0);
  write(&sink, 200.0);
  sink.close();
  EXPECT_LT((std::clock() - began) / CLOCKS_PER_SEC, kSanitized ? 60 : 5);
}

}  // namespace
}  // namespace refavs
