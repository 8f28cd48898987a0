#include <gtest/gtest.h>

#include "error.h"
#include "frames.h"
#include "live_sound.h"

namespace refavs {
namespace {

FramePtr constant(double value, const SoundShape& shape = {}, int count = 1600) {
  return sound_frame(shape, count, 0, [&](int, int) { return value; });
}

TEST(LiveSound, FallsWhereItBelongs) {
  MelTrack track;
  LiveSound sound(&track);
  for (int i = 0; i < 20; ++i) sound.push(*constant(0.25), 1.0 + 0.1 * i);
  const MelPatch patch = track.take(190);  // from 0.925 to 1.9 s
  EXPECT_NEAR(patch.missing_samples, 1200, 1);
  EXPECT_EQ(patch.samples[1100], 0.0f);
  EXPECT_NEAR(patch.samples[8000], 0.25f, 1e-3);
  EXPECT_EQ(sound.overlap_samples(), 0);
  EXPECT_NEAR(sound.error_s(), 0.0, 1e-3);
}

TEST(LiveSound, WhatBelongsBeforeIsLeftOutHoweverFarThatIs) {
  for (double at_s : {0.9, 0.0, -1.0, -1e6, -1e12, -1e18, -1e300}) {
    MelTrack track;
    LiveSound sound(&track);
    for (int i = 0; i < 10; ++i) sound.push(*constant(0.25), 0.1 * i);
    const double ahead = track.ahead_s();
    sound.push(*constant(0.75), at_s == 0.9 ? 0.8 : at_s);
    EXPECT_EQ(track.ahead_s(), ahead) << at_s;
    EXPECT_NEAR(static_cast<double>(sound.overlap_samples()), 1600, 16) << at_s;
  }
}

TEST(LiveSound, WhatBelongsBeforeTheBeginningIsLeftOut) {
  for (double at_s : {-0.1, -5.0, -1e18, -1e300}) {
    MelTrack track;
    LiveSound sound(&track);
    sound.push(*constant(0.25), at_s);
    EXPECT_EQ(track.ahead_s(), 0.0);
    EXPECT_EQ(sound.overlap_samples(), 0);
  }
}

TEST(LiveSound, AnotherFormatGoesOnInPlace) {
  MelTrack track;
  LiveSound sound(&track);
  const SoundShape shapes[] = {{48000, AV_SAMPLE_FMT_S16, 2, true},
                               {8000, AV_SAMPLE_FMT_U8, 1, true},
                               {44100, AV_SAMPLE_FMT_FLTP, 6, true},
                               {16000, AV_SAMPLE_FMT_DBLP, 3, false}};
  double at_s = 0.0;
  for (const SoundShape& shape : shapes) {
    for (int i = 0; i < 10; ++i, at_s += 0.1)
      sound.push(*constant(0.25, shape, shape.rate_hz / 10), at_s);
    EXPECT_NEAR(track.ahead_s(), at_s, 0.02);
  }
  EXPECT_LT(track.missing_samples(), 1000);
}

TEST(LiveSound, AFormatThatCannotBeMixedIsAnError) {
  MelTrack track;
  LiveSound sound(&track);
  EXPECT_THROW(sound.push(*constant(0.0, {16000, AV_SAMPLE_FMT_S16, 72, false}), 0.0), IngestError);
}

TEST(LiveSound, EmptyFramesAreNothing) {
  MelTrack track;
  LiveSound sound(&track);
  FramePtr frame = new_frame();
  sound.push(*frame, 1.0);
  EXPECT_EQ(track.ahead_s(), 0.0);
}

TEST(LiveSound, AfterARestartNothingIsKnownOfTheRate) {
  MelTrack track;
  LiveSound sound(&track);
  for (int i = 0; i < 200; ++i) sound.push(*constant(0.25), 0.1001 * i);
  EXPECT_LT(sound.drift_ppm(), -100.0);
  sound.restart();
  EXPECT_EQ(sound.drift_ppm(), 0.0);
  sound.push(*constant(0.25), 0.1001 * 200);
  EXPECT_EQ(sound.overlap_samples(), 0);
}

}  // namespace
}  // namespace refavs
