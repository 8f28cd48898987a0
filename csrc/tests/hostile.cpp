#include "hostile.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>

#include "address.h"
#include "device_clock.h"
#include "error.h"
#include "file_soundtrack.h"
#include "frames.h"
#include "ingest.h"
#include "live_sound.h"

// FFmpeg's own reading of a URL. Not in its headers, but in its library.
extern "C" void av_url_split(char* proto, int proto_size, char* authorization,
                             int authorization_size, char* hostname, int hostname_size, int* port,
                             char* path, int path_size, const char* url);

namespace refavs {
namespace {

constexpr int kFrames = 32;
constexpr int kSize = 8;
constexpr double kSound_s = 5.0;

void must(bool held, const char* what, const std::string& text = "") {
  if (held) return;
  std::fprintf(stderr, "%s: %s\n", what, text.c_str());
  std::abort();
}

// A file in memory.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : descriptor_(memfd_create("hostile", MFD_CLOEXEC)) {
    while (size > 0) {
      const ssize_t written = write(descriptor_, data, size);
      must(written > 0, "no memory for a file");
      data += written;
      size -= static_cast<size_t>(written);
    }
  }
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  const int descriptor_;
};

void check(const Frame& frame, const Frame& before, int index) {
  must(frame.index == index, "a frame is out of order");
  must(std::isfinite(frame.pts_s), "a time is no number");
  must(index == 0 || frame.pts_s >= before.pts_s, "times fall");
  must(frame.picture.width() > 0 && frame.picture.height() > 0, "a picture is empty");
  std::array<float, 3 * kSize * kSize> tensor;
  frame.picture.tensor(tensor.data());
  // Luma and colour may say more than white, or less than black.
  must(std::all_of(tensor.begin(), tensor.end(),
                   [](float value) { return value > -3.0f && value < 3.0f; }),
       "a tensor is out of range");
  const RgbPicture rgb = frame.picture.rgb();
  must(rgb.width == frame.picture.width() && rgb.height == frame.picture.height() && rgb.rgb,
       "a picture has another size");
  if (!frame.has_audio) return;
  must(frame.sound.samples.size() == kPatchSamples, "a window has another size");
  must(frame.sound.log_mel.size() == kPatchFrames * kMelBins, "a window has another size");
  must(frame.sound.missing_samples >= 0 && frame.sound.missing_samples <= kPatchSamples,
       "more is missing than there is");
}

void must_be_one_line(const std::exception& error) {
  must(std::string(error.what()).find('\n') == std::string::npos, "an error of two lines",
       error.what());
}

void check_window(MelTrack* track, int64_t hop) {
  const MelPatch patch = track->take(hop);
  must(patch.missing_samples >= 0 && patch.missing_samples <= kPatchSamples,
       "more is missing than there is");
  must(std::all_of(patch.samples.begin(), patch.samples.end(),
                   [](float value) { return std::abs(value) < 1.0f; }),
       "a sample is out of range");
  must(patch.log_mel.size() == kPatchFrames * kMelBins, "a window has another size");
}

