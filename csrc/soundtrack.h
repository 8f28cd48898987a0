// The sound on its way into a file or a stream.
#pragma once

#include <functional>

#include "ffmpeg.h"

namespace refavs {

// Times are those of the source's clock, so sound and picture keep their distance, priming
// included. Not thread-safe.
class Soundtrack {
 public:
  // Takes the packet; its times are in time_base().
  using Write = std::function<void(AVPacket* packet)>;

  virtual ~Soundtrack() = default;

  virtual bool present() const = 0;
  // As the source has it; else it is encoded as AAC.
  virtual bool copied() const = 0;

  // Describes the track to the muxer.
  virtual void describe(AVStream* stream) const = 0;
  virtual AVRational time_base() const = 0;

  // The pictures begin here, or go on after a pause.
  virtual void begin(double first_s) = 0;
  // Writes the sound that begins before `until_s`; what is encoded anew is cut at the sample.
  virtual void write_until(double until_s, const Write& write) = 0;
  // As write_until, and that is the end of it.
  virtual void finish(double end_s, const Write& write) = 0;
};

}  // namespace refavs
