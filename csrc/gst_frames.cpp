#include "gst_frames.h"

#include <limits>
#include <memory>

#include "error.h"

namespace refavs {
namespace {

// swscale's vector code may read past the last row by less than this.
constexpr uintptr_t kOverread = 64;
constexpr uintptr_t kPage = 4096;

template <typename Format>
struct Named {
  const char* name;  // GStreamer's
  Format format;
};

constexpr Named<AVPixelFormat> kPixelFormats[] = {
    {"I420", AV_PIX_FMT_YUV420P},       {"NV12", AV_PIX_FMT_NV12},
    {"NV21", AV_PIX_FMT_NV21},          {"YUY2", AV_PIX_FMT_YUYV422},
    {"UYVY", AV_PIX_FMT_UYVY422},       {"Y42B", AV_PIX_FMT_YUV422P},
    {"Y444", AV_PIX_FMT_YUV444P},       {"I420_10LE", AV_PIX_FMT_YUV420P10LE},
    {"P010_10LE", AV_PIX_FMT_P010LE},   {"RGB", AV_PIX_FMT_RGB24},
    {"BGR", AV_PIX_FMT_BGR24},          {"RGBx", AV_PIX_FMT_RGB0},
    {"BGRx", AV_PIX_FMT_BGR0},          {"xRGB", AV_PIX_FMT_0RGB},
    {"xBGR", AV_PIX_FMT_0BGR},          {"RGBA", AV_PIX_FMT_RGBA},
    {"BGRA", AV_PIX_FMT_BGRA},          {"ARGB", AV_PIX_FMT_ARGB},
    {"ABGR", AV_PIX_FMT_ABGR},          {"GRAY8", AV_PIX_FMT_GRAY8},
    {"GRAY16_LE", AV_PIX_FMT_GRAY16LE},
};

constexpr Named<AVSampleFormat> kSampleFormats[] = {
    {"F32LE", AV_SAMPLE_FMT_FLT}, {"S16LE", AV_SAMPLE_FMT_S16}, {"S32LE", AV_SAMPLE_FMT_S32},
    {"F64LE", AV_SAMPLE_FMT_DBL}, {"U8", AV_SAMPLE_FMT_U8},
};

template <typename Format, size_t kCount>
Format named_format(const Named<Format> (&known)[kCount], const gst::Structure* structure,
                    const std::string& shown, const std::string& mend) {
  const gst::Library& lib = gst::Library::get();
  const char* name = structure ? lib.structure_get_string(structure, "format") : nullptr;
  for (const Named<Format>& one : known)
    if (name && std::string(name) == one.name) return one.format;
  throw IngestError(shown + ": its format '" + (name ? name : "?") + "' is not known here; " +
                    mend);
}

AVColorSpace matrix_of(int matrix) {
  switch (matrix) {
    case gst::kMatrixRgb:
      return AVCOL_SPC_RGB;
    case gst::kMatrixFcc:
      return AVCOL_SPC_FCC;
    case gst::kMatrixBt709:
      return AVCOL_SPC_BT709;
    case gst::kMatrixBt601:
      return AVCOL_SPC_SMPTE170M;
    case gst::kMatrixSmpte240m:
      return AVCOL_SPC_SMPTE240M;
    case gst::kMatrixBt2020:
      return AVCOL_SPC_BT2020_NCL;
    default:
      return AVCOL_SPC_UNSPECIFIED;
  }
}

AVColorRange range_of(int range) {
  if (range == gst::kRangeFull) return AVCOL_RANGE_JPEG;
  return range == gst::kRangeLimited ? AVCOL_RANGE_MPEG : AVCOL_RANGE_UNSPECIFIED;
}

// A buffer whose memory can be read as long as this lives.
struct Mapped {
  GstPtr<gst::Buffer> buffer;
  gst::Map map = {};

