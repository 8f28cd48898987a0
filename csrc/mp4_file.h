// An MP4 file that can be played however its writing ends.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ffmpeg.h"

namespace refavs {

struct OutputCloser {
  void operator()(AVFormatContext* context) const;
};
using OutputPtr = std::unique_ptr<AVFormatContext, OutputCloser>;

// While it is written it is a fragmented MP4 beside its name, NAME.part.mp4 for NAME.mp4 (or
// NAME.part2.mp4 and so on: one that is there is left alone), with a fragment a second at least, so
// a process that is killed leaves all but the last moments. finish() copies it into an ordinary MP4
// with the index in front, under its own name.
//
// Times within the part are those given, later by the sound's priming where that begins before 0.
// Not thread-safe.
class Mp4File {
 public:
  // Makes the part. Throws SinkError.
  explicit Mp4File(const std::string& path);
  // Without finish() or keep() before, the part is removed.
  ~Mp4File();
  Mp4File(const Mp4File&) = delete;
  Mp4File& operator=(const Mp4File&) = delete;

  // To be described before begin().
  AVStream* add_stream();
  void begin();
  // Takes the packet, whose times are in `time_base`.
  void write(AVPacket* packet, const AVStream* stream, AVRational time_base);

  // Gives the file its name. After a SinkError the part is left.
  void finish();
  // Leaves the part, if anything is in it.
  void keep();

  const std::string& part() const { return part_; }

 private:
  // Of a stream, in its time base.
  struct Track {
    int64_t first_dts = AV_NOPTS_VALUE;
    int64_t last_dts = AV_NOPTS_VALUE;
    int64_t last_duration = 0;
    int64_t packets = 0;
  };

  bool holds_something() const;
  void end_part();
  void copy_to(const std::string& target);
  [[noreturn]] void fail(const std::string& what, int status) const;

  const std::string path_;
  std::string part_;  // empty: none is to be removed
  bool has_header_ = false;
  int64_t begun_ = 0;  // its size before the first packet; 0 where the header waits for packets
  OutputPtr output_;
  std::vector<Track> tracks_;
  bool ended_ = false;
};

}  // namespace refavs
