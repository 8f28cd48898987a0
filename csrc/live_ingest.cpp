#include "live_ingest.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "error.h"

namespace refavs {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Sound that nobody asks for is kept no longer than this.
constexpr double kSoundKept_s = 10.0;
// A microphone that has sent nothing for so long is not waited for.
constexpr double kSoundAlive_s = 1.0;
constexpr auto kSlice = milliseconds(10);

bool is_settled(LiveFeed::State state) { return state != LiveFeed::State::kOpening; }

}  // namespace

LiveIngest::LiveIngest(const std::string& camera, const LiveOptions& options)
    : origin_(Clock::now()),
      options_(options),
      camera_address_(parse_address(camera, Medium::kPicture)),
      mel_(kSoundKept_s),
      sound_(&mel_) {
  const bool own_sound = options.microphone == "auto";
  if (own_sound) {
    default_microphones_ = {"pulse:default", "alsa:default"};
  } else if (options.microphone != "none") {
    listen_to_microphone(true);
    microphone_ = open_feed(parse_address(options.microphone, Medium::kSound), Wanted::kSound);
  }
  camera_ = open_feed(camera_address_, own_sound ? Wanted::kPictureAndSound : Wanted::kPicture);
}

LiveIngest::~LiveIngest() { close(); }

std::unique_ptr<LiveFeed> LiveIngest::open_feed(const Address& address, Wanted wanted) {
  LiveFeed::Target target;
  target.picture = [this](FramePtr frame, double at_s) { took_picture(std::move(frame), at_s); };
  const bool microphone = wanted == Wanted::kSound;
  target.sound = [this, microphone](const AVFrame& frame, double at_s) {
    took_sound(microphone, frame, at_s);
  };
  target.restarted = [this, microphone] {
    std::lock_guard<std::mutex> lock(sound_mutex_);
    if (microphone == from_microphone_) restart_sound();
  };
  target.changed = [this] { changed(); };
  return std::make_unique<LiveFeed>(
      address, wanted, options_.capture, std::move(target), [this] { return now_s(); }, &notices_);
}

LiveIngest::Status LiveIngest::wait_first(milliseconds timeout) {
  const auto until = Clock::now() + timeout;
  for (;;) {
    camera_->rethrow();
    if (microphone_ && options_.microphone != "auto") microphone_->rethrow();
    const bool settled = microphone_settled();
    std::unique_lock<std::mutex> lock(mutex_);
    if (closed_) return Status::kEnd;
    if (newest_ && settled) {
      const bool across = info().orientation.transpose;
      width_ = across ? newest_->frame->height : newest_->frame->width;
      height_ = across ? newest_->frame->width : newest_->frame->height;
      return Status::kFrame;
    }
    if (!newest_ && camera_->state() == LiveFeed::State::kEnded) {
      lock.unlock();
      throw IngestError(path() + ": no picture in it could be decoded");
    }
    if (Clock::now() >= until) return Status::kTimeout;
    changed_.wait_until(lock, std::min(until, Clock::now() + kSlice));
  }
}

LiveIngest::Status LiveIngest::next(Frame* frame, milliseconds timeout) {
  const auto until = Clock::now() + timeout;
  microphone_settled();
  if (!waiting_) {
    if (options_.max_frames >= 0 && next_index_ >= options_.max_frames) return Status::kEnd;
    std::unique_lock<std::mutex> lock(mutex_);
    const auto ended = [this] {
      const LiveFeed::State state = camera_->state();
      return closed_ || state == LiveFeed::State::kEnded || state == LiveFeed::State::kFailed;
    };
    changed_.wait_until(lock, until, [&] { return newest_ || ended(); });
    if (!newest_ && !ended()) return Status::kTimeout;
    if (!newest_ || closed_) {
      lock.unlock();
      camera_->rethrow();
      return Status::kEnd;
    }
    waiting_ = std::exchange(newest_, std::nullopt);
  }
  if (next_index_ > 0 && options_.duration_s >= 0.0 &&
      waiting_->at_s - first_at_s_ >= options_.duration_s)
    return Status::kEnd;
  if (!wait_for_sound(*waiting_, until)) return Status::kTimeout;
  *frame = finish(*std::exchange(waiting_, std::nullopt));
  return Status::kFrame;
}

void LiveIngest::close() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  std::lock_guard<std::mutex> lock(feeds_mutex_);
  if (camera_) camera_->stop();
  if (microphone_) microphone_->stop();
  if (camera_) camera_->join();
  if (microphone_) microphone_->join();
  {
    std::lock_guard<std::mutex> sound_lock(sound_mutex_);
    if (record_) record_->finish();
  }
  std::lock_guard<std::mutex> newest_lock(mutex_);
  newest_.reset();
}

// Opens the default microphones one after the other, where the camera turns out to have no sound.
// True: nothing is being opened any more.
bool LiveIngest::microphone_settled() {
  if (!is_settled(camera_->state())) return false;
  if (options_.microphone != "auto") return !microphone_ || is_settled(microphone_->state());
  const std::optional<SourceInfo> camera = camera_->info();
  if (camera && camera->has_audio) return true;
  if (microphone_ && microphone_->state() != LiveFeed::State::kFailed)
    return is_settled(microphone_->state());
  if (default_microphones_.empty()) {
    if (!std::exchange(said_no_sound_, true)) {
      listen_to_microphone(false);
      notices_.add(now_s(), "no sound: " + path() + " has none and no microphone opens; name one " +
                                "with --mic, or say --mic none");
    }
    return true;
  }
  std::lock_guard<std::mutex> lock(feeds_mutex_);
  microphone_.reset();
  {
    std::lock_guard<std::mutex> closed_lock(mutex_);
    if (closed_) return true;
  }
  const Address address = parse_address(default_microphones_.front(), Medium::kSound);
  default_microphones_.erase(default_microphones_.begin());
  listen_to_microphone(true);
  microphone_ = open_feed(address, Wanted::kSound);
  return false;
}

