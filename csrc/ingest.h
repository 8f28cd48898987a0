// A source read as fast as it is used: a stream of frames, each with the sound that ends at it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "logmel.h"
#include "mel_track.h"
#include "packet_router.h"
#include "picture.h"
#include "ring.h"
#include "source.h"

namespace refavs {

// What is asked of the frames of any source.
struct FrameOptions {
  int size = 0;  // S: side of the tensor
  Normalization normalization;
  double audio_offset_s = 0.0;  // the sound's window ends this long after the frame
  int64_t max_frames = -1;      // no limit if negative
  double duration_s = -1.0;     // frames within this time of the beginning; no limit if negative
};

// The beginning is 0 on the source's clock.
struct IngestOptions : FrameOptions {
  int decode_threads = 0;  // for the video decoder; 0: half of the cores, 4 at most
  // May be null. Once it is true, an Ingest that is being opened gives up.
  std::shared_ptr<const std::atomic<bool>> stopped;
};

struct Frame {
  int64_t index = 0;  // 0, 1, 2, ... as delivered
  double pts_s = 0.0;
  Picture picture;
  bool has_audio = false;
  MelPatch sound;

  int64_t hop = 0;  // the last 10 ms hop at or before pts_s + audio_offset_s
};

struct IngestCounters {
  int64_t decoded = 0;                // pictures decoded, delivered or not
  int64_t delivered = 0;              // frames handed out
  int64_t corrupt = 0;                // pictures damaged, packets cut off or not to be decoded
  int64_t corrupt_audio = 0;          // the same for sound
  int64_t read_errors = 0;            // places where the container could not be read
  int64_t missing_pictures = 0;       // about how many the container announced beyond its end
  int64_t repaired_pts = 0;           // frames whose time was missing or not after the last one's
  int64_t audio_gap_samples = 0;      // 16 kHz samples without sound up to where the sound ends
  int64_t audio_overlap_samples = 0;  // samples of the source that came twice and were trimmed
};

// Demuxes, decodes video and decodes audio in three threads of its own. A stream of the network
// that breaks off gives what it has sent, then an error. Every frame is delivered: where the caller
// is slow, the threads wait. Pictures are converted by who asks for them. The clock reads 0 where
// the earlier of the two streams begins; hops are at multiples of 10 ms on it.
//
// One thread may call next() while others read counters() or call close().
class Ingest {
 public:
  enum class Status { kFrame, kTimeout, kEnd };

  // A file, a stream of the network or lavfi; what is a device is live, and not for this. Throws
  // IngestError.
  Ingest(const Address& address, const IngestOptions& options);
  ~Ingest();
  Ingest(const Ingest&) = delete;
  Ingest& operator=(const Ingest&) = delete;

  // Waits for the first frame, after which width() and height() are certain. kEnd: there is none
  // within duration_s. Throws IngestError if nothing in the file decodes.
  Status wait_first(std::chrono::milliseconds timeout);

  // The next frame. Throws IngestError.
  Status next(Frame* frame, std::chrono::milliseconds timeout);

  // Stops the threads and waits for them. May be called again, and while next() waits: that ends.
  void close();

  const std::string& path() const { return source_.path(); }
  const SourceInfo& info() const { return source_.info(); }
  bool has_audio() const { return info().has_audio; }
  bool is_file() const { return address_.kind == AddressKind::kFile; }
  const IngestOptions& options() const { return options_; }
  int width() const { return width_.load(); }
  int height() const { return height_.load(); }
  IngestCounters counters() const;

 private:
  using Work = void (Ingest::*)();
  void run(Work work);
  void keep(std::exception_ptr error);
  void demux();
  void decode_video();
  void decode_audio();
  bool deliver(FramePtr decoded);
  void stop();
  void rethrow();
  void count_missing();

  const Address address_;
  IngestOptions options_;
  Source source_;
  CodecPtr video_codec_;
  CodecPtr audio_codec_;
  const std::shared_ptr<PictureConverter> converter_;
  std::atomic<int> width_;
  std::atomic<int> height_;

  PacketRouter router_;
  MelTrack mel_;
  Ring<Frame> frames_;

  std::atomic<bool> read_to_end_{false};

  // Of the video thread.
  int64_t next_index_ = 0;
  double last_pts_s_ = 0.0;
  double frame_interval_s_ = 0.0;

  std::optional<Frame> waiting_;  // popped, its sound not there yet

  mutable std::mutex mutex_;  // counters_, error_
  IngestCounters counters_;
  std::exception_ptr error_;

  std::mutex close_mutex_;
  std::vector<std::thread> threads_;
};

}  // namespace refavs
