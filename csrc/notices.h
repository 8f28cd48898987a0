// What happened to a live source, for people.
#pragma once

#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace refavs {

struct Notice {
  double at_s = 0.0;  // on the stream's clock
  std::string text;   // one line
};

// Thread-safe. Where nobody reads, the oldest are forgotten.
class Notices {
 public:
  void add(double at_s, std::string text) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (notices_.size() == kMost) notices_.pop_front();
    notices_.push_back({at_s, std::move(text)});
  }

  // Those since the last call.
  std::vector<Notice> take() {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Notice> taken(notices_.begin(), notices_.end());
    notices_.clear();
    return taken;
  }

 private:
  static constexpr size_t kMost = 100;

  std::mutex mutex_;
  std::deque<Notice> notices_;
};

}  // namespace refavs
