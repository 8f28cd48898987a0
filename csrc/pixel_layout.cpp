#include "pixel_layout.h"

namespace refavs {
namespace {

constexpr uint64_t kOtherwise = AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_BITSTREAM |
                                AV_PIX_FMT_FLAG_HWACCEL | AV_PIX_FMT_FLAG_BAYER;

bool is_grey(const AVPixFmtDescriptor& format) {
  return format.nb_components < 3 && (format.flags & AV_PIX_FMT_FLAG_RGB) == 0;
}

// From swscale's coefficients: those of V in red, U in blue, U in green and V in green, in 1 /
// 65536 for narrow ranges.
void set_yuv(const AVFrame& frame, PixelLayout* layout) {
  const bool full = is_full_range(frame);
  const int* table = sws_getCoefficients(frame.colorspace);
  const double colour = (full ? 224.0 / 255.0 : 1.0) / 65536.0;
  const double luma = full ? 1.0 : 255.0 / 219.0;
  const double u[3] = {0.0, -table[2] * colour, table[1] * colour};
  const double v[3] = {table[0] * colour, -table[3] * colour, 0.0};
  for (int i = 0; i < 3; ++i) {
    layout->matrix[i] = {float(luma), float(u[i]), float(v[i])};
    layout->bias[i] = static_cast<float>(-128.0 * (u[i] + v[i]) - (full ? 0.0 : 16.0 * luma));
  }
}

void set_grey(const AVFrame& frame, PixelLayout* layout) {
  const bool full = is_full_range(frame);
  for (int i = 0; i < 3; ++i) {
    layout->matrix[i][0] = full ? 1.0f : 255.0f / 219.0f;
    layout->bias[i] = full ? 0.0f : -16.0f * 255.0f / 219.0f;
  }
}

}  // namespace

bool is_full_range(const AVFrame& frame) {
  if (frame.color_range != AVCOL_RANGE_UNSPECIFIED) return frame.color_range == AVCOL_RANGE_JPEG;
  switch (frame.format) {
    case AV_PIX_FMT_YUVJ411P:
    case AV_PIX_FMT_YUVJ420P:
    case AV_PIX_FMT_YUVJ422P:
    case AV_PIX_FMT_YUVJ440P:
    case AV_PIX_FMT_YUVJ444P:
      return true;
    default: {
      const AVPixFmtDescriptor* format =
          av_pix_fmt_desc_get(static_cast<AVPixelFormat>(frame.format));
      return format && is_grey(*format);
    }
  }
}

std::optional<PixelLayout> pixel_layout(const AVFrame& frame) {
  const AVPixFmtDescriptor* format = av_pix_fmt_desc_get(static_cast<AVPixelFormat>(frame.format));
  if (!format || (format->flags & kOtherwise) != 0 || frame.format == AV_PIX_FMT_UYYVYY411 ||
      format->log2_chroma_w > 1 || format->log2_chroma_h > 1)
    return std::nullopt;
  const int count = is_grey(*format) ? 1 : 3;
  const bool rgb = (format->flags & AV_PIX_FMT_FLAG_RGB) != 0;
  PixelLayout layout;
  for (int c = 0; c < count; ++c) {
    const AVComponentDescriptor& component = format->comp[c];
    if (component.depth != 8 || component.shift != 0) return std::nullopt;
    const bool colour = !rgb && (c == 1 || c == 2);
    layout.channels.push_back({component.plane, component.step, component.offset,
                               colour ? format->log2_chroma_w : 0,
                               colour ? format->log2_chroma_h : 0});
  }
  if (count == 1) {
    set_grey(frame, &layout);
  } else if (rgb) {
    for (int i = 0; i < 3; ++i) layout.matrix[i][i] = 1.0f;
  } else {
    set_yuv(frame, &layout);
  }
  return layout;
}

}  // namespace refavs
