// Samples to AAC.
#pragma once

#include <cstdint>
#include <functional>

#include "ffmpeg.h"

namespace refavs {

// Not thread-safe.
class AacEncoder {
 public:
  // Writes `count` samples to each of the channels.
  using Fill = std::function<void(float* const* channels)>;
  using Write = std::function<void(AVPacket* packet)>;

  // Throws SinkError where this FFmpeg has no encoder.
  AacEncoder(int rate_hz, int channels);

  void describe(AVStream* stream) const;
  AVRational time_base() const { return codec_->time_base; }
  // What encode() takes at once; only the last may be shorter.
  int frame_samples() const { return codec_->frame_size; }

  // Where the next sample stands, in time_base().
  int64_t position() const { return position_; }
  void begin_at(int64_t position) { position_ = position; }

  void encode(int count, const Fill& fill, const Write& write);
  void flush(const Write& write) { send(nullptr, write); }

 private:
  void send(const AVFrame* frame, const Write& write);

  CodecPtr codec_;
  int channels_;
  int64_t position_ = 0;
};

}  // namespace refavs
