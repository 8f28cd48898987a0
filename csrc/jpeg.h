// RGB pictures as JPEG.
#pragma once

#include <cstdint>
#include <vector>

#include "ffmpeg.h"

namespace refavs {

// Encodes pictures by libavcodec's Motion JPEG, 4:2:0. Not thread-safe.
class JpegEncoder {
 public:
  // `quality`: 1 to 100, roughly as other encoders count it.
  explicit JpegEncoder(int quality) : quality_(quality) {}

  // `rgb`: [height, width, 3], rows `stride` bytes apart. Throws IngestError for what cannot be
  // encoded.
  std::vector<uint8_t> encode(const uint8_t* rgb, int width, int height, int64_t stride);

 private:
  void open(int width, int height);

  const int quality_;
  CodecPtr codec_;
  SwsPtr sws_;
  FramePtr frame_;
};

}  // namespace refavs
