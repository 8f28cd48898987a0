// Pictures and a source's sound into an MP4 file.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ffmpeg.h"
#include "ring.h"
#include "soundtrack.h"

namespace refavs {

struct SinkOptions {
  std::string path;  // ends in .mp4, .m4v or .mov
  int width = 0;
  int height = 0;
  double frame_rate = 0.0;  // what to expect; each picture brings its own time
  std::string source;       // its sound is taken along; none if empty
  AVRational pixel_aspect = {1, 1};
};

// H.264 (libx264, else any encoder of it that opens, else MPEG-4 part 2 with a note), yuv420p, in
// MP4 with the index in front. Odd sides grow by one pixel that repeats the edge. Picture times are
// kept to 1/90000 s on the source's clock. Encodes in a thread of its own.
//
// Writes to a hidden file beside `path` and renames it when closed, so `path` is whole or not
// there. One thread at a time may call it.
class Sink {
 public:
  // Throws SinkError; IngestError if `source` cannot be read.
  explicit Sink(const SinkOptions& options);
  // Without a close() before, what was written is removed.
  ~Sink();
  Sink(const Sink&) = delete;
  Sink& operator=(const Sink&) = delete;

  // Copies [height, width, 3] RGB rows `stride` bytes apart. Times must rise. False: no room within
  // `timeout`, nothing was taken. Throws SinkError, also for what went wrong in the thread.
  bool write(const uint8_t* rgb, int64_t stride, double pts_s, std::chrono::milliseconds timeout);

  // Ends the file and gives it its name. Throws SinkError; then nothing is left behind.
  void close();
  // Gives up: nothing is left behind.
  void abort();

  std::string encoder() const { return encoder_->codec->name; }
  // "copied", "encoded", or "none".
  std::string sound() const;
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Item {
    std::vector<uint8_t> rgb;
    int64_t pts = 0;
  };
  struct OutputCloser {
    void operator()(AVFormatContext* context) const;
  };

  void open_encoder();
  void open_file();
  void run();
  void encode(Item item);
  void drain();
  void mux(AVPacket* packet, AVStream* stream, AVRational time_base);
  void finish_file();
  void remove_partial();
  void rethrow();

  SinkOptions options_;
  int coded_width_;
  int coded_height_;
  std::string partial_;
  std::vector<std::string> notes_;
  std::unique_ptr<Soundtrack> sound_;
  CodecPtr encoder_;
  std::unique_ptr<AVFormatContext, OutputCloser> output_;
  AVStream* video_stream_ = nullptr;
  AVStream* sound_stream_ = nullptr;
  SwsPtr sws_;
  FramePtr frame_;
  bool open_ = false;

  double last_pts_s_ = 0.0;
  int64_t pictures_ = 0;

  // Of the thread.
  int64_t last_pts_ = 0;
  int64_t interval_ = 0;

  Ring<Item> items_;
  std::mutex mutex_;  // error_
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace refavs
