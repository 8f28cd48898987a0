#include "av_capture.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "camera_modes.h"
#include "decode.h"
#include "error.h"

namespace refavs {
namespace {

constexpr const char* kCamera = "video4linux2,v4l2";
constexpr double kOpen_s = 15.0;
constexpr int64_t kPoll_us = 2000;     // between two questions to a device that has nothing yet
constexpr int64_t kSlice_us = 50'000;  // between two looks at stop() while sleeping
constexpr int64_t kBehind_us = 500'000;
constexpr int64_t kGap_us = 1'000'000;              // of timestamps: something is missing
constexpr int64_t kJump_us = 10'000'000;            // they begin anew
constexpr int64_t kFarthest_us = int64_t{1} << 50;  // 35 years from zero
constexpr int64_t kInstant_us = 2000;  // a packet that takes no longer to read was there already
constexpr int64_t kBacklog_us = 500'000;
constexpr int64_t kOld_us = 500'000;  // a picture that has waited so long for the decoder is late
constexpr double kPictures = 5.0;     // may be missing of a slow camera
constexpr int kReadErrorsOnEnd = 50;

std::string microseconds(double seconds) { return std::to_string(std::llround(seconds * 1e6)); }

std::string sizes_text(const std::vector<CameraMode>& modes) {
  std::set<std::pair<int, int>> sizes;
  for (const CameraMode& mode : modes) sizes.emplace(mode.width, mode.height);
  std::string text;
  for (const auto& [width, height] : sizes)
    text += (text.empty() ? "" : ", ") + std::to_string(width) + "x" + std::to_string(height);
  return text;
}

// What makes FFmpeg hold back as little of a stream as is asked for.
Source::Options low_delay(const Address& address, const CaptureOptions& options) {
  Source::Options list;
  if (address.kind == AddressKind::kNetwork) {
    // What is read to find out about the streams is kept ("nobuffer" would throw it away, and with
    // it the key frame that decoding begins at).
    list = {{"analyzeduration", "1000000"},
            {"probesize", "1000000"},
            {"max_delay", microseconds(options.latency_s)}};
    // The last segment but one: while the last is played, the next comes.
    if (address.protocols.find("http") == 0) list.emplace_back("live_start_index", "-2");
    if (address.demuxer == "rtsp") list.emplace_back("rtsp_transport", "tcp");
    if (address.protocols == "srt") list.emplace_back("latency", microseconds(options.latency_s));
    if (address.protocols == "udp") list.emplace_back("overrun_nonfatal", "1");
  }
  if (address.demuxer == kCamera) {
    const WantedMode wanted = wanted_mode(options.camera_size, options.camera_rate);
    const std::vector<CameraMode> offered = camera_modes(address.url);
    const std::optional<CameraMode> mode = choose_mode(offered, wanted);
    if (!mode && !offered.empty())
      throw IngestError(address.shown + ": does not offer " + options.camera_size + "; it has " +
                        sizes_text(offered));
    if (mode) {
      list = {{"input_format", mode->format},
              {"video_size", std::to_string(mode->width) + "x" + std::to_string(mode->height)}};
      const double rate = wanted.rate > 0.0 ? wanted.rate : mode->rate;
      if (rate > 0.0) list.emplace_back("framerate", std::to_string(rate));
    }
  }
  return list;
}

Patience patience(const Address& address, const CaptureOptions& options) {
  if (address.kind == AddressKind::kFile) return {};
  return {std::max(kOpen_s, options.silence_s), options.silence_s};
}

constexpr double kNoTime = std::numeric_limits<double>::quiet_NaN();

int64_t picture_patience_us(const SourceInfo& info, const CaptureOptions& options) {
  const double slow_s = info.frame_rate > 0.0 ? kPictures / info.frame_rate : 0.0;
  return std::llround(std::max(options.silence_s, slow_s) * 1e6);
}

double seconds(int64_t pts, AVRational base) {
  return pts == AV_NOPTS_VALUE ? kNoTime : static_cast<double>(pts) * av_q2d(base);
}

}  // namespace

AvCapture::AvCapture(const Address& address, Wanted wanted, const CaptureOptions& options,
                     const std::atomic<bool>& stopped)
    : source_(address, wanted, low_delay(address, options), patience(address, options), &stopped),
      paced_(source_.comes_in_advance()),
      from_device_(address.kind == AddressKind::kDevice),
      timeless_(!paced_ && !source_.tells_time()),
      picture_patience_us_(picture_patience_us(source_.info(), options)),
      hardware_(options.hwaccel) {
  if (source_.video()) {
    video_codec_ = source_.new_decoder(*source_.video(), decoder_threads(options.decode_threads));
    // Threads by frame would hold back a frame each.
    video_codec_->thread_type = FF_THREAD_SLICE;
    video_codec_->flags |= AV_CODEC_FLAG_LOW_DELAY;
    hardware_.attach(video_codec_.get());
    source_.start_decoder(video_codec_.get());
  }
  if (source_.audio()) audio_codec_ = source_.open_decoder(*source_.audio(), 1);
  if (!video_codec_ && !audio_codec_)
    throw IngestError(source_.path() + " has no sound; name another, or leave it out");
}

void AvCapture::run(CaptureListener* listener) {
  std::thread decoder;
  if (video_codec_) decoder = std::thread([this, listener] { decode_pictures(listener); });
  std::exception_ptr error;
  try {
    read(listener);
  } catch (...) {
    error = std::current_exception();
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  if (decoder.joinable()) decoder.join();
  if (error_) std::rethrow_exception(error_);
  if (error) std::rethrow_exception(error);
}

void AvCapture::stop() {
  stopped_ = true;
  source_.stop();
  std::lock_guard<std::mutex> lock(mutex_);
  changed_.notify_all();
}

void AvCapture::read(CaptureListener* listener) {
  if (!paced_) read_backlog(listener);
  while (PacketPtr packet = next_packet(listener)) {
    pace(*packet, base_of(*packet));
    arrived(*packet, listener);
    use(std::move(packet), listener);
  }
  if (stopped_) return;
  if (audio_codec_) decode_sound(nullptr, listener);
  if (!source_.is_recording()) throw IngestError(source_.path() + ": the other side has closed it");
}

// What has come while the source was being opened: its last packet has just come, and tells where
// the others belong.
void AvCapture::read_backlog(CaptureListener* listener) {
  std::vector<PacketPtr> packets;
  const int64_t until_us = av_gettime_relative() + kBacklog_us;
  for (int64_t began_us = 0, now_us = 0; now_us < until_us && now_us - began_us < kInstant_us;
       now_us = av_gettime_relative()) {
    began_us = av_gettime_relative();
    PacketPtr packet = next_packet(listener);
    if (!packet) break;
    arrived(*packet, listener);
    packets.push_back(std::move(packet));
  }
  date_first_picture(&packets);
  for (PacketPtr& packet : packets) use(std::move(packet), listener);
}

// RTSP tells no time for the picture that comes before its clocks are known. It belongs before the
// next.
void AvCapture::date_first_picture(std::vector<PacketPtr>* packets) const {
  const auto picture = [this](const PacketPtr& packet) { return is_picture(*packet); };
  const auto first = std::find_if(packets->begin(), packets->end(), picture);
  if (first == packets->end() || (*first)->pts != AV_NOPTS_VALUE) return;
  const auto next = std::find_if(first + 1, packets->end(), picture);
  if (next != packets->end() && (*next)->pts != AV_NOPTS_VALUE) (*first)->pts = (*next)->pts - 1;
}

// Null: the end.
PacketPtr AvCapture::next_packet(CaptureListener* listener) {
  for (int errors_on_end = 0; !stopped_;) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (error_) return nullptr;
    }
    PacketPtr packet = new_packet();
    const int status = source_.read(packet.get());
    if (status == AVERROR(EAGAIN)) {
      av_usleep(kPoll_us);
      continue;
    }
    if (status == AVERROR_EXIT || status == AVERROR_EOF) return nullptr;
    if (status >= 0) {
      check_pictures(*packet);
      return packet;
    }
    listener->corrupt(1, 0);
    if (++errors_on_end >= kReadErrorsOnEnd || status == AVERROR(ENODEV) || status == AVERROR(EIO))
      throw IngestError(source_.path() + ": broke off (" + ffmpeg_message(status) + ")");
  }
  return nullptr;
}

