#include "device_clock.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace refavs {
namespace {

constexpr size_t kSeconds = 120;        // that the line is fitted to
constexpr double kApart_s = 5.0;        // of two minima whose slope counts
constexpr double kLargestDrift = 1e-3;  // more is no quartz
constexpr double kStep_s = 0.02;        // a lasting change of the offset
constexpr int kStepSeconds = 5;         // that it has lasted
constexpr double kLatePatience_s = 2.0;

}  // namespace

bool DeviceClock::observe(double pts_s, double now_s) {
  if (!std::isfinite(pts_s)) return false;
  std::lock_guard<std::mutex> lock(mutex_);
  if (!started_) {
    begin(pts_s, now_s);
    return false;
  }
  const double offset = now_s - pts_s;
  const double above = offset - offset_at(pts_s);
  if (above < -kEarly_s || (above > kLate_s && pts_s < newest_pts_s_ - kBack_s)) {
    if (std::abs(offset - stray_offset_s_) > kEarly_s) strays_ = 0;
    stray_offset_s_ = offset;
    if (++strays_ < kStrays) return false;
    begin(pts_s, now_s);
    return true;
  }
  strays_ = 0;
  newest_pts_s_ = std::max(newest_pts_s_, pts_s);
  if (above <= kLate_s) late_since_s_ = -1.0;
  if (above > kLate_s && late_since_s_ < 0.0) late_since_s_ = now_s;
  if (late_since_s_ >= 0.0 && now_s - late_since_s_ > kLatePatience_s) {
    begin(pts_s, now_s);
    return true;
  }
  if (above < 0.0) {
    offset_s_ += above;
    if (above < -kStep_s) minima_.clear();  // all that came before had been held up
  }
  if (offset < present_.offset_s) present_ = {pts_s, offset};
  if (pts_s - second_began_s_ >= 1.0) {
    minima_.push_back(present_);
    if (minima_.size() > kSeconds) minima_.pop_front();
    fit();
    present_ = {pts_s, offset};
    second_began_s_ = pts_s;
  }
  return false;
}

void DeviceClock::begin(double pts_s, double now_s) {
  started_ = true;
  reference_s_ = second_began_s_ = newest_pts_s_ = pts_s;
  offset_s_ = now_s - pts_s;
  slope_ = 0.0;
  minima_.clear();
  present_ = {pts_s, offset_s_};
  late_since_s_ = -1.0;
  steps_ = 0;
  strays_ = 0;
}

void DeviceClock::fit() {
  const Minimum& newest = minima_.back();
  steps_ = newest.offset_s - offset_at(newest.pts_s) > kStep_s ? steps_ + 1 : 0;
  if (steps_ >= kStepSeconds) {
    minima_.erase(minima_.begin(), minima_.end() - kStepSeconds);
    steps_ = 0;
  } else if (minima_.size() >= kSecondsToFit) {
    // The median of the slopes between pairs (Theil and Sen): a few delayed seconds do not tilt it.
    std::vector<double> slopes;
    for (size_t i = 0; i < minima_.size(); ++i) {
      for (size_t j = i + 1; j < minima_.size(); ++j) {
        const double apart = minima_[j].pts_s - minima_[i].pts_s;
        if (apart >= kApart_s)
          slopes.push_back((minima_[j].offset_s - minima_[i].offset_s) / apart);
      }
    }
    if (!slopes.empty()) {
      const auto middle = slopes.begin() + static_cast<std::ptrdiff_t>(slopes.size() / 2);
      std::nth_element(slopes.begin(), middle, slopes.end());
      if (std::abs(*middle) <= kLargestDrift) slope_ = *middle;
    }
  } else if (steps_ > 0) {
    return;  // too few to tell a step from a delay
  }
  // The highest line with this slope that no minimum lies below.
  reference_s_ = newest.pts_s;
  offset_s_ = newest.offset_s;
  for (const Minimum& minimum : minima_)
    offset_s_ = std::min(offset_s_, minimum.offset_s + slope_ * (reference_s_ - minimum.pts_s));
}

double DeviceClock::map(double pts_s) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return pts_s + offset_at(pts_s);
}

double DeviceClock::drift_ppm() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return -slope_ / (1.0 + slope_) * 1e6;
}

void DeviceClock::reset() {
  std::lock_guard<std::mutex> lock(mutex_);
  started_ = false;
}

}  // namespace refavs
