#include "guided.h"

#include <algorithm>
#include <cmath>

namespace refavs {
namespace {

// A mask is looked at where it, or what its windows reach, is above this; elsewhere it stays empty.
constexpr float kFaint = 0.02f;

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
  for (Plane* plane : {&mean_mask_, &product_, &sums_}) plane->resize(area);
  share_.resize(low);
  for (int i = 0; i < low; ++i)
    share_[i] = 1.0f / (std::min(low - 1, i + radius) - std::max(0, i - radius) + 1);
  upper_.resize(size_t(4) * width);
  lower_.resize(size_t(4) * width);
  colours_.resize(size_t(3) * width);
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
  std::vector<float>& total = upper_;
  total.resize(std::max(total.size(), size_t(low_)));
  std::fill_n(total.begin(), low_, 0.0f);
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

void GuidedUpsampler::guide(const float* small) {
  const size_t area = size_t(low_) * low_;
  for (int c = 0; c < 3; ++c) {
    std::copy_n(small + c * area, area, guide_[c].begin());
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

// The coordinates that small ones from `first` to `last` have a part in.
GuidedUpsampler::Region GuidedUpsampler::reach(const std::vector<Tap>& taps, int first, int last) {
  const auto touches = [&](const Tap& tap) { return tap.second >= first && tap.first <= last; };
  const auto begin = std::find_if(taps.begin(), taps.end(), touches);
  const auto end = std::find_if(taps.rbegin(), taps.rend(), touches).base();
  return {static_cast<int>(begin - taps.begin()), static_cast<int>(end - taps.begin())};
}

// A row of the small fit, stretched across: 4 x the width.
void GuidedUpsampler::widen(int row, Region columns, float* out) const {
  for (int c = 0; c < 4; ++c) {
    const float* in = fit_[c].data() + size_t(row) * low_;
    float* line = out + size_t(c) * width_;
    for (int x = columns.begin; x < columns.end; ++x) {
      const Tap& tap = columns_[x];
      line[x] = in[tap.first] + (in[tap.second] - in[tap.first]) * tap.weight;
    }
  }
}

void GuidedUpsampler::run(const float* mask, const uint8_t* rgb, int64_t stride, float threshold,
                          uint8_t* out) {
  std::fill_n(out, size_t(width_) * height_, uint8_t{0});
  int top = low_, bottom = -1, left = low_, right = -1;
  for (int y = 0; y < low_; ++y) {
    for (int x = 0; x < low_; ++x) {
      if (mask[size_t(y) * low_ + x] <= kFaint) continue;
      top = std::min(top, y);
      bottom = std::max(bottom, y);
      left = std::min(left, x);
      right = std::max(right, x);
    }
  }
  if (bottom < 0) return;
  fit(mask);
  const int margin = 2 * radius_;
  const Region rows = reach(rows_, std::max(0, top - margin), std::min(low_ - 1, bottom + margin));
  const Region columns =
      reach(columns_, std::max(0, left - margin), std::min(low_ - 1, right + margin));
  int upper_row = -1, lower_row = -1;
  for (int y = rows.begin; y < rows.end; ++y) {
    const Tap& tap = rows_[y];
    if (tap.first != upper_row) {
      if (tap.first == lower_row)
        std::swap(upper_, lower_);
      else
        widen(tap.first, columns, upper_.data());
      upper_row = tap.first;
      lower_row = -1;
    }
    if (tap.second != lower_row) {
      widen(tap.second, columns, lower_.data());
      lower_row = tap.second;
    }
    const uint8_t* pixels = rgb + y * stride;
    float* red = colours_.data();
    float* green = red + width_;
    float* blue = green + width_;
    for (int x = columns.begin; x < columns.end; ++x) {
      red[x] = pixels[3 * x] * (1.0f / 255.0f);
      green[x] = pixels[3 * x + 1] * (1.0f / 255.0f);
      blue[x] = pixels[3 * x + 2] * (1.0f / 255.0f);
    }
    const float* u = upper_.data();
    const float* l = lower_.data();
    const size_t w = width_;
    uint8_t* line = out + y * w;
    for (int x = columns.begin; x < columns.end; ++x) {
      const float above =
          u[x] * red[x] + u[w + x] * green[x] + u[2 * w + x] * blue[x] + u[3 * w + x];
      const float below =
          l[x] * red[x] + l[w + x] * green[x] + l[2 * w + x] * blue[x] + l[3 * w + x];
      line[x] = above + (below - above) * tap.weight > threshold;
    }
  }
}

}  // namespace refavs