// Sound may begin late and end early; a camera whose pictures stand still is lost.
void AvCapture::check_pictures(const AVPacket& packet) {
  if (!source_.video() || paced_) return;
  const int64_t now_us = av_gettime_relative();
  if (is_picture(packet) || picture_at_us_ == 0) picture_at_us_ = now_us;
  if (now_us - picture_at_us_ > picture_patience_us_)
    throw IngestError(source_.path() + ": sends sound and no pictures; check the camera");
}

bool AvCapture::is_picture(const AVPacket& packet) const {
  return source_.video() && packet.stream_index == source_.video()->index;
}

AVRational AvCapture::base_of(const AVPacket& packet) const {
  return (is_picture(packet) ? source_.video() : source_.audio())->time_base;
}

void AvCapture::arrived(const AVPacket& packet, CaptureListener* listener) const {
  const int64_t stamp = packet.pts != AV_NOPTS_VALUE ? packet.pts : packet.dts;
  listener->arrived(timeless_ ? kNoTime : seconds(stamp, base_of(packet)));
}

void AvCapture::use(PacketPtr packet, CaptureListener* listener) {
  const bool picture = is_picture(*packet);
  if (packet->flags & AV_PKT_FLAG_CORRUPT) listener->corrupt(picture ? 1 : 0, picture ? 0 : 1);
  if (!picture) {
    decode_sound(packet.get(), listener);
  } else if (const int64_t skipped = queue_picture(std::move(packet)); skipped > 0) {
    listener->late(skipped);
  }
}

