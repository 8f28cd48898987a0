#include "preprocess.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// The inner loops are compiled for AVX2 too and chosen when the program starts. aarch64 has its
// vector unit in the baseline.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define REFAVS_VECTORIZED __attribute__((target_clones("avx2", "default")))
#else
#define REFAVS_VECTORIZED
#endif

namespace refavs {
namespace {

constexpr int kLanes = 8;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

// row[i] = sum over k of weights[k] * samples[k * stride + i]
REFAVS_VECTORIZED
void blend_rows(const uint8_t* samples, int64_t stride, const float* weights, int taps, int count,
                float* row) {
  constexpr int kBlock = 64;  // accumulators that stay in registers over the taps
  int i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    float sum[kBlock] = {};
    for (int k = 0; k < taps; ++k) {
      const uint8_t* from = samples + k * stride + i;
      const float weight = weights[k];
      for (int j = 0; j < kBlock; ++j) sum[j] += weight * static_cast<float>(from[j]);
    }
    for (int j = 0; j < kBlock; ++j) row[i + j] = sum[j];
  }
  for (; i < count; ++i) {
    float sum = 0.0f;
    for (int k = 0; k < taps; ++k) sum += weights[k] * static_cast<float>(samples[k * stride + i]);
    row[i] = sum;
  }
}

// line[x] = sum over k < taps of weights[x * taps + k] * row[first[x] + k]; taps is a multiple of
// kLanes.
REFAVS_VECTORIZED
void blend_samples(const float* row, const int* first, const float* weights, int taps, int count,
                   float* line) {
  for (int x = 0; x < count; ++x, weights += taps) {
    Lanes sum = {};
    for (int k = 0; k < taps; k += kLanes) {
      Lanes sample, weight;
      std::memcpy(&sample, row + first[x] + k, sizeof sample);
      std::memcpy(&weight, weights + k, sizeof weight);
      sum += sample * weight;
    }
    line[x] = ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
  }
}

// out[x] = scale * clamp(bias + matrix . (a[x], b[x], c[x])) + shift
REFAVS_VECTORIZED
void mix(const float* a, const float* b, const float* c, const float* matrix, float bias,
         float scale, float shift, int count, float* out) {
  for (int x = 0; x < count; ++x) {
    const float value = bias + matrix[0] * a[x] + matrix[1] * b[x] + matrix[2] * c[x];
    out[x] = scale * std::min(std::max(value, 0.0f), 255.0f) + shift;
  }
}

int shifted(int length, int shift) { return (length + (1 << shift) - 1) >> shift; }

}  // namespace

PixelLayout rgb24_layout() {
  PixelLayout layout;
  for (int c = 0; c < 3; ++c) {
    layout.channels.push_back({0, 3, c, 0, 0});
    layout.matrix[c][c] = 1.0f;
  }
  return layout;
}

Resizer::Resizer(int width, int height, int size, const Normalization& normalization,
                 const PixelLayout& layout, Orientation orientation)
    : size_(size), orientation_(orientation), matrix_(layout.matrix), bias_(layout.bias) {
  for (int c = 0; c < 3; ++c) {
    scale_[c] = 1.0f / (255.0f * normalization.std[c]);
    shift_[c] = -normalization.mean[c] / normalization.std[c];
  }
  const Filter horizontal = triangle_filter(width, size);
  const Filter vertical = triangle_filter(height, size);
  for (const Channel& channel : layout.channels) {
    Across across;
    across.plane = plane_of(channel, width, height, vertical);
    across.horizontal =
        strided(shared(horizontal, channel.shift_x, width), channel.step, channel.offset);
    across.line.resize(size);
    channels_.push_back(std::move(across));
  }
  if (!orientation_.is_upright()) stored_.resize(size_t(3) * size * size);
}