void LiveIngest::took_picture(FramePtr frame, double at_s) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (at_s <= last_at_s_) {
    ++counters_.repaired_pts;
    at_s = last_at_s_ + 1e-3;
  }
  last_at_s_ = at_s;
  if (newest_) ++counters_.dropped;
  newest_ = Captured{std::move(frame), at_s};
  changed_.notify_all();
}

// A camera without sound may come back with some while a microphone is in use.
void LiveIngest::took_sound(bool from_microphone, const AVFrame& frame, double at_s) {
  std::lock_guard<std::mutex> lock(sound_mutex_);
  if (from_microphone != from_microphone_) return;
  sound_.push(frame, at_s);
  if (recorder_) recorder_->push(frame, at_s);
  sound_came_s_ = now_s();
}

void LiveIngest::listen_to_microphone(bool microphone) {
  std::lock_guard<std::mutex> lock(sound_mutex_);
  from_microphone_ = microphone;
  restart_sound();
}

void LiveIngest::restart_sound() {
  sound_.restart();
  if (recorder_) recorder_->restart();
}

std::shared_ptr<SoundRecord> LiveIngest::record_sound() {
  std::lock_guard<std::mutex> lock(sound_mutex_);
  if (!record_) {
    record_ = std::make_shared<SoundRecord>();
    SoundGrid grid;
    grid.rate_hz = SoundRecord::kRateHz;
    grid.channels = SoundRecord::kChannels;
    grid.add = [record = record_](const float* const* channels, int64_t count) {
      record->add(channels, count);
    };
    grid.jump = [record = record_](int64_t to) { record->jump(to); };
    recorder_ = std::make_unique<LiveSound>(std::move(grid));
  }
  return record_;
}

int64_t LiveIngest::hop_of(const Captured& captured) const {
  constexpr double kHopsPerSecond = double(kSampleRateHz) / kHopSamples;
  return std::max<int64_t>(
      0,
      static_cast<int64_t>(std::floor((captured.at_s + options_.audio_offset_s) * kHopsPerSecond)));
}

// False: it may still come.
bool LiveIngest::wait_for_sound(const Captured& captured, Clock::time_point until) {
  const int64_t hop = hop_of(captured);
  const double latest_s = captured.at_s + options_.audio_offset_s + options_.capture.latency_s;
  while (sound_is_alive() && !mel_.wait(hop, milliseconds(0))) {
    if (now_s() >= latest_s) {
      std::lock_guard<std::mutex> lock(mutex_);
      ++counters_.sound_late;
      return true;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (closed_) return true;
    }
    if (Clock::now() >= until) return false;
    mel_.wait(hop, kSlice);
  }
  return true;
}

bool LiveIngest::sound_is_alive() const { return now_s() - sound_came_s_ < kSoundAlive_s; }

Frame LiveIngest::finish(Captured captured) {
  if (!converter_)
    converter_ = std::make_shared<PictureConverter>(info().orientation, options_.size,
                                                    options_.normalization);
  converter_->admit(*captured.frame);
  Frame frame;
  frame.index = next_index_++;
  frame.pts_s = captured.at_s;
  if (frame.index == 0) first_at_s_ = frame.pts_s;
  frame.hop = hop_of(captured);
  frame.sound = mel_.take(frame.hop);
  frame.has_audio = frame.sound.missing_samples < kPatchSamples;
  frame.picture = Picture(std::move(captured.frame), converter_);
  std::lock_guard<std::mutex> lock(mutex_);
  ++counters_.delivered;
  return frame;
}

SourceInfo LiveIngest::info() const {
  const std::optional<SourceInfo> info = camera_->info();
  return info ? *info : SourceInfo();
}

bool LiveIngest::has_audio() const {
  if (info().has_audio) return true;
  std::lock_guard<std::mutex> lock(feeds_mutex_);
  return microphone_ && microphone_->state() != LiveFeed::State::kFailed;
}

double LiveIngest::now_s() const {
  return std::chrono::duration<double>(Clock::now() - origin_).count();
}

double LiveIngest::origin_s() const {
  return std::chrono::duration<double>(origin_.time_since_epoch()).count();
}

LiveCounters LiveIngest::counters() const {
  LiveCounters counters;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    counters = counters_;
    counters.queue_depth = newest_ ? 1 : 0;
  }
  counters.camera = camera_->counters();
  counters.camera_drift_ppm = camera_->drift_ppm();
  {
    std::lock_guard<std::mutex> lock(feeds_mutex_);
    if (microphone_) counters.microphone = microphone_->counters();
  }
  counters.audio_gap_samples = mel_.missing_samples();
  counters.audio_overlap_samples = sound_.overlap_samples();
  counters.sound_drift_ppm = sound_.drift_ppm();
  counters.sound_error_s = sound_.error_s();
  return counters;
}

void LiveIngest::changed() {
  std::lock_guard<std::mutex> lock(mutex_);
  changed_.notify_all();
}

}  // namespace refavs
