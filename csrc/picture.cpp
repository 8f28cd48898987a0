#include "picture.h"

#include <algorithm>
#include <new>
#include <string>

#include "error.h"
#include "pixel_layout.h"

namespace refavs {
namespace {

// swscale's vector code may write past the last row by less than this.
constexpr size_t kPadding = 64;

RgbPicture new_picture(int width, int height) {
  const size_t size = size_t(width) * height * 3 + kPadding;
  auto* bytes = static_cast<uint8_t*>(av_malloc(size));
  if (!bytes) throw std::bad_alloc();
  return {width, height, std::shared_ptr<uint8_t>(bytes, [](uint8_t* p) { av_free(p); })};
}

RgbPicture turned(const RgbPicture& stored, Orientation how) {
  const int width = how.transpose ? stored.height : stored.width;
  const int height = how.transpose ? stored.width : stored.height;
  RgbPicture upright = new_picture(width, height);
  const int64_t step_x = how.transpose ? stored.stride() : 3;
  const int64_t step_y = how.transpose ? 3 : stored.stride();
  // Blocks, so that the side that is read across its rows stays in the cache.
  constexpr int kBlock = 32;
  for (int top = 0; top < height; top += kBlock) {
    for (int left = 0; left < width; left += kBlock) {
      for (int y = top; y < std::min(top + kBlock, height); ++y) {
        const int from_y = how.flip_y ? height - 1 - y : y;
        uint8_t* to = upright.rgb.get() + y * upright.stride() + int64_t(left) * 3;
        for (int x = left; x < std::min(left + kBlock, width); ++x, to += 3) {
          const int from_x = how.flip_x ? width - 1 - x : x;
          const uint8_t* from = stored.rgb.get() + from_x * step_x + from_y * step_y;
          to[0] = from[0];
          to[1] = from[1];
          to[2] = from[2];
        }
      }
    }
  }
  return upright;
}

// The conversion of frames like this one to RGB bytes of another size.
SwsPtr to_rgb(const AVFrame& frame, int width, int height) {
  const AVPixelFormat format = static_cast<AVPixelFormat>(frame.format);
  SwsPtr sws(sws_getContext(frame.width, frame.height, format, width, height, AV_PIX_FMT_RGB24,
                            SWS_BICUBIC, nullptr, nullptr, nullptr));
  if (!sws) throw std::bad_alloc();
  int* unused = nullptr;
  int from_full = 0, to_full = 0, brightness = 0, contrast = 0, saturation = 0;
  if (sws_getColorspaceDetails(sws.get(), &unused, &from_full, &unused, &to_full, &brightness,
                               &contrast, &saturation) < 0)
    return sws;  // neither side is YUV
  sws_setColorspaceDetails(sws.get(), sws_getCoefficients(frame.colorspace), is_full_range(frame),
                           sws_getCoefficients(SWS_CS_DEFAULT), to_full, brightness, contrast,
                           saturation);
  return sws;
}

}  // namespace

PictureConverter::Form::Form(const AVFrame& frame)
    : width(frame.width),
      height(frame.height),
      format(frame.format),
      matrix(frame.colorspace),
      range(frame.color_range) {}

bool PictureConverter::Form::operator==(const Form& other) const {
  return width == other.width && height == other.height && format == other.format &&
         matrix == other.matrix && range == other.range;
}

void PictureConverter::admit(const AVFrame& frame) {
  const AVPixelFormat format = static_cast<AVPixelFormat>(frame.format);
  if (sws_isSupportedInput(format) <= 0) {
    const char* name = av_get_pix_fmt_name(format);
    throw IngestError(std::string("the picture's pixel format (") + (name ? name : "unknown") +
                      ") cannot be converted to RGB; convert the video to yuv420p");
  }
  if (width_ > 0) return;
  height_ = frame.height;
  width_ = frame.width;
}

int PictureConverter::width() const { return orientation_.transpose ? height_ : width_; }

int PictureConverter::height() const { return orientation_.transpose ? width_ : height_; }

RgbPicture PictureConverter::rgb(const AVFrame& frame) {
  std::lock_guard<std::mutex> lock(rgb_mutex_);
  const Form form(frame);
  if (!sws_ || !(form == rgb_form_)) {
    admit(frame);
    sws_ = to_rgb(frame, width_, height_);
    rgb_form_ = form;
  }
  RgbPicture picture = new_picture(width_, height_);
  uint8_t* planes[4] = {picture.rgb.get()};
  const int strides[4] = {width_ * 3};
  sws_scale(sws_.get(), frame.data, frame.linesize, 0, frame.height, planes, strides);
  return orientation_.is_upright() ? picture : turned(picture, orientation_);
}

void PictureConverter::tensor(const AVFrame& frame, float* out) {
  std::lock_guard<std::mutex> lock(tensor_mutex_);
  const Form form(frame);
  if (!resizer_ || !(form == tensor_form_)) {
    admit(frame);
    resizer_.reset();
    const std::optional<PixelLayout> layout = pixel_layout(frame);
    in_place_ = layout.has_value();
    if (in_place_) {
      resizer_ = std::make_unique<Resizer>(frame.width, frame.height, size_, normalization_,
                                           *layout, orientation_);
    } else {
      resizer_ =
          std::make_unique<Resizer>(width(), height(), size_, normalization_, rgb24_layout());
    }
    tensor_form_ = form;
  }
  Planes planes;
  if (in_place_) {
    for (int i = 0; i < 4; ++i) {
      planes.data[i] = frame.data[i];
      planes.stride[i] = frame.linesize[i];
    }
    resizer_->run(planes, out);
  } else {
    const RgbPicture picture = rgb(frame);
    planes.data[0] = picture.rgb.get();
    planes.stride[0] = picture.stride();
    resizer_->run(planes, out);
  }
}

}  // namespace refavs
