// VGGish log-mel frames of a stream of sound (Hershey et al., arXiv 1609.09430; mel_features.py).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace refavs {

constexpr int kSampleRateHz = 16000;
constexpr int kHopSamples = 160;
constexpr int kMelFrameSamples = 400;
constexpr int kMelBins = 64;
constexpr int kPatchFrames = 96;
constexpr int kPatchSamples = (kPatchFrames - 1) * kHopSamples + kMelFrameSamples;  // 15,600

using MelFrame = std::array<float, kMelBins>;

// log(mel + 0.01) of a frame without sound.
float silent_log_mel();

// Frame k covers samples [160 k, 160 k + 400) of all that was pushed: periodic Hann window,
// magnitude of the 512-point spectrum, 64 triangles on the HTK mel scale m(f) = 1127 ln(1 + f/700)
// from 125 to 7500 Hz without the 0 Hz bin, log(mel + 0.01). In double precision: beside a loud
// tone, float rounding of the spectrum would show in the quiet bins.
//
// Not thread-safe. Pushing in any pieces gives the same frames.
class StreamingLogMel {
 public:
  // Appends the frames that `samples` complete, oldest first.
  void push(const float* samples, size_t count, std::vector<MelFrame>* frames);

 private:
  std::vector<float> pending_;  // fewer than one frame of samples, those of the next frame
};

}  // namespace refavs
