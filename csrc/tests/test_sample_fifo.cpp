#include <gtest/gtest.h>

#include <array>
#include <random>

#include "sample_fifo.h"

namespace refavs {
namespace {

TEST(SampleFifo, GivesWhatItGotInAnyPieces) {
  std::mt19937 random(1);
  SampleFifo fifo(2);
  std::deque<std::array<float, 2>> expected;
  float next = 1.0f;
  for (int round = 0; round < 500; ++round) {
    const int64_t count = random() % 50;
    if (random() % 3 == 0) {
      fifo.push_silence(count);
      expected.insert(expected.end(), static_cast<size_t>(count), {0.0f, 0.0f});
    } else {
      std::vector<float> left, right;
      for (int64_t i = 0; i < count; ++i, next += 1.0f) {
        left.push_back(next);
        right.push_back(-next);
        expected.push_back({next, -next});
      }
      const float* channels[] = {left.data(), right.data()};
      fifo.push(channels, count);
    }
    ASSERT_EQ(fifo.size(), static_cast<int64_t>(expected.size()));
    const int64_t taken = std::min<int64_t>(random() % 60, fifo.size());
    std::vector<float> left(static_cast<size_t>(taken)), right(left);
    float* out[] = {left.data(), right.data()};
    fifo.pop(taken, out);
    for (size_t i = 0; i < left.size(); ++i) {
      ASSERT_EQ(left[i], expected.front()[0]);
      ASSERT_EQ(right[i], expected.front()[1]);
      expected.pop_front();
    }
  }
}

TEST(SampleFifo, SilenceTakesNoRoom) {
  SampleFifo fifo;
  fifo.push_silence(int64_t(1) << 50);
  float sample = 1.0f;
  float* out[] = {&sample};
  fifo.pop(1, out);
  EXPECT_EQ(sample, 0.0f);
  EXPECT_EQ(fifo.size(), (int64_t(1) << 50) - 1);
}

}  // namespace
}  // namespace refavs
