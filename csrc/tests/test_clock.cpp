#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "clock.h"

namespace refavs {
namespace {

constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();
constexpr int64_t kSmallest = std::numeric_limits<int64_t>::min();

TEST(Clock, ReadsZeroAtItsOrigin) {
  const SourceClock clock(90000, {1, 90000});
  EXPECT_EQ(clock.seconds(90000, {1, 90000}), 0.0);
  EXPECT_EQ(clock.seconds(1500, {1, 1000}), 0.5);
  EXPECT_EQ(clock.floor_ticks(1500, {1, 1000}, 100), 50);
  EXPECT_EQ(SourceClock().seconds(3, {1, 4}), 0.75);
}

TEST(Clock, FramesOnAHopDoNotFallBeforeIt) {
  const SourceClock clock;
  for (int64_t i = 0; i < 20000; ++i) {
    // i x 1001 / 30000 s, and whether that is k hops of 10 ms or less
    const int64_t hop = clock.floor_ticks(i, {1001, 30000}, 100);
    EXPECT_LE(hop * 30000, i * 1001 * 100);
    EXPECT_GT((hop + 1) * 30000, i * 1001 * 100);
    const int64_t sample = clock.round_ticks(i, {1001, 30000}, 16000);
    EXPECT_LE(std::abs(2 * (sample * 30000 - i * 1001 * 16000)), 30000);
  }
}

TEST(Clock, TicksBeforeTheOriginAreRoundedDown) {
  const SourceClock clock(1, {1, 3});
  EXPECT_EQ(clock.floor_ticks(0, {1, 3}, 1), -1);
  EXPECT_EQ(clock.floor_ticks(0, {1, 3}, 3), -1);
  EXPECT_EQ(clock.round_ticks(0, {1, 3}, 10), -3);
}

// Whatever a file says, times stay in order, and within what the rest can count in.
TEST(Clock, NoTimestampIsTooLarge) {
  std::mt19937_64 random(1);
  const auto base = [&] {
    const int num = static_cast<int>(random() % 3 ? random() % 2000 + 1 : random() >> 33);
    const int den = static_cast<int>(random() % 3 ? random() % 90000 + 1 : random() >> 33);
    return AVRational{std::max(num, 1), std::max(den, 1)};
  };
  for (int i = 0; i < 5000; ++i) {
    const SourceClock clock(random() % 2 ? static_cast<int64_t>(random()) : 0, base());
    const AVRational own = base();
    const int64_t middle = static_cast<int64_t>(random());
    double last_s = -INFINITY;
    int64_t last = kSmallest;
    for (int64_t pts : {kSmallest + 1, std::min(middle, kLargest - 1), kLargest}) {
      const double seconds = clock.seconds(pts, own);
      EXPECT_LE(std::abs(seconds), SourceClock::kFarthest_s);
      EXPECT_GE(seconds, last_s);
      for (int64_t rate : {100, 48000, 768000}) {
        const int64_t floor = clock.floor_ticks(pts, own, rate);
        EXPECT_LE(std::abs(static_cast<double>(floor)), SourceClock::kFarthest_s * rate);
        EXPECT_LE(std::abs(clock.round_ticks(pts, own, rate) - floor), 1);
        if (rate == 100) {
          EXPECT_GE(floor, last);
          last = floor;
        }
      }
      last_s = seconds;
    }
  }
}

}  // namespace
}  // namespace refavs
