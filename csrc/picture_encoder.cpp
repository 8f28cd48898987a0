#include "picture_encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "error.h"

namespace refavs {
namespace {

constexpr int kTicksPerSecond = 90000;
constexpr double kFallbackRate = 25.0;
constexpr double kKeyFrames_s = 1.0;  // of a live stream
constexpr double kBitsPerPixel = 0.1;
constexpr int64_t kLeastBits = 200'000;  // a second

int even(int side) { return side + side % 2; }

}  // namespace

std::vector<uint8_t> padded(const PictureFormat& format, const uint8_t* rgb, int64_t stride) {
  const size_t row = size_t(even(format.width)) * 3;
  const int rows = even(format.height);
  std::vector<uint8_t> picture(row * rows + 64);  // swscale's vector code may read past the end
  for (int y = 0; y < rows; ++y) {
    const uint8_t* from = rgb + std::min(y, format.height - 1) * stride;
    uint8_t* to = picture.data() + y * row;
    std::memcpy(to, from, size_t(format.width) * 3);
    if (format.width % 2) std::memcpy(to + row - 3, to + row - 6, 3);
  }
  return picture;
}

PictureEncoder::PictureEncoder(const std::string& name, const PictureFormat& format,
                               Encoding encoding, bool global_header)
    : name_(name),
      format_(format),
      encoding_(encoding),
      coded_width_(even(format.width)),
      coded_height_(even(format.height)) {
  if (format.width < 1 || format.height < 1)
    throw SinkError(name_ + ": the picture's size must be positive, not " +
                    std::to_string(format.width) + "x" + std::to_string(format.height));
  if (!(format_.frame_rate > 0.0 && format_.frame_rate < 1000.0))
    format_.frame_rate = kFallbackRate;
  open(global_header);
  prepare();
}

void PictureEncoder::open(bool global_header) {
  const AVCodec* candidates[] = {
      avcodec_find_encoder_by_name("libx264"), avcodec_find_encoder_by_name("libopenh264"),
      avcodec_find_encoder(AV_CODEC_ID_H264), avcodec_find_encoder(AV_CODEC_ID_MPEG4)};
  // What players assume of sizes whose matrix is not named; it is named as well.
  const bool hd = coded_height_ >= 720;
  const bool live = encoding_ == Encoding::kLive;
  const double rate = format_.frame_rate;
  const int64_t bits =
      std::llround(kBitsPerPixel * coded_width_ * coded_height_ * rate) + kLeastBits;
  for (const AVCodec* codec : candidates) {
    if (!codec) continue;
    codec_.reset(avcodec_alloc_context3(codec));
    if (!codec_) throw std::bad_alloc();
    codec_->width = coded_width_;
    codec_->height = coded_height_;
    codec_->pix_fmt = AV_PIX_FMT_YUV420P;
    codec_->time_base = {1, kTicksPerSecond};
    codec_->framerate = av_d2q(rate, 100000);
    codec_->sample_aspect_ratio = format_.pixel_aspect;
    codec_->gop_size = std::max(1, static_cast<int>(std::lround(2.0 * rate)));
    // Frames come at any times; were they stored out of order, MP4 would tell too short a duration.
    codec_->max_b_frames = 0;
    codec_->color_range = AVCOL_RANGE_MPEG;
    codec_->colorspace = hd ? AVCOL_SPC_BT709 : AVCOL_SPC_SMPTE170M;
    codec_->color_primaries = hd ? AVCOL_PRI_BT709 : AVCOL_PRI_SMPTE170M;
    codec_->color_trc = hd ? AVCOL_TRC_BT709 : AVCOL_TRC_SMPTE170M;
    codec_->thread_count = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 4);
    if (global_header) codec_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    AVDictionary* settings = nullptr;
    if (std::strcmp(codec->name, "libx264") == 0) {
      av_dict_set(&settings, "preset", "veryfast", 0);
      av_dict_set(&settings, "crf", live ? "23" : "20", 0);
      if (live) {
        av_dict_set(&settings, "tune", "zerolatency", 0);
        codec_->rc_max_rate = bits;
        codec_->rc_buffer_size = static_cast<int>(std::min<int64_t>(bits, INT32_MAX));
      }
    } else {
      codec_->bit_rate = bits;  // these know no constant quality
      if (live) codec_->flags |= AV_CODEC_FLAG_LOW_DELAY;
    }
    if (codec->id == AV_CODEC_ID_MPEG4) codec_->time_base = {1, 1000};
    const int status = avcodec_open2(codec_.get(), codec, &settings);
    av_dict_free(&settings);
    if (status < 0) continue;
    if (codec->id != AV_CODEC_ID_H264)
      notes_.push_back("this FFmpeg has no working H.264 encoder; " + name_ +
                       " is MPEG-4 part 2, which browsers do not play");
    return;
  }
  throw SinkError(name_ + ": this FFmpeg has no H.264 encoder; install one with libx264");
}

