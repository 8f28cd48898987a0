#include "sound_record.h"

#include <algorithm>

namespace refavs {
namespace {

constexpr int64_t kKept = int64_t(SoundRecord::kKept_s) * SoundRecord::kRateHz;

}  // namespace

SoundRecord::SoundRecord() : ring_(size_t(kChannels) * kKept) {}

void SoundRecord::add(const float* const* channels, int64_t count) {
  std::lock_guard<std::mutex> lock(mutex_);
  put(channels, count);
  changed_.notify_all();
}

void SoundRecord::jump(int64_t to) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (to <= end_) return;
  if (to - end_ >= kKept) {  // nothing of what is kept lies before the hole
    begin_ = end_ = to - kKept;
  }
  put(nullptr, to - end_);
  changed_.notify_all();
}

// Without `channels`: zeros.
void SoundRecord::put(const float* const* channels, int64_t count) {
  for (int64_t done = 0; done < count;) {
    const int64_t at = end_ % kKept;
    const int64_t part = std::min(count - done, kKept - at);
    for (int c = 0; c < kChannels; ++c) {
      float* to = ring_.data() + c * kKept + at;
      if (channels) {
        std::copy_n(channels[c] + done, part, to);
      } else {
        std::fill_n(to, part, 0.0f);
      }
    }
    done += part;
    end_ += part;
  }
  begin_ = std::max(begin_, end_ - kKept);
}

void SoundRecord::finish() {
  std::lock_guard<std::mutex> lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

int64_t SoundRecord::end() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return end_;
}

bool SoundRecord::wait(int64_t end, std::chrono::milliseconds timeout) const {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return finished_ || end_ >= end; });
}

void SoundRecord::read(int64_t begin, int64_t count, float* const* out) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t from = std::clamp(begin_, begin, begin + count);
  const int64_t to = std::clamp(end_, from, begin + count);
  for (int c = 0; c < kChannels; ++c) {
    std::fill_n(out[c], from - begin, 0.0f);
    for (int64_t at = from; at < to;) {
      const int64_t place = at % kKept;
      const int64_t part = std::min(to - at, kKept - place);
      std::copy_n(ring_.data() + c * kKept + place, part, out[c] + (at - begin));
      at += part;
    }
    std::fill_n(out[c] + (to - begin), begin + count - to, 0.0f);
  }
}

}  // namespace refavs
