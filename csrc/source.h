// A source, opened by FFmpeg: its streams in use, their decoders, and the clock they share.
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "address.h"
#include "clock.h"
#include "ffmpeg.h"
#include "orientation.h"

namespace refavs {

// What of a source is wanted.
enum class Wanted { kPicture, kSound, kPictureAndSound };

// How long a source may take; 0: for ever.
struct Patience {
  double open_s = 0.0;
  double read_s = 0.0;  // from one packet to the next
};

// What is known of a source once it is open, and stays so.
struct SourceInfo {
  bool has_video = false;
  bool has_audio = false;
  std::string video_codec;
  std::string audio_codec;
  double frame_rate = 0.0;           // average; 0 where the file does not tell
  std::optional<double> duration_s;  // what the container says
  // Width : height of one pixel of the stored picture; {1, 1} where the file does not say.
  AVRational pixel_aspect = {1, 1};
  Orientation orientation;
  std::vector<std::string> notes;  // for the user, one line each
};

// Not thread-safe, but for stop() and info().
class Source {
 public:
  using Options = std::vector<std::pair<std::string, std::string>>;

  // A file. Throws IngestError. Sound that cannot be decoded is left out, with a note; where only
  // sound is wanted, a source without any is fine too.
  explicit Source(const std::string& path, Wanted wanted = Wanted::kPictureAndSound);
  // Any address. `options` are for the demuxer, beside the address's own. Where
  // `stopped` (may be null) becomes true, opening and reading end.
  Source(const Address& address, Wanted wanted, const Options& options, Patience patience,
         const std::atomic<bool>* stopped);
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  // As typed, without secrets.
  const std::string& path() const { return address_.shown; }
  const SourceInfo& info() const { return info_; }
  // Whether the container tells when a picture was taken. Where it does not (Motion JPEG), FFmpeg
  // counts 25 a second.
  bool tells_time() const;
  // Whether it has an end that was there before it was opened: a file, also one behind a URL.
  bool is_recording() const;
  // Whether it gives more at a time than one sees at a time: a recording, HLS, what is generated.
  bool comes_in_advance() const;
  // The stream in use, or null. Not to be touched after close().
  const AVStream* video() const { return video_; }
  const AVStream* audio() const { return audio_; }
  // 0 is where the earlier of the first video stream and the best audio stream begins.
  const SourceClock& clock() const { return clock_; }

  // An opened decoder for video() or audio(). Throws IngestError.
  CodecPtr open_decoder(const AVStream& stream, int threads) const;
  // The same before it is opened, to be set up further.
  CodecPtr new_decoder(const AVStream& stream, int threads) const;
  void start_decoder(AVCodecContext* codec) const;

  // 0, AVERROR_EOF, or another error of av_read_frame. Packets are of the streams in use only.
  // AVERROR(EAGAIN): a device has none yet. Throws IngestError if the patience ends.
  int read(AVPacket* packet);

  // Makes a read() that is under way, and all later ones, return AVERROR_EXIT.
  void stop() { stopped_.store(true); }
  // Lets go of the file; info() stays.
  void close();

 private:
  void open(const Options& options);
  void find_host();
  void find_streams(Wanted wanted);
  bool is_hls() const;
  AVStream* announced_sound() const;
  void describe();
  void find_orientation();
  void find_origin(const AVStream* first_video);
  void allow(double seconds);
  bool is_over() const;
  static int interrupted(void* source);
  static int open_part(AVFormatContext* context, AVIOContext** opened, const char* url, int flags,
                       AVDictionary** options);

  Address address_;
  Patience patience_;
  const std::atomic<bool>* stopped_elsewhere_ = nullptr;
  decltype(AVFormatContext::io_open) open_default_ = nullptr;
  std::atomic<bool> stopped_{false};
  std::atomic<int64_t> deadline_us_{0};       // of av_gettime_relative(); 0: none
  mutable std::atomic<bool> gave_up_{false};  // FFmpeg was interrupted after the deadline
  bool waiting_ = false;                      // the last read() found nothing yet
  InputPtr input_;
  AVStream* video_ = nullptr;
  AVStream* audio_ = nullptr;
  SourceClock clock_;
  SourceInfo info_;
};

}  // namespace refavs
