#include "sink.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "error.h"

namespace refavs {
namespace {

namespace fs = std::filesystem;

constexpr int kTicksPerSecond = 90000;
constexpr size_t kQueuedPictures = 4;
constexpr double kFallbackRate = 25.0;
constexpr double kLongest_s = 1e9;  // more is no recording, and may not be counted in ticks

std::string partial_name(const fs::path& path) {
  static std::atomic<int> counter{0};
  const std::string unique = std::to_string(::getpid()) + "-" + std::to_string(counter++);
  return (path.parent_path() / ("." + path.filename().string() + "." + unique + ".partial"))
      .string();
}

void check_target(const SinkOptions& options) {
  const fs::path path(options.path);
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code error;
  if (!fs::exists(folder, error))
    throw SinkError(options.path + ": the folder " + folder.string() +
                    " does not exist; make it first");
  if (!fs::is_directory(folder, error))
    throw SinkError(options.path + ": " + folder.string() + " is not a folder");
  if (fs::is_directory(path, error))
    throw SinkError(options.path + " is a directory; name a file in it");
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (extension != ".mp4" && extension != ".m4v" && extension != ".mov")
    throw SinkError(options.path + ": only MP4 is written; give it a name that ends in .mp4");
  if (!options.source.empty() && fs::equivalent(options.source, path, error))
    throw SinkError(options.path + " is the source itself; write to another file");
  if (options.width < 1 || options.height < 1)
    throw SinkError(options.path + ": the picture's size must be positive, not " +
                    std::to_string(options.width) + "x" + std::to_string(options.height));
}

}  // namespace

void Sink::OutputCloser::operator()(AVFormatContext* context) const {
  if (context->pb) avio_closep(&context->pb);
  avformat_free_context(context);
}

Sink::Sink(const SinkOptions& options)
    : options_(options),
      coded_width_(options.width + options.width % 2),
      coded_height_(options.height + options.height % 2),
      items_(kQueuedPictures) {
  check_target(options_);
  if (!(options_.frame_rate > 0.0 && options_.frame_rate < 1000.0))
    options_.frame_rate = kFallbackRate;
  interval_ = std::llround(kTicksPerSecond / options_.frame_rate);
  if (!options_.source.empty()) {
    sound_ = std::make_unique<Soundtrack>(options_.source);
    notes_ = sound_->notes();
  }
  open_encoder();
  try {
    open_file();
    thread_ = std::thread(&Sink::run, this);
  } catch (...) {
    remove_partial();
    throw;
  }
  open_ = true;
}

Sink::~Sink() { abort(); }

void Sink::open_encoder() {
  const AVPixelFormat format = AV_PIX_FMT_YUV420P;
  const AVCodec* candidates[] = {
      avcodec_find_encoder_by_name("libx264"), avcodec_find_encoder_by_name("libopenh264"),
      avcodec_find_encoder(AV_CODEC_ID_H264), avcodec_find_encoder(AV_CODEC_ID_MPEG4)};
  // What players assume of sizes whose matrix is not named; it is named as well.
  const bool hd = coded_height_ >= 720;
  for (const AVCodec* codec : candidates) {
    if (!codec) continue;
    encoder_.reset(avcodec_alloc_context3(codec));
    if (!encoder_) throw std::bad_alloc();
    encoder_->width = coded_width_;
    encoder_->height = coded_height_;
    encoder_->pix_fmt = format;
    encoder_->time_base = {1, kTicksPerSecond};
    encoder_->framerate = av_d2q(options_.frame_rate, 100000);
    encoder_->sample_aspect_ratio = options_.pixel_aspect;
    encoder_->gop_size = std::max(1, static_cast<int>(std::lround(2.0 * options_.frame_rate)));
    // Frames come at any times; were they stored out of order, MP4 would tell too short a duration.
    encoder_->max_b_frames = 0;
    encoder_->color_range = AVCOL_RANGE_MPEG;
    encoder_->colorspace = hd ? AVCOL_SPC_BT709 : AVCOL_SPC_SMPTE170M;
    encoder_->color_primaries = hd ? AVCOL_PRI_BT709 : AVCOL_PRI_SMPTE170M;
    encoder_->color_trc = hd ? AVCOL_TRC_BT709 : AVCOL_TRC_SMPTE170M;
    encoder_->thread_count =
        std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 4);
    encoder_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    AVDictionary* settings = nullptr;
    if (std::strcmp(codec->name, "libx264") == 0) {
      av_dict_set(&settings, "preset", "veryfast", 0);
      av_dict_set(&settings, "crf", "20", 0);
    } else {
      // These know no constant quality: a tenth of a bit a pixel.
      encoder_->bit_rate =
          std::llround(0.1 * coded_width_ * coded_height_ * options_.frame_rate) + 200000;
    }
    if (codec->id == AV_CODEC_ID_MPEG4) encoder_->time_base = {1, 1000};
    const int status = avcodec_open2(encoder_.get(), codec, &settings);
    av_dict_free(&settings);
    if (status < 0) continue;
    if (codec->id != AV_CODEC_ID_H264)
      notes_.push_back("this FFmpeg has no working H.264 encoder; " + options_.path +
                       " is MPEG-4 part 2, which browsers do not play");
    return;
  }
  throw SinkError(options_.path + ": this FFmpeg has no H.264 encoder; install one with libx264");
}

