// The latest sound of a live source, for those who write it down.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

namespace refavs {

// Sample k was heard at k / kRateHz seconds of the stream's clock. What is older than kKept_s is
// forgotten, so it takes the same memory however long the stream lasts.
//
// Thread-safe: one thread adds, any number read.
class SoundRecord {
 public:
  static constexpr int kRateHz = 48000;
  static constexpr int kChannels = 2;
  static constexpr int kKept_s = 20;

  SoundRecord();

  // Samples of each channel, in order.
  void add(const float* const* channels, int64_t count);
  // The next sample will be number `to`; those before it are silence.
  void jump(int64_t to);
  // No more samples.
  void finish();

  // Where the next sample will stand.
  int64_t end() const;
  // Waits until there are samples up to `end`, or there will be none; false: not within `timeout`.
  bool wait(int64_t end, std::chrono::milliseconds timeout) const;
  // `count` samples from `begin` on into out[channel], with zeros for what is forgotten or has not
  // come.
  void read(int64_t begin, int64_t count, float* const* out) const;

 private:
  void put(const float* const* channels, int64_t count);

  mutable std::mutex mutex_;  // those below
  mutable std::condition_variable changed_;
  std::vector<float> ring_;  // of each channel, one after the other
  int64_t begin_ = 0;        // what is kept: [begin_, end_)
  int64_t end_ = 0;
  bool finished_ = false;
};

}  // namespace refavs
