#include "file_soundtrack.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "error.h"

namespace refavs {
namespace {

constexpr int kEncodedRateHz = 48000;
constexpr int kHighestCopiedHz = 768000;
constexpr int64_t kLongestPacket_s = 60;  // a longer one is a broken duration

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

FileSoundtrack::FileSoundtrack(const std::string& path, bool may_copy)
    : source_(path, Wanted::kSound) {
  if (!present()) return;
  const AVCodecParameters& stored = *source_.audio()->codecpar;
  rate_ = stored.sample_rate;
  if (may_copy && mp4_holds(stored.codec_id) && rate_ > 0 && rate_ <= kHighestCopiedHz) {
    if (stored.codec_id == AV_CODEC_ID_AAC && stored.extradata_size == 0) open_unwrapper();
    return;
  }
  rate_ = kEncodedRateHz;
  channels_ = channel_count(stored) == 1 ? 1 : 2;
  decoder_ = source_.open_decoder(*source_.audio(), 1);
  encoder_ = std::make_unique<AacEncoder>(rate_, channels_);
  fifo_ = SampleFifo(channels_);
  resampler_ = std::make_unique<Resampler>(
      rate_, channels_, source_.clock(),
      [this](const float* const* samples, int64_t count) { fifo_.push(samples, count); },
      [](int64_t, int64_t) {}, [this](int64_t count) { fifo_.push_silence(count); });
}

void FileSoundtrack::describe(AVStream* stream) const {
  if (encoder_) return encoder_->describe(stream);
  if (avcodec_parameters_copy(stream->codecpar, source_.audio()->codecpar) < 0)
    throw std::bad_alloc();
  stream->codecpar->codec_tag = 0;  // the source container's name for the codec
  if (unwrapper_)
    set_extradata(stream->codecpar, extradata_.data(), static_cast<int>(extradata_.size()));
  stream->time_base = time_base();
}

void FileSoundtrack::write_until(double until_s, const Write& write) {
  if (!present()) return;
  if (copied()) {
    copy_until(until_s, write);
  } else {
    encode_until(until_s, write);
  }
}

void FileSoundtrack::finish(double end_s, const Write& write) {
  if (!present()) return;
  write_until(end_s, write);
  if (copied()) return;
  const int64_t rest =
      std::min<int64_t>(std::llround(end_s * rate_) - encoder_->position(), fifo_.size());
  if (rest > 0)
    encoder_->encode(
        static_cast<int>(rest), [&](float* const* channels) { fifo_.pop(rest, channels); }, write);
  encoder_->flush(write);
}

void FileSoundtrack::copy_until(double until_s, const Write& write) {
  while (next_ || read_copy()) {
    if (static_cast<double>(next_->pts) / rate_ >= until_s) return;
    write(next_.get());
    next_.reset();
  }
}

// MP4 has AAC's headers once, in front: the first packet's.
void FileSoundtrack::open_unwrapper() {
  AVBSFContext* context = nullptr;
  const AVBitStreamFilter* filter = av_bsf_get_by_name("aac_adtstoasc");
  if (!filter || av_bsf_alloc(filter, &context) < 0)
    throw SinkError("this FFmpeg cannot copy the sound; convert it with ffmpeg -c:a aac");
  unwrapper_.reset(context);
  if (avcodec_parameters_copy(context->par_in, source_.audio()->codecpar) < 0 ||
      av_bsf_init(context) < 0)
    throw std::bad_alloc();
  read_copy();
}

// The next packet of the source. False: the end.
bool FileSoundtrack::read_unwrapped(AVPacket* packet) {
  for (;;) {
    if (source_.read(packet) < 0) return false;
    if (!unwrapper_) return true;
    // A packet with a broken header is left out.
    if (av_bsf_send_packet(unwrapper_.get(), packet) < 0 ||
        av_bsf_receive_packet(unwrapper_.get(), packet) < 0) {
      av_packet_unref(packet);
      continue;
    }
    if (extradata_.empty()) extradata_ = new_extradata(*packet);
    return true;
  }
}

// Reads one packet into next_, in samples on the source's clock. False: the end.
bool FileSoundtrack::read_copy() {
  if (ended_) return false;
  const AVStream& stream = *source_.audio();
  PacketPtr packet = new_packet();
  if (!read_unwrapped(packet.get())) {
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

void FileSoundtrack::encode_until(double until_s, const Write& write) {
  const int count = encoder_->frame_samples();
  for (;;) {
    if (static_cast<double>(encoder_->position() + count) / rate_ > until_s) return;
    while (fifo_.size() < count && decode_more()) {
    }
    if (fifo_.size() < count) return;
    encoder_->encode(count, [&](float* const* channels) { fifo_.pop(count, channels); }, write);
  }
}

// Decodes one packet into the fifo. False: the end.
bool FileSoundtrack::decode_more() {
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

}  // namespace refavs
