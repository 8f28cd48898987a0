#include "live_sound.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "error.h"

namespace refavs {
namespace {

constexpr double kSmoothing_s = 1.0;   // of the distance, before it steers
constexpr double kProportional = 0.1;  // per second: a distance is halved in 7 s
constexpr double kIntegral = kProportional * kProportional / 4;  // no overshoot
constexpr int kCompensation_s = 10;                              // that a correction is spread over

SoundGrid grid_of(MelTrack* track) {
  SoundGrid grid;
  grid.add = [track](const float* const* channels, int64_t count) {
    track->add(channels[0], count);
  };
  grid.jump = [track](int64_t to) { track->jump(to); };
  return grid;
}

}  // namespace

LiveSound::LiveSound(SoundGrid grid)
    : grid_(std::move(grid)), buffer_(static_cast<size_t>(grid_.channels)) {}

LiveSound::LiveSound(MelTrack* track) : LiveSound(grid_of(track)) {}

void LiveSound::push(const AVFrame& frame, double at_s) {
  if (frame.nb_samples <= 0 || frame.sample_rate <= 0 || channel_count(frame) <= 0) return;
  if (SoundFormat::of(frame) != input_) {
    input_ = SoundFormat::of(frame);
    swr_.reset();
    heard_s_ = 0.0;
  }
  const double duration_s = double(frame.nb_samples) / input_.rate_hz;
  double error_s = at_s - next_s();
  int64_t skip = 0;
  const bool settles = heard_s_ >= kSettling_s && heard_s_ < kSettled_s;
  heard_s_ += duration_s;
  const bool jumps = !started_ || std::abs(error_s) > kJump_s;
  if (jumps || (settles && std::abs(error_s_) > kFirstJump_s)) {
    if (!jumps) error_s = error_s_;  // single frames jitter
    if (error_s >= 0.0) {
      skip_to(next_s() + error_s);
    } else {
      // A broken timestamp may lie further back than samples can be counted.
      skip = -error_s < duration_s ? std::llround(-error_s * input_.rate_hz) : frame.nb_samples;
      skip = std::min<int64_t>(skip, frame.nb_samples);
      if (started_) overlap_ += skip * grid_.rate_hz / input_.rate_hz;
    }
    error_s = 0.0;
    error_s_ = 0.0;
    if (settles) integral_ = 0.0;  // it was no drift
    if (skip == frame.nb_samples) return;
    started_ = true;
  }
  if (!swr_) swr_ = open_resampler(frame, grid_.rate_hz, grid_.channels, true);
  steer(error_s, duration_s);
  feed(samples_from(frame, skip).data(), static_cast<int>(frame.nb_samples - skip));
}

void LiveSound::restart() {
  heard_s_ = 0.0;
  integral_ = 0.0;
  steering_ = error_s_ = 0.0;
  swr_.reset();
}

// Where the next sample that is pushed would fall.
double LiveSound::next_s() const {
  constexpr int64_t kFine = 1000;
  const int64_t held = swr_ ? swr_get_delay(swr_.get(), grid_.rate_hz * kFine) : 0;
  return (static_cast<double>(position_) + static_cast<double>(held) / kFine) / grid_.rate_hz;
}

void LiveSound::steer(double error_s, double duration_s) {
  const double share = std::min(1.0, duration_s / kSmoothing_s);
  const double smooth_s = error_s_ + share * (error_s - error_s_);
  const double wanted = kProportional * smooth_s + integral_;
  const double steering = std::clamp(wanted, -kLargestDrift, kLargestDrift);
  if (steering == wanted) integral_ += kIntegral * smooth_s * duration_s;
  error_s_ = smooth_s;
  steering_ = steering;
  const int distance = kCompensation_s * grid_.rate_hz;
  const int delta = static_cast<int>(std::lround(steering * distance));
  if (swr_set_compensation(swr_.get(), delta, distance) < 0)
    throw IngestError("the sound's rate cannot be corrected by this FFmpeg's resampler");
}

void LiveSound::skip_to(double at_s) {
  if (swr_) feed(nullptr, 0);  // what the filter holds lies before the hole
  swr_.reset();
  const int64_t to = std::llround(at_s * grid_.rate_hz);
  if (to <= position_) return;
  grid_.jump(to);
  position_ = to;
}

// Without data: the end, what the filter still holds.
void LiveSound::feed(const uint8_t* const* data, int count) {
  const int room = swr_get_out_samples(swr_.get(), count);
  std::vector<float*> out;
  for (std::vector<float>& channel : buffer_) {
    channel.resize(static_cast<size_t>(std::max(room, 1)));
    out.push_back(channel.data());
  }
  const int made = swr_convert(swr_.get(), reinterpret_cast<uint8_t**>(out.data()), room,
                               const_cast<const uint8_t**>(data), count);
  if (made < 0) throw IngestError("the sound cannot be resampled: " + ffmpeg_message(made));
  if (made > 0) grid_.add(out.data(), made);
  position_ += made;
}

}  // namespace refavs
