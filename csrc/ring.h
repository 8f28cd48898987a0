// A bounded queue between two threads.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

namespace refavs {

enum class RingStatus {
  kDone,     // the item was moved
  kTimeout,  // nothing moved in the time given
  kEnded,    // push: the ring takes no more; pop: it is empty and gets no more
};

// Thread-safe. The producer calls finish() after its last item; either side calls cancel() to let
// go of everything at once.
template <typename T>
class Ring {
 public:
  using Timeout = std::chrono::milliseconds;

  explicit Ring(size_t capacity) : slots_(capacity) {}

  // Waits for room. `item` is moved from only if kDone comes back.
  RingStatus push(T& item, Timeout timeout) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!changed_.wait_for(lock, timeout, [&] { return ended_ || count_ < slots_.size(); }))
      return RingStatus::kTimeout;
    if (ended_) return RingStatus::kEnded;
    slots_[(first_ + count_) % slots_.size()] = std::move(item);
    ++count_;
    changed_.notify_all();
    return RingStatus::kDone;
  }

  // Waits as long as it takes; false if the ring has ended.
  bool push(T item) {
    for (;;) {
      const RingStatus status = push(item, Timeout(1000));
      if (status != RingStatus::kTimeout) return status == RingStatus::kDone;
    }
  }

  RingStatus pop(T* item, Timeout timeout) {
    const RingStatus status = wait_item(timeout);
    if (status != RingStatus::kDone) return status;
    std::lock_guard<std::mutex> lock(mutex_);
    if (count_ == 0) return ended_ ? RingStatus::kEnded : RingStatus::kTimeout;
    *item = std::move(slots_[first_]);
    slots_[first_] = T();
    first_ = (first_ + 1) % slots_.size();
    --count_;
    changed_.notify_all();
    return RingStatus::kDone;
  }

  // kDone as soon as an item waits to be popped.
  RingStatus wait_item(Timeout timeout) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!changed_.wait_for(lock, timeout, [&] { return ended_ || count_ > 0; }))
      return RingStatus::kTimeout;
    return count_ > 0 ? RingStatus::kDone : RingStatus::kEnded;
  }

  void finish() {
    std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  void cancel() {
    std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    for (; count_ > 0; --count_, first_ = (first_ + 1) % slots_.size()) slots_[first_] = T();
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<T> slots_;
  size_t first_ = 0;
  size_t count_ = 0;
  bool ended_ = false;
};

}  // namespace refavs
