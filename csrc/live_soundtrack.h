// The sound of a live source, on its way into a file or a stream.
#pragma once

#include <memory>

#include "aac_encoder.h"
#include "sound_record.h"
#include "soundtrack.h"

namespace refavs {

// Encodes AAC from a record. Where there is no sound there is silence; sound that comes kLate_s
// after its picture was written is not waited for.
class LiveSoundtrack : public Soundtrack {
 public:
  static constexpr double kLate_s = 1.0;

  explicit LiveSoundtrack(std::shared_ptr<const SoundRecord> record);

  bool present() const override { return true; }
  bool copied() const override { return false; }
  void describe(AVStream* stream) const override { encoder_.describe(stream); }
  AVRational time_base() const override { return encoder_.time_base(); }

  void begin(double first_s) override;
  void write_until(double until_s, const Write& write) override;
  void finish(double end_s, const Write& write) override;

 private:
  void encode(int64_t count, const Write& write);

  std::shared_ptr<const SoundRecord> record_;
  AacEncoder encoder_;
};

}  // namespace refavs
