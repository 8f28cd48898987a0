#include "hwaccel.h"

#include "error.h"

namespace refavs {
namespace {

std::string known_types() {
  std::string names;
  for (AVHWDeviceType type = av_hwdevice_iterate_types(AV_HWDEVICE_TYPE_NONE);
       type != AV_HWDEVICE_TYPE_NONE; type = av_hwdevice_iterate_types(type))
    names += (names.empty() ? "" : ", ") + std::string(av_hwdevice_get_type_name(type));
  return names.empty() ? "none" : names;
}

// The pixel format in which the codec's decoder leaves pictures on a device; NONE if it has none.
AVPixelFormat format_on_device(const AVCodec* decoder, AVHWDeviceType type) {
  for (int i = 0;; ++i) {
    const AVCodecHWConfig* config = avcodec_get_hw_config(decoder, i);
    if (!config) return AV_PIX_FMT_NONE;
    if ((config->methods & AV_CODEC_HW_CONFIG_METHOD_HW_DEVICE_CTX) && config->device_type == type)
      return config->pix_fmt;
  }
}

AVPixelFormat choose_format(AVCodecContext* codec, const AVPixelFormat* offered) {
  const auto wanted = static_cast<AVPixelFormat>(reinterpret_cast<intptr_t>(codec->opaque));
  for (const AVPixelFormat* format = offered; *format != AV_PIX_FMT_NONE; ++format)
    if (*format == wanted) return wanted;
  return AV_PIX_FMT_NONE;
}

}  // namespace

HardwareDecoder::HardwareDecoder(const std::string& name) : name_(name) {
  if (name.empty()) return;
  type_ = av_hwdevice_find_type_by_name(name.c_str());
  if (type_ == AV_HWDEVICE_TYPE_NONE)
    throw IngestError("hwaccel '" + name +
                      "' is not known to this FFmpeg; it has: " + known_types());
}

void HardwareDecoder::attach(AVCodecContext* codec) {
  if (type_ == AV_HWDEVICE_TYPE_NONE) return;
  const AVPixelFormat format = format_on_device(codec->codec, type_);
  if (format == AV_PIX_FMT_NONE)
    throw IngestError("hwaccel '" + name_ + "' does not decode " +
                      avcodec_get_name(codec->codec_id) + "; leave it out");
  AVBufferRef* device = nullptr;
  const int status = av_hwdevice_ctx_create(&device, type_, nullptr, nullptr, 0);
  if (status < 0)
    throw IngestError("hwaccel '" + name_ + "': no such device here (" + ffmpeg_message(status) +
                      "); check its driver, or leave it out");
  device_.reset(device);
  codec->hw_device_ctx = av_buffer_ref(device);
  if (!codec->hw_device_ctx) throw std::bad_alloc();
  codec->opaque = reinterpret_cast<void*>(static_cast<intptr_t>(format));
  codec->get_format = &choose_format;
}

FramePtr HardwareDecoder::fetch(FramePtr frame) const {
  if (!frame->hw_frames_ctx) return frame;
  FramePtr fetched = new_frame();
  const int status = av_hwframe_transfer_data(fetched.get(), frame.get(), 0);
  if (status < 0 || av_frame_copy_props(fetched.get(), frame.get()) < 0)
    throw IngestError("hwaccel '" + name_ + "': a picture cannot be fetched from the device (" +
                      ffmpeg_message(status) + "); leave it out");
  return fetched;
}

}  // namespace refavs
