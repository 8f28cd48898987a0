// A camera and a microphone as a stream of frames, each with the sound that ends at it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "capture.h"
#include "ingest.h"
#include "live_feed.h"
#include "live_sound.h"
#include "mel_track.h"
#include "notices.h"
#include "picture.h"
#include "sound_record.h"

namespace refavs {

// The beginning is the first frame.
struct LiveOptions : FrameOptions {
  // An address; "none"; or "auto": the camera's own sound, where it has none the default
  // microphone, where there is none no sound.
  std::string microphone = "auto";
  CaptureOptions capture;
};

struct LiveCounters {
  FeedCounters camera;
  FeedCounters microphone;   // zeros where the camera's own sound is used
  int64_t delivered = 0;     // frames handed out
  int64_t dropped = 0;       // pictures decoded that newer ones replaced before they were asked for
  int64_t repaired_pts = 0;  // frames whose time was not after the last one's
  int64_t sound_late = 0;    // frames whose sound had not come when they had to go
  int64_t queue_depth = 0;   // pictures that wait, for their sound or to be asked for
  int64_t audio_gap_samples = 0;      // 16 kHz samples without sound
  int64_t audio_overlap_samples = 0;  // 16 kHz samples that came twice and were left out
  double camera_drift_ppm = 0.0;      // how much faster than ours the device's clock runs
  double sound_drift_ppm = 0.0;
  double sound_error_s = 0.0;  // between where sound belongs and where it is
};

// The stream's clock is the machine's monotonic one, from 0 when this is made; a frame's time is
// when it was captured, as far as its source tells. A frame is ready as soon as its sound is there,
// or latency_s after its capture. Who takes less time for one than the camera gets them one after
// the other, also where their sound comes in bursts; to who is slower the newest that is ready
// goes, and those before it are dropped.
//
// A lost source is opened again in the background; frames go on with what there is. Sound that is
// missing is counted, and a window that has none at all comes as no sound.
//
// One thread may call next() while others call close() or read counters() and notices().
class LiveIngest {
 public:
  using Status = Ingest::Status;

  // Throws IngestError for an address that is none. Sources are opened in the background.
  LiveIngest(const std::string& camera, const LiveOptions& options);
  ~LiveIngest();
  LiveIngest(const LiveIngest&) = delete;
  LiveIngest& operator=(const LiveIngest&) = delete;

  // Waits for the first picture, and until the microphone is open. Throws IngestError if a source
  // that was asked for cannot be opened.
  Status wait_first(std::chrono::milliseconds timeout);

  // The newest frame. kEnd: the camera has ended. Throws IngestError.
  Status next(Frame* frame, std::chrono::milliseconds timeout);

  // Ends within a second from any state, with all threads. May be called again.
  void close();

  const LiveOptions& options() const { return options_; }
  const std::string& path() const { return camera_address_.shown; }
  int width() const { return width_.load(); }
  int height() const { return height_.load(); }
  // Of the camera; nothing before wait_first().
  SourceInfo info() const;
  // Whether sound can come.
  bool has_audio() const;
  // The sound from when this is first called on, for those who write it down.
  std::shared_ptr<SoundRecord> record_sound();
  // The stream's clock, and what time.monotonic() was when it read 0.
  double now_s() const;
  double origin_s() const;

  LiveCounters counters() const;
  std::vector<Notice> take_notices() { return notices_.take(); }

 private:
  struct Captured {
    FramePtr frame;
    double at_s = 0.0;
  };

  std::unique_ptr<LiveFeed> open_feed(const Address& address, Wanted wanted);
  void took_picture(FramePtr frame, double at_s);
  void took_sound(bool from_microphone, const AVFrame& frame, double at_s);
  void listen_to_microphone(bool microphone);
  void restart_sound();
  bool microphone_settled();
  int64_t hop_of(const Captured& captured) const;
  Status wait_next(Frame* frame, std::chrono::steady_clock::time_point until);
  bool has_its_sound(const Captured& captured);
  bool is_ready(const Captured& captured);
  std::optional<Captured> take_ready(bool newest);
  double interval_s() const;
  bool sound_is_alive() const;
  Frame finish(Captured captured);
  void changed();

  const std::chrono::steady_clock::time_point origin_;
  const LiveOptions options_;
  const Address camera_address_;
  Notices notices_;
  MelTrack mel_;
  std::mutex sound_mutex_;  // those below
  LiveSound sound_;
  std::shared_ptr<SoundRecord> record_;
  std::unique_ptr<LiveSound> recorder_;  // writes the record
  bool from_microphone_ = false;         // the camera's sound, if it has any, is left out
  std::atomic<double> sound_came_s_{-1e9};
  std::atomic<int> width_{0};
  std::atomic<int> height_{0};

  // Of the thread that calls next().
  std::shared_ptr<PictureConverter> converter_;
  int64_t next_index_ = 0;
  double first_at_s_ = 0.0;
  std::chrono::steady_clock::time_point returned_at_;
  double away_s_ = 0.0;  // that the caller has been elsewhere since the last frame
  double busy_s_ = 0.0;  // the same of the frames before, in the mean
  std::vector<std::string> default_microphones_;  // still to be tried
  bool said_no_sound_ = false;

  mutable std::mutex mutex_;  // those below
  std::condition_variable changed_;
  std::deque<Captured> pictures_;  // in order; none is ready before one that is older
  double last_at_s_ = -1e9;
  bool closed_ = false;
  LiveCounters counters_;

  // Last, so that their threads end first. Made and replaced by the thread that calls next().
  mutable std::mutex feeds_mutex_;
  std::shared_ptr<LiveFeed> camera_;
  std::shared_ptr<LiveFeed> microphone_;
};

}  // namespace refavs
