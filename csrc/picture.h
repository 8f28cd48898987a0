// The decoded pictures of one stream, as what is asked of them: upright RGB, or the network's
// input.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "ffmpeg.h"
#include "orientation.h"
#include "preprocess.h"

namespace refavs {

// [height, width, 3] uint8, rows without gaps.
struct RgbPicture {
  int width = 0;
  int height = 0;
  std::shared_ptr<uint8_t> rgb;

  int64_t stride() const { return int64_t(width) * 3; }
};

// Converts by each frame's own matrix and range (BT.601 where it names none, as the ffmpeg tool
// does) and turns upright. RGB pictures all get the size of the first: where the size changes in
// the stream, later ones are scaled to it. Pixels stay as coded if they are not square.
//
// Thread-safe.
class PictureConverter {
 public:
  PictureConverter(Orientation orientation, int size, const Normalization& normalization)
      : orientation_(orientation), size_(size), normalization_(normalization) {}

  // S.
  int size() const { return size_; }

  // Looks at a frame that may be converted later; the first one gives the size. Throws IngestError
  // if its pixel format cannot be converted.
  void admit(const AVFrame& frame);

  // Of upright RGB; 0 before the first frame.
  int width() const;
  int height() const;

  RgbPicture rgb(const AVFrame& frame);
  // `out`: [3, S, S], stretched and normalised. 8-bit formats are read in place.
  void tensor(const AVFrame& frame, float* out);

 private:
  // What a conversion depends on.
  struct Form {
    int width = 0;
    int height = 0;
    int format = -1;
    int matrix = -1;
    int range = -1;

    explicit Form(const AVFrame& frame);
    Form() = default;
    bool operator==(const Form& other) const;
  };

  const Orientation orientation_;
  const int size_;
  const Normalization normalization_;

  // As stored; the height is set first.
  std::atomic<int> width_{0};
  std::atomic<int> height_{0};

  std::mutex rgb_mutex_;  // those below
  Form rgb_form_;
  SwsPtr sws_;

  std::mutex tensor_mutex_;  // those below; may be held while rgb_mutex_ is taken
  Form tensor_form_;
  bool in_place_ = false;
  std::unique_ptr<Resizer> resizer_;
};

// One decoded picture of a stream, converted when it is asked for.
//
// Thread-safe.
class Picture {
 public:
  Picture() = default;
  Picture(std::shared_ptr<const AVFrame> decoded, std::shared_ptr<PictureConverter> converter)
      : decoded_(std::move(decoded)), converter_(std::move(converter)) {}

  int width() const { return converter_->width(); }
  int height() const { return converter_->height(); }
  // S.
  int size() const { return converter_->size(); }
  RgbPicture rgb() const { return converter_->rgb(*decoded_); }
  // `out`: [3, S, S].
  void tensor(float* out) const { converter_->tensor(*decoded_, out); }

 private:
  std::shared_ptr<const AVFrame> decoded_;
  std::shared_ptr<PictureConverter> converter_;
};

}  // namespace refavs
