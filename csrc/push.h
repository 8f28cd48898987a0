// Pictures and a source's sound to a server or a player, as they come.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "notices.h"
#include "picture_encoder.h"
#include "push_connection.h"
#include "push_target.h"
#include "ring.h"
#include "sound_record.h"
#include "soundtrack.h"

namespace refavs {

struct PushOptions : PictureFormat {
  std::string url;
  std::string source;                         // the file whose sound is taken along; none if empty
  std::shared_ptr<const SoundRecord> record;  // or the live source's; none if null
};

struct PushCounters {
  int64_t sent = 0;     // pictures
  int64_t dropped = 0;  // pictures that there was no room or no receiver for
  int64_t reconnects = 0;
};

// Encodes and sends in a thread of its own, which a receiver may hold up: whoever writes never
// waits. One that is not there, breaks off or takes nothing for 5 s is connected to again, after
// 0.25 s and then twice as long up to 8 s, for ever; the notices say so once.
//
// One thread at a time may write; the rest may be called from any.
class Push {
 public:
  // Throws SinkError for a URL that is none, or where nothing can be encoded; IngestError if
  // `source` cannot be read.
  explicit Push(const PushOptions& options);
  ~Push();
  Push(const Push&) = delete;
  Push& operator=(const Push&) = delete;

  // Copies [height, width, 3] RGB rows `stride` bytes apart. False: the picture was dropped. Throws
  // SinkError where times do not rise.
  bool write(const uint8_t* rgb, int64_t stride, double pts_s);
  // Sends what waits, as far as the receiver takes it, and ends within a second.
  void close();

  const std::string& shown() const { return target_.shown; }
  PushCounters counters() const;
  std::vector<Notice> take_notices() { return notices_.take(); }
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Item {
    std::vector<uint8_t> picture;
    double pts_s = 0.0;
  };

  void run();
  void connected();
  void feed(PushConnection* connection);
  void drop_queued();
  void lost(const std::string& reason);
  bool pause(double seconds);

  const PushOptions options_;
  const PushTarget target_;
  std::vector<std::string> notes_;
  std::unique_ptr<Soundtrack> sound_;
  Notices notices_;
  Deadline deadline_;
  double last_pts_s_ = -1.0;

  // Of the thread.
  bool was_connected_ = false;
  bool said_lost_ = false;
  double lost_at_s_ = 0.0;

  mutable std::mutex mutex_;  // those below
  std::condition_variable woken_;
  bool closed_ = false;
  bool connected_ = false;
  double now_s_ = 0.0;  // of the last picture
  PushCounters counters_;

  Ring<Item> items_;
  std::mutex join_mutex_;  // two may close at once
  std::thread thread_;
};

}  // namespace refavs
