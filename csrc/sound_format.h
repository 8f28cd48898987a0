// The format of decoded sound, and its way into another.
#pragma once

#include <cstdint>
#include <vector>

#include "ffmpeg.h"

namespace refavs {

struct SoundFormat {
  int rate_hz = 0;
  int sample_format = -1;
  int channels = 0;
  uint64_t mask = 0;  // of the channels; 0 where only their number is known

  static SoundFormat of(const AVFrame& frame);
  bool operator==(const SoundFormat& other) const;
  bool operator!=(const SoundFormat& other) const { return !(*this == other); }
};

// Converts frames of the format of `frame` to planar float32 at rate_hz. Channels are mixed by
// libswresample's matrix, scaled so that its weights do not sum to more than 1 (stereo to mono is
// the mean); channels without names are averaged, and one alone goes into each as it is.
// `adjustable`: swr_set_compensation may be used, also where the rates are equal.
//
// Throws IngestError if the format cannot be converted.
SwrPtr open_resampler(const AVFrame& frame, int rate_hz, int channels, bool adjustable);

// Where the samples of a frame stand from its sample `skip` on: a pointer a channel, or one alone
// where the channels are interleaved.
std::vector<const uint8_t*> samples_from(const AVFrame& frame, int64_t skip);

}  // namespace refavs
