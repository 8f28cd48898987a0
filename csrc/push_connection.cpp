#include "push_connection.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "address.h"
#include "error.h"
#include "name_lookup.h"

namespace refavs {
namespace {

constexpr double kStall_s = 5.0;  // in which a receiver takes nothing
constexpr double kGoodbye_s = 0.3;

double now_s() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

int is_over(void* deadline) { return static_cast<const Deadline*>(deadline)->is_over() ? 1 : 0; }

}  // namespace

void Deadline::within(double seconds) { until_s_ = now_s() + seconds; }

void Deadline::close_within(double seconds) { closed_s_ = now_s() + seconds; }

bool Deadline::is_over() const { return now_s() > std::min(until_s_.load(), closed_s_.load()); }

bool Deadline::is_closed() const { return now_s() > closed_s_.load(); }

AVIOInterruptCB Deadline::callback() const {
  return {&refavs::is_over, const_cast<Deadline*>(this)};
}

void PushConnection::Closer::operator()(AVFormatContext* context) const {
  if (context->pb && !(context->oformat->flags & AVFMT_NOFILE)) avio_closep(&context->pb);
  avformat_free_context(context);
}

PushConnection::PushConnection(const PushTarget& target, const PictureFormat& format,
                               Soundtrack* sound, Deadline* deadline)
    : deadline_(deadline), sound_(sound) {
  AVFormatContext* context = nullptr;
  avformat_alloc_output_context2(&context, nullptr, target.muxer.c_str(), target.url.c_str());
  if (!context) throw SinkError("this FFmpeg cannot write " + target.muxer);
  output_.reset(context);
  const bool global_header = context->oformat->flags & AVFMT_GLOBALHEADER;
  encoder_ = std::make_unique<PictureEncoder>(target.shown, format, Encoding::kLive, global_header);
  picture_stream_ = avformat_new_stream(context, nullptr);
  if (!picture_stream_) throw std::bad_alloc();
  encoder_->describe(picture_stream_);
  if (sound_) {
    sound_stream_ = avformat_new_stream(context, nullptr);
    if (!sound_stream_) throw std::bad_alloc();
    sound_->describe(sound_stream_);
  }
  open(target);
}

void PushConnection::open(const PushTarget& target) {
  if (look_up(host_of(target.url), [this] { return deadline_->is_over(); }) != Lookup::kAnswered)
    throw SinkError("no name server knows its host now");
  AVFormatContext* context = output_.get();
  context->interrupt_callback = deadline_->callback();
  context->flush_packets = 1;
  context->protocol_whitelist = av_strdup(target.protocols.c_str());
  AVDictionary* settings = nullptr;
  int status = 0;
  if (!(context->oformat->flags & AVFMT_NOFILE)) {
    av_dict_set(&settings, "protocol_whitelist", target.protocols.c_str(), 0);
    // Seven packets of MPEG-TS, which fit into a datagram of Ethernet.
    if (target.protocols == "udp") av_dict_set(&settings, "pkt_size", "1316", 0);
    status = avio_open2(&context->pb, target.url.c_str(), AVIO_FLAG_WRITE,
                        &context->interrupt_callback, &settings);
    av_dict_free(&settings);
  }
  if (status >= 0) {
    if (target.muxer == "rtsp") av_dict_set(&settings, "rtsp_transport", "tcp", 0);
    if (target.muxer == "flv") av_dict_set(&settings, "flvflags", "no_duration_filesize", 0);
    status = avformat_write_header(context, &settings);
    av_dict_free(&settings);
  }
  if (status < 0) fail(status);
  begun_ = true;
}

PushConnection::~PushConnection() {
  if (!begun_) return;
  deadline_->within(kGoodbye_s);
  av_write_trailer(output_.get());
}

void PushConnection::send(const std::vector<uint8_t>& picture, double pts_s) {
  const auto write_sound = [this](AVPacket* packet) {
    write(packet, sound_stream_, sound_->time_base());
  };
  deadline_->within(kStall_s);
  if (!sends_) {
    sends_ = true;
    begin_s_ = pts_s;
    if (sound_) {
      sound_->begin(pts_s);
      sound_->write_until(pts_s, [this](AVPacket*) {  // while nobody was there
        if (deadline_->is_closed()) throw SinkError("it is closed");
      });
      deadline_->within(kStall_s);  // the receiver had no part in that
    }
  }
  encoder_->encode(picture, pts_s - begin_s_, [&](AVPacket* packet) {
    if (sound_) sound_->write_until(pts_s, write_sound);
    write(packet, picture_stream_, encoder_->time_base());
  });
}

void PushConnection::write(AVPacket* packet, AVStream* stream, AVRational time_base) {
  packet->stream_index = stream->index;
  packet->pos = -1;
  if (stream == sound_stream_) {
    const int64_t begin = std::llround(begin_s_ * time_base.den / time_base.num);
    packet->pts -= begin;
    packet->dts -= begin;
    if (packet->dts < 0) return;  // FLV takes nothing that is earlier than its first packet
  }
  av_packet_rescale_ts(packet, time_base, stream->time_base);
  int status = av_write_frame(output_.get(), packet);
  if (status >= 0 && output_->pb && output_->pb->error < 0) status = output_->pb->error;
  if (status < 0) fail(status);
}

void PushConnection::fail(int status) const {
  throw SinkError(deadline_->is_over() ? std::string("nothing is taken there")
                                       : ffmpeg_message(status));
}

}  // namespace refavs
