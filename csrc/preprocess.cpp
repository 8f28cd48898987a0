#include "preprocess.h"

#include <algorithm>
#include <cmath>

// The two inner loops are compiled for AVX2 too and chosen when the program starts. aarch64 has its
// vector unit in the baseline.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define REFAVS_VECTORIZED __attribute__((target_clones("arch=haswell", "default")))
#else
#define REFAVS_VECTORIZED
#endif

namespace refavs {
namespace {

// row[i] = sum over k of weights[k] * rgb[k * stride + i]
REFAVS_VECTORIZED
void blend_rows(const uint8_t* rgb, int64_t stride, const float* weights, int taps, int count,
                float* row) {
  constexpr int kBlock = 64;  // accumulators that stay in registers over the taps
  int i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    float sum[kBlock] = {};
    for (int k = 0; k < taps; ++k) {
      const uint8_t* from = rgb + k * stride + i;
      const float weight = weights[k];
      for (int j = 0; j < kBlock; ++j) sum[j] += weight * static_cast<float>(from[j]);
    }
    for (int j = 0; j < kBlock; ++j) row[i + j] = sum[j];
  }
  for (; i < count; ++i) {
    float sum = 0.0f;
    for (int k = 0; k < taps; ++k) sum += weights[k] * static_cast<float>(rgb[k * stride + i]);
    row[i] = sum;
  }
}

}  // namespace

Resizer::Resizer(int width, int height, int size, const Normalization& normalization)
    : width_(width),
      height_(height),
      size_(size),
      horizontal_(triangle_filter(width, size)),
      vertical_(triangle_filter(height, size)),
      row_(static_cast<size_t>(width) * 3) {
  for (int c = 0; c < 3; ++c) {
    scale_[c] = 1.0f / (255.0f * normalization.std[c]);
    shift_[c] = -normalization.mean[c] / normalization.std[c];
  }
}

void Resizer::run(const uint8_t* rgb, int64_t stride, float* out) {
  // Rows first: whole rows are contiguous, and what is left for the strided pass is short.
  const size_t plane = static_cast<size_t>(size_) * size_;
  const int taps = horizontal_.taps;
  for (int y = 0; y < size_; ++y) {
    blend_rows(rgb + vertical_.first[y] * stride, stride,
               &vertical_.weights[size_t(y) * vertical_.taps], vertical_.taps, width_ * 3,
               row_.data());
    float* line = out + static_cast<size_t>(y) * size_;
    for (int x = 0; x < size_; ++x) {
      const float* from = row_.data() + static_cast<size_t>(horizontal_.first[x]) * 3;
      const float* weights = &horizontal_.weights[size_t(x) * taps];
      float r = 0.0f, g = 0.0f, b = 0.0f;
      for (int k = 0; k < taps; ++k) {
        r += weights[k] * from[3 * k];
        g += weights[k] * from[3 * k + 1];
        b += weights[k] * from[3 * k + 2];
      }
      line[x] = r * scale_[0] + shift_[0];
      line[x + plane] = g * scale_[1] + shift_[1];
      line[x + 2 * plane] = b * scale_[2] + shift_[2];
    }
  }
}

Resizer::Filter Resizer::triangle_filter(int from, int to) {
  const double scale = double(from) / to;
  const double support = std::max(scale, 1.0);
  Filter filter;
  filter.taps = std::min(from, static_cast<int>(std::ceil(support)) * 2 + 1);
  filter.first.resize(to);
  filter.weights.assign(static_cast<size_t>(to) * filter.taps, 0.0f);
  for (int i = 0; i < to; ++i) {
    const double center = (i + 0.5) * scale;
    const int begin = std::max(0, static_cast<int>(center - support + 0.5));
    const int end = std::min(from, static_cast<int>(center + support + 0.5));
    // All outputs have the same number of taps; near the far edge they begin earlier, with zeros.
    const int first = std::min(begin, from - filter.taps);
    filter.first[i] = first;
    double sum = 0.0;
    for (int k = begin; k < end; ++k)
      sum += std::max(0.0, 1.0 - std::abs(k + 0.5 - center) / support);
    for (int k = begin; k < end; ++k) {
      const double weight = std::max(0.0, 1.0 - std::abs(k + 0.5 - center) / support) / sum;
      filter.weights[static_cast<size_t>(i) * filter.taps + (k - first)] =
          static_cast<float>(weight);
    }
  }
  return filter;
}

}  // namespace refavs
