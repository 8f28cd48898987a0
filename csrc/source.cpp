#include "source.h"

#include <dlfcn.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <mutex>

#include "error.h"
#include "name_lookup.h"

namespace refavs {
namespace {

namespace fs = std::filesystem;

// Of one picture: 8192 x 8192. A small file may claim many more, and take all memory.
constexpr int64_t kMostPixels = int64_t(1) << 26;

// Tells what FFmpeg would tell in words that lead nowhere, or would even play (a text file is an
// ANSI animation to it).
void check_file(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found)
    throw IngestError(path + ": no such file; check the path");
  if (error) throw IngestError(path + ": " + error.message());
  if (fs::is_directory(status)) throw IngestError(path + " is a directory; name one file in it");
  if (!fs::is_regular_file(status))
    throw IngestError(path + " is not a regular file; save it to a file first");
  const auto size = fs::file_size(path, error);
  if (!error && size == 0) throw IngestError(path + " is empty (0 bytes); record or copy it again");
}

std::string not_media(const std::string& path, const std::string& reason) {
  return path + " cannot be read as video: " + reason +
         "; it is not a media file or it is damaged, try `ffprobe` on it";
}

// Why a source does not open, for a person.
std::string why_not(const Address& address, int status, bool is_late) {
  const std::string& shown = address.shown;
  if (status == AVERROR(EACCES))
    return shown + ": no permission to read it; check its access rights";
  if (address.kind == AddressKind::kFile) return not_media(shown, ffmpeg_message(status));
  if (is_late)
    return shown + ": does not answer; check the address, and that it is switched on and reachable";
  if (address.kind == AddressKind::kGenerated)
    return shown + ": FFmpeg does not take it (" + ffmpeg_message(status) +
           "); try it with `ffplay -f lavfi`";
  if (address.kind == AddressKind::kDevice)
    return shown + ": cannot be opened (" + ffmpeg_message(status) +
           "); check that it is plugged in and not in use, --list-devices shows what there is";
  return shown + ": cannot be opened (" + ffmpeg_message(status) +
         "); check the address, try `ffprobe` on it";
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

bool is_of_web(const Address& address) { return address.protocols.find("http") == 0; }

bool is_text_format(const AVInputFormat& format) { return std::strcmp(format.name, "tty") == 0; }

// Where what was opened at `url` really lies: HTTP servers send elsewhere.
std::string location_of(AVIOContext* opened, const char* url) {
  uint8_t* location = nullptr;
  if (av_opt_get(opened, "location", AV_OPT_SEARCH_CHILDREN, &location) < 0 || !location)
    return url;
  const std::unique_ptr<uint8_t, void (*)(void*)> owner(location, &av_free);
  return *location ? reinterpret_cast<const char*>(location) : url;
}

// FFmpeg decodes a little of each stream to find out what it is.
int find_stream_info(AVFormatContext* context) {
  std::vector<AVDictionary*> options(std::max(context->nb_streams, 1u), nullptr);
  for (AVDictionary*& one : options) av_dict_set_int(&one, "max_pixels", kMostPixels, 0);
  const int found = avformat_find_stream_info(context, options.data());
  for (AVDictionary*& one : options) av_dict_free(&one);
  return found;
}

void say_nothing(const char*, int, const char*, int, const char*, ...) {}

// ALSA's library prints to stderr what reaches the caller as an error. FFmpeg has loaded it.
void hush_alsa() {
  void* alsa = dlopen("libasound.so.2", RTLD_LAZY | RTLD_NOLOAD);
  if (!alsa) return;
  using Setter = int (*)(decltype(&say_nothing));
  if (const auto set = reinterpret_cast<Setter>(dlsym(alsa, "snd_lib_error_set_handler")))
    set(&say_nothing);
  dlclose(alsa);
}

// FFmpeg's calls block, so they ask this often; a device is asked in turns instead.
bool blocks(const Address& address) { return address.kind != AddressKind::kDevice; }

}  // namespace

Source::Source(const std::string& path, Wanted wanted)
    : Source(file_address(path), wanted, {}, Patience(), nullptr) {}

Source::Source(const Address& address, Wanted wanted, const Options& options, Patience patience,
               const std::atomic<bool>* stopped)
    : address_(address), patience_(patience), stopped_elsewhere_(stopped) {
  open(options);
  find_streams(wanted);
}

void Source::open(const Options& options) {
  static std::once_flag devices;
  std::call_once(devices, [] {
    avdevice_register_all();
    hush_alsa();
  });
  if (address_.kind == AddressKind::kFile) check_file(address_.shown);
  const AVInputFormat* format = nullptr;
  if (!address_.demuxer.empty()) {
    format = av_find_input_format(address_.demuxer.c_str());
    if (!format)
      throw IngestError(path() + ": this FFmpeg has no input '" + address_.demuxer +
                        "'; install one that has, `ffmpeg -formats` lists them");
  }
  allow(patience_.open_s);
  if (address_.kind == AddressKind::kNetwork) find_host();
  AVFormatContext* context = avformat_alloc_context();
  if (!context) throw std::bad_alloc();
  context->interrupt_callback = {&Source::interrupted, this};
  context->opaque = this;
  open_default_ = context->io_open;
  context->io_open = &Source::open_part;
  if (!blocks(address_)) context->flags |= AVFMT_FLAG_NONBLOCK;

  AVDictionary* dictionary = nullptr;
  if (!address_.protocols.empty())
    av_dict_set(&dictionary, "protocol_whitelist", address_.protocols.c_str(), 0);
  // On a connection that is kept for the next segment, open_part() would not see where it leads.
  if (address_.kind == AddressKind::kNetwork) av_dict_set(&dictionary, "http_persistent", "0", 0);
  for (const Options* list : {static_cast<const Options*>(&address_.options), &options})
    for (const auto& [name, value] : *list)
      av_dict_set(&dictionary, name.c_str(), value.c_str(), 0);
  const int opened =
      avformat_open_input(&context, address_.url.c_str(), mutable_format(format), &dictionary);
  av_dict_free(&dictionary);
  if (opened < 0) throw IngestError(why_not(address_, opened, is_over()));
  input_.reset(context);
  if (is_text_format(*context->iformat)) throw IngestError(not_media(path(), "it is a text file"));
  const int found = find_stream_info(context);
  if (found < 0 || is_over()) throw IngestError(why_not(address_, found, is_over()));
}

void Source::find_host() {
  // Behind a proxy names are the proxy's business.
  if (is_of_web(address_) && (std::getenv("http_proxy") || std::getenv("https_proxy"))) return;
  const Lookup name = look_up(host_of(address_.url), [this] { return interrupted(this) != 0; });
  if (name == Lookup::kNoAnswer || (name == Lookup::kGivenUp && is_over()))
    throw IngestError(path() +
                      ": no name server knows its host now; check the name and the network");
  if (name == Lookup::kGivenUp) throw IngestError(why_not(address_, AVERROR_EXIT, false));
}

// The next `seconds` may be spent in FFmpeg.
void Source::allow(double seconds) {
  deadline_us_ = seconds > 0.0 ? av_gettime_relative() + static_cast<int64_t>(seconds * 1e6) : 0;
}

bool Source::is_over() const {
  const int64_t deadline = deadline_us_.load();
  return deadline != 0 && av_gettime_relative() > deadline;
}

int Source::interrupted(void* source) {
  const Source& self = *static_cast<const Source*>(source);
  const bool stopped =
      self.stopped_.load() || (self.stopped_elsewhere_ && self.stopped_elsewhere_->load());
  if (self.is_over()) self.gave_up_ = true;
  return stopped || self.gave_up_ ? 1 : 0;
}

// Called by FFmpeg, which knows nothing of exceptions.
int Source::open_part(AVFormatContext* context, AVIOContext** opened, const char* url, int flags,
                      AVDictionary** options) {
  const Source& self = *static_cast<const Source*>(context->opaque);
  try {
    if (!may_open_part(self.address_, url)) return AVERROR(EACCES);
    const int status = self.open_default_(context, opened, url, flags, options);
    if (status < 0 || may_open_part(self.address_, location_of(*opened, url))) return status;
    avio_closep(opened);
    return AVERROR(EACCES);
  } catch (const std::exception&) {
    return AVERROR(ENOMEM);
  }
}

void Source::find_streams(Wanted wanted) {
  AVStream* first_video = nullptr;
  for (unsigned i = 0; i < input_->nb_streams && !first_video; ++i) {
    AVStream* stream = input_->streams[i];
    const bool still = (stream->disposition &
                        (AV_DISPOSITION_ATTACHED_PIC | AV_DISPOSITION_TIMED_THUMBNAILS)) != 0;
    if (stream->codecpar->codec_type == AVMEDIA_TYPE_VIDEO && !still) first_video = stream;
  }
  if (wanted != Wanted::kSound) {
    if (!first_video)
      throw IngestError(path() + " has no video stream; name a source with pictures");
    video_ = first_video;
    const AVCodecParameters& coded = *video_->codecpar;
    if (int64_t(coded.width) * coded.height > kMostPixels)
      throw IngestError(path() + ": its pictures of " + std::to_string(coded.width) + "x" +
                        std::to_string(coded.height) + " are too large; make them smaller");
  }
  const int best = wanted == Wanted::kPicture
                       ? -1
                       : av_find_best_stream(input_.get(), AVMEDIA_TYPE_AUDIO, -1, -1, nullptr, 0);
  if (best >= 0) audio_ = input_->streams[best];
  if (wanted != Wanted::kPicture && !audio_ && address_.kind == AddressKind::kNetwork)
    audio_ = announced_sound();
  if (audio_) {
    if (!avcodec_find_decoder(audio_->codecpar->codec_id)) {
      info_.notes.push_back("the sound of " + path() + " is in a codec (" +
                            avcodec_get_name(audio_->codecpar->codec_id) +
                            ") that this FFmpeg cannot decode; it is left out");
      audio_ = nullptr;
    }
  }
  find_origin(first_video);
  for (unsigned i = 0; i < input_->nb_streams; ++i) {
    AVStream* stream = input_->streams[i];
    if (stream != video_ && stream != audio_) stream->discard = AVDISCARD_ALL;
  }
  describe();
}

// Sound that a live source has told of, and that has not begun yet.
AVStream* Source::announced_sound() const {
  for (unsigned i = 0; i < input_->nb_streams; ++i) {
    const AVCodecParameters& told = *input_->streams[i]->codecpar;
    if (told.codec_type == AVMEDIA_TYPE_AUDIO && told.codec_id != AV_CODEC_ID_NONE)
      return input_->streams[i];
  }
  return nullptr;
}

// The same streams count for the origin whatever the use, so that all readers of a file agree.
void Source::find_origin(const AVStream* first_video) {
  const AVStream* earliest = nullptr;
  for (const AVStream* stream : {first_video, static_cast<const AVStream*>(audio_)}) {
    if (!stream || stream->start_time == AV_NOPTS_VALUE) continue;
    if (!earliest || av_compare_ts(stream->start_time, stream->time_base, earliest->start_time,
                                   earliest->time_base) < 0)
      earliest = stream;
  }
  if (earliest) clock_ = SourceClock(earliest->start_time, earliest->time_base);
}

void Source::find_orientation() {
  const int32_t* m = display_matrix(*video_);
  if (!m) return;
  // A stored pixel (x, y) is shown at (a x + c y, b x + d y), with a = m[0], b = m[1], c = m[3],
  // d = m[4].
  const bool straight = m[1] == 0 && m[3] == 0 && m[0] != 0 && m[4] != 0;
  const bool across = m[0] == 0 && m[4] == 0 && m[1] != 0 && m[3] != 0;
  if (straight) {
    info_.orientation = {false, m[0] < 0, m[4] < 0};
  } else if (across) {
    info_.orientation = {true, m[3] < 0, m[1] < 0};
  } else {
    info_.notes.push_back(path() +
                          " asks to be turned by an angle that is no multiple of 90 degrees; " +
                          "it is shown as stored");
  }
}

void Source::describe() {
  if (input_->duration != AV_NOPTS_VALUE && input_->duration > 0)
    info_.duration_s = static_cast<double>(input_->duration) / AV_TIME_BASE;
  if (audio_) {
    info_.has_audio = true;
    info_.audio_codec = avcodec_get_name(audio_->codecpar->codec_id);
  }
  if (!video_) return;
  info_.has_video = true;
  info_.video_codec = avcodec_get_name(video_->codecpar->codec_id);
  AVRational rate = video_->avg_frame_rate;
  if (rate.num <= 0 || rate.den <= 0) rate = video_->r_frame_rate;
  if (rate.num > 0 && rate.den > 0) info_.frame_rate = av_q2d(rate);
  const AVRational aspect = av_guess_sample_aspect_ratio(input_.get(), video_, nullptr);
  if (aspect.num > 0 && aspect.den > 0) info_.pixel_aspect = aspect;
  find_orientation();
}

bool Source::tells_time() const {
  const std::string name = input_->iformat->name;
  return (input_->iformat->flags & AVFMT_NOTIMESTAMPS) == 0 && name != "mpjpeg" &&
         !ends_with(name, "_pipe");
}

bool Source::is_recording() const {
  if (address_.kind == AddressKind::kFile || address_.kind == AddressKind::kGenerated) return true;
  if (!is_of_web(address_)) return false;
  // A server tells the length of a file, and none of what is live.
  return info_.duration_s || (!is_hls() && tells_time() && avio_size(input_->pb) > 0);
}

bool Source::is_hls() const { return input_->iformat->name == std::string("hls"); }

bool Source::comes_in_advance() const { return is_recording() || is_hls(); }

void Source::close() {
  video_ = nullptr;
  audio_ = nullptr;
  input_.reset();
}

CodecPtr Source::new_decoder(const AVStream& stream, int threads) const {
  const std::string name = avcodec_get_name(stream.codecpar->codec_id);
  const AVCodec* decoder = avcodec_find_decoder(stream.codecpar->codec_id);
  if (!decoder)
    throw IngestError(path() + " is in a codec (" + name + ") that this FFmpeg cannot decode; " +
                      "convert it, for example to H.264");
  CodecPtr codec(avcodec_alloc_context3(decoder));
  if (!codec || avcodec_parameters_to_context(codec.get(), stream.codecpar) < 0)
    throw std::bad_alloc();
  codec->pkt_timebase = stream.time_base;
  codec->max_pixels = kMostPixels;
  codec->thread_count = threads;
  return codec;
}

void Source::start_decoder(AVCodecContext* codec) const {
  const int status = avcodec_open2(codec, codec->codec, nullptr);
  if (status < 0)
    throw IngestError(path() + ": the " + avcodec_get_name(codec->codec_id) +
                      " decoder does not open (" + ffmpeg_message(status) +
                      "); the source may be damaged");
}

CodecPtr Source::open_decoder(const AVStream& stream, int threads) const {
  CodecPtr codec = new_decoder(stream, threads);
  start_decoder(codec.get());
  return codec;
}

int Source::read(AVPacket* packet) {
  if (!waiting_) allow(patience_.read_s);
  for (;;) {
    if (stopped_.load()) return AVERROR_EXIT;
    const int status = av_read_frame(input_.get(), packet);
    // A demuxer gives what it still holds first, and the error later.
    if (status < 0 && (gave_up_ || is_over()))
      throw IngestError(path() + ": sends nothing; check the device or the network");
    waiting_ = status == AVERROR(EAGAIN);
    if (status < 0) return status;
    if ((video_ && packet->stream_index == video_->index) ||
        (audio_ && packet->stream_index == audio_->index))
      return 0;
    av_packet_unref(packet);
  }
}

}  // namespace refavs