// Numbers out of bytes; zeros after the end.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), left_(size) {}
  bool at_end() const { return left_ == 0; }
  template <typename Number>
  Number next() {
    Number number = 0;
    const size_t part = std::min(left_, sizeof number);
    std::memcpy(&number, data_, part);
    data_ += part;
    left_ -= part;
    return number;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

// The sound of the file, as it is taken into another.
void read_sound(const std::string& path) {
  FileSoundtrack sound(path);
  int64_t next = std::numeric_limits<int64_t>::min();
  const Soundtrack::Write check = [&](AVPacket* packet) {
    must(packet->pts >= next && packet->dts == packet->pts, "packets of sound fall back");
    must(packet->duration >= 0, "a packet of sound ends before it begins");
    next = packet->pts;
  };
  sound.write_until(1.0, check);
  sound.finish(kSound_s, check);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// Where FFmpeg would connect to.
std::string host_to_ffmpeg(std::string url) {
  while (url.compare(0, 7, "crypto+") == 0 || url.compare(0, 7, "crypto:") == 0) url.erase(0, 7);
  char protocol[1024], user[1024], host[1024], path[4096];
  int port = 0;
  av_url_split(protocol, sizeof protocol, user, sizeof user, host, sizeof host, &port, path,
               sizeof path, url.c_str());
  return lower(host);
}

// All that can be a password, between "://" and the last @ before what ends the URL, is three
// stars.
void must_hide_users(const std::string& shown) {
  for (size_t at = shown.find("://"); at != std::string::npos; at = shown.find("://", at + 1)) {
    const std::string rest = shown.substr(at + 3, shown.find_first_of(" \"'", at + 3) - (at + 3));
    const size_t user_end = rest.rfind('@');
    must(user_end == std::string::npos || rest.compare(0, user_end, "***") == 0, "a user is shown",
         shown);
  }
}

}  // namespace

int read_hostile_file(const uint8_t* data, size_t size, std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  const MemoryFile file(data, size);
  IngestOptions options;
  options.size = kSize;
  options.normalization = {{0.0f, 0.0f, 0.0f}, {1.0f, 1.0f, 1.0f}};
  options.max_frames = kFrames;
  options.decode_threads = 1;
  int frames = 0;
  try {
    Ingest ingest(file_address(file.path()), options);
    Frame frame, before;
    for (;;) {
      const Ingest::Status status = ingest.next(&frame, std::chrono::milliseconds(100));
      must(std::chrono::steady_clock::now() < until, "it takes too long");
      if (status == Ingest::Status::kTimeout) continue;
      if (status == Ingest::Status::kEnd) break;
      check(frame, before, frames++);
      must(frames <= kFrames, "more frames than asked for");
      before = std::move(frame);
      frame = Frame();
    }
  } catch (const IngestError& error) {
    must_be_one_line(error);
  }
  try {
    read_sound(file.path());
  } catch (const IngestError& error) {
    must_be_one_line(error);
  } catch (const SinkError& error) {
    must_be_one_line(error);
  }
  must(std::chrono::steady_clock::now() < until, "it takes too long to end");
  return frames;
}

void read_hostile_sound(const uint8_t* data, size_t size) {
  Bytes bytes(data, size);
  const AVRational base = {std::max(1, bytes.next<int>()), std::max(1, bytes.next<int>())};
  const SourceClock clock(bytes.next<int64_t>(), base);
  MelTrack file_track, live_track(10.0);
  LiveSound live(&live_track);
  int64_t given = 0;
  Resampler resampler(
      kSampleRateHz, 1, clock,
      [&](const float* const* channels, int64_t count) {
        given += count;
        file_track.add(channels[0], count);
      },
      [&](int64_t begin, int64_t end) { file_track.add_missing(begin, end); },
      [&](int64_t count) {
        given += count;
        file_track.add_silence(count);
      });
  double now_s = 0.0;
  DeviceClock device;
  try {
    while (!bytes.at_end()) {
      const auto how = bytes.next<uint8_t>();
      const SoundShape shape = {bytes.next<uint16_t>() * (how & 1 ? 1 : 100),
                                static_cast<AVSampleFormat>(how % AV_SAMPLE_FMT_NB), 1 + how % 7,
                                (how & 2) != 0};
      if (shape.format == AV_SAMPLE_FMT_S64 || shape.format == AV_SAMPLE_FMT_S64P) continue;
      const FramePtr frame = sound_frame(shape, 1 + bytes.next<uint8_t>() * 4,
                                         bytes.next<int64_t>(), [](int, int) { return 0.25; });
      resampler.push(*frame, base);
      must(given == resampler.position(), "samples are not counted");
      now_s += 0.1 * (how & 4);
      const double pts_s = static_cast<double>(frame->pts) * av_q2d(base);
      device.observe(pts_s, now_s);
      live.push(*frame, std::min(device.map(pts_s), now_s));
      check_window(&file_track, given / kHopSamples);
      check_window(&live_track, std::llround(now_s * 100.0));
    }
    resampler.flush();
  } catch (const IngestError& error) {
    must_be_one_line(error);
  }
}

void read_hostile_address(const std::string& text) {
  must_hide_users(without_secrets(text));
  for (Medium medium : {Medium::kPicture, Medium::kSound}) {
    try {
      const Address address = parse_address(text, medium);
      if (address.kind == AddressKind::kNetwork) must_hide_users(address.shown);
      must(address.kind != AddressKind::kFile || address.protocols == "file",
           "a file with a network", text);
      must(may_open_part(address, address.url), "an address that may not be opened", text);
    } catch (const IngestError& error) {
      must_hide_users(error.what());
    }
  }
  static const Address stream = parse_address("http://93.184.216.34/live", Medium::kPicture);
  const std::string url = text.c_str();  // FFmpeg's are C strings
  if (!may_open_part(stream, url)) return;
  const std::string host = host_to_ffmpeg(url);
  const bool six = host.find(':') != std::string::npos;
  must(may_open_part(stream, "http://" + (six ? "[" + host + "]" : host) + "/"),
       "FFmpeg would go to another host", url + " -> " + host);
}

}  // namespace refavs
