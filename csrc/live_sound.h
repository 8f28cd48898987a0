// Live sound on the grid of one clock.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "ffmpeg.h"
#include "mel_track.h"
#include "sound_format.h"

namespace refavs {

// Where live sound is written: samples one after the other at a fixed rate.
struct SoundGrid {
  int rate_hz = kSampleRateHz;
  int channels = 1;
  std::function<void(const float* const* channels, int64_t count)> add;
  // The next sample will be number `to`; those before it are missing.
  std::function<void(int64_t to)> jump;
};

// Writes decoded sound to a grid so that its sample k was heard at k / rate_hz seconds of the
// clock of `at_s`. A sound card's clock runs at its own rate, so the distance between where a frame
// belongs and where it falls is steered to zero by resampling a little faster or slower (a
// proportional and an integral part, settled in two minutes; up to kLargestDrift). Only a distance
// over kJump_s is a hole, which is missing, or sound that comes twice, which is left out; and from
// kSettling_s to kSettled_s of a source or a format, while its clock is read ever better, one over
// kFirstJump_s.
//
// Not thread-safe, but for drift_ppm(), overlap_samples() and error_s().
class LiveSound {
 public:
  static constexpr double kJump_s = 0.05;
  static constexpr double kFirstJump_s = 0.008;
  static constexpr double kSettling_s = 2.0;
  static constexpr double kSettled_s = 30.0;
  static constexpr double kLargestDrift = 2e-3;

  explicit LiveSound(SoundGrid grid);
  explicit LiveSound(MelTrack* track);

  // `frame` begins at at_s. Throws IngestError if its format cannot be converted.
  void push(const AVFrame& frame, double at_s);
  // What comes next is another device's: nothing is known of its rate.
  void restart();

  // How much faster than the clock of `at_s` the samples come, as far as it is made up for.
  double drift_ppm() const { return -steering_ * 1e6; }
  // Of the grid, left out because they came twice.
  int64_t overlap_samples() const { return overlap_; }
  // Between where the last frame belongs and where it fell.
  double error_s() const { return error_s_; }

 private:
  double next_s() const;
  void steer(double error_s, double duration_s);
  void skip_to(double at_s);
  void feed(const uint8_t* const* data, int count);

  const SoundGrid grid_;
  SwrPtr swr_;
  SoundFormat input_;
  int64_t position_ = 0;  // samples written to the grid
  bool started_ = false;
  double heard_s_ = 0.0;  // of this source
  double integral_ = 0.0;
  std::atomic<double> error_s_{0.0};
  std::atomic<double> steering_{0.0};  // share by which more samples are made
  std::atomic<int64_t> overlap_{0};
  std::vector<std::vector<float>> buffer_;  // of each channel
};

}  // namespace refavs
