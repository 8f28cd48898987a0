// RGB pictures to H.264.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "ffmpeg.h"

namespace refavs {

struct PictureFormat {
  int width = 0;
  int height = 0;
  double frame_rate = 0.0;  // what to expect; each picture brings its own time
  AVRational pixel_aspect = {1, 1};
};

// A copy of [height, width, 3] RGB rows `stride` bytes apart whose odd sides have grown by one
// pixel that repeats the edge.
std::vector<uint8_t> padded(const PictureFormat& format, const uint8_t* rgb, int64_t stride);

enum class Encoding {
  kFile,  // small for its quality
  kLive,  // without delay, a bounded rate, a key frame a second
};

// libx264, else any encoder of H.264 that opens, else MPEG-4 part 2 with a note; yuv420p. Picture
// times are kept to 1/90000 s. Not thread-safe.
class PictureEncoder {
 public:
  using Write = std::function<void(AVPacket* packet)>;

  // `name` stands in messages. `global_header`: what the container wants. Throws SinkError.
  PictureEncoder(const std::string& name, const PictureFormat& format, Encoding encoding,
                 bool global_header);

  const char* name() const { return codec_->codec->name; }
  const std::vector<std::string>& notes() const { return notes_; }
  void describe(AVStream* stream) const;
  AVRational time_base() const { return codec_->time_base; }
  // From one picture to the next, as expected.
  double interval_s() const;

  // `picture`: padded(). Times must rise.
  void encode(const std::vector<uint8_t>& picture, double pts_s, const Write& write);
  // The end: what is still held back.
  void flush(const Write& write);

 private:
  void open(bool global_header);
  void prepare();
  void drain(const Write& write);

  std::string name_;
  PictureFormat format_;
  Encoding encoding_;
  int coded_width_;
  int coded_height_;
  std::vector<std::string> notes_;
  CodecPtr codec_;
  SwsPtr sws_;
  FramePtr frame_;
  double key_s_ = -1e9;  // of the last key frame that was asked for
};

}  // namespace refavs