void Sink::open_file() {
  partial_ = partial_name(options_.path);
  AVFormatContext* context = nullptr;
  const std::string url = "file:" + partial_;
  avformat_alloc_output_context2(&context, nullptr, "mp4", url.c_str());
  if (!context) throw SinkError(options_.path + ": this FFmpeg cannot write MP4");
  output_.reset(context);
  video_stream_ = avformat_new_stream(context, nullptr);
  if (!video_stream_ ||
      avcodec_parameters_from_context(video_stream_->codecpar, encoder_.get()) < 0)
    throw std::bad_alloc();
  video_stream_->time_base = encoder_->time_base;
  video_stream_->avg_frame_rate = encoder_->framerate;
  video_stream_->sample_aspect_ratio = options_.pixel_aspect;
  if (sound_ && sound_->present()) {
    sound_stream_ = avformat_new_stream(context, nullptr);
    if (!sound_stream_) throw std::bad_alloc();
    sound_->describe(sound_stream_);
  }
  int status = avio_open(&context->pb, url.c_str(), AVIO_FLAG_WRITE);
  if (status < 0)
    throw SinkError(options_.path + " cannot be written: " + ffmpeg_message(status) +
                    "; check the folder's access rights and the disk");
  AVDictionary* settings = nullptr;
  av_dict_set(&settings, "movflags", "+faststart", 0);
  status = avformat_write_header(context, &settings);
  av_dict_free(&settings);
  if (status < 0) throw SinkError(options_.path + " cannot be begun: " + ffmpeg_message(status));

  sws_.reset(sws_getContext(coded_width_, coded_height_, AV_PIX_FMT_RGB24, coded_width_,
                            coded_height_, encoder_->pix_fmt, SWS_BICUBIC | SWS_ACCURATE_RND,
                            nullptr, nullptr, nullptr));
  if (!sws_) throw SinkError(options_.path + ": swscale cannot convert RGB pictures of this size");
  const int one = 1 << 16;
  sws_setColorspaceDetails(sws_.get(), sws_getCoefficients(SWS_CS_DEFAULT), 1,
                           sws_getCoefficients(encoder_->colorspace), 0, 0, one, one);
  frame_ = new_frame();
  frame_->format = encoder_->pix_fmt;
  frame_->width = coded_width_;
  frame_->height = coded_height_;
  if (av_frame_get_buffer(frame_.get(), 0) < 0) throw std::bad_alloc();
}

std::string Sink::sound() const {
  if (!sound_stream_) return "none";
  return sound_->copied() ? "copied" : "encoded";
}

bool Sink::write(const uint8_t* rgb, int64_t stride, double pts_s,
                 std::chrono::milliseconds timeout) {
  rethrow();
  if (!open_) throw SinkError(options_.path + " is closed");
  if (!(pts_s >= 0.0 && pts_s <= kLongest_s) || (pictures_ > 0 && pts_s <= last_pts_s_))
    throw SinkError(options_.path + ": times must rise from 0, but " + std::to_string(pts_s) +
                    " s comes after " + std::to_string(last_pts_s_) + " s");
  Item item;
  item.pts = av_rescale_q(std::llround(pts_s * kTicksPerSecond), {1, kTicksPerSecond},
                          encoder_->time_base);
  const size_t row = size_t(coded_width_) * 3;
  item.rgb.resize(row * coded_height_ + 64);  // swscale's vector code may read past the end
  for (int y = 0; y < coded_height_; ++y) {
    const uint8_t* from = rgb + std::min(y, options_.height - 1) * stride;
    uint8_t* to = item.rgb.data() + y * row;
    std::memcpy(to, from, size_t(options_.width) * 3);
    if (coded_width_ > options_.width) std::memcpy(to + row - 3, to + row - 6, 3);
  }
  const RingStatus status = items_.push(item, timeout);
  if (status == RingStatus::kTimeout) return false;
  if (status == RingStatus::kEnded) {
    rethrow();
    throw SinkError(options_.path + " is closed");
  }
  last_pts_s_ = pts_s;
  ++pictures_;
  return true;
}

