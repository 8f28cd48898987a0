// The sound of a file, on its way into another.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "aac_encoder.h"
#include "resample.h"
#include "sample_fifo.h"
#include "soundtrack.h"
#include "source.h"

namespace refavs {

// Copies the source's sound packet by packet where that is asked for and MP4 can hold its codec
// (AAC, MP3, AC-3, E-AC-3, Opus, ALAC), else decodes it and encodes AAC.
class FileSoundtrack : public Soundtrack {
 public:
  // Throws IngestError if the source cannot be read. A source without sound is fine: see present().
  explicit FileSoundtrack(const std::string& path, bool may_copy = true);

  bool present() const override { return source_.info().has_audio; }
  bool copied() const override { return !encoder_; }
  const std::vector<std::string>& notes() const { return source_.info().notes; }

  void describe(AVStream* stream) const override;
  AVRational time_base() const override { return {1, rate_}; }

  void begin(double) override {}
  void write_until(double until_s, const Write& write) override;
  void finish(double end_s, const Write& write) override;

 private:
  void open_unwrapper();
  void copy_until(double until_s, const Write& write);
  bool read_copy();
  bool read_unwrapped(AVPacket* packet);
  void encode_until(double until_s, const Write& write);
  bool decode_more();

  Source source_;
  int rate_ = 0;
  int channels_ = 0;
  bool ended_ = false;

  // Copying.
  PacketPtr next_;  // read, not yet written
  int64_t expected_ = AV_NOPTS_VALUE;
  BsfPtr unwrapper_;                // of AAC whose packets bring its headers along
  std::vector<uint8_t> extradata_;  // which are these

  // Encoding.
  CodecPtr decoder_;
  std::unique_ptr<AacEncoder> encoder_;
  std::unique_ptr<Resampler> resampler_;
  SampleFifo fifo_;
};

}  // namespace refavs
