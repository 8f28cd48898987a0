#include "mp4_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "error.h"

namespace refavs {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFragment_us = "1000000";
constexpr int64_t kInterleave_us = 1'000'000;  // that a stream without packets holds up the others
constexpr int kMostParts = 1000;
// What the index takes at most: of a packet, and of the rest.
constexpr int64_t kIndexBytesPerPacket = 48;
constexpr int64_t kIndexBytes = 16'384;

// Opens NAME.part.mp4, or the next one that is not there yet.
std::string make_part(const std::string& name) {
  const fs::path path(name);
  for (int i = 1; i <= kMostParts; ++i) {
    fs::path part = path;
    part.replace_filename(path.stem().string() + ".part" + (i > 1 ? std::to_string(i) : "") +
                          path.extension().string());
    const int file = ::open(part.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
    if (file >= 0) {
      ::close(file);
      return part.string();
    }
    if (errno != EEXIST)
      throw SinkError(name + " cannot be written: " + std::strerror(errno) +
                      "; check the folder's access rights and the disk");
  }
  throw SinkError(name + " cannot be written: " + std::to_string(kMostParts) +
                  " parts of it are there already; remove them");
}

std::string hidden_name(const fs::path& path) {
  static std::atomic<int> counter{0};
  const std::string unique = std::to_string(::getpid()) + "-" + std::to_string(counter++);
  return (path.parent_path() / ("." + path.filename().string() + "." + unique + ".partial"))
      .string();
}

OutputPtr new_output(const std::string& path, const std::string& name) {
  AVFormatContext* context = nullptr;
  avformat_alloc_output_context2(&context, nullptr, "mp4", ("file:" + path).c_str());
  if (!context) throw SinkError(name + ": this FFmpeg cannot write MP4");
  return OutputPtr(context);
}

int open_file(AVFormatContext* output) {
  return avio_open(&output->pb, output->url, AVIO_FLAG_WRITE);
}

// Whether the index can be written before the first packet has told more of the codec.
bool is_described(const AVStream& stream) {
  const AVCodecID codec = stream.codecpar->codec_id;
  return codec != AV_CODEC_ID_AC3 && codec != AV_CODEC_ID_EAC3;
}

}  // namespace

void OutputCloser::operator()(AVFormatContext* context) const {
  if (context->pb && !(context->oformat->flags & AVFMT_NOFILE)) avio_closep(&context->pb);
  avformat_free_context(context);
}

Mp4File::Mp4File(const std::string& path) : path_(path), part_(make_part(path)) {
  try {
    output_ = new_output(part_, path_);
  } catch (...) {
    ::unlink(part_.c_str());
    throw;
  }
}

Mp4File::~Mp4File() {
  output_.reset();
  if (!part_.empty()) ::unlink(part_.c_str());
}

AVStream* Mp4File::add_stream() {
  AVStream* stream = avformat_new_stream(output_.get(), nullptr);
  if (!stream) throw std::bad_alloc();
  tracks_.emplace_back();
  return stream;
}

void Mp4File::begin() {
  int status = open_file(output_.get());
  if (status < 0) fail("cannot be written", status);
  // Times stand in each fragment, so that a track may begin at any time.
  std::string flags = "+empty_moov+frag_keyframe+frag_discont+default_base_moof";
  for (unsigned i = 0; i < output_->nb_streams; ++i)
    if (!is_described(*output_->streams[i])) flags += "+delay_moov";
  AVDictionary* settings = nullptr;
  av_dict_set(&settings, "movflags", flags.c_str(), 0);
  av_dict_set(&settings, "frag_duration", kFragment_us, 0);
  av_dict_set(&settings, "use_editlist", "0", 0);
  output_->avoid_negative_ts = AVFMT_AVOID_NEG_TS_MAKE_NON_NEGATIVE;
  output_->max_interleave_delta = kInterleave_us;
  output_->flush_packets = 1;
  status = avformat_write_header(output_.get(), &settings);
  av_dict_free(&settings);
  if (status < 0) fail("cannot be begun", status);
  has_header_ = true;
  avio_flush(output_->pb);
  begun_ = avio_tell(output_->pb);
}

void Mp4File::write(AVPacket* packet, const AVStream* stream, AVRational time_base) {
  packet->stream_index = stream->index;
  packet->pos = -1;
  av_packet_rescale_ts(packet, time_base, stream->time_base);
  Track& track = tracks_[static_cast<size_t>(stream->index)];
  if (track.first_dts == AV_NOPTS_VALUE) track.first_dts = packet->dts;
  track.last_dts = packet->dts;
  track.last_duration = packet->duration;
  ++track.packets;
  const int status = av_interleaved_write_frame(output_.get(), packet);
  if (status < 0) fail("cannot be written", status);
}

void Mp4File::end_part() {
  ended_ = true;
  int status = av_write_trailer(output_.get());
  if (status >= 0) status = avio_closep(&output_->pb);
  if (status < 0) fail("cannot be ended", status);
}

void Mp4File::finish() {
  const std::string hidden = hidden_name(path_);
  try {
    end_part();
    copy_to(hidden);
    std::error_code error;
    fs::rename(hidden, path_, error);
    if (error)
      throw SinkError(path_ + " cannot be named: " + error.message() + "; what was written is in " +
                      part_);
  } catch (...) {
    ::unlink(hidden.c_str());
    keep();
    throw;
  }
  ::unlink(part_.c_str());
  part_.clear();
}

void Mp4File::keep() {
  if (!ended_ && has_header_ && tracks_[0].packets > 0) {
    ended_ = true;
    av_write_trailer(output_.get());  // where the disk is full, what is there is read all the same
  }
  if (holds_something()) part_.clear();
}

bool Mp4File::holds_something() const {
  std::error_code error;
  const uintmax_t size = fs::file_size(part_, error);
  return !error && size > static_cast<uintmax_t>(begun_) && tracks_[0].packets > 0;
}

// Packet by packet into a file whose index has its place in front.
void Mp4File::copy_to(const std::string& target) {
  AVFormatContext* opened = nullptr;
  AVDictionary* settings = nullptr;
  av_dict_set(&settings, "ignore_editlist", "1", 0);
  int status = avformat_open_input(&opened, ("file:" + part_).c_str(), nullptr, &settings);
  av_dict_free(&settings);
  if (status < 0) fail("cannot be ended", status);
  const InputPtr input(opened);
  if (input->nb_streams != output_->nb_streams) fail("cannot be ended", AVERROR_INVALIDDATA);

  const OutputPtr whole = new_output(target, path_);
  int64_t packets = 0;
  for (unsigned i = 0; i < input->nb_streams; ++i) {
    const AVStream* written = output_->streams[i];
    AVStream* stream = avformat_new_stream(whole.get(), nullptr);
    if (!stream || avcodec_parameters_copy(stream->codecpar, written->codecpar) < 0)
      throw std::bad_alloc();
    stream->codecpar->codec_tag = 0;
    const AVCodecParameters& read = *input->streams[i]->codecpar;
    set_extradata(stream->codecpar, read.extradata, read.extradata_size);  // as MP4 has it
    stream->time_base = written->time_base;
    stream->avg_frame_rate = written->avg_frame_rate;
    stream->sample_aspect_ratio = written->sample_aspect_ratio;
    packets += tracks_[i].packets;
  }
  status = open_file(whole.get());
  if (status < 0) fail("cannot be ended", status);
  const std::string room = std::to_string(kIndexBytes + kIndexBytesPerPacket * packets);
  av_dict_set(&settings, "moov_size", room.c_str(), 0);
  status = avformat_write_header(whole.get(), &settings);
  av_dict_free(&settings);
  if (status < 0) fail("cannot be ended", status);

  std::vector<int64_t> shift(input->nb_streams, AV_NOPTS_VALUE);
  const PacketPtr packet = new_packet();
  while ((status = av_read_frame(input.get(), packet.get())) >= 0) {
    const size_t index = static_cast<size_t>(packet->stream_index);
    const AVStream& from = *input->streams[index];
    const AVStream& to = *whole->streams[index];
    packet->pos = -1;
    av_packet_rescale_ts(packet.get(), from.time_base, output_->streams[index]->time_base);
    const Track& track = tracks_[index];
    if (shift[index] == AV_NOPTS_VALUE) shift[index] = track.first_dts - packet->dts;
    packet->pts += shift[index];
    packet->dts += shift[index];
    // Of the others it is the distance to the next.
    if (packet->dts == track.last_dts) packet->duration = track.last_duration;
    av_packet_rescale_ts(packet.get(), output_->streams[index]->time_base, to.time_base);
    status = av_interleaved_write_frame(whole.get(), packet.get());
    if (status < 0) fail("cannot be ended", status);
  }
  if (status == AVERROR_EOF) status = av_write_trailer(whole.get());
  if (status >= 0) status = avio_closep(&whole->pb);
  if (status < 0) fail("cannot be ended", status);
}

void Mp4File::fail(const std::string& what, int status) const {
  throw SinkError(path_ + " " + what + ": " + ffmpeg_message(status) + "; check the disk" +
                  (holds_something() ? "; what was written is in " + part_ : ""));
}

}  // namespace refavs