void PictureEncoder::prepare() {
  sws_.reset(sws_getContext(coded_width_, coded_height_, AV_PIX_FMT_RGB24, coded_width_,
                            coded_height_, codec_->pix_fmt, SWS_BICUBIC | SWS_ACCURATE_RND, nullptr,
                            nullptr, nullptr));
  if (!sws_) throw SinkError(name_ + ": swscale cannot convert RGB pictures of this size");
  const int one = 1 << 16;
  sws_setColorspaceDetails(sws_.get(), sws_getCoefficients(SWS_CS_DEFAULT), 1,
                           sws_getCoefficients(codec_->colorspace), 0, 0, one, one);
  frame_ = new_frame();
  frame_->format = codec_->pix_fmt;
  frame_->width = coded_width_;
  frame_->height = coded_height_;
  if (av_frame_get_buffer(frame_.get(), 0) < 0) throw std::bad_alloc();
}

void PictureEncoder::describe(AVStream* stream) const {
  if (avcodec_parameters_from_context(stream->codecpar, codec_.get()) < 0) throw std::bad_alloc();
  stream->time_base = codec_->time_base;
  stream->avg_frame_rate = codec_->framerate;
  stream->sample_aspect_ratio = format_.pixel_aspect;
}

double PictureEncoder::interval_s() const { return 1.0 / format_.frame_rate; }

void PictureEncoder::encode(const std::vector<uint8_t>& picture, double pts_s, const Write& write) {
  if (av_frame_make_writable(frame_.get()) < 0) throw std::bad_alloc();
  const uint8_t* planes[4] = {picture.data()};
  const int strides[4] = {coded_width_ * 3};
  sws_scale(sws_.get(), planes, strides, 0, coded_height_, frame_->data, frame_->linesize);
  frame_->pts =
      av_rescale_q(std::llround(pts_s * kTicksPerSecond), {1, kTicksPerSecond}, codec_->time_base);
  const bool key = encoding_ == Encoding::kLive && pts_s - key_s_ >= kKeyFrames_s;
  if (key) key_s_ = pts_s;
  frame_->pict_type = key ? AV_PICTURE_TYPE_I : AV_PICTURE_TYPE_NONE;
  const int status = avcodec_send_frame(codec_.get(), frame_.get());
  if (status < 0)
    throw SinkError(name_ + ": a picture cannot be encoded: " + ffmpeg_message(status));
  drain(write);
}

void PictureEncoder::flush(const Write& write) {
  avcodec_send_frame(codec_.get(), nullptr);
  drain(write);
}

void PictureEncoder::drain(const Write& write) {
  PacketPtr packet = new_packet();
  for (;;) {
    const int status = avcodec_receive_packet(codec_.get(), packet.get());
    if (status == AVERROR(EAGAIN) || status == AVERROR_EOF) return;
    if (status < 0)
      throw SinkError(name_ + ": a picture cannot be encoded: " + ffmpeg_message(status));
    if (packet->duration <= 0)
      packet->duration = av_rescale_q(std::llround(interval_s() * kTicksPerSecond),
                                      {1, kTicksPerSecond}, codec_->time_base);
    write(packet.get());
    av_packet_unref(packet.get());
  }
}

}  // namespace refavs
