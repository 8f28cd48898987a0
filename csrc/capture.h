// One live source, opened: its pictures and its sound, decoded, as they come.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "address.h"
#include "ffmpeg.h"
#include "source.h"

namespace refavs {

struct CaptureOptions {
  double latency_s = 0.2;    // how much of a network stream may be held back to put it in order
  double silence_s = 5.0;    // a source that sends nothing for so long is lost
  int decode_threads = 0;    // for pictures; 0: half of the cores, 4 at most
  std::string hwaccel;       // FFmpeg's name of a hardware decoder; empty: none
  std::string camera_size;   // WIDTHxHEIGHT, for a camera; empty: chosen from what it offers
  double camera_rate = 0.0;  // frames a second, for a camera; 0: chosen from what it offers
};

// Takes what a capture reads. arrived() and sound() are called on the thread of Capture::run(),
// picture() on that or on one more. Times are seconds on the source's own clock; NaN: unknown.
class CaptureListener {
 public:
  virtual ~CaptureListener() = default;
  // A packet with this time has come, and is not decoded yet.
  virtual void arrived(double pts_s) = 0;
  virtual void picture(FramePtr frame, double pts_s) = 0;
  virtual void sound(const AVFrame& frame, double pts_s) = 0;
  // Packets or pictures that are damaged.
  virtual void corrupt(int64_t pictures, int64_t sounds) = 0;
  // Packets of pictures that were skipped because decoding is too slow.
  virtual void late(int64_t pictures) = 0;
};

class Capture {
 public:
  virtual ~Capture() = default;
  virtual const SourceInfo& info() const = 0;
  // Reads until the source ends or stop() is called; then returns, with no thread of its own left.
  // Throws IngestError where the source breaks: unplugged, cut off, silent for silence_s, or over
  // though it is live.
  virtual void run(CaptureListener* listener) = 0;
  // Makes run() return within 100 ms. From any thread.
  virtual void stop() = 0;
};

// Opens an address with FFmpeg, or a pipeline with GStreamer. Where `stopped` becomes true, the
// attempt ends within 100 ms. Throws IngestError.
std::unique_ptr<Capture> open_capture(const Address& address, Wanted wanted,
                                      const CaptureOptions& options,
                                      const std::atomic<bool>& stopped);

}  // namespace refavs
