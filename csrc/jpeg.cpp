#include "jpeg.h"

#include <algorithm>
#include <new>
#include <string>

#include "error.h"

namespace refavs {
namespace {

constexpr AVPixelFormat kFormat = AV_PIX_FMT_YUVJ420P;
constexpr int kLargestSide = 16'383;

// libavcodec's scale of quantisers, 2 (best) to 31, for a quality of 1 to 100.
int quantiser(int quality) { return std::clamp(2 + (100 - quality) * 29 / 99, 2, 31); }

}  // namespace

void JpegEncoder::open(int width, int height) {
  if (width < 1 || height < 1 || width > kLargestSide || height > kLargestSide)
    throw IngestError("a picture of " + std::to_string(width) + " x " + std::to_string(height) +
                      " is none for JPEG; its sides are 1 to " + std::to_string(kLargestSide));
  const AVCodec* encoder = avcodec_find_encoder(AV_CODEC_ID_MJPEG);
  if (!encoder) throw IngestError("this FFmpeg has no JPEG encoder; install one that has");
  codec_.reset(avcodec_alloc_context3(encoder));
  if (!codec_) throw std::bad_alloc();
  codec_->width = width;
  codec_->height = height;
  codec_->pix_fmt = kFormat;
  codec_->color_range = AVCOL_RANGE_JPEG;
  codec_->time_base = {1, 25};
  codec_->thread_count = 1;
  codec_->flags |= AV_CODEC_FLAG_QSCALE;
  codec_->global_quality = FF_QP2LAMBDA * quantiser(quality_);
  int status = avcodec_open2(codec_.get(), encoder, nullptr);
  frame_ = new_frame();
  frame_->format = kFormat;
  frame_->width = width;
  frame_->height = height;
  frame_->quality = codec_->global_quality;
  if (status >= 0) status = av_frame_get_buffer(frame_.get(), 0);
  sws_.reset(sws_getContext(width, height, AV_PIX_FMT_RGB24, width, height, kFormat,
                            SWS_FAST_BILINEAR, nullptr, nullptr, nullptr));
  if (status < 0 || !sws_) {
    codec_.reset();
    throw IngestError("the JPEG encoder does not open (" + ffmpeg_message(status) + ")");
  }
}

std::vector<uint8_t> JpegEncoder::encode(const uint8_t* rgb, int width, int height,
                                         int64_t stride) {
  if (!codec_ || codec_->width != width || codec_->height != height) open(width, height);
  if (av_frame_make_writable(frame_.get()) < 0) throw std::bad_alloc();
  const uint8_t* planes[4] = {rgb};
  const int strides[4] = {static_cast<int>(stride)};
  sws_scale(sws_.get(), planes, strides, 0, height, frame_->data, frame_->linesize);
  PacketPtr packet = new_packet();
  int status = avcodec_send_frame(codec_.get(), frame_.get());
  if (status >= 0) status = avcodec_receive_packet(codec_.get(), packet.get());
  if (status < 0)
    throw IngestError("a picture cannot be encoded as JPEG (" + ffmpeg_message(status) + ")");
  return std::vector<uint8_t>(packet->data, packet->data + packet->size);
}

}  // namespace refavs
