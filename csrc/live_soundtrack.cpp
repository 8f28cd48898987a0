#include "live_soundtrack.h"

#include <algorithm>
#include <cmath>

namespace refavs {
namespace {

// How long the end of the sound may take to come.
constexpr auto kPatience = std::chrono::milliseconds(300);

int64_t samples_in(double seconds) { return std::llround(seconds * SoundRecord::kRateHz); }

}  // namespace

LiveSoundtrack::LiveSoundtrack(std::shared_ptr<const SoundRecord> record)
    : record_(std::move(record)), encoder_(SoundRecord::kRateHz, SoundRecord::kChannels) {}

void LiveSoundtrack::begin(double first_s) { encoder_.begin_at(samples_in(first_s)); }

void LiveSoundtrack::write_until(double until_s, const Write& write) {
  const int64_t until = samples_in(until_s);
  const int64_t count = encoder_.frame_samples();
  // What is this old is silence if it has not come.
  const int64_t settled = std::max(record_->end(), until - samples_in(kLate_s));
  while (encoder_.position() + count <= std::min(until, settled)) encode(count, write);
}

void LiveSoundtrack::finish(double end_s, const Write& write) {
  const int64_t end = samples_in(end_s);
  record_->wait(end, kPatience);
  write_until(end_s, write);
  const int64_t count = encoder_.frame_samples();
  while (encoder_.position() < end)
    encode(std::min<int64_t>(count, end - encoder_.position()), write);
  encoder_.flush(write);
}

void LiveSoundtrack::encode(int64_t count, const Write& write) {
  const int64_t from = encoder_.position();
  encoder_.encode(
      static_cast<int>(count),
      [&](float* const* channels) { record_->read(from, count, channels); }, write);
}

}  // namespace refavs
