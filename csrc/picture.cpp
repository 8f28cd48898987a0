#include "picture.h"

#include <algorithm>
#include <new>
#include <string>

#include "error.h"

namespace refavs {
namespace {

// swscale's vector code may write past the last row by less than this.
constexpr size_t kPadding = 64;

Picture new_picture(int width, int height) {
  const size_t size = size_t(width) * height * 3 + kPadding;
  auto* bytes = static_cast<uint8_t*>(av_malloc(size));
  if (!bytes) throw std::bad_alloc();
  return {width, height, std::shared_ptr<uint8_t>(bytes, [](uint8_t* p) { av_free(p); })};
}

Picture turned(const Picture& stored, Orientation how) {
  const int width = how.transpose ? stored.height : stored.width;
  const int height = how.transpose ? stored.width : stored.height;
  Picture upright = new_picture(width, height);
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

}  // namespace

Picture PictureConverter::convert(const AVFrame& frame) {
  if (width_ == 0) {
    width_ = frame.width;
    height_ = frame.height;
  }
  prepare(frame);
  Picture picture = new_picture(width_, height_);
  uint8_t* planes[4] = {picture.rgb.get()};
  const int strides[4] = {width_ * 3};
  sws_scale(sws_.get(), frame.data, frame.linesize, 0, frame.height, planes, strides);
  if (orientation_.transpose || orientation_.flip_x || orientation_.flip_y)
    return turned(picture, orientation_);
  return picture;
}

void PictureConverter::prepare(const AVFrame& frame) {
  if (sws_ && frame.width == from_width_ && frame.height == from_height_ &&
      frame.format == from_format_ && frame.colorspace == from_matrix_ &&
      frame.color_range == from_range_)
    return;
  from_width_ = frame.width;
  from_height_ = frame.height;
  from_format_ = frame.format;
  from_matrix_ = frame.colorspace;
  from_range_ = frame.color_range;
  const AVPixelFormat format = static_cast<AVPixelFormat>(frame.format);
  sws_.reset(sws_getContext(frame.width, frame.height, format, width_, height_, AV_PIX_FMT_RGB24,
                            SWS_BICUBIC, nullptr, nullptr, nullptr));
  if (!sws_) {
    const char* name = av_get_pix_fmt_name(format);
    throw IngestError(std::string("the picture's pixel format (") + (name ? name : "unknown") +
                      ") cannot be converted to RGB; convert the video to yuv420p");
  }
  int* unused = nullptr;
  int from_full = 0, to_full = 0, brightness = 0, contrast = 0, saturation = 0;
  if (sws_getColorspaceDetails(sws_.get(), &unused, &from_full, &unused, &to_full, &brightness,
                               &contrast, &saturation) < 0)
    return;  // neither side is YUV
  if (frame.color_range != AVCOL_RANGE_UNSPECIFIED)
    from_full = frame.color_range == AVCOL_RANGE_JPEG;
  sws_setColorspaceDetails(sws_.get(), sws_getCoefficients(frame.colorspace), from_full,
                           sws_getCoefficients(SWS_CS_DEFAULT), to_full, brightness, contrast,
                           saturation);
}

}  // namespace refavs