void Sink::close() {
  if (!open_) return;
  open_ = false;
  items_.finish();
  if (thread_.joinable()) thread_.join();
  try {
    rethrow();
    if (pictures_ == 0) throw SinkError(options_.path + ": no picture was written to it");
    finish_file();
  } catch (...) {
    remove_partial();
    throw;
  }
}

void Sink::abort() {
  open_ = false;
  items_.cancel();
  if (thread_.joinable()) thread_.join();
  remove_partial();
}

void Sink::run() {
  try {
    Item item;
    for (;;) {
      const RingStatus status = items_.pop(&item, std::chrono::seconds(1));
      if (status == RingStatus::kEnded) return;
      if (status == RingStatus::kDone) encode(std::move(item));
    }
  } catch (...) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::current_exception();
    }
    items_.cancel();
  }
}

void Sink::encode(Item item) {
  if (av_frame_make_writable(frame_.get()) < 0) throw std::bad_alloc();
  const uint8_t* planes[4] = {item.rgb.data()};
  const int strides[4] = {coded_width_ * 3};
  sws_scale(sws_.get(), planes, strides, 0, coded_height_, frame_->data, frame_->linesize);
  frame_->pts = item.pts;
  last_pts_ = item.pts;
  const int status = avcodec_send_frame(encoder_.get(), frame_.get());
  if (status < 0)
    throw SinkError(options_.path + ": a picture cannot be encoded: " + ffmpeg_message(status));
  drain();
}

// Muxes the pictures that the encoder has ready, and the sound up to each.
void Sink::drain() {
  PacketPtr packet = new_packet();
  for (;;) {
    const int status = avcodec_receive_packet(encoder_.get(), packet.get());
    if (status == AVERROR(EAGAIN) || status == AVERROR_EOF) return;
    if (status < 0)
      throw SinkError(options_.path + ": a picture cannot be encoded: " + ffmpeg_message(status));
    if (sound_stream_)
      sound_->write_until(packet->dts * av_q2d(encoder_->time_base), [this](AVPacket* sound) {
        mux(sound, sound_stream_, sound_->time_base());
      });
    if (packet->duration <= 0)
      packet->duration = av_rescale_q(interval_, {1, kTicksPerSecond}, encoder_->time_base);
    mux(packet.get(), video_stream_, encoder_->time_base);
  }
}

void Sink::mux(AVPacket* packet, AVStream* stream, AVRational time_base) {
  packet->stream_index = stream->index;
  packet->pos = -1;
  av_packet_rescale_ts(packet, time_base, stream->time_base);
  const int status = av_interleaved_write_frame(output_.get(), packet);
  if (status < 0)
    throw SinkError(options_.path + " cannot be written: " + ffmpeg_message(status) +
                    "; check the disk");
}

void Sink::finish_file() {
  avcodec_send_frame(encoder_.get(), nullptr);
  drain();
  if (sound_stream_) {
    const double end_s =
        last_pts_ * av_q2d(encoder_->time_base) + static_cast<double>(interval_) / kTicksPerSecond;
    sound_->finish(end_s,
                   [this](AVPacket* sound) { mux(sound, sound_stream_, sound_->time_base()); });
  }
  int status = av_write_trailer(output_.get());
  if (status >= 0) status = avio_closep(&output_->pb);
  if (status < 0)
    throw SinkError(options_.path + " cannot be ended: " + ffmpeg_message(status) +
                    "; check the disk");
  std::error_code error;
  fs::rename(partial_, options_.path, error);
  if (error) throw SinkError(options_.path + " cannot be named: " + error.message());
  partial_.clear();
}

void Sink::remove_partial() {
  output_.reset();
  if (partial_.empty()) return;
  std::error_code error;
  fs::remove(partial_, error);
  partial_.clear();
}

void Sink::rethrow() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (error_) std::rethrow_exception(error_);
}

}  // namespace refavs
