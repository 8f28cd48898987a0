#include "ingest.h"

#include <algorithm>
#include <cmath>

#include "decode.h"
#include "error.h"
#include "resample.h"

namespace refavs {
namespace {

constexpr size_t kQueuedFrames = 4;
constexpr double kAudioAheadS = 30.0;
constexpr int kReadErrorsOnEnd = 200;
constexpr Patience kNetworkPatience = {15.0, 10.0};
constexpr double kFallbackInterval_s = 0.04;
constexpr auto kSlice = std::chrono::milliseconds(50);

const Address& not_live(const Address& address) {
  if (address.kind != AddressKind::kFile && address.kind != AddressKind::kNetwork &&
      address.kind != AddressKind::kGenerated)
    throw IngestError(address.shown + " is live: name it with --camera, or open it with open_live");
  return address;
}

Source::Options demuxer_options(const Address& address) {
  if (address.demuxer == "rtsp") return {{"rtsp_transport", "tcp"}};
  return {};
}

}  // namespace

Ingest::Ingest(const Address& address, const IngestOptions& options)
    : address_(not_live(address)),
      options_(options),
      source_(address, Wanted::kPictureAndSound, demuxer_options(address),
              address.kind == AddressKind::kNetwork ? kNetworkPatience : Patience(),
              options.stopped.get()),
      video_codec_(source_.open_decoder(*source_.video(), decoder_threads(options.decode_threads))),
      converter_(std::make_shared<PictureConverter>(source_.info().orientation, options.size,
                                                    options.normalization)),
      frames_(kQueuedFrames) {
  if (source_.audio()) audio_codec_ = source_.open_decoder(*source_.audio(), 1);
  const AVCodecParameters& coded = *source_.video()->codecpar;
  const bool across = source_.info().orientation.transpose;
  width_ = across ? coded.height : coded.width;
  height_ = across ? coded.width : coded.height;
  const double rate = source_.info().frame_rate;
  frame_interval_s_ = rate > 0.0 ? 1.0 / rate : kFallbackInterval_s;
  try {
    threads_.emplace_back(&Ingest::run, this, &Ingest::demux);
    threads_.emplace_back(&Ingest::run, this, &Ingest::decode_video);
    if (audio_codec_) threads_.emplace_back(&Ingest::run, this, &Ingest::decode_audio);
  } catch (...) {
    close();
    throw;
  }
}

Ingest::~Ingest() { close(); }

Ingest::Status Ingest::wait_first(std::chrono::milliseconds timeout) {
  const RingStatus status = frames_.wait_item(timeout);
  if (status == RingStatus::kTimeout) return Status::kTimeout;
  if (status == RingStatus::kDone) return Status::kFrame;
  rethrow();
  if (counters().decoded == 0)
    throw IngestError(source_.path() + ": no picture in it could be decoded; the file is damaged " +
                      "or cut off, record or copy it again");
  return Status::kEnd;
}

Ingest::Status Ingest::next(Frame* frame, std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  if (!waiting_) {
    Frame popped;
    const RingStatus status = frames_.pop(&popped, timeout);
    if (status == RingStatus::kTimeout) return Status::kTimeout;
    if (status == RingStatus::kEnded) {
      rethrow();
      return Status::kEnd;
    }
    waiting_ = std::move(popped);
  }
  if (source_.info().has_audio) {
    router_.set_audio_wanted(true);
    bool complete = mel_.wait(waiting_->hop, std::chrono::milliseconds(0));
    while (!complete && !router_.audio_out_of_reach()) {
      const auto now = std::chrono::steady_clock::now();
      if (now >= deadline) return Status::kTimeout;
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now);
      complete = mel_.wait(waiting_->hop, std::min(left + std::chrono::milliseconds(1), kSlice));
    }
    router_.set_audio_wanted(false);
    waiting_->has_audio = true;
    waiting_->sound = mel_.take(waiting_->hop);
    router_.set_audio_ahead(mel_.ahead_s() > kAudioAheadS);
  }
  *frame = std::move(*waiting_);
  waiting_.reset();
  std::lock_guard<std::mutex> lock(mutex_);
  ++counters_.delivered;
  return Status::kFrame;
}

void Ingest::close() {
  stop();
  std::lock_guard<std::mutex> lock(close_mutex_);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  video_codec_.reset();
  audio_codec_.reset();
  source_.close();
}

IngestCounters Ingest::counters() const {
  std::lock_guard<std::mutex> lock(mutex_);
  IngestCounters counters = counters_;
  counters.audio_gap_samples = mel_.missing_samples();
  return counters;
}

// The body of a thread. Whatever it throws reaches next(), and no thread is left waiting for it.
void Ingest::run(Work work) {
  std::exception_ptr error;
  try {
    (this->*work)();
    return;
  } catch (const IngestError& refused) {
    error = std::make_exception_ptr(IngestError(source_.path() + ": " + refused.what()));
  } catch (...) {
    error = std::current_exception();
  }
  keep(error);
  source_.stop();
  router_.stop();
  frames_.finish();
}

// For who asks for frames, when they have had those that came before it.
void Ingest::keep(std::exception_ptr error) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!error_) error_ = std::move(error);
}

void Ingest::stop() {
  source_.stop();
  router_.stop();
  frames_.cancel();
}

void Ingest::rethrow() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (error_) std::rethrow_exception(error_);
}

