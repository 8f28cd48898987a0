#include "live_ingest.h"

#include <algorithm>
#include <array>
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
// Pictures that are kept, where nobody asks for them: those that are ready, and all.
constexpr size_t kMostReady = 5;
constexpr size_t kMostWaiting = 32;
constexpr double kUsualInterval_s = 0.04;
// Of the last time in the mean of how long the caller takes for a frame.
constexpr double kBusyShare = 0.2;

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
    if (!pictures_.empty() && settled) {
      const AVFrame& first = *pictures_.front().frame;
      const bool across = info().orientation.transpose;
      width_ = across ? first.height : first.width;
      height_ = across ? first.width : first.height;
      return Status::kFrame;
    }
    if (pictures_.empty() && camera_->state() == LiveFeed::State::kEnded) {
      lock.unlock();
      throw IngestError(path() + ": no picture in it could be decoded");
    }
    if (Clock::now() >= until) return Status::kTimeout;
    changed_.wait_until(lock, std::min(until, Clock::now() + kSlice));
  }
}

LiveIngest::Status LiveIngest::next(Frame* frame, milliseconds timeout) {
  const auto called = Clock::now();
  if (next_index_ > 0) away_s_ += std::chrono::duration<double>(called - returned_at_).count();
  const Status status = wait_next(frame, called + timeout);
  returned_at_ = Clock::now();
  return status;
}

LiveIngest::Status LiveIngest::wait_next(Frame* frame, Clock::time_point until) {
  const double busy_s = busy_s_ + kBusyShare * (away_s_ - busy_s_);
  const bool is_slow = busy_s > interval_s();
  microphone_settled();
  if (options_.max_frames >= 0 && next_index_ >= options_.max_frames) return Status::kEnd;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    std::optional<Captured> taken = closed_ ? std::nullopt : take_ready(is_slow);
    if (taken) {
      lock.unlock();
      if (next_index_ > 0 && options_.duration_s >= 0.0 &&
          taken->at_s - first_at_s_ >= options_.duration_s)
        return Status::kEnd;
      *frame = finish(std::move(*taken));
      busy_s_ = busy_s;
      away_s_ = 0.0;
      return Status::kFrame;
    }
    const LiveFeed::State state = camera_->state();
    const bool ended = state == LiveFeed::State::kEnded || state == LiveFeed::State::kFailed;
    if (closed_ || (ended && pictures_.empty())) {
      lock.unlock();
      camera_->rethrow();
      return Status::kEnd;
    }
    const auto now = Clock::now();
    if (now >= until) return Status::kTimeout;
    // A picture becomes ready by the passing of time too.
    changed_.wait_until(lock, pictures_.empty() ? until : std::min(until, now + kSlice));
  }
}

void LiveIngest::close() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  // What is joined is not locked: a feed may take its time to end, and counters() may be asked for.
  std::array<std::shared_ptr<LiveFeed>, 2> feeds;
  {
    std::lock_guard<std::mutex> lock(feeds_mutex_);
    feeds = {camera_, microphone_};
  }
  for (const auto& feed : feeds)
    if (feed) feed->stop();
  for (const auto& feed : feeds)
    if (feed) feed->join();
  {
    std::lock_guard<std::mutex> sound_lock(sound_mutex_);
    if (record_) record_->finish();
  }
  std::lock_guard<std::mutex> pictures_lock(mutex_);
  pictures_.clear();
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
  pictures_.push_back(Captured{std::move(frame), at_s});
  // Nobody asks: what is kept may be memory of the camera's own, of which it has little.
  while (pictures_.size() > kMostReady &&
         (pictures_.size() > kMostWaiting || is_ready(pictures_[kMostReady]))) {
    pictures_.pop_front();
    ++counters_.dropped;
  }
  changed_.notify_all();
}

// A camera without sound may come back with some while a microphone is in use.
void LiveIngest::took_sound(bool from_microphone, const AVFrame& frame, double at_s) {
  {
    std::lock_guard<std::mutex> lock(sound_mutex_);
    if (from_microphone != from_microphone_) return;
    sound_.push(frame, at_s);
    if (recorder_) recorder_->push(frame, at_s);
    sound_came_s_ = now_s();
  }
  changed();
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

bool LiveIngest::has_its_sound(const Captured& captured) {
  return mel_.wait(hop_of(captured), milliseconds(0));
}

bool LiveIngest::is_ready(const Captured& captured) {
  return !sound_is_alive() || has_its_sound(captured) ||
         now_s() >= captured.at_s + options_.audio_offset_s + options_.capture.latency_s;
}

// The oldest picture that is ready, or the newest, and then those before it are dropped.
std::optional<LiveIngest::Captured> LiveIngest::take_ready(bool newest) {
  size_t ready = 0;
  while (ready < pictures_.size() && is_ready(pictures_[ready])) ++ready;
  if (ready == 0) return std::nullopt;
  for (size_t i = 1; newest && i < ready; ++i) {
    pictures_.pop_front();
    ++counters_.dropped;
  }
  Captured taken = std::move(pictures_.front());
  pictures_.pop_front();
  if (sound_is_alive() && !has_its_sound(taken)) ++counters_.sound_late;
  return taken;
}

// From one picture of the camera to the next.
double LiveIngest::interval_s() const {
  const double rate = info().frame_rate;
  return rate > 0.0 ? 1.0 / rate : kUsualInterval_s;
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
    counters.queue_depth = static_cast<int64_t>(pictures_.size());
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
