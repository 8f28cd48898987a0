#include "soundtrack.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "error.h"

namespace refavs {
namespace {

constexpr int kEncodedRateHz = 48000;
constexpr int kHighestCopiedHz = 768000;
constexpr int64_t kLongestPacket_s = 60;  // a longer one is a broken duration
constexpr int64_t kBitsPerChannel = 96000;

bool mp4_holds(AVCodecID codec) {
  switch (codec) {
    case AV_CODEC_ID_AAC:
    case AV_CODEC_ID_MP3:
    case AV_CODEC_ID_AC3:
    case AV_CODEC_ID_EAC3:
    case AV_CODEC_ID_OPUS:
    case AV_CODEC_ID_ALAC:
      return true;
    default:
      return false;
  }
}

}  // namespace

Soundtrack::Soundtrack(const std::string& path) : source_(path, Wanted::kSound) {
  if (!present()) return;
  const AVCodecParameters& stored = *source_.audio()->codecpar;
  rate_ = stored.sample_rate;
  if (mp4_holds(stored.codec_id) && rate_ > 0 && rate_ <= kHighestCopiedHz) return;
  rate_ = kEncodedRateHz;
  channels_ = channel_count(stored) == 1 ? 1 : 2;
  decoder_ = source_.open_decoder(*source_.audio(), 1);
  open_encoder();
  fifo_ = SampleFifo(channels_);
  resampler_ = std::make_unique<Resampler>(
      rate_, channels_, source_.clock(),
      [this](const float* const* samples, int64_t count) { fifo_.push(samples, count); },
      [](int64_t, int64_t) {}, [this](int64_t count) { fifo_.push_silence(count); });
}

void Soundtrack::open_encoder() {
  const AVCodec* codec = avcodec_find_encoder(AV_CODEC_ID_AAC);
  if (!codec) throw SinkError("this FFmpeg has no AAC encoder for the sound; write without sound");
  encoder_.reset(avcodec_alloc_context3(codec));
  if (!encoder_) throw std::bad_alloc();
  encoder_->sample_fmt = AV_SAMPLE_FMT_FLTP;
  encoder_->sample_rate = rate_;
  encoder_->time_base = {1, rate_};
  encoder_->bit_rate = kBitsPerChannel * channels_;
  encoder_->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  set_default_channels(encoder_.get(), channels_);
  const int status = avcodec_open2(encoder_.get(), codec, nullptr);
  if (status < 0) throw SinkError("the AAC encoder does not open: " + ffmpeg_message(status));
}

std::string Soundtrack::codec_name() const { return copied() ? source_.info().audio_codec : "aac"; }

void Soundtrack::describe(AVStream* stream) const {
  const int status = copied() ? avcodec_parameters_copy(stream->codecpar, source_.audio()->codecpar)
                              : avcodec_parameters_from_context(stream->codecpar, encoder_.get());
  if (status < 0) throw std::bad_alloc();
  stream->codecpar->codec_tag = 0;  // the source container's name for the codec
  stream->time_base = time_base();
}

void Soundtrack::write_until(double until_s, const Write& write) {
  if (!present()) return;
  if (copied()) {
    copy_until(until_s, write);
  } else {
    encode_until(until_s, write);
  }
}

void Soundtrack::finish(double end_s, const Write& write) {
  if (!present()) return;
  write_until(end_s, write);
  if (copied()) return;
  const int64_t end = std::llround(end_s * rate_);
  const int64_t rest = std::min<int64_t>(end - encoded_, fifo_.size());
  if (rest > 0) {
    FramePtr frame = new_frame();
    frame->format = AV_SAMPLE_FMT_FLTP;
    frame->sample_rate = rate_;
    frame->nb_samples = static_cast<int>(rest);
    frame->pts = encoded_;
    set_default_channels(frame.get(), channels_);
    if (av_frame_get_buffer(frame.get(), 0) < 0) throw std::bad_alloc();
    fifo_.pop(rest, reinterpret_cast<float**>(frame->extended_data));
    send(frame.get(), write);
  }
  send(nullptr, write);
}

void Soundtrack::copy_until(double until_s, const Write& write) {
  while (next_ || read_copy()) {
    if (static_cast<double>(next_->pts) / rate_ >= until_s) return;
    write(next_.get());
    next_.reset();
  }
}

// Reads one packet into next_, in samples on the source's clock. False: the end.
bool Soundtrack::read_copy() {
  if (ended_) return false;
  const AVStream& stream = *source_.audio();
  PacketPtr packet = new_packet();
  if (source_.read(packet.get()) < 0) {
    ended_ = true;
    return false;
  }
  const AVRational base = stream.time_base;
#if LIBAVCODEC_VERSION_MAJOR >= 60
  const int frame_samples = av_get_audio_frame_duration2(stream.codecpar, packet->size);
#else
  const int frame_samples =
      av_get_audio_frame_duration2(const_cast<AVCodecParameters*>(stream.codecpar), packet->size);
#endif
  const int64_t samples = std::clamp<int64_t>(
      frame_samples > 0 ? frame_samples : av_rescale_q(packet->duration, base, {1, rate_}), 0,
      kLongestPacket_s * rate_);
  const int64_t stamp = packet->pts != AV_NOPTS_VALUE ? packet->pts : packet->dts;
  int64_t at = expected_ != AV_NOPTS_VALUE ? expected_ : 0;
  if (stamp != AV_NOPTS_VALUE) {
    const int64_t stamped = source_.clock().round_ticks(stamp, base, rate_);
    // Container ticks may be coarser than samples: within two of them, packets follow seamlessly.
    const int64_t rounding = 2 * std::max<int64_t>(1, av_rescale_q(1, base, {1, rate_}));
    if (expected_ == AV_NOPTS_VALUE || std::llabs(stamped - expected_) > rounding)
      at = expected_ == AV_NOPTS_VALUE ? stamped : std::max(stamped, expected_);
  }
  packet->pts = packet->dts = at;
  packet->duration = samples;
  expected_ = at + samples;
  next_ = std::move(packet);
  return true;
}

void Soundtrack::encode_until(double until_s, const Write& write) {
  const int64_t frame_samples = encoder_->frame_size;
  for (;;) {
    const double frame_end_s = static_cast<double>(encoded_ + encoder_->frame_size) / rate_;
    if (frame_end_s > until_s) return;
    while (fifo_.size() < frame_samples && decode_more()) {
    }
    if (fifo_.size() < frame_samples) return;
    FramePtr frame = new_frame();
    frame->format = AV_SAMPLE_FMT_FLTP;
    frame->sample_rate = rate_;
    frame->nb_samples = encoder_->frame_size;
    frame->pts = encoded_;
    set_default_channels(frame.get(), channels_);
    if (av_frame_get_buffer(frame.get(), 0) < 0) throw std::bad_alloc();
    fifo_.pop(frame_samples, reinterpret_cast<float**>(frame->extended_data));
    encoded_ += encoder_->frame_size;
    send(frame.get(), write);
  }
}

// Decodes one packet into the fifo. False: the end.
bool Soundtrack::decode_more() {
  if (ended_) return false;
  PacketPtr packet = new_packet();
  const bool last = source_.read(packet.get()) < 0;
  avcodec_send_packet(decoder_.get(), last ? nullptr : packet.get());
  FramePtr frame = new_frame();
  while (avcodec_receive_frame(decoder_.get(), frame.get()) >= 0) {
    resampler_->push(*frame, source_.audio()->time_base);
    av_frame_unref(frame.get());
  }
  if (last) {
    resampler_->flush();
    ended_ = true;
  }
  return true;
}

void Soundtrack::send(const AVFrame* frame, const Write& write) {
  int status = avcodec_send_frame(encoder_.get(), frame);
  PacketPtr packet = new_packet();
  while (status >= 0) {
    status = avcodec_receive_packet(encoder_.get(), packet.get());
    if (status < 0) break;
    write(packet.get());
    av_packet_unref(packet.get());
  }
  if (status < 0 && status != AVERROR(EAGAIN) && status != AVERROR_EOF)
    throw SinkError("the sound cannot be encoded: " + ffmpeg_message(status));
}

}  // namespace refavs
