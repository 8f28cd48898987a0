#include "sound_format.h"

#include <string>
#include <vector>

#include "error.h"

namespace refavs {
namespace {

// Sound with other rates is none: a filter for it would take gigabytes, or turn a packet into them.
constexpr int kLowestRateHz = 1000;
constexpr int kHighestRateHz = 3'072'000;

}  // namespace

SoundFormat SoundFormat::of(const AVFrame& frame) {
  return {frame.sample_rate, frame.format, channel_count(frame), channel_mask(frame)};
}

bool SoundFormat::operator==(const SoundFormat& other) const {
  return rate_hz == other.rate_hz && sample_format == other.sample_format &&
         channels == other.channels && mask == other.mask;
}

SwrPtr open_resampler(const AVFrame& frame, int rate_hz, int channels, bool adjustable) {
  const SoundFormat from = SoundFormat::of(frame);
  const AVSampleFormat sample_format = static_cast<AVSampleFormat>(from.sample_format);
  SwrContext* context = nullptr;
  int status = 0;
  // Channels without names become as many named ones to libswresample and get a matrix below.
#if REFAVS_CHANNEL_LAYOUT
  AVChannelLayout out = {}, in = {};
  av_channel_layout_default(&out, channels);
  if (from.mask) {
    av_channel_layout_copy(&in, &frame.ch_layout);
  } else {
    in.order = AV_CHANNEL_ORDER_UNSPEC;
    in.nb_channels = from.channels;
  }
  status = swr_alloc_set_opts2(&context, &out, AV_SAMPLE_FMT_FLTP, rate_hz, &in, sample_format,
                               from.rate_hz, 0, nullptr);
  av_channel_layout_uninit(&in);
  av_channel_layout_uninit(&out);
#else
  const uint64_t mask = from.mask            ? from.mask
                        : from.channels < 64 ? (uint64_t(1) << from.channels) - 1
                                             : 0;
  context = swr_alloc_set_opts(nullptr, av_get_default_channel_layout(channels), AV_SAMPLE_FMT_FLTP,
                               rate_hz, static_cast<int64_t>(mask), sample_format, from.rate_hz, 0,
                               nullptr);
#endif
  SwrPtr swr(context);
  if (from.rate_hz < kLowestRateHz || from.rate_hz > kHighestRateHz) status = AVERROR(EINVAL);
  if (swr && status >= 0) {
    av_opt_set_double(context, "rematrix_maxval", 1.0, 0);
    if (adjustable) av_opt_set_int(context, "flags", SWR_FLAG_RESAMPLE, 0);
    if (!from.mask || (from.channels == 1 && channels > 1)) {
      const std::vector<double> mean(static_cast<size_t>(from.channels) * channels,
                                     1.0 / from.channels);
      status = swr_set_matrix(context, mean.data(), from.channels);
    }
    if (status >= 0) status = swr_init(context);
  }
  if (!swr || status < 0)
    throw IngestError("the sound's format cannot be converted (" + std::to_string(from.channels) +
                      " channels, " + std::to_string(from.rate_hz) +
                      " Hz): " + ffmpeg_message(status));
  return swr;
}

std::vector<const uint8_t*> samples_from(const AVFrame& frame, int64_t skip) {
  const AVSampleFormat format = static_cast<AVSampleFormat>(frame.format);
  const int channels = channel_count(frame);
  const bool planar = av_sample_fmt_is_planar(format) != 0;
  const int64_t step = av_get_bytes_per_sample(format) * int64_t(planar ? 1 : channels);
  std::vector<const uint8_t*> planes(planar ? static_cast<size_t>(channels) : 1);
  for (size_t i = 0; i < planes.size(); ++i) planes[i] = frame.extended_data[i] + skip * step;
  return planes;
}

}  // namespace refavs
