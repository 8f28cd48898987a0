#include "aac_encoder.h"

#include <new>

#include "error.h"

namespace refavs {
namespace {

constexpr int64_t kBitsPerChannel = 96000;

}  // namespace

AacEncoder::AacEncoder(int rate_hz, int channels) : channels_(channels) {
  const AVCodec* encoder = avcodec_find_encoder(AV_CODEC_ID_AAC);
  if (!encoder)
    throw SinkError("this FFmpeg has no AAC encoder for the sound; write without sound");
  codec_.reset(avcodec_alloc_context3(encoder));
  if (!codec_) throw std::bad_alloc();
  codec_->sample_fmt = AV_SAMPLE_FMT_FLTP;
  codec_->sample_rate = rate_hz;
  codec_->time_base = {1, rate_hz};
  codec_->bit_rate = kBitsPerChannel * channels;
  codec_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  set_default_channels(codec_.get(), channels);
  const int status = avcodec_open2(codec_.get(), encoder, nullptr);
  if (status < 0) throw SinkError("the AAC encoder does not open: " + ffmpeg_message(status));
}

void AacEncoder::describe(AVStream* stream) const {
  if (avcodec_parameters_from_context(stream->codecpar, codec_.get()) < 0) throw std::bad_alloc();
  stream->codecpar->codec_tag = 0;
  stream->time_base = codec_->time_base;
}

void AacEncoder::encode(int count, const Fill& fill, const Write& write) {
  FramePtr frame = new_frame();
  frame->format = AV_SAMPLE_FMT_FLTP;
  frame->sample_rate = codec_->sample_rate;
  frame->nb_samples = count;
  frame->pts = position_;
  set_default_channels(frame.get(), channels_);
  if (av_frame_get_buffer(frame.get(), 0) < 0) throw std::bad_alloc();
  fill(reinterpret_cast<float**>(frame->extended_data));
  position_ += count;
  send(frame.get(), write);
}

void AacEncoder::send(const AVFrame* frame, const Write& write) {
  int status = avcodec_send_frame(codec_.get(), frame);
  PacketPtr packet = new_packet();
  while (status >= 0) {
    status = avcodec_receive_packet(codec_.get(), packet.get());
    if (status < 0) break;
    write(packet.get());
    av_packet_unref(packet.get());
  }
  if (status < 0 && status != AVERROR(EAGAIN) && status != AVERROR_EOF)
    throw SinkError("the sound cannot be encoded: " + ffmpeg_message(status));
}

}  // namespace refavs
