// Frames of sound as decoders give them.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "ffmpeg.h"

namespace refavs {

struct SoundShape {
  int rate_hz = 16000;
  AVSampleFormat format = AV_SAMPLE_FMT_FLT;
  int channels = 1;
  bool named = true;  // the channels have names
};

inline void put(AVFrame* frame, int channel, int n, double value) {
  const auto format = static_cast<AVSampleFormat>(frame->format);
  const bool planar = av_sample_fmt_is_planar(format) != 0;
  const int64_t at = planar ? n : int64_t(n) * channel_count(*frame) + channel;
  uint8_t* data = frame->extended_data[planar ? channel : 0];
  const auto scaled = [&](double full) { return std::llround(std::min(value * full, full - 1)); };
  switch (av_get_packed_sample_fmt(format)) {
    case AV_SAMPLE_FMT_U8:
      data[at] = static_cast<uint8_t>(scaled(128.0) + 128);
      break;
    case AV_SAMPLE_FMT_S16:
      reinterpret_cast<int16_t*>(data)[at] = static_cast<int16_t>(scaled(32768.0));
      break;
    case AV_SAMPLE_FMT_S32:
      reinterpret_cast<int32_t*>(data)[at] = static_cast<int32_t>(scaled(2147483648.0));
      break;
    case AV_SAMPLE_FMT_DBL:
      reinterpret_cast<double*>(data)[at] = value;
      break;
    default:
      reinterpret_cast<float*>(data)[at] = static_cast<float>(value);
  }
}

// `value(n, channel)` for the n-th sample of the frame.
template <typename Value>
FramePtr sound_frame(const SoundShape& shape, int count, int64_t pts, Value value) {
  FramePtr frame = new_frame();
  frame->format = shape.format;
  frame->sample_rate = shape.rate_hz;
  frame->nb_samples = count;
  frame->pts = pts;
  set_default_channels(frame.get(), shape.channels);
#if REFAVS_CHANNEL_LAYOUT
  if (!shape.named) {
    frame->ch_layout = {};
    frame->ch_layout.order = AV_CHANNEL_ORDER_UNSPEC;
    frame->ch_layout.nb_channels = shape.channels;
  }
#else
  if (!shape.named) frame->channel_layout = 0;
#endif
  if (av_frame_get_buffer(frame.get(), 0) < 0) throw std::bad_alloc();
  for (int c = 0; c < shape.channels; ++c)
    for (int n = 0; n < count; ++n) put(frame.get(), c, n, value(n, c));
  return frame;
}

}  // namespace refavs
