#include "live_feed.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "error.h"

namespace refavs {
namespace {

std::string tenths(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", seconds);
  return text;
}

}  // namespace

LiveFeed::LiveFeed(Address address, Wanted wanted, CaptureOptions options, Target target, Now now,
                   Notices* notices)
    : address_(std::move(address)),
      wanted_(wanted),
      options_(std::move(options)),
      target_(std::move(target)),
      now_(std::move(now)),
      notices_(notices),
      thread_(&LiveFeed::supervise, this) {}

LiveFeed::~LiveFeed() {
  stop();
  join();
}

void LiveFeed::join() {
  std::lock_guard<std::mutex> lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

std::optional<SourceInfo> LiveFeed::info() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return info_;
}

FeedCounters LiveFeed::counters() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return counters_;
}

void LiveFeed::rethrow() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (error_) std::rethrow_exception(error_);
}

void LiveFeed::stop() {
  std::lock_guard<std::mutex> lock(mutex_);
  stopped_ = true;
  if (capture_) capture_->stop();
  woken_.notify_all();
}

void LiveFeed::supervise() {
  double wait_s = kFirstPause_s;
  for (bool first = true; !stopped_; first = false) {
    std::string reason;
    try {
      run_once(first);
    } catch (const IngestError& lost) {
      reason = lost.what();
      if (state_ == State::kOpening && !stopped_) {
        std::lock_guard<std::mutex> lock(mutex_);
        error_ = std::current_exception();
      }
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::current_exception();
    }
    if (stopped_) break;
    bool failed = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      failed = error_ != nullptr;
    }
    if (failed) return enter(State::kFailed);
    if (reason.empty()) return enter(State::kEnded);
    // One that opens and breaks off again and again is not asked ever faster.
    if (heard_ && now_() - heard_at_s_ >= kLongestPause_s) wait_s = kFirstPause_s;
    if (state_ == State::kOpen) {
      lost_at_s_ = now_();
      notices_->add(lost_at_s_, "lost: " + reason + "; trying to open it again");
      enter(State::kLost);
    }
    if (!pause(wait_s)) break;
    wait_s = std::min(2.0 * wait_s, kLongestPause_s);
  }
}

// Opens the source and reads it to its end. Throws IngestError where it is lost.
void LiveFeed::run_once(bool first) {
  heard_ = false;
  std::unique_ptr<Capture> opened = open_capture(address_, wanted_, options_, stopped_);
  clock_.reset();
  by_arrival_ = false;
  jumped_at_s_ = -kUnsteady_s;
  if (!first) target_.restarted();
  Capture* capture = opened.get();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_) return;
    info_ = capture->info();
    capture_ = std::move(opened);
    if (!first) ++counters_.reconnects;
  }
  if (first) enter(State::kOpen);
  struct Closer {
    LiveFeed* feed;
    ~Closer() {
      std::unique_ptr<Capture> closing;
      std::lock_guard<std::mutex> lock(feed->mutex_);
      closing = std::move(feed->capture_);
    }
  } closer{this};
  capture->run(this);
}

// False: the feed is stopped.
bool LiveFeed::pause(double seconds) {
  std::unique_lock<std::mutex> lock(mutex_);
  return !woken_.wait_for(lock, std::chrono::duration<double>(seconds),
                          [this] { return stopped_.load(); });
}

void LiveFeed::enter(State state) {
  state_ = state;
  target_.changed();
}

double LiveFeed::at(double pts_s) const {
  const double now = now_();
  return std::isfinite(pts_s) && !by_arrival_ ? std::min(clock_.map(pts_s), now) : now;
}

void LiveFeed::arrived(double pts_s) {
  const double now = now_();
  if (!heard_) {
    heard_ = true;
    heard_at_s_ = now;
    if (state_ == State::kLost) {
      notices_->add(now, "back: " + address_.shown + ", after " + tenths(now - lost_at_s_));
      enter(State::kOpen);
    }
  }
  if (by_arrival_ || !clock_.observe(pts_s, now)) return;
  by_arrival_ = now - jumped_at_s_ < kUnsteady_s;
  jumped_at_s_ = now;
  target_.restarted();
  notices_->add(now, address_.shown + (by_arrival_ ? ": its timestamps do not keep time; going by "
                                                     "when it arrives"
                                                   : ": its timestamps have jumped; going on by "
                                                     "the clock here"));
  std::lock_guard<std::mutex> lock(mutex_);
  ++counters_.clock_jumps;
}

void LiveFeed::picture(FramePtr frame, double pts_s) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ++counters_.decoded;
  }
  target_.picture(std::move(frame), at(pts_s));
}

void LiveFeed::sound(const AVFrame& frame, double pts_s) { target_.sound(frame, at(pts_s)); }

void LiveFeed::corrupt(int64_t pictures, int64_t sounds) {
  std::lock_guard<std::mutex> lock(mutex_);
  counters_.corrupt += pictures;
  counters_.corrupt_audio += sounds;
}

void LiveFeed::late(int64_t pictures) {
  std::lock_guard<std::mutex> lock(mutex_);
  counters_.late += pictures;
}

}  // namespace refavs
