#include "guided.h"

#include <algorithm>
#include <cmath>

namespace refavs {
namespace {

// A mask that is nowhere above this is empty.
constexpr float kFaint = 0.02f;
constexpr float kUnit = 1.0f / 255.0f;

}  // namespace

GuidedUpsampler::GuidedUpsampler(int width, int height, int low, int radius, float epsilon)
    : width_(width),
      height_(height),
      low_(low),
      radius_(radius),
      epsilon_(epsilon),
      rows_(taps(low, height)),
      columns_(taps(low, width)) {
  const size_t area = size_t(low) * low;
  for (Plane* planes : {guide_, mean_, with_mask_})
    for (int c = 0; c < 3; ++c) planes[c].resize(area);
  for (Plane& plane : inverse_) plane.resize(area);
  for (Plane& plane : fit_) plane.resize(area);
  for (Plane* plane : {&mean_mask_, &product_, &sums_, &most_, &least_}) plane->resize(area);
  total_.resize(low);
  share_.resize(low);
  for (int i = 0; i < low; ++i)
    share_[i] = 1.0f / (std::min(low - 1, i + radius) - std::max(0, i - radius) + 1);
  for (int x = 0; x < width; ++x)
    while (static_cast<int>(begins_.size()) <= columns_[x].first) begins_.push_back(x);
  begins_.resize(low + 1, width);
}

// Bilinear, pixel centres at halves, edges repeated.
std::vector<GuidedUpsampler::Tap> GuidedUpsampler::taps(int from, int to) {
  std::vector<Tap> taps(to);
  for (int i = 0; i < to; ++i) {
    const double place =
        std::clamp((i + 0.5) * from / to - 0.5, 0.0, static_cast<double>(from - 1));
    const int first = std::min(static_cast<int>(place), from - 1);
    taps[i] = {first, std::min(first + 1, from - 1), static_cast<float>(place - first)};
  }
  return taps;
}

// The mean of each window; a window at the edge is the part of it that lies inside.
void GuidedUpsampler::box(const float* in, float* out) {
  for (int y = 0; y < low_; ++y) {
    const float* row = in + size_t(y) * low_;
    float* sums = sums_.data() + size_t(y) * low_;
    float sum = 0.0f;
    for (int x = 0; x < std::min(radius_, low_); ++x) sum += row[x];
    for (int x = 0; x < low_; ++x) {
      if (x + radius_ < low_) sum += row[x + radius_];
      if (x - radius_ - 1 >= 0) sum -= row[x - radius_ - 1];
      sums[x] = sum * share_[x];
    }
  }
  float* total = total_.data();
  std::fill_n(total, low_, 0.0f);
  const auto add = [&](int y, float sign) {
    const float* row = sums_.data() + size_t(y) * low_;
    for (int x = 0; x < low_; ++x) total[x] += sign * row[x];
  };
  for (int y = 0; y < std::min(radius_, low_); ++y) add(y, 1.0f);
  for (int y = 0; y < low_; ++y) {
    if (y + radius_ < low_) add(y + radius_, 1.0f);
    if (y - radius_ - 1 >= 0) add(y - radius_ - 1, -1.0f);
    float* row = out + size_t(y) * low_;
    for (int x = 0; x < low_; ++x) row[x] = total[x] * share_[y];
  }
}

void GuidedUpsampler::guide(const float* tensor, int size, const std::array<float, 3>& scale,
                            const std::array<float, 3>& shift) {
  const size_t area = size_t(low_) * low_;
  const int factor = size / low_;
  for (int c = 0; c < 3; ++c) {
    const float* in = tensor + size_t(c) * size * size;
    const float share = scale[c] / static_cast<float>(factor * factor);
    for (int y = 0; y < low_; ++y) {
      float* row = guide_[c].data() + size_t(y) * low_;
      std::fill_n(row, low_, 0.0f);
      for (int i = 0; i < factor; ++i, in += size)
        for (int x = 0; x < low_; ++x)
          for (int j = 0; j < factor; ++j) row[x] += in[x * factor + j];
      for (int x = 0; x < low_; ++x) row[x] = row[x] * share + shift[c];
    }
    box(guide_[c].data(), mean_[c].data());
  }
  int pair = 0;
  for (int i = 0; i < 3; ++i) {
    for (int j = i; j < 3; ++j, ++pair) {
      for (size_t k = 0; k < area; ++k) product_[k] = guide_[i][k] * guide_[j][k];
      box(product_.data(), inverse_[pair].data());
    }
  }
  for (size_t k = 0; k < area; ++k) {
    const float r = mean_[0][k], g = mean_[1][k], b = mean_[2][k];
    const float rr = inverse_[0][k] - r * r + epsilon_, rg = inverse_[1][k] - r * g;
    const float rb = inverse_[2][k] - r * b, gg = inverse_[3][k] - g * g + epsilon_;
    const float gb = inverse_[4][k] - g * b, bb = inverse_[5][k] - b * b + epsilon_;
    const float c0 = gg * bb - gb * gb, c1 = rb * gb - rg * bb, c2 = rg * gb - rb * gg;
    // At least epsilon^3, but for rounding.
    const float scale =
        1.0f / std::max(rr * c0 + rg * c1 + rb * c2, epsilon_ * epsilon_ * epsilon_ * 0.5f);
    inverse_[0][k] = c0 * scale;
    inverse_[1][k] = c1 * scale;
    inverse_[2][k] = c2 * scale;
    inverse_[3][k] = (rr * bb - rb * rb) * scale;
    inverse_[4][k] = (rg * rb - rr * gb) * scale;
    inverse_[5][k] = (rr * gg - rg * rg) * scale;
  }
}

void GuidedUpsampler::fit(const float* mask) {
  const size_t area = size_t(low_) * low_;
  box(mask, mean_mask_.data());
  for (int c = 0; c < 3; ++c) {
    for (size_t k = 0; k < area; ++k) product_[k] = guide_[c][k] * mask[k];
    box(product_.data(), with_mask_[c].data());
  }
  for (size_t k = 0; k < area; ++k) {
    const float m = mean_mask_[k];
    const float r = with_mask_[0][k] - mean_[0][k] * m, g = with_mask_[1][k] - mean_[1][k] * m;
    const float b = with_mask_[2][k] - mean_[2][k] * m;
    const float ar = inverse_[0][k] * r + inverse_[1][k] * g + inverse_[2][k] * b;
    const float ag = inverse_[1][k] * r + inverse_[3][k] * g + inverse_[4][k] * b;
    const float ab = inverse_[2][k] * r + inverse_[4][k] * g + inverse_[5][k] * b;
    with_mask_[0][k] = ar;
    with_mask_[1][k] = ag;
    with_mask_[2][k] = ab;
    product_[k] = m - ar * mean_[0][k] - ag * mean_[1][k] - ab * mean_[2][k];
  }
  for (int c = 0; c < 3; ++c) box(with_mask_[c].data(), fit_[c].data());
  box(product_.data(), fit_[3].data());
}

// What the fit can give at each point for the colour that suits it best and worst.
void GuidedUpsampler::bound() {
  for (size_t k = 0; k < most_.size(); ++k) {
    float most = fit_[3][k], least = fit_[3][k];
    for (int c = 0; c < 3; ++c) {
      most += std::max(fit_[c][k], 0.0f);
      least += std::min(fit_[c][k], 0.0f);
    }
    most_[k] = most;
    least_[k] = least;
  }
}

// One row. Between four points of the fit, where all agree whatever the colours are, none is looked
// at: that is nearly everywhere but at the mask's edge.
void GuidedUpsampler::fill(int y, float threshold, const uint8_t* pixels, uint8_t* line) const {
  const Tap& row = rows_[y];
  const size_t upper = size_t(row.first) * low_, lower = size_t(row.second) * low_;
  const auto most = [&](int x) { return std::max(most_[upper + x], most_[lower + x]); };
  const auto least = [&](int x) { return std::min(least_[upper + x], least_[lower + x]); };
  for (int cell = 0; cell < low_; ++cell) {
    const int begin = begins_[cell], end = begins_[cell + 1];
    if (begin == end) continue;
    const int next = std::min(cell + 1, low_ - 1);
    if (std::max(most(cell), most(next)) <= threshold) continue;
    if (std::min(least(cell), least(next)) > threshold) {
      std::fill(line + begin, line + end, uint8_t{1});
      continue;
    }
    float left[4], step[4];
    for (int c = 0; c < 4; ++c) {
      const Plane& plane = fit_[c];
      left[c] = plane[upper + cell] + (plane[lower + cell] - plane[upper + cell]) * row.weight;
      step[c] = plane[upper + next] + (plane[lower + next] - plane[upper + next]) * row.weight;
      step[c] -= left[c];
      if (c < 3) {
        left[c] *= kUnit;
        step[c] *= kUnit;
      }
    }
    for (int x = begin; x < end; ++x) {
      const uint8_t* rgb = pixels + 3 * x;
      const float at = columns_[x].weight;
      const float value = (left[0] + step[0] * at) * rgb[0] + (left[1] + step[1] * at) * rgb[1] +
                          (left[2] + step[2] * at) * rgb[2] + (left[3] + step[3] * at);
      line[x] = value > threshold;
    }
  }
}

void GuidedUpsampler::run(const float* mask, const uint8_t* rgb, int64_t stride, float threshold,
                          uint8_t* out) {
  std::fill_n(out, size_t(width_) * height_, uint8_t{0});
  const size_t area = size_t(low_) * low_;
  if (*std::max_element(mask, mask + area) <= kFaint) return;
  fit(mask);
  bound();
  for (int y = 0; y < height_; ++y) fill(y, threshold, rgb + y * stride, out + size_t(y) * width_);
}

}  // namespace refavs
