#include "resample.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "error.h"

namespace refavs {
namespace {

constexpr double kJumpS = 0.005;
constexpr double kJitterS = 0.001;
constexpr int kPatience = 8;
// A longer hole is a broken timestamp, not an hour without sound.
constexpr int64_t kLongestGapS = 3600;

int64_t ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

}  // namespace

Resampler::Resampler(int rate, int channels, SourceClock clock, Samples samples, Missing missing,
                     Zeros zeros)
    : rate_(rate),
      channels_(channels),
      clock_(clock),
      samples_(std::move(samples)),
      missing_(std::move(missing)),
      zeros_(std::move(zeros)),
      buffer_(static_cast<size_t>(channels)) {}

void Resampler::push(const AVFrame& frame, AVRational time_base) {
  if (frame.nb_samples <= 0 || frame.sample_rate <= 0 || channel_count(frame) <= 0) return;
  if (!swr_ || SoundFormat::of(frame) != input_) restart(frame);

  int64_t skip = 0;
  if (frame.pts != AV_NOPTS_VALUE) {
    const int64_t at = clock_.round_ticks(frame.pts, time_base, input_.rate_hz) - base_input_;
    const int64_t move = correction(at - next_input_, time_base);
    if (move > 0) skip_time(move);
    skip = std::min<int64_t>(std::max<int64_t>(-move, 0), frame.nb_samples);
    if (started_) overlap_ += skip;
  }
  if (skip == frame.nb_samples) return;
  started_ = true;

  feed(samples_from(frame, skip).data(), static_cast<int>(frame.nb_samples - skip));
}

void Resampler::flush() {
  if (!swr_) return;
  const int64_t end = output_at(next_input_);
  int64_t left = end - position_;
  while (left > 0) {
    const int room = static_cast<int>(std::min<int64_t>(left, 1 << 14));
    for (auto& channel : buffer_) channel.resize(room);
    std::vector<uint8_t*> out;
    for (auto& channel : buffer_) out.push_back(reinterpret_cast<uint8_t*>(channel.data()));
    const int count = swr_convert(swr_.get(), out.data(), room, nullptr, 0);
    if (count <= 0) break;
    emit(count);
    left -= count;
  }
  emit_zeros(end - position_);  // the filter may round its last sample away
  swr_.reset();
}

void Resampler::restart(const AVFrame& frame) {
  flush();
  input_ = SoundFormat::of(frame);
  base_output_ = position_;
  base_input_ = (position_ * input_.rate_hz + rate_ / 2) / rate_;
  next_input_ = 0;
  swr_ = open_resampler(frame, rate_, channels_, false);
}

// By how many samples the frame is to be moved to where its timestamp says.
int64_t Resampler::correction(int64_t error, AVRational time_base) {
  if (std::llabs(error) > kLongestGapS * input_.rate_hz) return 0;
  if (!started_) return error;
  const double off_s = static_cast<double>(std::llabs(error)) / input_.rate_hz;
  const bool other_side = (error > 0) != (smallest_error_ > 0);
  if (off_s <= kJitterS + av_q2d(time_base)) {
    patience_ = 0;
    return 0;
  }
  if (off_s <= kJumpS) {
    if (patience_ == 0 || other_side) {
      patience_ = 0;
      smallest_error_ = error;
    } else if (std::llabs(error) < std::llabs(smallest_error_)) {
      smallest_error_ = error;
    }
    if (++patience_ < kPatience) return 0;
    error = smallest_error_;
  }
  patience_ = 0;
  return error;
}

void Resampler::skip_time(int64_t count) {
  missing_(output_at(next_input_), output_at(next_input_ + count));
  if (count > 2 * input_.rate_hz) {
    // Whole seconds are whole numbers of samples on both sides, so they need not pass the filter.
    feed_silence(input_.rate_hz);
    const int64_t seconds = count / input_.rate_hz - 1;
    next_input_ += seconds * input_.rate_hz;
    emit_zeros(seconds * rate_);
    count -= (seconds + 1) * input_.rate_hz;
  }
  feed_silence(count);
}

void Resampler::feed_silence(int64_t count) {
  if (count <= 0) return;
  FramePtr silence = new_frame();
  silence->format = input_.sample_format;
  silence->nb_samples = static_cast<int>(std::min<int64_t>(count, 4096));
  silence->sample_rate = input_.rate_hz;
  set_default_channels(silence.get(), input_.channels);
  if (av_frame_get_buffer(silence.get(), 0) < 0) throw std::bad_alloc();
  av_samples_set_silence(silence->extended_data, 0, silence->nb_samples, input_.channels,
                         static_cast<AVSampleFormat>(input_.sample_format));
  for (; count > 0; count -= silence->nb_samples)
    feed(silence->extended_data, static_cast<int>(std::min<int64_t>(count, silence->nb_samples)));
}

void Resampler::feed(const uint8_t* const* data, int count) {
  const int room = swr_get_out_samples(swr_.get(), count);
  std::vector<uint8_t*> out;
  for (auto& channel : buffer_) {
    channel.resize(static_cast<size_t>(std::max(room, 1)));
    out.push_back(reinterpret_cast<uint8_t*>(channel.data()));
  }
  const int converted =
      swr_convert(swr_.get(), out.data(), room, const_cast<const uint8_t**>(data), count);
  if (converted < 0)
    throw IngestError("the sound cannot be resampled: " + ffmpeg_message(converted));
  next_input_ += count;
  emit(converted);
}

void Resampler::emit(int64_t count) {
  if (count <= 0) return;
  std::vector<const float*> channels;
  for (const auto& channel : buffer_) channels.push_back(channel.data());
  samples_(channels.data(), count);
  position_ += count;
}

void Resampler::emit_zeros(int64_t count) {
  if (zeros_ && count > 0) {
    zeros_(count);
    position_ += count;
    return;
  }
  while (count > 0) {
    const int64_t part = std::min<int64_t>(count, rate_);
    for (auto& channel : buffer_) channel.assign(static_cast<size_t>(part), 0.0f);
    emit(part);
    count -= part;
  }
}

// The first output position at or after the input sample.
int64_t Resampler::output_at(int64_t input) const {
  return base_output_ + ceil_div(input * rate_, input_.rate_hz);
}

}  // namespace refavs
