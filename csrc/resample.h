// Decoded sound on a grid of exact positions.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "clock.h"
#include "ffmpeg.h"
#include "sound_format.h"

namespace refavs {

// Converts decoded frames to planar float32 at one rate. Output sample k stands at k / rate seconds
// of the source's clock, for every k >= 0: sound before 0 is cut, time without sound is filled with
// zeros and reported, sound that comes twice is trimmed.
//
// Channels are mixed as open_resampler does it.
//
// Timestamps jitter (Matroska rounds them to milliseconds), so a frame that is off its expected
// place is moved only if it is off by more than kJumpS, or by more than a tick of the container and
// 1 ms for kPatience frames on end. Not thread-safe.
class Resampler {
 public:
  // `count` samples of each channel, in order, without holes.
  using Samples = std::function<void(const float* const* channels, int64_t count)>;
  // Output positions [begin, end) had no sound in the source. Called before the samples.
  using Missing = std::function<void(int64_t begin, int64_t end)>;
  // So many zeros, of a hole that may be an hour long.
  using Zeros = std::function<void(int64_t count)>;

  // Without `zeros` they come as samples.
  Resampler(int rate, int channels, SourceClock clock, Samples samples, Missing missing,
            Zeros zeros = nullptr);

  // `time_base` is that of frame.pts. Throws IngestError if the format cannot be converted.
  void push(const AVFrame& frame, AVRational time_base);
  // The end: what the filter still holds.
  void flush();

  // Samples given out so far.
  int64_t position() const { return position_; }
  // Samples of the source that were trimmed because they came twice.
  int64_t overlap_samples() const { return overlap_; }

 private:
  void restart(const AVFrame& frame);
  int64_t correction(int64_t error, AVRational time_base);
  void skip_time(int64_t count);
  void feed_silence(int64_t count);
  void feed(const uint8_t* const* data, int count);
  void emit(int64_t count);
  void emit_zeros(int64_t count);
  int64_t output_at(int64_t input) const;

  int rate_;
  int channels_;
  SourceClock clock_;
  Samples samples_;
  Missing missing_;
  Zeros zeros_;

  SwrPtr swr_;
  SoundFormat input_;

  int64_t position_ = 0;
  int64_t base_output_ = 0;  // position_ when the present input format began
  int64_t base_input_ = 0;   // the same place, in samples at the input's rate
  int64_t next_input_ = 0;   // samples taken since then
  bool started_ = false;
  int patience_ = 0;
  int64_t smallest_error_ = 0;
  int64_t overlap_ = 0;
  std::vector<std::vector<float>> buffer_;
};

}  // namespace refavs
