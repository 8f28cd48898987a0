// Decoding in hardware, where FFmpeg has it.
#pragma once

#include <memory>
#include <string>

#include "ffmpeg.h"

namespace refavs {

struct BufferFreer {
  void operator()(AVBufferRef* buffer) const { av_buffer_unref(&buffer); }
};
using BufferPtr = std::unique_ptr<AVBufferRef, BufferFreer>;

// Without a name it does nothing.
class HardwareDecoder {
 public:
  // `name`: cuda, vaapi, qsv, drm, ... Throws IngestError where FFmpeg does not know it.
  explicit HardwareDecoder(const std::string& name);

  // Before the decoder is opened. Throws IngestError where the device does not open or the codec is
  // not decoded by it: what was asked for is never left out in silence.
  void attach(AVCodecContext* codec);

  // The picture in main memory. Throws IngestError.
  FramePtr fetch(FramePtr frame) const;

 private:
  std::string name_;
  AVHWDeviceType type_ = AV_HWDEVICE_TYPE_NONE;
  BufferPtr device_;
};

}  // namespace refavs
