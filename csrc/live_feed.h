// One address, kept open: read, mapped onto the stream's clock, and opened again when it is lost.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "capture.h"
#include "device_clock.h"
#include "notices.h"

namespace refavs {

// Counts since the feed was made.
struct FeedCounters {
  int64_t decoded = 0;        // pictures
  int64_t late = 0;           // packets of pictures skipped because decoding was too slow
  int64_t corrupt = 0;        // pictures damaged, packets cut off or not to be decoded
  int64_t corrupt_audio = 0;  // the same for sound
  int64_t reconnects = 0;
  int64_t clock_jumps = 0;  // of the source's timestamps
};

// The first attempt to open the source decides: if it fails, so has the feed. Later ones are
// repeated, after kFirstPause_s and then twice as long up to kLongestPause_s, for ever. What is not
// live and comes to its end has ended.
class LiveFeed : private CaptureListener {
 public:
  enum class State { kOpening, kOpen, kLost, kEnded, kFailed };

  static constexpr double kFirstPause_s = 0.25;
  static constexpr double kLongestPause_s = 8.0;
  // Timestamps that jump twice within it are not gone by any more.
  static constexpr double kUnsteady_s = 10.0;

  // Called on the feed's threads, with the time on the stream's clock, which is never later than
  // now. restarted(): what comes next is of a newly opened source, or of one that has jumped.
  struct Target {
    std::function<void(FramePtr frame, double at_s)> picture;
    std::function<void(const AVFrame& frame, double at_s)> sound;
    std::function<void()> restarted;
    std::function<void()> changed;  // the state
  };
  // The stream's clock.
  using Now = std::function<double()>;

  LiveFeed(Address address, Wanted wanted, CaptureOptions options, Target target, Now now,
           Notices* notices);
  ~LiveFeed();

  const Address& address() const { return address_; }
  State state() const { return state_.load(); }
  // Of what was opened last; nothing before.
  std::optional<SourceInfo> info() const;
  FeedCounters counters() const;
  double drift_ppm() const { return clock_.drift_ppm(); }

  // Throws what made the feed fail, if it has.
  void rethrow() const;

  // Makes the feed's threads end, and waits for them.
  void stop();
  void join();

 private:
  void arrived(double pts_s) override;
  void picture(FramePtr frame, double pts_s) override;
  void sound(const AVFrame& frame, double pts_s) override;
  void corrupt(int64_t pictures, int64_t sounds) override;
  void late(int64_t pictures) override;

  void supervise();
  void run_once(bool first);
  bool pause(double seconds);
  void enter(State state);
  double at(double pts_s) const;

  const Address address_;
  const Wanted wanted_;
  const CaptureOptions options_;
  const Target target_;
  const Now now_;
  Notices* const notices_;

  DeviceClock clock_;
  std::atomic<bool> by_arrival_{false};  // the source's own times are worth nothing
  std::atomic<State> state_{State::kOpening};
  std::atomic<bool> stopped_{false};

  // Of the supervising thread.
  double lost_at_s_ = 0.0;
  bool heard_ = false;  // something has come since it was opened
  double heard_at_s_ = 0.0;
  double jumped_at_s_ = 0.0;

  mutable std::mutex mutex_;  // those below
  std::condition_variable woken_;
  std::unique_ptr<Capture> capture_;
  std::optional<SourceInfo> info_;
  FeedCounters counters_;
  std::exception_ptr error_;

  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace refavs