// The plane of a channel, added if it is new.
size_t Resizer::plane_of(const Channel& channel, int width, int height, const Filter& vertical) {
  const int bytes = (shifted(width, channel.shift_x) - 1) * channel.step + channel.offset + 1;
  size_t i = 0;
  while (i < planes_.size() && planes_[i].index != channel.plane) ++i;
  if (i == planes_.size()) {
    planes_.emplace_back();
    planes_[i].index = channel.plane;
    planes_[i].vertical = shared(vertical, channel.shift_y, height);
  }
  Plane& plane = planes_[i];
  plane.row_bytes = std::max(plane.row_bytes, bytes);
  // blend_samples reads whole lanes, with weights of zero at the end.
  plane.row.resize(size_t(plane.row_bytes) + 4 * kLanes);
  return i;
}

void Resizer::run(const Planes& planes, float* out) {
  // Rows first: whole rows are contiguous, and what is left for the second pass is short.
  float* upright = orientation_.is_upright() ? out : stored_.data();
  for (int y = 0; y < size_; ++y) {
    for (Plane& plane : planes_) {
      const int64_t stride = planes.stride[plane.index];
      const Filter& down = plane.vertical;
      blend_rows(planes.data[plane.index] + down.first[y] * stride, stride,
                 &down.weights[size_t(y) * down.taps], down.taps, plane.row_bytes,
                 plane.row.data());
    }
    for (Across& channel : channels_) {
      const Filter& across = channel.horizontal;
      blend_samples(planes_[channel.plane].row.data(), across.first.data(), across.weights.data(),
                    across.taps, size_, channel.line.data());
    }
    write_line(upright, y);
  }
  if (!orientation_.is_upright()) turn(out);
}

void Resizer::write_line(float* out, int y) const {
  const float* lines[3];
  for (size_t c = 0; c < 3; ++c)
    lines[c] = channels_[std::min(c, channels_.size() - 1)].line.data();
  const size_t plane = static_cast<size_t>(size_) * size_;
  for (int i = 0; i < 3; ++i)
    mix(lines[0], lines[1], lines[2], matrix_[i].data(), bias_[i], scale_[i], shift_[i], size_,
        out + i * plane + static_cast<size_t>(y) * size_);
}

void Resizer::turn(float* out) const {
  const int64_t step_x = orientation_.transpose ? size_ : 1;
  const int64_t step_y = orientation_.transpose ? 1 : size_;
  for (int c = 0; c < 3; ++c) {
    const float* from = stored_.data() + static_cast<size_t>(c) * size_ * size_;
    for (int y = 0; y < size_; ++y) {
      const int64_t from_y = orientation_.flip_y ? size_ - 1 - y : y;
      for (int x = 0; x < size_; ++x) {
        const int64_t from_x = orientation_.flip_x ? size_ - 1 - x : x;
        *out++ = from[from_x * step_x + from_y * step_y];
      }
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

// The same filter over samples that are each for 2^shift of the `from` pixels.
Resizer::Filter Resizer::shared(const Filter& filter, int shift, int from) {
  if (shift == 0) return filter;
  const int samples = shifted(from, shift);
  Filter result;
  result.taps = std::min(samples, shifted(filter.taps - 1, shift) + 1);
  result.first.resize(filter.first.size());
  result.weights.assign(filter.first.size() * result.taps, 0.0f);
  for (size_t i = 0; i < filter.first.size(); ++i) {
    const int first = std::min(filter.first[i] >> shift, samples - result.taps);
    result.first[i] = first;
    for (int k = 0; k < filter.taps; ++k) {
      const int sample = (filter.first[i] + k) >> shift;
      result.weights[i * result.taps + (sample - first)] += filter.weights[i * filter.taps + k];
    }
  }
  return result;
}

// The same filter over bytes among which the samples stand `step` apart from `offset` on, with a
// multiple of kLanes taps.
Resizer::Filter Resizer::strided(const Filter& filter, int step, int offset) {
  Filter result;
  const int bytes = (filter.taps - 1) * step + 1;
  result.taps = (bytes + kLanes - 1) / kLanes * kLanes;
  result.weights.assign(filter.first.size() * result.taps, 0.0f);
  for (size_t i = 0; i < filter.first.size(); ++i) {
    result.first.push_back(filter.first[i] * step + offset);
    for (int k = 0; k < filter.taps; ++k)
      result.weights[i * result.taps + k * step] = filter.weights[i * filter.taps + k];
  }
  return result;
}

}  // namespace refavs
