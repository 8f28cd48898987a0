#include <gtest/gtest.h>
#include <sys/resource.h>

#include <future>

#include "error.h"
#include "files.h"
#include "ingest.h"
#include "sink.h"
#include "streams.h"
#include "waiting.h"

namespace refavs {
namespace {

using Status = Ingest::Status;
using std::chrono::milliseconds;

constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();

IngestOptions options() {
  IngestOptions options;
  options.size = 8;
  options.normalization = {{0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}};
  options.decode_threads = 1;
  return options;
}

// All frames of a file.
std::vector<Frame> read(const std::string& path) {
  Ingest ingest(file_address(path), options());
  std::vector<Frame> frames;
  Frame frame;
  Status status;
  while ((status = ingest.next(&frame, kAtLast)) == Status::kFrame)
    frames.push_back(std::move(frame));
  EXPECT_EQ(status, Status::kEnd);
  return frames;
}

TEST(Ingest, FramesComeWithTheirSound) {
  const Folder folder;
  const std::vector<Frame> frames = read(folder.write("a.ts", transport_stream(3.0, true)));
  ASSERT_EQ(frames.size(), 75u);
  for (size_t i = 0; i < frames.size(); ++i) {
    EXPECT_NEAR(frames[i].pts_s - frames[0].pts_s, 0.04 * static_cast<double>(i), 1e-6);
    EXPECT_TRUE(frames[i].has_audio);
  }
  EXPECT_LT(frames[60].sound.missing_samples, 20);
}

// close() from every state

TEST(Ingest, ClosesWhereverItIs) {
  const Folder folder;
  const std::string path = folder.write("a.ts", transport_stream(4.0, true));
  for (int frames = 0; frames < 40; ++frames) {
    Ingest ingest(file_address(path), options());
    Frame frame;
    for (int i = 0; i < frames; ++i) ASSERT_EQ(ingest.next(&frame, kAtLast), Status::kFrame);
    if (frames % 2) continue;  // the destructor does it
    EXPECT_LT(time_of([&] { ingest.close(); }), kPromptly);
    ingest.close();
    EXPECT_EQ(ingest.next(&frame, kAtLast), Status::kEnd);
  }
}

TEST(Ingest, ClosesWhileAnotherThreadReads) {
  const Folder folder;
  const std::string path = folder.write("a.ts", transport_stream(4.0, true));
  for (int i = 0; i < 30; ++i) {
    Ingest ingest(file_address(path), options());
    auto reading = std::async(std::launch::async, [&] {
      Frame frame;
      int64_t frames = 0;
      while (ingest.next(&frame, kAtLast) == Status::kFrame) EXPECT_EQ(frame.index, frames++);
    });
    std::thread asking([&] {
      ingest.counters();
      EXPECT_GT(ingest.width(), 0);
    });
    std::this_thread::sleep_for(milliseconds(i));
    EXPECT_LT(time_of([&] { ingest.close(); }), kPromptly);
    reading.get();
    asking.join();
  }
}

TEST(Ingest, AReaderThatIsSlowHoldsUpNothing) {
  const Folder folder;
  Ingest ingest(file_address(folder.write("a.ts", transport_stream(4.0, true))), options());
  EXPECT_TRUE(eventually([&] { return ingest.counters().decoded >= 4; }));
  Frame frame;
  EXPECT_EQ(ingest.next(&frame, kAtLast), Status::kFrame);
  EXPECT_EQ(frame.index, 0);
}

// Files that are not as they should be

size_t most_memory_kb() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss);
}

TEST(Ingest, HoursWithoutSoundTakeNoMemory) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's memory tells nothing";
  constexpr int64_t kHour = 3500 * 1000;
  std::vector<FilePacket> packets = {{0, 0}, {0, 16000}};
  for (int64_t hour = 1; hour <= 5; ++hour) packets.push_back({hour * kHour, 16000});
  packets.push_back({5 * kHour + 500, 0});
  const Folder folder;
  const std::string path = folder.write("a.nut", nut_file({1, 1000}, packets));
  const size_t before = most_memory_kb();
  const std::vector<Frame> frames = read(path);
  EXPECT_LT(most_memory_kb(), before + 200'000) << "an hour of samples is 320 MB";
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_NEAR(frames[1].pts_s, 5 * 3500.5, 3.0);
  EXPECT_EQ(frames[1].sound.missing_samples, kPatchSamples - 8000);
  EXPECT_NEAR(frames[1].sound.samples.back(), 64 * 257 / 32768.0, 1e-3);
}

TEST(Ingest, APictureThatClaimsAllMemoryIsRefused) {
  const Folder folder;
  EXPECT_EQ(read(folder.write("a.png", png_file(3000, 2000))).size(), 1u);
  const std::string path = folder.write("a.png", png_file(16000, 4500));
  EXPECT_THROW(Ingest(file_address(path), options()).wait_first(kAtLast), IngestError);
}

TEST(Ingest, TimesAtTheEndOfTheWorldAreNoHarm) {
  const Folder folder;
  for (const AVRational base : {AVRational{1, 1000}, AVRational{2'000'000'000, 1}}) {
    for (int64_t far : {int64_t(1) << 40, int64_t(1) << 61, kLargest / 4 * 3}) {
      const std::string path = folder.write(
          "a.nut",
          nut_file(base, {{0, 0}, {0, 1600}, {1, 0}, {far, 0}, {far, 1600}, {far + 1, 0}}));
      std::vector<Frame> frames;
      try {
        frames = read(path);
      } catch (const IngestError&) {
      }
      for (size_t i = 0; i < frames.size(); ++i) {
        EXPECT_TRUE(std::isfinite(frames[i].pts_s));
        EXPECT_GE(frames[i].pts_s, frames[i > 0 ? i - 1 : 0].pts_s);
      }
    }
  }
}

TEST(Ingest, AFileCutAnywhereEndsInFramesOrAnError) {
  const Folder folder;
  const std::string whole = transport_stream(1.0, true);
  for (size_t share = 0; share <= 20; ++share) {
    const std::string path = folder.write("a.ts", whole.substr(0, whole.size() * share / 20));
    try {
      EXPECT_LE(read(path).size(), 26u);
    } catch (const IngestError& error) {
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace refavs
