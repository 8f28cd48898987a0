// One connection to where an overlay is pushed.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "ffmpeg.h"
#include "picture_encoder.h"
#include "push_target.h"
#include "soundtrack.h"

namespace refavs {

// Until when FFmpeg may wait for the network.
class Deadline {
 public:
  // Of what comes next; from the thread that waits.
  void within(double seconds);
  bool is_over() const;
  // By close_within().
  bool is_closed() const;
  // From any thread: now, or at the end of `seconds` if it is not over before.
  void close_within(double seconds);

  AVIOInterruptCB callback() const;

 private:
  std::atomic<double> until_s_{0.0};
  std::atomic<double> closed_s_{1e18};
};

// Sends what is encoded by an encoder of its own, so a receiver begins with a key frame; times
// begin at 0. Not thread-safe.
class PushConnection {
 public:
  // Connects. `sound` may be null. Throws SinkError with the reason alone.
  PushConnection(const PushTarget& target, const PictureFormat& format, Soundtrack* sound,
                 Deadline* deadline);
  // Says goodbye where the deadline lets it.
  ~PushConnection();

  // The picture, and the sound up to it. Throws SinkError with the reason alone.
  void send(const std::vector<uint8_t>& picture, double pts_s);

 private:
  struct Closer {
    void operator()(AVFormatContext* context) const;
  };

  void open(const PushTarget& target);
  void write(AVPacket* packet, AVStream* stream, AVRational time_base);
  [[noreturn]] void fail(int status) const;

  Deadline* const deadline_;
  Soundtrack* const sound_;
  std::unique_ptr<AVFormatContext, Closer> output_;
  std::unique_ptr<PictureEncoder> encoder_;
  AVStream* picture_stream_ = nullptr;
  AVStream* sound_stream_ = nullptr;
  bool begun_ = false;  // its header is sent
  bool sends_ = false;
  double begin_s_ = 0.0;  // what is 0 to the receiver
};

}  // namespace refavs
