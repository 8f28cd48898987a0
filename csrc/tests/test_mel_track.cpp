#include <gtest/gtest.h>
#include <malloc.h>

#include <future>
#include <random>
#include <thread>

#include "mel_track.h"
#include "waiting.h"

namespace refavs {
namespace {

using std::chrono::milliseconds;

std::vector<float> noise(int64_t count, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> value(-0.5f, 0.5f);
  std::vector<float> samples(static_cast<size_t>(count));
  for (float& sample : samples) sample = value(random);
  return samples;
}

void add(MelTrack* track, const std::vector<float>& samples) {
  track->add(samples.data(), static_cast<int64_t>(samples.size()));
}

// All that a track was told, kept in the plainest way.
class Whole {
 public:
  void add(const std::vector<float>& samples) {
    samples_.insert(samples_.end(), samples.begin(), samples.end());
    missing_.resize(samples_.size(), false);
  }
  void skip(int64_t count) {
    samples_.resize(samples_.size() + static_cast<size_t>(count), 0.0f);
    missing_.resize(samples_.size(), true);
  }
  int64_t size() const { return static_cast<int64_t>(samples_.size()); }

  void expect_equal(const MelPatch& patch, int64_t hop) const {
    std::vector<float> window(kPatchSamples, 0.0f);
    int64_t missing = 0;
    for (int64_t i = 0; i < kPatchSamples; ++i) {
      const int64_t at = hop * kHopSamples - kPatchSamples + i;
      const bool here = at >= 0 && at < size();
      if (here) window[static_cast<size_t>(i)] = samples_[static_cast<size_t>(at)];
      missing += !here || missing_[static_cast<size_t>(at)];
    }
    EXPECT_EQ(patch.samples, window) << "hop " << hop;
    EXPECT_EQ(patch.missing_samples, missing) << "hop " << hop;
    EXPECT_DOUBLE_EQ(patch.end_s, static_cast<double>(hop) / 100.0);
    std::vector<MelFrame> frames;
    StreamingLogMel().push(window.data(), window.size(), &frames);
    std::vector<float> log_mel;
    for (const MelFrame& frame : frames) log_mel.insert(log_mel.end(), frame.begin(), frame.end());
    EXPECT_EQ(patch.log_mel, log_mel) << "hop " << hop;
  }

