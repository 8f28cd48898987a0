#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "frames.h"
#include "live_sound.h"
#include "live_soundtrack.h"
#include "sound_record.h"
#include "waiting.h"

namespace refavs {
namespace {

constexpr int64_t kRate = SoundRecord::kRateHz;
constexpr float kOne = 1.0f;

// Sample k is k in the first channel and -k in the second.
void add(SoundRecord* record, int64_t count) {
  std::vector<float> left, right;
  for (int64_t k = record->end(); k < record->end() + count; ++k) {
    left.push_back(static_cast<float>(k));
    right.push_back(static_cast<float>(-k));
  }
  const float* channels[] = {left.data(), right.data()};
  record->add(channels, count);
}

struct Read {
  std::vector<float> left, right;
};

Read read(const SoundRecord& record, int64_t begin, int64_t count) {
  Read read{std::vector<float>(count, 7.0f), std::vector<float>(count, 7.0f)};
  float* channels[] = {read.left.data(), read.right.data()};
  record.read(begin, count, channels);
  return read;
}

TEST(SoundRecord, KeepsTheLastSecondsAndGivesZerosAroundThem) {
  SoundRecord record;
  constexpr int64_t kKept = kRate * SoundRecord::kKept_s;
  for (int i = 0; i < 30; ++i) add(&record, kRate + 17);  // pieces do not divide the ring
  const int64_t end = 30 * (kRate + 17);
  EXPECT_EQ(record.end(), end);
  const int64_t begin = end - kKept;
  const Read all = read(record, begin - 5, kKept + 10);
  for (int64_t k = 0; k < kKept + 10; ++k) {
    const bool kept = k >= 5 && k < kKept + 5;
    ASSERT_EQ(all.left[k], kept ? static_cast<float>(begin - 5 + k) : 0.0f) << k;
    ASSERT_EQ(all.right[k], -all.left[k]) << k;
  }
}

TEST(SoundRecord, AHoleIsSilenceHoweverLongItIs) {
  for (int64_t hole : {int64_t(1), kRate, 100 * kRate, int64_t(1) << 50}) {
    SoundRecord record;
    add(&record, 1000);
    EXPECT_LT(time_of([&] { record.jump(1000 + hole); }), kPromptly);
    EXPECT_EQ(record.end(), 1000 + hole);
    const int64_t silent = std::min(hole, kRate);
    for (float sample : read(record, 1000 + hole - silent, silent).left) ASSERT_EQ(sample, 0.0f);
    const float* const channels[] = {&kOne, &kOne};
    record.add(channels, 1);
    EXPECT_EQ(read(record, 1000 + hole, 1).left[0], 1.0f);
    record.jump(5);  // what is past is past
    EXPECT_EQ(record.end(), 1001 + hole);
  }
}

TEST(SoundRecord, IsWaitedForUntilItEnds) {
  SoundRecord record;
  add(&record, 10);
  EXPECT_TRUE(record.wait(10, std::chrono::milliseconds(0)));
  EXPECT_FALSE(record.wait(11, std::chrono::milliseconds(1)));
  record.finish();
  EXPECT_TRUE(record.wait(11, std::chrono::milliseconds(0)));
}

// Sound on a grid of another rate falls where it belongs too.
TEST(SoundRecord, LiveSoundFallsWhereItBelongs) {
  SoundRecord record;
  SoundGrid grid;
  grid.rate_hz = SoundRecord::kRateHz;
  grid.channels = SoundRecord::kChannels;
  grid.add = [&](const float* const* channels, int64_t count) { record.add(channels, count); };
  grid.jump = [&](int64_t to) { record.jump(to); };
  LiveSound sound(std::move(grid));
  SoundShape shape;
  for (int i = 0; i < 20; ++i) {
    const FramePtr frame = sound_frame(shape, shape.rate_hz / 10, 0, [](int, int) { return 0.25; });
    sound.push(*frame, 1.0 + 0.1 * i);
  }
  EXPECT_NEAR(static_cast<double>(record.end()), 3.0 * kRate, 0.002 * kRate);
  EXPECT_EQ(read(record, kRate - 100, 1).left[0], 0.0f);
  EXPECT_NEAR(read(record, 2 * kRate, 1).left[0], 0.25f, 1e-3);
}

// Positions of the packets, in samples.
std::vector<int64_t> packets_until(LiveSoundtrack* track, double until_s) {
  std::vector<int64_t> found;
  track->write_until(until_s, [&](AVPacket* packet) { found.push_back(packet->pts); });
  return found;
}

TEST(SoundRecord, ATrackWaitsForSoundButNotForEver) {
  auto record = std::make_shared<SoundRecord>();
  LiveSoundtrack track(record);
  track.begin(10.0);
  EXPECT_TRUE(packets_until(&track, 10.5).empty()) << "it may still come";
  record->jump(10 * kRate);
  add(record.get(), kRate / 2);
  const std::vector<int64_t> found = packets_until(&track, 10.5);
  ASSERT_GT(found.size(), 20u);
  EXPECT_GE(found.front(), 10 * kRate - 2048);
  for (size_t i = 1; i < found.size(); ++i) EXPECT_EQ(found[i], found[i - 1] + 1024);
  const std::vector<int64_t> silent = packets_until(&track, 14.0);
  EXPECT_NEAR(static_cast<double>(silent.size()), (3.5 - LiveSoundtrack::kLate_s) * kRate / 1024,
              3);
  int64_t end = 0;
  track.finish(14.0, [&](AVPacket* packet) { end = packet->pts + packet->duration; });
  EXPECT_EQ(end, 14 * kRate);
}

}  // namespace
}  // namespace refavs
