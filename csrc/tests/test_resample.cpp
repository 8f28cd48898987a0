#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "error.h"
#include "frames.h"
#include "resample.h"

namespace refavs {
namespace {

constexpr double kPi = 3.14159265358979323846;

double tone(double seconds) { return 0.5 * std::sin(2.0 * kPi * 440.0 * seconds); }

// A resampler to 16 kHz and what comes out of it.
struct Grid {
  struct Range {
    int64_t begin, end;
    bool operator==(const Range& other) const { return begin == other.begin && end == other.end; }
  };
  std::vector<float> samples;
  std::vector<Range> missing;
  Resampler resampler{16000, 1, SourceClock(),
                      [this](const float* const* channels, int64_t count) {
                        samples.insert(samples.end(), channels[0], channels[0] + count);
                      },
                      [this](int64_t begin, int64_t end) {
                        EXPECT_LE(static_cast<int64_t>(samples.size()), begin)
                            << "missing comes before its samples";
                        missing.push_back({begin, end});
                      }};

  // Pushes `count` samples of the tone as it sounds at `from` / rate on.
  void push_tone(const SoundShape& shape, int64_t from, int count) {
    const auto value = [&](int n, int) { return tone(double(from + n) / shape.rate_hz); };
    resampler.push(*sound_frame(shape, count, from, value), {1, shape.rate_hz});
  }
  void expect_tone(int64_t begin, int64_t end, double tolerance) {
    ASSERT_GE(static_cast<int64_t>(samples.size()), end);
    for (int64_t k = begin; k < end; ++k)
      ASSERT_NEAR(samples[static_cast<size_t>(k)], tone(double(k) / 16000.0), tolerance) << k;
  }
};

TEST(Resample, TheSameRateIsBitExact) {
  std::mt19937 random(1);
  std::vector<float> source;
  Grid grid;
  for (int64_t at = 0; at < 30000;) {
    const int count = static_cast<int>(random() % 900 + 1);
    const auto value = [&](int n, int) {
      source.push_back(static_cast<float>((at + n) * 37 % 1000) / 1000.0f);
      return static_cast<double>(source.back());
    };
    grid.resampler.push(*sound_frame({}, count, at, value), {1, 16000});
    at += count;
  }
  grid.resampler.flush();
  EXPECT_EQ(grid.samples, source);
  EXPECT_TRUE(grid.missing.empty());
  EXPECT_EQ(grid.resampler.position(), static_cast<int64_t>(source.size()));
}

class ResampleRate : public testing::TestWithParam<int> {};

TEST_P(ResampleRate, SamplesStandWhereTheySound) {
  Grid grid;
  const SoundShape shape{GetParam(), AV_SAMPLE_FMT_FLTP, 1, true};
  for (int64_t at = 0; at < 2 * GetParam(); at += 512) grid.push_tone(shape, at, 512);
  grid.resampler.flush();
  grid.expect_tone(200, 31800, 1e-3);
}

INSTANTIATE_TEST_SUITE_P(ResampleRate, ResampleRate,
                         testing::Values(8000, 11025, 22050, 32000, 44100, 48000, 96000));

TEST(Resample, SampleFormatsAreTheSameSound) {
  const struct {
    AVSampleFormat format;
    double tolerance;
  } formats[] = {{AV_SAMPLE_FMT_U8, 0.005}, {AV_SAMPLE_FMT_S16, 2e-5}, {AV_SAMPLE_FMT_S32, 1e-6},
                 {AV_SAMPLE_FMT_FLT, 1e-6}, {AV_SAMPLE_FMT_DBL, 1e-6}, {AV_SAMPLE_FMT_S16P, 2e-5},
                 {AV_SAMPLE_FMT_DBLP, 1e-6}};
  for (const auto& [format, tolerance] : formats) {
    for (int channels : {1, 2}) {
      Grid grid;
      for (int64_t at = 0; at < 16000; at += 800)
        grid.push_tone({16000, format, channels, true}, at, 800);
      grid.resampler.flush();
      grid.expect_tone(0, 16000, tolerance);
    }
  }
}

TEST(Resample, ChannelsAreMixedWithWeightsThatSumToOne) {
  for (int channels : {2, 3, 6, 8}) {
    for (bool named : {true, false}) {
      if (named && channels == 3) continue;  // 2.1, whose low frequencies are left out
      Grid grid;
      const SoundShape shape{16000, AV_SAMPLE_FMT_FLT, channels, named};
      grid.resampler.push(*sound_frame(shape, 1600, 0, [](int, int) { return 0.9; }), {1, 16000});
      grid.resampler.flush();
      ASSERT_EQ(grid.samples.size(), 1600u);
      for (float sample : grid.samples) EXPECT_NEAR(sample, 0.9f, 1e-4) << channels << named;
    }
  }
}

TEST(Resample, UnnamedChannelsAreAveraged) {
  Grid grid;
  const auto value = [](int, int c) { return c == 0 ? 0.8 : 0.0; };
  grid.resampler.push(*sound_frame({16000, AV_SAMPLE_FMT_FLT, 5, false}, 160, 0, value),
                      {1, 16000});
  grid.resampler.flush();
  EXPECT_NEAR(grid.samples.at(50), 0.16f, 1e-5);
}

TEST(Resample, AHoleIsZerosAndTold) {
  Grid grid;
  grid.push_tone({}, 0, 8000);
  grid.push_tone({}, 12000, 4000);
  grid.resampler.flush();
  EXPECT_EQ(grid.missing, (std::vector<Grid::Range>{{8000, 12000}}));
  EXPECT_EQ(grid.samples.size(), 16000u);
  for (size_t k = 8000; k < 12000; ++k) EXPECT_EQ(grid.samples[k], 0.0f);
  grid.expect_tone(12000, 16000, 1e-6);
}

TEST(Resample, AnHourlongHoleIsTheSameAsAShortOne) {
  Grid grid;
  const SoundShape shape{44100, AV_SAMPLE_FMT_FLT, 1, true};
  const int64_t far = int64_t(44100) * 3000 + 7;
  grid.push_tone(shape, 0, 44100);
  grid.push_tone(shape, far, 44100);
  grid.resampler.flush();
  const int64_t begin = far * 16000 / 44100;
  grid.expect_tone(begin + 200, begin + 15000, 1e-3);
  ASSERT_EQ(grid.missing.size(), 1u);
  EXPECT_NEAR(static_cast<double>(grid.missing[0].end), static_cast<double>(begin), 1.0);
}

TEST(Resample, WhatComesTwiceIsTrimmed) {
  Grid grid;
  grid.push_tone({}, 0, 8000);
  grid.push_tone({}, 6000, 4000);
  grid.push_tone({}, 2000, 1000);
  grid.resampler.flush();
  EXPECT_EQ(grid.samples.size(), 10000u);
  grid.expect_tone(0, 10000, 1e-6);
  EXPECT_EQ(grid.resampler.overlap_samples(), 3000);
}

TEST(Resample, SoundBeforeZeroIsCut) {
  Grid grid;
  grid.push_tone({}, -3000, 5000);
  grid.resampler.flush();
  EXPECT_EQ(grid.samples.size(), 2000u);
  grid.expect_tone(0, 2000, 1e-6);
  EXPECT_EQ(grid.resampler.overlap_samples(), 0);
}

TEST(Resample, AnotherFormatGoesOnInPlace) {
  Grid grid;
  grid.push_tone({16000, AV_SAMPLE_FMT_FLT, 1, true}, 0, 16000);
  grid.push_tone({48000, AV_SAMPLE_FMT_S16, 2, true}, 48000, 48000);
  grid.push_tone({8000, AV_SAMPLE_FMT_DBLP, 1, true}, 16000, 8000);
  grid.resampler.flush();
  EXPECT_NEAR(static_cast<double>(grid.samples.size()), 48000.0, 2.0);
  EXPECT_TRUE(grid.missing.empty());
  grid.expect_tone(0, 15900, 1e-6);
  grid.expect_tone(16200, 31800, 1e-3);
  grid.expect_tone(32400, 47800, 1e-3);
}

TEST(Resample, BrokenTimesAreNotFollowed) {
  for (int64_t pts : {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min() + 1,
                      int64_t(1) << 40, -(int64_t(1) << 40)}) {
    for (const AVRational base : {AVRational{1, 16000}, AVRational{2000000000, 1}}) {
      Grid grid;
      grid.push_tone({}, 0, 1600);
      const auto value = [](int n, int) { return tone(double(1600 + n) / 16000.0); };
      grid.resampler.push(*sound_frame({}, 1600, pts, value), base);
      grid.resampler.flush();
      EXPECT_EQ(grid.samples.size(), 3200u);
      grid.expect_tone(0, 3200, 1e-6);
    }
  }
}

TEST(Resample, SoundWithoutTimesFollowsOn) {
  Grid grid;
  for (int i = 0; i < 3; ++i) {
    const auto value = [&](int n, int) { return tone(double(1600 * i + n) / 16000.0); };
    grid.resampler.push(*sound_frame({}, 1600, i == 1 ? AV_NOPTS_VALUE : 1600 * i, value),
                        {1, 16000});
  }
  grid.resampler.flush();
  grid.expect_tone(0, 4800, 1e-6);
}

TEST(Resample, TooManyChannelsAreAnError) {
  Grid grid;
  const FramePtr frame =
      sound_frame({16000, AV_SAMPLE_FMT_S16, 72, false}, 16, 0, [](int, int) { return 0.0; });
  EXPECT_THROW(grid.resampler.push(*frame, {1, 16000}), IngestError);
}

TEST(Resample, FormatsAreComparedByAllTheirParts) {
  const FramePtr frame = sound_frame({}, 1, 0, [](int, int) { return 0.0; });
  const SoundFormat format = SoundFormat::of(*frame);
  EXPECT_EQ(format.rate_hz, 16000);
  EXPECT_EQ(format.channels, 1);
  for (int part = 0; part < 4; ++part) {
    SoundFormat other = format;
    (part == 0 ? other.rate_hz : part == 1 ? other.sample_format : other.channels) += part < 3;
    other.mask += part == 3;
    EXPECT_TRUE(other != format) << part;
  }
  EXPECT_TRUE(SoundFormat::of(*frame) == format);
}

}  // namespace
}  // namespace refavs
