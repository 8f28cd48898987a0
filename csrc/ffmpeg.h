// FFmpeg's headers, owners for its objects, and everything that differs between FFmpeg 4.4 and 7.
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavcodec/bsf.h>
#include <libavdevice/avdevice.h>
#include <libavformat/avformat.h>
#include <libavutil/avutil.h>
#include <libavutil/channel_layout.h>
#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libavutil/time.h>
#include <libswresample/swresample.h>
#include <libswscale/swscale.h>
}

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

// AVChannelLayout came with FFmpeg 5.1; the bit masks before it went with FFmpeg 7.
#define REFAVS_CHANNEL_LAYOUT (LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 24, 100))
// Stream side data moved into AVCodecParameters with FFmpeg 6.1.
#define REFAVS_CODED_SIDE_DATA (LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 102))

namespace refavs {

struct InputCloser {
  void operator()(AVFormatContext* context) const { avformat_close_input(&context); }
};
struct CodecFreer {
  void operator()(AVCodecContext* context) const { avcodec_free_context(&context); }
};
struct PacketFreer {
  void operator()(AVPacket* packet) const { av_packet_free(&packet); }
};
struct FrameFreer {
  void operator()(AVFrame* frame) const { av_frame_free(&frame); }
};
struct SwrFreer {
  void operator()(SwrContext* context) const { swr_free(&context); }
};
struct SwsFreer {
  void operator()(SwsContext* context) const { sws_freeContext(context); }
};

struct BsfFreer {
  void operator()(AVBSFContext* context) const { av_bsf_free(&context); }
};

using InputPtr = std::unique_ptr<AVFormatContext, InputCloser>;
using CodecPtr = std::unique_ptr<AVCodecContext, CodecFreer>;
using PacketPtr = std::unique_ptr<AVPacket, PacketFreer>;
using FramePtr = std::unique_ptr<AVFrame, FrameFreer>;
using SwrPtr = std::unique_ptr<SwrContext, SwrFreer>;
using SwsPtr = std::unique_ptr<SwsContext, SwsFreer>;
using BsfPtr = std::unique_ptr<AVBSFContext, BsfFreer>;

inline PacketPtr new_packet() {
  PacketPtr packet(av_packet_alloc());
  if (!packet) throw std::bad_alloc();
  return packet;
}

inline FramePtr new_frame() {
  FramePtr frame(av_frame_alloc());
  if (!frame) throw std::bad_alloc();
  return frame;
}

// A picture in memory of its own.
inline FramePtr copy_of(const AVFrame& frame) {
  FramePtr copy = new_frame();
  copy->format = frame.format;
  copy->width = frame.width;
  copy->height = frame.height;
  if (av_frame_get_buffer(copy.get(), 0) < 0) throw std::bad_alloc();
  av_frame_copy(copy.get(), &frame);
  av_frame_copy_props(copy.get(), &frame);
  return copy;
}

// FFmpeg 4.4 takes input formats that are not const.
#if LIBAVFORMAT_VERSION_MAJOR >= 59
inline const AVInputFormat* mutable_format(const AVInputFormat* format) { return format; }
#else
inline AVInputFormat* mutable_format(const AVInputFormat* format) {
  return const_cast<AVInputFormat*>(format);
}
#endif

inline std::string ffmpeg_message(int code) {
  char text[AV_ERROR_MAX_STRING_SIZE] = {};
  av_strerror(code, text, sizeof(text));
  return text;
}

inline int channel_count(const AVFrame& frame) {
#if REFAVS_CHANNEL_LAYOUT
  return frame.ch_layout.nb_channels;
#else
  return frame.channels;
#endif
}

inline int channel_count(const AVCodecParameters& parameters) {
#if REFAVS_CHANNEL_LAYOUT
  return parameters.ch_layout.nb_channels;
#else
  return parameters.channels;
#endif
}

// The bit mask of a frame's channels, 0 where only their number is known.
inline uint64_t channel_mask(const AVFrame& frame) {
#if REFAVS_CHANNEL_LAYOUT
  return frame.ch_layout.order == AV_CHANNEL_ORDER_NATIVE ? frame.ch_layout.u.mask : 0;
#else
  return frame.channel_layout;
#endif
}

inline void set_default_channels(AVCodecContext* codec, int channels) {
#if REFAVS_CHANNEL_LAYOUT
  av_channel_layout_default(&codec->ch_layout, channels);
#else
  codec->channels = channels;
  codec->channel_layout = av_get_default_channel_layout(channels);
#endif
}

inline void set_default_channels(AVFrame* frame, int channels) {
#if REFAVS_CHANNEL_LAYOUT
  av_channel_layout_default(&frame->ch_layout, channels);
#else
  frame->channels = channels;
  frame->channel_layout = av_get_default_channel_layout(channels);
#endif
}

inline void set_extradata(AVCodecParameters* parameters, const uint8_t* data, int size) {
  av_freep(&parameters->extradata);
  parameters->extradata_size = 0;
  if (size <= 0) return;
  parameters->extradata =
      static_cast<uint8_t*>(av_mallocz(static_cast<size_t>(size) + AV_INPUT_BUFFER_PADDING_SIZE));
  if (!parameters->extradata) throw std::bad_alloc();
  std::memcpy(parameters->extradata, data, static_cast<size_t>(size));
  parameters->extradata_size = size;
}

// What a packet says of its codec, if it does.
inline std::vector<uint8_t> new_extradata(const AVPacket& packet) {
#if LIBAVCODEC_VERSION_MAJOR >= 59
  size_t size = 0;
#else
  int size = 0;
#endif
  const uint8_t* data = av_packet_get_side_data(&packet, AV_PKT_DATA_NEW_EXTRADATA, &size);
  return data ? std::vector<uint8_t>(data, data + size) : std::vector<uint8_t>();
}

// The 3 x 3 display matrix of a stream, or null.
inline const int32_t* display_matrix(const AVStream& stream) {
#if REFAVS_CODED_SIDE_DATA
  const AVPacketSideData* data =
      av_packet_side_data_get(stream.codecpar->coded_side_data, stream.codecpar->nb_coded_side_data,
                              AV_PKT_DATA_DISPLAYMATRIX);
  return data && data->size >= 9 * sizeof(int32_t) ? reinterpret_cast<const int32_t*>(data->data)
                                                   : nullptr;
#else
  const uint8_t* data = av_stream_get_side_data(&stream, AV_PKT_DATA_DISPLAYMATRIX, nullptr);
  return reinterpret_cast<const int32_t*>(data);
#endif
}

}  // namespace refavs
