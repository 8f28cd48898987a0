#include "streams.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>

namespace refavs {
namespace {

constexpr int kRate = 25;
constexpr int kSoundRate = 44100;

void check(int status, const char* what) {
  if (status < 0) throw std::runtime_error(std::string(what) + ": " + ffmpeg_message(status));
}

class Muxer {
 public:
  explicit Muxer(const char* format) {
    check(avformat_alloc_output_context2(&context_, nullptr, format, nullptr), "muxer");
    check(avio_open_dyn_buf(&context_->pb), "buffer");
  }
  ~Muxer() {
    uint8_t* bytes = nullptr;
    if (context_->pb) avio_close_dyn_buf(context_->pb, &bytes);
    av_free(bytes);
    avformat_free_context(context_);
  }

  AVStream* add(const AVCodecContext& codec) {
    AVStream* stream = avformat_new_stream(context_, nullptr);
    if (!stream) throw std::bad_alloc();
    check(avcodec_parameters_from_context(stream->codecpar, &codec), "parameters");
    stream->time_base = codec.time_base;
    return stream;
  }
  void begin() { check(avformat_write_header(context_, nullptr), "header"); }

  // Encodes and writes one frame; null: the end.
  void encode(AVCodecContext* codec, AVStream* stream, const AVFrame* frame) {
    check(avcodec_send_frame(codec, frame), "encoder");
    PacketPtr packet = new_packet();
    while (avcodec_receive_packet(codec, packet.get()) >= 0) {
      packet->stream_index = stream->index;
      av_packet_rescale_ts(packet.get(), codec->time_base, stream->time_base);
      check(av_interleaved_write_frame(context_, packet.get()), "packet");
    }
  }

  AVStream* add(const AVCodecParameters& parameters, AVRational time_base) {
    AVStream* stream = avformat_new_stream(context_, nullptr);
    if (!stream) throw std::bad_alloc();
    check(avcodec_parameters_copy(stream->codecpar, &parameters), "parameters");
    stream->time_base = time_base;
    return stream;
  }
  void write(AVPacket* packet) { check(av_write_frame(context_, packet), "packet"); }

  std::string finish() {
    check(av_write_trailer(context_), "trailer");
    uint8_t* bytes = nullptr;
    const int size = avio_close_dyn_buf(context_->pb, &bytes);
    context_->pb = nullptr;
    const std::string stream(reinterpret_cast<char*>(bytes), static_cast<size_t>(size));
    av_free(bytes);
    return stream;
  }

 private:
  AVFormatContext* context_ = nullptr;
};

CodecPtr new_encoder(AVCodecID id) {
  const AVCodec* codec = avcodec_find_encoder(id);
  CodecPtr encoder(avcodec_alloc_context3(codec));
  if (!codec || !encoder) throw std::runtime_error("this FFmpeg has no such encoder");
  return encoder;
}

CodecPtr picture_encoder() {
  CodecPtr encoder = new_encoder(AV_CODEC_ID_MPEG2VIDEO);
  encoder->width = kStreamWidth;
  encoder->height = kStreamHeight;
  encoder->pix_fmt = AV_PIX_FMT_YUV420P;
  encoder->time_base = {1, kRate};
  encoder->framerate = {kRate, 1};
  encoder->gop_size = 5;
  encoder->thread_count = 1;
  check(avcodec_open2(encoder.get(), nullptr, nullptr), "picture encoder");
  return encoder;
}

CodecPtr sound_encoder() {
  CodecPtr encoder = new_encoder(AV_CODEC_ID_MP2);
  encoder->sample_fmt = AV_SAMPLE_FMT_S16;
  encoder->sample_rate = kSoundRate;
  encoder->time_base = {1, kSoundRate};
  set_default_channels(encoder.get(), 1);
  check(avcodec_open2(encoder.get(), nullptr, nullptr), "sound encoder");
  return encoder;
}

sockaddr_in loopback(const std::string& host, int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1)
    throw std::runtime_error(host + " is no address");
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

int port_of(int listener) {
  sockaddr_in bound = {};
  socklen_t size = sizeof bound;
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&bound), &size) != 0)
    throw std::runtime_error("the server has no port");
  return ntohs(bound.sin_port);
}

