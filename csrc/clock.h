// One clock for sound and picture: seconds since the earliest of the streams in use begins.
#pragma once

#include <cstdint>

#include "ffmpeg.h"

namespace refavs {

// Times are kept as the exact fractions that the container holds: a frame that stands on a 10 ms
// hop must not fall before it by a rounding of doubles.
class SourceClock {
 public:
  SourceClock() = default;
  // The clock reads 0 at `origin_pts * origin_base` seconds of the container.
  SourceClock(int64_t origin_pts, AVRational origin_base)
      : origin_pts_(origin_pts), origin_base_(origin_base) {}

  double seconds(int64_t pts, AVRational base) const {
    return static_cast<double>(numerator(pts, base)) / static_cast<double>(denominator(base));
  }

  // The last tick of a grid with `rate` ticks a second at or before `pts`.
  int64_t floor_ticks(int64_t pts, AVRational base, int64_t rate) const {
    return floor_div(numerator(pts, base) * rate, denominator(base));
  }

  // The tick nearest to `pts`.
  int64_t round_ticks(int64_t pts, AVRational base, int64_t rate) const {
    return floor_div(2 * numerator(pts, base) * rate + denominator(base), 2 * denominator(base));
  }

 private:
  __extension__ using Wide = __int128;

  Wide numerator(int64_t pts, AVRational base) const {
    return Wide(pts) * base.num * origin_base_.den -
           Wide(origin_pts_) * origin_base_.num * base.den;
  }
  Wide denominator(AVRational base) const { return Wide(base.den) * origin_base_.den; }

  static int64_t floor_div(Wide a, Wide b) {
    const Wide quotient = a / b;
    return static_cast<int64_t>(a % b < 0 ? quotient - 1 : quotient);
  }

  int64_t origin_pts_ = 0;
  AVRational origin_base_ = {1, 1};
};

}  // namespace refavs