  static std::unique_ptr<Mapped> of(gst::Buffer* buffer) {
    auto mapped = std::make_unique<Mapped>();
    if (!buffer || !gst::Library::get().buffer_map(buffer, &mapped->map, gst::kMapRead))
      return nullptr;
    mapped->buffer = GstPtr<gst::Buffer>::share(buffer);
    return mapped;
  }
  ~Mapped() {
    if (buffer) gst::Library::get().buffer_unmap(buffer.get(), &map);
  }
};

// Hands the memory over to the frame.
void keep(std::unique_ptr<Mapped> mapped, AVFrame* frame) {
  const auto forget = [](void* opaque, uint8_t*) { delete static_cast<Mapped*>(opaque); };
  frame->buf[0] = av_buffer_create(mapped->map.data, mapped->map.size, forget, mapped.get(),
                                   AV_BUFFER_FLAG_READONLY);
  if (!frame->buf[0]) throw std::bad_alloc();
  mapped.release();
}

// Whether all rows of all planes lie inside of `size` bytes.
bool fits(AVPixelFormat format, int width, int height, const size_t* offset, const int* stride,
          size_t size) {
  const int shift = av_pix_fmt_desc_get(format)->log2_chroma_h;
  for (int plane = 0; plane < av_pix_fmt_count_planes(format); ++plane) {
    const int row = av_image_get_linesize(format, width, plane);
    const int rows = plane == 0 ? height : AV_CEIL_RSHIFT(height, shift);
    if (row <= 0 || stride[plane] < row) return false;
    const size_t end = offset[plane] + size_t(stride[plane]) * (rows - 1) + row;
    if (end > size) return false;
  }
  return true;
}

}  // namespace

void GstFrames::read_picture_format(gst::Caps* caps) {
  const gst::Library& lib = gst::Library::get();
  const std::string mend = "add videoconvert before its end";
  pixel_format_ = named_format(kPixelFormats, lib.caps_get_structure(caps, 0), shown_, mend);
  gst::VideoInfo* info = lib.video_info_new();
  const bool read = lib.video_info_from_caps(info, caps) != 0;
  if (read) video_ = *info;
  lib.video_info_free(info);
  if (!read || video_.width <= 0 || video_.height <= 0)
    throw IngestError(shown_ + ": its pictures have no size; " + mend);
  frame_rate_ =
      video_.rate_num > 0 && video_.rate_den > 0 ? double(video_.rate_num) / video_.rate_den : 0.0;
  if (video_.aspect_num > 0 && video_.aspect_den > 0)
    pixel_aspect_ = {video_.aspect_num, video_.aspect_den};
  picture_caps_ = GstPtr<gst::Caps>::share(caps);
}

FramePtr GstFrames::picture(gst::Sample* sample) {
  const gst::Library& lib = gst::Library::get();
  gst::Caps* caps = lib.sample_get_caps(sample);
  if (!caps) return nullptr;
  if (caps != picture_caps_.get()) read_picture_format(caps);
  gst::Buffer* buffer = lib.sample_get_buffer(sample);
  std::unique_ptr<Mapped> mapped = Mapped::of(buffer);
  if (!mapped) return nullptr;
  const gst::VideoMeta* meta = lib.buffer_get_video_meta(buffer);
  const size_t* offset = meta ? meta->offset : video_.offset;
  const int* stride = meta ? meta->stride : video_.stride;
  uint8_t* const data = mapped->map.data;
  const size_t size = mapped->map.size;
  if (!fits(pixel_format_, video_.width, video_.height, offset, stride, size)) return nullptr;
  FramePtr frame = new_frame();
  frame->format = pixel_format_;
  frame->width = video_.width;
  frame->height = video_.height;
  frame->colorspace = matrix_of(video_.matrix);
  frame->color_range = range_of(video_.range);
  frame->sample_aspect_ratio = pixel_aspect_;
  for (int plane = 0; plane < av_pix_fmt_count_planes(pixel_format_); ++plane) {
    frame->data[plane] = data + offset[plane];
    frame->linesize[plane] = stride[plane];
  }
  keep(std::move(mapped), frame.get());
  // A device's memory may end with its page, and nothing be behind it.
  const uintptr_t end = reinterpret_cast<uintptr_t>(data) + size;
  if ((end - 1) / kPage != (end - 1 + kOverread) / kPage) return copy_of(*frame);
  return frame;
}

void GstFrames::read_sound_format(gst::Caps* caps) {
  const gst::Library& lib = gst::Library::get();
  const gst::Structure* structure = lib.caps_get_structure(caps, 0);
  const std::string mend = "add audioconvert before its end";
  sample_format_ = named_format(kSampleFormats, structure, shown_, mend);
  const char* layout = lib.structure_get_string(structure, "layout");
  if (!lib.structure_get_int(structure, "rate", &rate_hz_) ||
      !lib.structure_get_int(structure, "channels", &channels_) || rate_hz_ <= 0 ||
      channels_ <= 0 || (layout && std::string(layout) != "interleaved"))
    throw IngestError(shown_ + ": its sound is not interleaved, or has no rate; " + mend);
  sound_caps_ = GstPtr<gst::Caps>::share(caps);
}

FramePtr GstFrames::sound(gst::Sample* sample) {
  const gst::Library& lib = gst::Library::get();
  gst::Caps* caps = lib.sample_get_caps(sample);
  if (!caps) return nullptr;
  if (caps != sound_caps_.get()) read_sound_format(caps);
  std::unique_ptr<Mapped> mapped = Mapped::of(lib.sample_get_buffer(sample));
  if (!mapped) return nullptr;
  const size_t step = size_t(av_get_bytes_per_sample(sample_format_)) * channels_;
  const size_t count = mapped->map.size / step;
  if (count == 0 || count > size_t(std::numeric_limits<int>::max()) / step) return nullptr;
  FramePtr frame = new_frame();
  frame->format = sample_format_;
  frame->sample_rate = rate_hz_;
  frame->nb_samples = static_cast<int>(count);
  set_default_channels(frame.get(), channels_);
  frame->data[0] = mapped->map.data;
  frame->extended_data = frame->data;
  frame->linesize[0] = static_cast<int>(count * step);
  keep(std::move(mapped), frame.get());
  return frame;
}

double running_time_s(gst::Sample* sample) {
  const gst::Library& lib = gst::Library::get();
  const gst::Buffer* buffer = lib.sample_get_buffer(sample);
  const gst::Segment* segment = lib.sample_get_segment(sample);
  constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  if (!buffer || !segment || buffer->pts_ns == gst::kNoTime || segment->format != gst::kFormatTime)
    return kUnknown;
  const uint64_t time_ns = lib.segment_to_running_time(segment, gst::kFormatTime, buffer->pts_ns);
  return time_ns == gst::kNoTime ? kUnknown : static_cast<double>(time_ns) * 1e-9;
}

bool is_corrupted(gst::Sample* sample) {
  const gst::Buffer* buffer = gst::Library::get().sample_get_buffer(sample);
  return buffer && (buffer->object.flags & gst::kBufferCorrupted) != 0;
}

}  // namespace refavs
