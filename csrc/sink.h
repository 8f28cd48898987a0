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

#include "mp4_file.h"
#include "picture_encoder.h"
#include "ring.h"
#include "sound_record.h"
#include "soundtrack.h"

namespace refavs {

struct SinkOptions : PictureFormat {
  std::string path;                           // ends in .mp4, .m4v or .mov
  std::string source;                         // the file whose sound is taken along; none if empty
  std::shared_ptr<const SoundRecord> record;  // or the live source's; none if null
};

// Picture times are those of the source's clock. Encodes in a thread of its own.
//
// While it is written it can be played as Mp4File says, and `path` is whole or not there. One
// thread at a time may call it.
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

  // Ends the file and gives it its name. Throws SinkError; then what was written is left as a part.
  void close();
  // Gives up. `keep`: what was written is left as a part, else only where the disk was at fault.
  void abort(bool keep = false);

  std::string encoder() const { return encoder_->name(); }
  // "copied", "encoded", or "none".
  std::string sound() const;
  // Where it is written until it is closed.
  const std::string& part() const { return part_; }
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Item {
    std::vector<uint8_t> picture;
    double pts_s = 0.0;
  };

  void open_file();
  void run();
  void encode(const Item& item);
  void mux_picture(AVPacket* packet);
  void mux_sound(AVPacket* packet);
  void finish_tracks();
  bool failed();
  void rethrow();

  const SinkOptions options_;
  std::vector<std::string> notes_;
  std::unique_ptr<Soundtrack> sound_;
  std::unique_ptr<PictureEncoder> encoder_;
  std::unique_ptr<Mp4File> file_;
  std::string part_;
  AVStream* picture_stream_ = nullptr;
  AVStream* sound_stream_ = nullptr;
  bool open_ = false;

  double last_pts_s_ = 0.0;
  int64_t pictures_ = 0;
  double encoded_s_ = -1.0;  // of the thread: the last picture's time

  Ring<Item> items_;
  std::mutex mutex_;  // error_
  std::exception_ptr error_;
  std::thread thread_;
};

}  // namespace refavs
