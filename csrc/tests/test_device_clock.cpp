#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <random>
#include <thread>

#include "device_clock.h"

namespace refavs {
namespace {

// The source's clock reads `begin + second * (1 + drift)` at `second` of ours; packets come `least`
// later and a random delay more. Returns the largest error of the map after `settled` seconds.
double follow(DeviceClock* clock, double drift, double least, double mean_delay, double seconds,
              double settled) {
  std::mt19937 random(5);
  std::exponential_distribution<double> delay(1.0 / std::max(mean_delay, 1e-9));
  double worst = 0.0;
  for (double second = 0.0; second < seconds; second += 0.04) {
    const double pts = 5000.0 + second * (1.0 + drift);
    EXPECT_FALSE(clock->observe(pts, second + least + (mean_delay > 0.0 ? delay(random) : 0.0)));
    if (second > settled) worst = std::max(worst, std::abs(clock->map(pts) - (second + least)));
  }
  return worst;
}

class DeviceClockDrift : public testing::TestWithParam<double> {};

TEST_P(DeviceClockDrift, IsFollowed) {
  DeviceClock clock;
  EXPECT_LT(follow(&clock, GetParam() * 1e-6, 0.1, 0.02, 900.0, 120.0), 0.005);
  EXPECT_NEAR(clock.drift_ppm(), GetParam(), 20.0);
}

INSTANTIATE_TEST_SUITE_P(DeviceClock, DeviceClockDrift, testing::Values(-500.0, -50.0, 0.0, 500.0));

TEST(DeviceClock, WithoutDelaysItIsExact) {
  DeviceClock clock;
  EXPECT_LT(follow(&clock, 100e-6, 0.0, 0.0, 300.0, 30.0), 1e-5);
  EXPECT_NEAR(clock.drift_ppm(), 100.0, 0.1);
}

TEST(DeviceClock, NothingObservedIsTheIdentity) {
  DeviceClock clock;
  EXPECT_EQ(clock.map(12.5), 12.5);
  EXPECT_EQ(clock.drift_ppm(), 0.0);
}

TEST(DeviceClock, WhatComesEarlyIsBelievedAtOnce) {
  DeviceClock clock;
  clock.observe(0.0, 10.3);  // held up by 0.3 s
  EXPECT_FALSE(clock.observe(0.04, 10.04));
  EXPECT_NEAR(clock.map(0.08), 10.08, 1e-9);
}

TEST(DeviceClock, AJumpIsTakenOnceAFewPacketsAgree) {
  for (const double jump_s : {98.0, -98.0}) {
    DeviceClock clock;
    for (int i = 0; i < 50; ++i) EXPECT_FALSE(clock.observe(i * 0.04, i * 0.04));
    int jumps = 0;
    for (int i = 50; i < 150; ++i) jumps += clock.observe(i * 0.04 + jump_s, i * 0.04);
    EXPECT_EQ(jumps, 1);
    EXPECT_NEAR(clock.map(6.0 + jump_s), 6.0, 1e-9);
  }
}

TEST(DeviceClock, AStrayTimestampIsNoJump) {
  DeviceClock clock;
  for (int i = 0; i < 200; ++i) {
    EXPECT_FALSE(clock.observe(i * 0.04, i * 0.04));
    if (i % 20 == 10) {
      EXPECT_FALSE(clock.observe(1e6 + i, i * 0.04));
    }
  }
  EXPECT_NEAR(clock.map(8.0), 8.0, 1e-9);
}

TEST(DeviceClock, ABurstAfterAPauseIsNoJump) {
  DeviceClock clock;
  for (int i = 0; i < 100; ++i) clock.observe(i * 0.04, i * 0.04);
  for (int i = 100; i < 200; ++i) EXPECT_FALSE(clock.observe(i * 0.04, std::max(i * 0.04, 6.0)));
  EXPECT_NEAR(clock.map(8.0), 8.0, 1e-9);
}

TEST(DeviceClock, ALastingSmallStepIsFollowed) {
  DeviceClock clock;
  for (double second = 0.0; second < 60.0; second += 0.04) clock.observe(second, second);
  for (double second = 60.0; second < 75.0; second += 0.04)
    EXPECT_FALSE(clock.observe(second, second + 0.3));
  EXPECT_NEAR(clock.map(75.0), 75.3, 0.01);
}

TEST(DeviceClock, TimesThatAreNoneChangeNothing) {
  DeviceClock clock;
  clock.observe(0.0, 1.0);
  EXPECT_FALSE(clock.observe(std::numeric_limits<double>::quiet_NaN(), 1.0));
  EXPECT_FALSE(clock.observe(std::numeric_limits<double>::infinity(), 1.0));
  EXPECT_NEAR(clock.map(0.5), 1.5, 1e-9);
}

TEST(DeviceClock, WildTimesGiveFiniteOnes) {
  std::mt19937_64 random(2);
  DeviceClock clock;
  double now = 0.0;
  for (int i = 0; i < 20000; ++i) {
    now += 0.01;
    const double wild = std::ldexp(1.0, static_cast<int>(random() % 120) - 60);
    const double pts = random() % 3 ? now : random() % 2 ? wild : -wild;
    clock.observe(pts, now);
    EXPECT_TRUE(std::isfinite(clock.map(pts)) && std::isfinite(clock.drift_ppm()));
  }
}

TEST(DeviceClock, ManyThreadsMayRead) {
  DeviceClock clock;
  clock.observe(0.0, 3.0);
  std::atomic<bool> going{true};
  std::thread reader([&] {
    while (going) EXPECT_NEAR(clock.map(0.0), 3.0, 1e-6);
  });
  for (int i = 0; i < 20000; ++i) clock.observe(i * 0.01, 3.0 + i * 0.01);
  going = false;
  reader.join();
}

}  // namespace
}  // namespace refavs
