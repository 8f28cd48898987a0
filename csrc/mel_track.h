// The log-mel frames of a sound track around the consumer's place in it.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

#include "logmel.h"

namespace refavs {

// The sound of one window.
struct MelPatch {
  std::vector<float> samples;   // [15600]
  std::vector<float> log_mel;   // [96, 64]
  double end_s = 0.0;           // where the window ends on the source's clock
  int64_t missing_samples = 0;  // of its 15,600 samples, those without sound in the source
};

// Window j ends at sample 160 j of the 16 kHz grid, that is at 10 j ms, and begins 15,600 samples
// before. The part before sample 0 counts as missing and is zeros.
//
// Thread-safe: one thread adds, one reads.
class MelTrack {
 public:
  // `keep_s`: how much is kept for a reader that takes nothing; 0: everything.
  explicit MelTrack(double keep_s = 0.0);

  // The track's writer: samples of the grid in order from 0.
  void add(const float* samples, int64_t count);
  void add_missing(int64_t begin, int64_t end);
  // Zeros that add_missing() tells of. However many they are, this takes no more time and memory
  // than two seconds of sound.
  void add_silence(int64_t count);
  // The next sample will be number `to`; those before it are silence, and missing.
  void jump(int64_t to);
  // No more samples: later ones are missing.
  void finish();

  // Waits until window `hop` is complete. False: not within `timeout`.
  bool wait(int64_t hop, std::chrono::milliseconds timeout);
  // The window, with zeros for what has not come. Earlier windows cannot be asked for afterwards.
  MelPatch take(int64_t hop);

  // How far what was added reaches beyond the window last taken.
  double ahead_s() const;
  // Samples of the track without sound, so far.
  int64_t missing_samples() const;

 private:
  struct Range {
    int64_t begin, end;
  };
  // Sound without a long silence in it. In a long silence lies the end of one part, and the next
  // begins, each with a window of it; between them there is nothing to keep.
  struct Part {
    int64_t first = 0;            // frame first + i covers samples from 160 (first + i) - 15,600
    std::deque<MelFrame> frames;  // the last ones are still to come where they need more samples
    std::deque<float> kept;       // the samples up to `end` that a window may still hold
    int64_t end = 0;

    int64_t kept_from() const { return end - static_cast<int64_t>(kept.size()); }
    void forget_before(int64_t hop);
  };

  Part begin_part(int64_t end, int64_t silence);
  void append(const float* samples, int64_t count);
  void trim();

  // Of the adding thread.
  StreamingLogMel stream_;
  std::vector<MelFrame> fresh_;
  int64_t samples_ = 0;  // so far

  mutable std::mutex mutex_;  // those below
  std::condition_variable changed_;
  std::deque<Part> parts_;  // never empty; the last one grows
  int64_t hop_ = 0;         // of the window last taken
  std::deque<Range> missing_;
  int64_t missing_samples_ = 0;
  bool finished_ = false;
  const size_t kept_frames_;
};

}  // namespace refavs
