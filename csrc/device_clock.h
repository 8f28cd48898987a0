// The clock of a live source, read off by when its packets come.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>

namespace refavs {

// Maps times of a source onto the monotonic clock.
//
// A packet never comes before its time, but often after it: (arrival - time) is the offset between
// the clocks plus a delay that is never negative. So the least of it in each second is kept, and a
// line along these minima is the offset: its slope is the drift of the source's clock (quartz: up
// to some 100 ppm), fitted once there are kSecondsToFit of them.
//
// A source has jumped whose packets come more than kEarly_s ahead of what the line says, or go back
// by more than kBack_s, kStrays of them on end: it was restarted, or its timestamps are broken. So
// has one whose packets all come more than kLate_s behind for a while. The clock then begins anew.
// Smaller lasting steps (a longer way through the network) are followed within seconds.
//
// Thread-safe.
class DeviceClock {
 public:
  static constexpr double kEarly_s = 0.5;
  static constexpr double kLate_s = 1.0;
  static constexpr double kBack_s = 3.0;  // more than packets of one source are out of order
  static constexpr int kStrays = 3;
  static constexpr int kSecondsToFit = 10;

  // A packet with this time came at now_s. True: the source's clock has jumped.
  bool observe(double pts_s, double now_s);

  // On the monotonic clock; pts_s itself before anything was observed.
  double map(double pts_s) const;

  // How much faster than ours the source's clock runs.
  double drift_ppm() const;

  void reset();

 private:
  struct Minimum {
    double pts_s, offset_s;
  };

  double offset_at(double pts_s) const { return offset_s_ + slope_ * (pts_s - reference_s_); }
  void begin(double pts_s, double now_s);
  void fit();

  mutable std::mutex mutex_;
  bool started_ = false;
  double reference_s_ = 0.0;  // offset_at(reference_s_) == offset_s_
  double offset_s_ = 0.0;
  double slope_ = 0.0;
  std::deque<Minimum> minima_;  // of whole seconds of the source's clock
  Minimum present_ = {};        // of the second at hand
  double second_began_s_ = 0.0;
  double late_since_s_ = -1.0;  // arrival of the first of the packets that are too late
  int steps_ = 0;               // seconds on end that lie above the line
  double newest_pts_s_ = 0.0;   // of the packets that lie on the line
  int strays_ = 0;              // packets on end that have jumped
  double stray_offset_s_ = 0.0;
};

}  // namespace refavs
