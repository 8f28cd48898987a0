// A media file, opened: its streams in use, their decoders, and the clock they share.
#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "clock.h"
#include "ffmpeg.h"

namespace refavs {

// How a stored picture must be turned to be looked at: first transposed, then mirrored.
struct Orientation {
  bool transpose = false;
  bool flip_x = false;
  bool flip_y = false;
};

// What is known of a file once it is open, and stays so.
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
  enum class Use { kPictureAndSound, kSoundOnly };

  // Throws IngestError. Sound that cannot be decoded is left out, with a note.
  explicit Source(const std::string& path, Use use = Use::kPictureAndSound);
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  const std::string& path() const { return path_; }
  const SourceInfo& info() const { return info_; }
  // The stream in use, or null. Not to be touched after close().
  const AVStream* video() const { return video_; }
  const AVStream* audio() const { return audio_; }
  // 0 is where the earlier of the first video stream and the best audio stream begins.
  const SourceClock& clock() const { return clock_; }

  // An opened decoder for video() or audio(). Throws IngestError.
  CodecPtr open_decoder(const AVStream& stream, int threads) const;

  // 0, AVERROR_EOF, or another error of av_read_frame. Packets are of the streams in use only.
  int read(AVPacket* packet);

  // Makes a read() that is under way, and all later ones, return AVERROR_EXIT.
  void stop() { stopped_.store(true); }
  // Lets go of the file; info() stays.
  void close();

 private:
  void find_streams(Use use);
  void describe();
  void find_orientation();
  void find_origin(const AVStream* first_video);

  std::string path_;
  std::atomic<bool> stopped_{false};
  InputPtr input_;
  AVStream* video_ = nullptr;
  AVStream* audio_ = nullptr;
  SourceClock clock_;
  SourceInfo info_;
};

}  // namespace refavs
