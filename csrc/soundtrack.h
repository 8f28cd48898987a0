// The sound of a source, on its way into another file.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ffmpeg.h"
#include "resample.h"
#include "sample_fifo.h"
#include "source.h"

namespace refavs {

// Copies the source's sound packet by packet where MP4 can hold its codec (AAC, MP3, AC-3, E-AC-3,
// Opus, ALAC), else decodes it and encodes AAC. Times are those of the source's clock, so sound and
// picture keep their distance, priming included.
//
// Not thread-safe.
class Soundtrack {
 public:
  // Takes the packet; its times are in time_base().
  using Write = std::function<void(AVPacket* packet)>;

  // Throws IngestError if the source cannot be read. A source without sound is fine: see present().
  explicit Soundtrack(const std::string& path);

  bool present() const { return source_.info().has_audio; }
  bool copied() const { return !encoder_; }
  // "aac", or the codec that is copied.
  std::string codec_name() const;
  const std::vector<std::string>& notes() const { return source_.info().notes; }

  // Describes the track to the muxer.
  void describe(AVStream* stream) const;
  AVRational time_base() const { return {1, rate_}; }

  // Writes the sound that begins before `until_s`; what is encoded anew is cut at the sample.
  void write_until(double until_s, const Write& write);
  // As write_until, and that is the end of it.
  void finish(double end_s, const Write& write);

 private:
  void copy_until(double until_s, const Write& write);
  bool read_copy();
  void encode_until(double until_s, const Write& write);
  bool decode_more();
  void send(const AVFrame* frame, const Write& write);
  void open_encoder();

  Source source_;
  int rate_ = 0;
  int channels_ = 0;
  bool ended_ = false;

  // Copying.
  PacketPtr next_;  // read, not yet written
  int64_t expected_ = AV_NOPTS_VALUE;

  // Encoding.
  CodecPtr decoder_;
  CodecPtr encoder_;
  std::unique_ptr<Resampler> resampler_;
  SampleFifo fifo_;
  int64_t encoded_ = 0;  // samples
};

}  // namespace refavs
