// Samples, first in, first out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

namespace refavs {

// Of several channels. Silence takes no room, however long it is. Not thread-safe.
class SampleFifo {
 public:
  explicit SampleFifo(int channels = 1) : channels_(static_cast<size_t>(channels)) {}

  int64_t size() const { return size_; }

  void push(const float* const* channels, int64_t count) {
    if (count <= 0) return;
    Run run;
    run.left = count;
    for (size_t c = 0; c < channels_; ++c)
      run.samples.emplace_back(channels[c], channels[c] + count);
    runs_.push_back(std::move(run));
    size_ += count;
  }

  void push_silence(int64_t count) {
    if (count <= 0) return;
    runs_.push_back({{}, count});
    size_ += count;
  }

  // The first `count`, at most size(), into out[channel].
  void pop(int64_t count, float* const* out) {
    for (int64_t done = 0; done < count;) {
      Run& run = runs_.front();
      const int64_t part = std::min(count - done, run.left);
      for (size_t c = 0; c < channels_; ++c) {
        if (run.samples.empty()) {
          std::fill_n(out[c] + done, part, 0.0f);
        } else {
          std::copy_n(run.samples[c].end() - run.left, part, out[c] + done);
        }
      }
      done += part;
      run.left -= part;
      size_ -= part;
      if (run.left == 0) runs_.pop_front();
    }
  }

 private:
  struct Run {
    std::vector<std::vector<float>> samples;  // of each channel; none: silence
    int64_t left = 0;                         // not taken yet: the last ones
  };

  size_t channels_;
  std::deque<Run> runs_;
  int64_t size_ = 0;
};

}  // namespace refavs
