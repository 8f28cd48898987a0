// Packets in, frames out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <utility>

#include "ffmpeg.h"

namespace refavs {

// Calls `use(FramePtr)` for each frame that `packet` (null: the end) completes. False: `use` said
// stop. `errors` counts what would not decode.
template <typename Use>
bool decode(AVCodecContext* codec, const AVPacket* packet, int64_t* errors, Use use) {
  bool sent = false;
  while (!sent) {
    const int status = avcodec_send_packet(codec, packet);
    sent = status != AVERROR(EAGAIN);
    if (status < 0 && sent && status != AVERROR_EOF) ++*errors;
    for (;;) {
      FramePtr frame = new_frame();
      const int received = avcodec_receive_frame(codec, frame.get());
      if (received == AVERROR(EAGAIN) || received == AVERROR_EOF) break;
      if (received < 0) {
        ++*errors;
        break;
      }
      if (!use(std::move(frame))) return false;
    }
  }
  return true;
}

inline bool is_damaged(const AVFrame& frame) {
  return (frame.flags & AV_FRAME_FLAG_CORRUPT) != 0 || frame.decode_error_flags != 0;
}

// `asked` threads for a decoder of pictures; 0: half of the cores, 4 at most.
inline int decoder_threads(int asked) {
  if (asked > 0) return asked;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, 1, 4);
}

}  // namespace refavs