// Waits until the packet of a paced source is due. What was late shifts all that follows; where
// part of it is missing then, the time is made up for.
void AvCapture::pace(const AVPacket& packet, AVRational base) {
  if (!paced_) return;
  const int64_t stamp = packet.dts != AV_NOPTS_VALUE ? packet.dts : packet.pts;
  if (stamp == AV_NOPTS_VALUE) return;
  const int64_t time_us = av_rescale_q(stamp, base, {1, 1'000'000});
  if (time_us > kFarthest_us || time_us < -kFarthest_us) return;  // no time of a source
  const int64_t now_us = av_gettime_relative();
  const int64_t ahead_us = newest_us_ == AV_NOPTS_VALUE ? 0 : time_us - newest_us_;
  if (newest_us_ == AV_NOPTS_VALUE || std::abs(ahead_us) > kJump_us) {
    newest_us_ = time_us;
    shift_us_ = first_shift_us_ = now_us - time_us;
    return;
  }
  newest_us_ = std::max(newest_us_, time_us);
  if (ahead_us > kGap_us) shift_us_ = std::max(first_shift_us_, now_us - time_us);
  // (One that was held back behind the newest tells nothing.)
  if (ahead_us >= 0 && now_us - (time_us + shift_us_) > kBehind_us) shift_us_ = now_us - time_us;
  sleep_until(time_us + shift_us_);
}

void AvCapture::sleep_until(int64_t time_us) {
  for (int64_t left = time_us - av_gettime_relative(); left > 0 && !stopped_;
       left = time_us - av_gettime_relative())
    av_usleep(static_cast<unsigned>(std::min(left, kSlice_us)));
}

// Returns how many are skipped because decoding is too slow: those up to a key frame.
int64_t AvCapture::queue_picture(PacketPtr packet) {
  std::lock_guard<std::mutex> lock(mutex_);
  const int64_t now_us = av_gettime_relative();
  const bool is_key = (packet->flags & AV_PKT_FLAG_KEY) != 0;
  const bool is_full = pictures_.size() >= kPackets;
  int64_t skipped = 0;
  if (is_key && (is_full || (!pictures_.empty() && now_us - pictures_.front().at_us > kOld_us))) {
    skipped = static_cast<int64_t>(pictures_.size());
    pictures_.clear();
  }
  skipping_ = !is_key && (skipping_ || is_full);
  if (skipping_) return skipped + 1;
  pictures_.push_back({std::move(packet), now_us});
  changed_.notify_all();
  return skipped;
}

void AvCapture::decode_pictures(CaptureListener* listener) {
  try {
    const AVRational base = source_.video()->time_base;
    PacketPtr packet;
    do {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return stopped_ || ended_ || !pictures_.empty(); });
        if (stopped_) return;
        packet = nullptr;
        if (!pictures_.empty()) {
          packet = std::move(pictures_.front().packet);
          pictures_.pop_front();
        }
      }
      int64_t errors = 0;
      decode(video_codec_.get(), packet.get(), &errors, [&](FramePtr frame) {
        if (is_damaged(*frame)) ++errors;
        const double pts_s = timeless_ ? kNoTime : seconds(frame->best_effort_timestamp, base);
        frame = hardware_.fetch(std::move(frame));
        // A raw picture of a device lies in the device's memory, which goes with it.
        if (from_device_ && video_codec_->codec_id == AV_CODEC_ID_RAWVIDEO) frame = copy_of(*frame);
        listener->picture(std::move(frame), pts_s);
        return !stopped_;
      });
      if (errors > 0) listener->corrupt(errors, 0);
    } while (packet);
  } catch (...) {
    std::lock_guard<std::mutex> lock(mutex_);
    error_ = std::current_exception();
  }
}

void AvCapture::decode_sound(const AVPacket* packet, CaptureListener* listener) {
  const AVRational base = source_.audio()->time_base;
  int64_t errors = 0;
  decode(audio_codec_.get(), packet, &errors, [&](FramePtr frame) {
    listener->sound(*frame, seconds(frame->pts, base));
    return !stopped_;
  });
  if (errors > 0) listener->corrupt(0, errors);
}

}  // namespace refavs