int listen_on(const std::string& host, int port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const sockaddr_in address = loopback(host, port);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      listen(listener, 8) != 0)
    throw std::runtime_error("the server cannot listen");
  return listener;
}

}  // namespace

std::string transport_stream(double seconds, bool sound) {
  Muxer muxer("mpegts");
  const CodecPtr pictures = picture_encoder();
  const CodecPtr sounds = sound ? sound_encoder() : nullptr;
  AVStream* picture_stream = muxer.add(*pictures);
  AVStream* sound_stream = sound ? muxer.add(*sounds) : nullptr;
  muxer.begin();

  FramePtr picture = new_frame();
  picture->format = pictures->pix_fmt;
  picture->width = kStreamWidth;
  picture->height = kStreamHeight;
  check(av_frame_get_buffer(picture.get(), 0), "picture");
  FramePtr heard = new_frame();
  if (sound) {
    heard->format = sounds->sample_fmt;
    heard->sample_rate = kSoundRate;
    heard->nb_samples = sounds->frame_size;
    set_default_channels(heard.get(), 1);
    check(av_frame_get_buffer(heard.get(), 0), "sound");
  }
  int64_t samples = 0;
  for (int64_t i = 0; i < std::llround(seconds * kRate); ++i) {
    check(av_frame_make_writable(picture.get()), "picture");
    for (int plane = 0; plane < 3; ++plane) {
      const int height = plane == 0 ? kStreamHeight : kStreamHeight / 2;
      std::fill_n(picture->data[plane], height * picture->linesize[plane],
                  static_cast<uint8_t>(plane == 0 ? 16 + i % 200 : 128));
    }
    picture->pts = i;
    muxer.encode(pictures.get(), picture_stream, picture.get());
    while (sound && samples * kRate < (i + 1) * kSoundRate) {
      check(av_frame_make_writable(heard.get()), "sound");
      auto* data = reinterpret_cast<int16_t*>(heard->data[0]);
      for (int n = 0; n < heard->nb_samples; ++n)
        data[n] = static_cast<int16_t>(9000 * std::sin(0.0627 * static_cast<double>(samples + n)));
      heard->pts = samples;
      samples += heard->nb_samples;
      muxer.encode(sounds.get(), sound_stream, heard.get());
    }
  }
  muxer.encode(pictures.get(), picture_stream, nullptr);
  if (sound) muxer.encode(sounds.get(), sound_stream, nullptr);
  return muxer.finish();
}

std::string nut_file(AVRational time_base, const std::vector<FilePacket>& packets) {
  Muxer muxer("nut");
  const std::unique_ptr<AVCodecParameters, void (*)(AVCodecParameters*)> parameters(
      avcodec_parameters_alloc(), [](AVCodecParameters* p) { avcodec_parameters_free(&p); });
  parameters->codec_type = AVMEDIA_TYPE_VIDEO;
  parameters->codec_id = AV_CODEC_ID_RAWVIDEO;
  parameters->codec_tag = MKTAG('Y', '8', '0', '0');
  parameters->format = AV_PIX_FMT_GRAY8;
  parameters->width = parameters->height = 16;
  AVStream* pictures = muxer.add(*parameters, time_base);
  parameters->codec_type = AVMEDIA_TYPE_AUDIO;
  parameters->codec_id = AV_CODEC_ID_PCM_S16LE;
  parameters->codec_tag = 0;
  parameters->format = AV_SAMPLE_FMT_S16;
  parameters->width = parameters->height = 0;
  parameters->sample_rate = 16000;
#if REFAVS_CHANNEL_LAYOUT
  av_channel_layout_default(&parameters->ch_layout, 1);
#else
  parameters->channels = 1;
#endif
  AVStream* sounds = muxer.add(*parameters, time_base);
  muxer.begin();
  for (const FilePacket& one : packets) {
    const AVStream& stream = one.samples ? *sounds : *pictures;
    PacketPtr packet = new_packet();
    check(av_new_packet(packet.get(), one.samples ? 2 * one.samples : 256), "packet");
    std::fill_n(packet->data, packet->size, uint8_t(64));
    packet->stream_index = stream.index;
    packet->pts = packet->dts = av_rescale_q(one.pts, time_base, stream.time_base);
    packet->flags |= AV_PKT_FLAG_KEY;
    muxer.write(packet.get());
  }
  return muxer.finish();
}

