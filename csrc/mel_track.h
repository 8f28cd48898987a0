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
  // The next sample will be number `to`; those before it are missing. However far it is, this takes
  // no longer than a second of sound.
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
  void trim();

  struct Range {
    int64_t begin, end;
  };

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  StreamingLogMel stream_;  // of the adding thread
  std::vector<MelFrame> fresh_;
  std::deque<MelFrame> frames_;  // frame first_ + i covers samples from 160 (first_ + i) - 15,600
  int64_t first_ = 0;
  std::deque<float> kept_;  // the samples up to samples_ that a window may still hold
  int64_t samples_ = 0;     // those that came, from 0
  int64_t hop_ = 0;         // of the window last taken
  std::deque<Range> missing_;
  int64_t missing_samples_ = 0;
  bool finished_ = false;
  const size_t kept_frames_;
};

}  // namespace refavs
