#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <random>
#include <vector>

#include "logmel.h"

namespace refavs {
namespace {

constexpr double kPi = 3.14159265358979323846;

// The formula of mel_features.py, in doubles and with a plain discrete Fourier transform.
std::vector<double> formula(const float* samples) {
  std::vector<double> magnitude(257);
  for (int k = 0; k < 257; ++k) {
    std::complex<double> sum = 0.0;
    for (int n = 0; n < 400; ++n) {
      const double hann = 0.5 - 0.5 * std::cos(2.0 * kPi * n / 400.0);
      sum += hann * samples[n] * std::polar(1.0, -2.0 * kPi * (k * n % 512) / 512.0);
    }
    magnitude[static_cast<size_t>(k)] = std::abs(sum);
  }
  const auto mel = [](double hertz) { return 1127.0 * std::log(1.0 + hertz / 700.0); };
  std::vector<double> frame;
  for (int m = 0; m < 64; ++m) {
    const auto edge = [&](int i) {
      return mel(125.0) + (mel(7500.0) - mel(125.0)) * (m + i) / 65.0;
    };
    double sum = 0.0;
    for (int k = 1; k < 257; ++k) {
      const double at = mel(k * 8000.0 / 256.0);
      const double up = (at - edge(0)) / (edge(1) - edge(0));
      const double down = (edge(2) - at) / (edge(2) - edge(1));
      sum += std::max(0.0, std::min(up, down)) * magnitude[static_cast<size_t>(k)];
    }
    frame.push_back(std::log(sum + 0.01));
  }
  return frame;
}

std::vector<float> sound(int kind, size_t count) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> noise(-1.0f, 1.0f);
  std::vector<float> samples(count);
  for (size_t n = 0; n < count; ++n) {
    const double t = static_cast<double>(n) / 16000.0;
    samples[n] = kind == 0   ? noise(random)
                 : kind == 1 ? static_cast<float>(std::sin(2 * kPi * 440.0 * t))
                 : kind == 2 ? static_cast<float>(n % 100 == 0)
                             : 1e-4f * noise(random);
  }
  return samples;
}

TEST(Logmel, IsTheFormula) {
  for (int kind = 0; kind < 4; ++kind) {
    const std::vector<float> samples = sound(kind, 400 + 5 * 160);
    std::vector<MelFrame> frames;
    StreamingLogMel().push(samples.data(), samples.size(), &frames);
    ASSERT_EQ(frames.size(), 6u);
    for (size_t k = 0; k < frames.size(); ++k) {
      const std::vector<double> expected = formula(samples.data() + 160 * k);
      for (size_t m = 0; m < 64; ++m) EXPECT_NEAR(frames[k][m], expected[m], 2e-6) << kind;
    }
  }
}

TEST(Logmel, PiecesGiveTheSameFrames) {
  const std::vector<float> samples = sound(0, 16000);
  std::vector<MelFrame> whole, pieces;
  StreamingLogMel().push(samples.data(), samples.size(), &whole);
  std::mt19937 random(1);
  StreamingLogMel stream;
  for (size_t at = 0; at < samples.size();) {
    const size_t count = std::min<size_t>(random() % 700, samples.size() - at);
    stream.push(samples.data() + at, count, &pieces);
    at += count;
  }
  EXPECT_EQ(whole.size(), (16000u - 400u) / 160u + 1u);
  EXPECT_EQ(whole, pieces);
}

TEST(Logmel, SilenceIsTheLogarithmOfTheOffset) {
  const std::vector<float> silence(400, 0.0f);
  std::vector<MelFrame> frames;
  StreamingLogMel().push(silence.data(), silence.size(), &frames);
  ASSERT_EQ(frames.size(), 1u);
  for (float value : frames[0]) EXPECT_EQ(value, silent_log_mel());
  EXPECT_FLOAT_EQ(silent_log_mel(), static_cast<float>(std::log(0.01)));
}

}  // namespace
}  // namespace refavs