std::string png_file(int width, int height) {
  CodecPtr encoder = new_encoder(AV_CODEC_ID_PNG);
  encoder->width = width;
  encoder->height = height;
  encoder->pix_fmt = AV_PIX_FMT_MONOBLACK;
  encoder->time_base = {1, 1};
  check(avcodec_open2(encoder.get(), nullptr, nullptr), "picture encoder");
  const FramePtr picture = new_frame();
  picture->format = encoder->pix_fmt;
  picture->width = width;
  picture->height = height;
  check(av_frame_get_buffer(picture.get(), 0), "picture");
  std::fill_n(picture->data[0], int64_t(height) * picture->linesize[0], uint8_t(0));
  check(avcodec_send_frame(encoder.get(), picture.get()), "encoder");
  check(avcodec_send_frame(encoder.get(), nullptr), "encoder");
  const PacketPtr packet = new_packet();
  check(avcodec_receive_packet(encoder.get(), packet.get()), "encoder");
  return std::string(reinterpret_cast<char*>(packet->data), static_cast<size_t>(packet->size));
}

Server::Server(std::string bytes, double seconds, Then then, int port, const std::string& host)
    : bytes_(std::move(bytes)),
      host_(host),
      seconds_(seconds),
      then_(then),
      listener_(listen_on(host, port)) {
  port_ = port_of(listener_);
  if (pipe(wake_) != 0) throw std::runtime_error("no pipe");
  thread_ = std::thread(&Server::run, this);
}

Server::~Server() {
  close(wake_[1]);
  thread_.join();
  close(wake_[0]);
  close(listener_);
}

std::string Server::url(const std::string& scheme) const {
  return scheme + "://" + host_ + ":" + std::to_string(port_);
}

// Whether the descriptor became ready; false also where the server has to end.
bool Server::wait(int descriptor, short events, int milliseconds) {
  pollfd polled[] = {{wake_[0], POLLIN, 0}, {descriptor, events, 0}};
  return poll(polled, 2, milliseconds) > 0 && polled[0].revents == 0;
}

void Server::run() {
  while (wait(listener_, POLLIN, -1)) {
    const int viewer = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (viewer < 0) continue;
    ++viewers_;
    serving_.emplace_back([this, viewer] {
      serve(viewer);
      close(viewer);
    });
  }
  for (std::thread& thread : serving_) thread.join();
}

void Server::serve(int viewer) {
  const auto began = std::chrono::steady_clock::now();
  size_t sent = 0;
  for (;;) {
    char request[4096];
    const ssize_t read = recv(viewer, request, sizeof request, 0);
    if (read > 0) heard_ += static_cast<size_t>(read);
    if (read == 0) return;
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - began;
    const double share = seconds_ > 0.0 ? std::min(1.0, passed.count() / seconds_) : 1.0;
    const auto due = static_cast<size_t>(share * static_cast<double>(bytes_.size()));
    if (sent < due) {
      const ssize_t written = send(viewer, bytes_.data() + sent, due - sent, MSG_NOSIGNAL);
      if (written > 0) sent += static_cast<size_t>(written);
      if (written < 0 && errno != EAGAIN) return;
    }
    if (sent == bytes_.size() && then_ == Then::kClose) break;
    pollfd woken = {wake_[0], POLLIN, 0};
    if (poll(&woken, 1, 5) > 0) return;
  }
  // Closed with something unread, the connection would be reset, and what was sent lost.
  shutdown(viewer, SHUT_WR);
  char rest[4096];
  while (wait(viewer, POLLIN, 1000) && recv(viewer, rest, sizeof rest, 0) > 0) {
  }
}

int free_port() {
  const int listener = listen_on("127.0.0.1", 0);
  const int port = port_of(listener);
  close(listener);
  return port;
}

}  // namespace refavs