 private:
  std::vector<float> samples_;
  std::vector<bool> missing_;
};

TEST(MelTrack, WindowsAreThoseOfTheWholeSound) {
  MelTrack track;
  Whole whole;
  std::mt19937 random(4);
  for (unsigned piece = 0; piece < 30; ++piece) {
    const std::vector<float> samples = noise(random() % 4000, piece);
    add(&track, samples);
    whole.add(samples);
  }
  track.finish();
  for (int64_t hop : {0, 1, 50, 97, 98, 99, 200, 300}) whole.expect_equal(track.take(hop), hop);
  EXPECT_EQ(track.missing_samples(), 0);
}

TEST(MelTrack, BeyondTheEndIsMissing) {
  MelTrack track;
  Whole whole;
  const std::vector<float> samples = noise(20000);
  add(&track, samples);
  whole.add(samples);
  track.finish();
  EXPECT_TRUE(track.wait(1 << 30, milliseconds(0)));
  for (int64_t hop : {100, 125, 126, 200, 222, 223, 1000, 1 << 30})
    whole.expect_equal(track.take(hop), hop);
  track.take(10);  // earlier than the last one: the last one again
}

TEST(MelTrack, HolesOfAnyLengthAreMissing) {
  for (int64_t hole : {1, 159, 160, 4000, kPatchSamples, kPatchSamples + 1, 40000, 1000003}) {
    MelTrack track;
    Whole whole;
    for (unsigned part = 0; part < 3; ++part) {
      const std::vector<float> samples = noise(9001, part);
      add(&track, samples);
      whole.add(samples);
      track.jump(whole.size() + hole);
      whole.skip(hole);
    }
    const std::vector<float> samples = noise(9001, 9);
    add(&track, samples);
    whole.add(samples);
    EXPECT_EQ(track.missing_samples(), 3 * hole);
    const int64_t last = whole.size() / kHopSamples;
    const int64_t first = (whole.size() - 9001 - std::min<int64_t>(hole, 9000)) / kHopSamples + 1;
    for (int64_t hop : {first, (first + last) / 2, last}) whole.expect_equal(track.take(hop), hop);
  }
}

TEST(MelTrack, AJumpBackIsNone) {
  MelTrack track;
  add(&track, noise(1000));
  track.jump(1000);
  track.jump(-5);
  EXPECT_EQ(track.missing_samples(), 0);
  EXPECT_DOUBLE_EQ(track.ahead_s(), 1000.0 / 16000.0);
}

TEST(MelTrack, AJumpOverDaysTakesNoTime) {
  MelTrack track(10.0);
  add(&track, noise(1000));
  const int64_t days = int64_t(100) * 24 * 3600 * kSampleRateHz;
  EXPECT_LT(time_of([&] { track.jump(days); }), kPromptly);
  add(&track, noise(kPatchSamples, 2));
  const MelPatch patch = track.take((days + kPatchSamples) / kHopSamples);
  EXPECT_EQ(patch.missing_samples, 0 + kPatchSamples - (kPatchSamples / kHopSamples) * kHopSamples);
}

TEST(MelTrack, AReaderWaitsForItsWindow) {
  MelTrack track;
  EXPECT_TRUE(track.wait(0, milliseconds(0)));
  EXPECT_FALSE(track.wait(1, milliseconds(0)));
  auto waited = std::async(std::launch::async, [&] { return track.wait(10, kAtLast); });
  add(&track, noise(1599));
  EXPECT_EQ(waited.wait_for(kAWhile), std::future_status::timeout);
  add(&track, noise(1));
  EXPECT_TRUE(waited.get());
  auto end = std::async(std::launch::async, [&] { return track.wait(1000, kAtLast); });
  track.finish();
  EXPECT_TRUE(end.get());
}

TEST(MelTrack, OneThreadAddsAndOneReads) {
  MelTrack track;
  const std::vector<float> samples = noise(64000);
  Whole whole;
  whole.add(samples);
  std::thread writer([&] {
    for (size_t at = 0; at < samples.size(); at += 500) track.add(samples.data() + at, 500);
    track.finish();
  });
  for (int64_t hop = 0; hop <= 400; hop += 7) {
    EXPECT_TRUE(track.wait(hop, kAtLast));
    whole.expect_equal(track.take(hop), hop);
    track.ahead_s();
    track.missing_samples();
  }
  writer.join();
}

size_t bytes_in_use() { return mallinfo2().uordblks; }

TEST(MelTrack, WhatNobodyTakesIsForgotten) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's malloc tells nothing";
  const std::vector<float> second = noise(16000);
  MelTrack track(10.0);
  for (int s = 0; s < 30; ++s) add(&track, second);
  const size_t before = bytes_in_use();
  for (int s = 0; s < 600; ++s) add(&track, second);
  EXPECT_LT(bytes_in_use(), before + (1 << 20)) << "ten minutes would be 54 MB";
  const MelPatch patch = track.take(63000);
  EXPECT_EQ(patch.missing_samples, 0);
}

TEST(MelTrack, WhatWasTakenIsForgotten) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer's malloc tells nothing";
  const std::vector<float> second = noise(16000);
  MelTrack track;
  size_t before = 0;
  for (int s = 1; s < 300; ++s) {
    add(&track, second);
    track.add_missing(s * 16000 - 10, s * 16000);
    track.take(s * 100);
    if (s == 30) before = bytes_in_use();
  }
  EXPECT_LT(bytes_in_use(), before + (1 << 20));
}

}  // namespace
}  // namespace refavs
