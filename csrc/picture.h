// A decoded picture as upright RGB bytes.
#pragma once

#include <cstdint>
#include <memory>

#include "ffmpeg.h"
#include "source.h"

namespace refavs {

// [height, width, 3] uint8, rows without gaps.
struct Picture {
  int width = 0;
  int height = 0;
  std::shared_ptr<uint8_t> rgb;

  int64_t stride() const { return int64_t(width) * 3; }
};

// Converts to RGB by the frame's own matrix and range (BT.601 where it names none, as the ffmpeg
// tool does), then turns upright. All pictures get the size of the first: where the size changes
// in the stream, later ones are scaled to it. Pixels stay as coded if they are not square.
//
// Not thread-safe.
class PictureConverter {
 public:
  explicit PictureConverter(Orientation orientation) : orientation_(orientation) {}

  // Throws IngestError if the pixel format cannot be converted.
  Picture convert(const AVFrame& frame);

 private:
  void prepare(const AVFrame& frame);

  Orientation orientation_;
  int width_ = 0;  // as stored
  int height_ = 0;
  SwsPtr sws_;
  int from_width_ = 0;
  int from_height_ = 0;
  int from_format_ = -1;
  int from_matrix_ = -1;
  int from_range_ = -1;
};

}  // namespace refavs