void Ingest::demux() {
  int errors_on_end = 0;
  for (;;) {
    PacketPtr packet = new_packet();
    int status = 0;
    try {
      status = source_.read(packet.get());
    } catch (const IngestError&) {
      keep(std::current_exception());
      break;
    }
    if (status == AVERROR_EOF) read_to_end_ = true;
    if (status == AVERROR_EOF || status == AVERROR_EXIT) break;
    if (status < 0) {
      {
        std::lock_guard<std::mutex> lock(mutex_);
        ++counters_.read_errors;
      }
      if (++errors_on_end < kReadErrorsOnEnd) continue;
      if (address_.kind == AddressKind::kNetwork)
        keep(std::make_exception_ptr(
            IngestError(source_.path() + ": broke off (" + ffmpeg_message(status) + ")")));
      break;
    }
    errors_on_end = 0;
    const bool picture = packet->stream_index == source_.video()->index;
    if (packet->flags & AV_PKT_FLAG_CORRUPT) {
      std::lock_guard<std::mutex> lock(mutex_);
      ++(picture ? counters_.corrupt : counters_.corrupt_audio);
    }
    if (!picture && !audio_codec_) continue;
    if (!(picture ? router_.push_video(std::move(packet)) : router_.push_audio(std::move(packet))))
      break;
  }
  router_.finish();
}

void Ingest::decode_video() {
  PacketPtr packet;
  do {
    packet = router_.pop_video();
    int64_t errors = 0;
    const bool go_on = decode(video_codec_.get(), packet.get(), &errors,
                              [this](FramePtr frame) { return deliver(std::move(frame)); });
    {
      std::lock_guard<std::mutex> lock(mutex_);
      counters_.corrupt += errors;
    }
    if (!go_on) {
      router_.drop_video();  // the sound of the last frames may still have to be read
      frames_.finish();
      return;
    }
  } while (packet);
  if (read_to_end_) count_missing();
  frames_.finish();
}

// A file that was cut ends without a word, but its index may still tell of what came after.
void Ingest::count_missing() {
  const AVStream& stream = *source_.video();
  if (next_index_ == 0 || stream.start_time == AV_NOPTS_VALUE || stream.duration == AV_NOPTS_VALUE)
    return;
  const double announced_s =
      source_.clock().seconds(stream.start_time + stream.duration, stream.time_base);
  const double missing = (announced_s - last_pts_s_) / frame_interval_s_ - 1.0;
  if (missing < 1.5) return;  // the last picture may be shown longer than the others
  std::lock_guard<std::mutex> lock(mutex_);
  counters_.missing_pictures = std::llround(missing);
}

// Hands one picture on. False: no further one is wanted.
bool Ingest::deliver(FramePtr decoded) {
  const AVRational base = source_.video()->time_base;
  const SourceClock& clock = source_.clock();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ++counters_.decoded;
    if (is_damaged(*decoded)) ++counters_.corrupt;
  }
  if (options_.max_frames >= 0 && next_index_ >= options_.max_frames) return false;

  Frame frame;
  const int64_t pts = decoded->best_effort_timestamp;
  const bool timed = pts != AV_NOPTS_VALUE;
  if (timed) frame.pts_s = clock.seconds(pts, base);
  if (!timed || (next_index_ > 0 && frame.pts_s <= last_pts_s_)) {
    frame.pts_s = next_index_ > 0 ? last_pts_s_ + frame_interval_s_ : 0.0;
    frame.hop = static_cast<int64_t>(std::floor(frame.pts_s * 100.0 + 1e-6));
    std::lock_guard<std::mutex> lock(mutex_);
    ++counters_.repaired_pts;
  } else {
    frame.hop = clock.floor_ticks(pts, base, kSampleRateHz / kHopSamples);
  }
  if (options_.audio_offset_s != 0.0)
    frame.hop =
        static_cast<int64_t>(std::floor((frame.pts_s + options_.audio_offset_s) * 100.0 + 1e-6));
  if (options_.duration_s >= 0.0 && frame.pts_s >= options_.duration_s) return false;
  last_pts_s_ = frame.pts_s;
  frame.index = next_index_++;

  converter_->admit(*decoded);
  width_ = converter_->width();
  height_ = converter_->height();
  frame.picture = Picture(std::move(decoded), converter_);
  const bool last = options_.max_frames >= 0 && next_index_ >= options_.max_frames;
  return frames_.push(std::move(frame)) && !last;
}

void Ingest::decode_audio() {
  Resampler resampler(
      kSampleRateHz, 1, source_.clock(),
      [this](const float* const* channels, int64_t count) { mel_.add(channels[0], count); },
      [this](int64_t begin, int64_t end) { mel_.add_missing(begin, end); },
      [this](int64_t count) { mel_.add_silence(count); });
  try {
    PacketPtr packet;
    do {
      packet = router_.pop_audio();
      int64_t errors = 0;
      decode(audio_codec_.get(), packet.get(), &errors, [&](FramePtr frame) {
        resampler.push(*frame, source_.audio()->time_base);
        return true;
      });
      router_.set_audio_ahead(mel_.ahead_s() > kAudioAheadS);
      std::lock_guard<std::mutex> lock(mutex_);
      counters_.corrupt_audio += errors;
      counters_.audio_overlap_samples = resampler.overlap_samples();
    } while (packet);
    resampler.flush();
  } catch (...) {
    mel_.finish();  // or next() would wait for sound that cannot come any more
    throw;
  }
  mel_.finish();
}

}  // namespace refavs
