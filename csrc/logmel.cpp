#include "logmel.h"

#include <algorithm>
#include <cmath>
#include <complex>

namespace refavs {
namespace {

constexpr int kFftSize = 512;
constexpr int kHalf = kFftSize / 2;
constexpr int kSpectrumBins = kHalf + 1;
constexpr double kLowHz = 125.0;
constexpr double kHighHz = 7500.0;
constexpr double kLogOffset = 0.01;
const double kPi = std::acos(-1.0);

double hertz_to_mel(double hertz) { return 1127.0 * std::log1p(hertz / 700.0); }

// Weights of one mel bin: spectrum bins first .. first + weights.size() - 1.
struct Triangle {
  int first = 0;
  std::vector<double> weights;
};

struct Tables {
  std::array<double, kMelFrameSamples> hann;
  std::array<std::complex<double>, kHalf> twiddle;  // exp(-2 pi i k / 512)
  std::array<int, kHalf> bit_reversed;
  std::array<Triangle, kMelBins> mel;

  Tables() {
    for (int n = 0; n < kMelFrameSamples; ++n)
      hann[n] = 0.5 - 0.5 * std::cos(2.0 * kPi * n / kMelFrameSamples);
    for (int k = 0; k < kHalf; ++k) {
      twiddle[k] = std::polar(1.0, -2.0 * kPi * k / kFftSize);
      int reversed = 0;
      for (int bit = 1; bit < kHalf; bit <<= 1) reversed = reversed << 1 | ((k & bit) ? 1 : 0);
      bit_reversed[k] = reversed;
    }
    const double low = hertz_to_mel(kLowHz);
    const double step = (hertz_to_mel(kHighHz) - low) / (kMelBins + 1);
    for (int m = 0; m < kMelBins; ++m) {
      const double lower = low + m * step;
      for (int bin = 1; bin < kSpectrumBins; ++bin) {
        const double mel_at = hertz_to_mel(bin * double(kSampleRateHz) / kFftSize);
        const double weight = std::min(mel_at - lower, lower + 2.0 * step - mel_at) / step;
        if (weight <= 0.0) continue;
        if (mel[m].weights.empty()) mel[m].first = bin;
        mel[m].weights.push_back(weight);
      }
    }
  }
};

const Tables& tables() {
  static const Tables instance;
  return instance;
}

// |DFT| of 512 real samples, by one complex transform of half the length: z[n] = x[2n] + i x[2n+1].
void magnitude_spectrum(const double* x, double* magnitude) {
  const Tables& t = tables();
  std::complex<double> z[kHalf];
  for (int n = 0; n < kHalf; ++n) {
    const int from = t.bit_reversed[n];
    z[n] = {x[2 * from], x[2 * from + 1]};
  }
  for (int length = 2; length <= kHalf; length *= 2) {
    const int half = length / 2;
    const int stride = kFftSize / length;
    for (int begin = 0; begin < kHalf; begin += length) {
      for (int k = 0; k < half; ++k) {
        const std::complex<double> w = t.twiddle[k * stride];
        const std::complex<double> odd = z[begin + k + half];
        // Written out: std::complex's own product checks for NaN.
        const std::complex<double> turned(odd.real() * w.real() - odd.imag() * w.imag(),
                                          odd.real() * w.imag() + odd.imag() * w.real());
        const std::complex<double> even = z[begin + k];
        z[begin + k] = even + turned;
        z[begin + k + half] = even - turned;
      }
    }
  }
  magnitude[0] = std::abs(z[0].real() + z[0].imag());
  magnitude[kHalf] = std::abs(z[0].real() - z[0].imag());
  for (int k = 1; k < kHalf; ++k) {
    // X[k] = E[k] + exp(-2 pi i k / 512) O[k], with E and O the spectra of even and odd samples.
    const std::complex<double> a = z[k];
    const std::complex<double> b = std::conj(z[kHalf - k]);
    const double even_re = 0.5 * (a.real() + b.real()), even_im = 0.5 * (a.imag() + b.imag());
    const double odd_re = 0.5 * (a.imag() - b.imag()), odd_im = -0.5 * (a.real() - b.real());
    const std::complex<double> w = t.twiddle[k];
    const double re = even_re + odd_re * w.real() - odd_im * w.imag();
    const double im = even_im + odd_re * w.imag() + odd_im * w.real();
    magnitude[k] = std::sqrt(re * re + im * im);
  }
}

MelFrame log_mel_frame(const float* samples) {
  const Tables& t = tables();
  double windowed[kFftSize] = {};
  for (int n = 0; n < kMelFrameSamples; ++n) windowed[n] = samples[n] * t.hann[n];
  double magnitude[kSpectrumBins];
  magnitude_spectrum(windowed, magnitude);
  MelFrame frame;
  for (int m = 0; m < kMelBins; ++m) {
    const Triangle& triangle = t.mel[m];
    double sum = 0.0;
    for (size_t i = 0; i < triangle.weights.size(); ++i)
      sum += triangle.weights[i] * magnitude[triangle.first + i];
    frame[m] = static_cast<float>(std::log(sum + kLogOffset));
  }
  return frame;
}

}  // namespace

float silent_log_mel() { return static_cast<float>(std::log(kLogOffset)); }

void StreamingLogMel::push(const float* samples, size_t count, std::vector<MelFrame>* frames) {
  pending_.insert(pending_.end(), samples, samples + count);
  size_t begin = 0;
  for (; begin + kMelFrameSamples <= pending_.size(); begin += kHopSamples)
    frames->push_back(log_mel_frame(pending_.data() + begin));
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(begin));
}

}  // namespace refavs
