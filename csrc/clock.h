// One clock for sound and picture: seconds since the earliest of the streams in use begins.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ffmpeg.h"

namespace refavs {

// Times are kept as the exact fractions that the container holds: a frame that stands on a 10 ms
// hop must not fall before it by a rounding of doubles.
class SourceClock {
 public:
  // 2,000 years. Times of broken files that lie further off are taken for this far, which all that
  // is computed from them has room for.
  static constexpr int64_t kFarthest_s = int64_t(1) << 36;

  SourceClock() = default;
  // The clock reads 0 at `origin_pts * origin_base` seconds of the container.
  SourceClock(int64_t origin_pts, AVRational origin_base)
      : origin_pts_(origin_pts), origin_base_(origin_base) {}

  double seconds(int64_t pts, AVRational base) const {
    const double seconds =
        static_cast<double>(numerator(pts, base)) / static_cast<double>(denominator(base));
    return std::clamp(seconds, -double(kFarthest_s), double(kFarthest_s));
  }

  // The last tick of a grid with `rate` ticks a second at or before `pts`.
  int64_t floor_ticks(int64_t pts, AVRational base, int64_t rate) const {
    return ticks(pts, base, rate, 0);
  }

  // The tick nearest to `pts`.
  int64_t round_ticks(int64_t pts, AVRational base, int64_t rate) const {
    return ticks(pts, base, rate, denominator(base));
  }

 private:
  __extension__ using Wide = __int128;

  Wide numerator(int64_t pts, AVRational base) const {
    return Wide(pts) * base.num * origin_base_.den -
           Wide(origin_pts_) * origin_base_.num * base.den;
  }
  Wide denominator(AVRational base) const { return Wide(base.den) * origin_base_.den; }

  // `half`: of a tick, in halves of the denominator. Whole seconds are kept apart because their
  // numerator times a rate may need more than 128 bits.
  int64_t ticks(int64_t pts, AVRational base, int64_t rate, Wide half) const {
    const Wide n = numerator(pts, base), d = denominator(base);
    const Wide seconds = floor_div(n, d);
    if (seconds >= kFarthest_s) return kFarthest_s * rate;
    if (seconds < -kFarthest_s) return -kFarthest_s * rate;
    const Wide rest = n - seconds * d;
    return static_cast<int64_t>(seconds * rate + (2 * rest * rate + half) / (2 * d));
  }

  static Wide floor_div(Wide a, Wide b) {
    const Wide quotient = a / b;
    return a % b < 0 ? quotient - 1 : quotient;
  }

  int64_t origin_pts_ = 0;
  AVRational origin_base_ = {1, 1};
};

}  // namespace refavs
