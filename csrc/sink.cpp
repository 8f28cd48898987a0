#include "sink.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <utility>

#include "error.h"
#include "file_soundtrack.h"
#include "live_soundtrack.h"

namespace refavs {
namespace {

namespace fs = std::filesystem;

constexpr size_t kQueuedPictures = 4;
constexpr double kLongest_s = 1e9;  // more is no recording, and may not be counted in ticks

void check_target(const SinkOptions& options) {
  const fs::path path(options.path);
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code error;
  if (!fs::exists(folder, error))
    throw SinkError(options.path + ": the folder " + folder.string() +
                    " does not exist; make it first");
  if (!fs::is_directory(folder, error))
    throw SinkError(options.path + ": " + folder.string() + " is not a folder");
  if (fs::is_directory(path, error))
    throw SinkError(options.path + " is a directory; name a file in it");
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  if (extension != ".mp4" && extension != ".m4v" && extension != ".mov")
    throw SinkError(options.path + ": only MP4 is written; give it a name that ends in .mp4");
  if (!options.source.empty() && fs::equivalent(options.source, path, error))
    throw SinkError(options.path + " is the source itself; write to another file");
}

}  // namespace

Sink::Sink(const SinkOptions& options) : options_(options), items_(kQueuedPictures) {
  check_target(options_);
  if (!options_.source.empty()) {
    auto sound = std::make_unique<FileSoundtrack>(options_.source);
    notes_ = sound->notes();
    sound_ = std::move(sound);
  } else if (options_.record) {
    sound_ = std::make_unique<LiveSoundtrack>(options_.record);
  }
  encoder_ = std::make_unique<PictureEncoder>(options_.path, options_, Encoding::kFile, true);
  notes_.insert(notes_.end(), encoder_->notes().begin(), encoder_->notes().end());
  open_file();
  thread_ = std::thread(&Sink::run, this);
  open_ = true;
}

Sink::~Sink() { abort(); }

void Sink::open_file() {
  file_ = std::make_unique<Mp4File>(options_.path);
  part_ = file_->part();
  picture_stream_ = file_->add_stream();
  encoder_->describe(picture_stream_);
  if (sound_ && sound_->present()) {
    sound_stream_ = file_->add_stream();
    sound_->describe(sound_stream_);
  }
  file_->begin();
}

std::string Sink::sound() const {
  if (!sound_stream_) return "none";
  return sound_->copied() ? "copied" : "encoded";
}

bool Sink::write(const uint8_t* rgb, int64_t stride, double pts_s,
                 std::chrono::milliseconds timeout) {
  rethrow();
  if (!open_) throw SinkError(options_.path + " is closed");
  if (!(pts_s >= 0.0 && pts_s <= kLongest_s) || (pictures_ > 0 && pts_s <= last_pts_s_))
    throw SinkError(options_.path + ": times must rise from 0, but " + std::to_string(pts_s) +
                    " s comes after " + std::to_string(last_pts_s_) + " s");
  Item item{padded(options_, rgb, stride), pts_s};
  const RingStatus status = items_.push(item, timeout);
  if (status == RingStatus::kTimeout) return false;
  if (status == RingStatus::kEnded) {
    rethrow();
    throw SinkError(options_.path + " is closed");
  }
  last_pts_s_ = pts_s;
  ++pictures_;
  return true;
}

void Sink::close() {
  if (!open_) return;
  open_ = false;
  items_.finish();
  if (thread_.joinable()) thread_.join();
  if (failed()) file_->keep();
  try {
    rethrow();
    if (pictures_ == 0) throw SinkError(options_.path + ": no picture was written to it");
    finish_tracks();
    file_->finish();
  } catch (...) {
    if (pictures_ > 0) file_->keep();
    file_.reset();
    throw;
  }
}

void Sink::abort(bool keep) {
  open_ = false;
  if (keep) {
    items_.finish();
  } else {
    items_.cancel();
  }
  if (thread_.joinable()) thread_.join();
  if (!file_) return;
  if (failed()) {
    file_->keep();
  } else if (keep) {
    try {
      finish_tracks();
    } catch (const std::exception&) {  // what is there is kept
    }
    file_->keep();
  }
  file_.reset();
}

void Sink::run() {
  try {
    Item item;
    for (;;) {
      const RingStatus status = items_.pop(&item, std::chrono::seconds(1));
      if (status == RingStatus::kEnded) return;
      if (status == RingStatus::kDone) encode(item);
    }
  } catch (...) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      error_ = std::current_exception();
    }
    items_.cancel();
  }
}

void Sink::encode(const Item& item) {
  if (encoded_s_ < 0.0 && sound_stream_) sound_->begin(item.pts_s);
  encoded_s_ = item.pts_s;
  encoder_->encode(item.picture, item.pts_s, [this](AVPacket* packet) { mux_picture(packet); });
}

// With the sound up to it.
void Sink::mux_picture(AVPacket* packet) {
  if (sound_stream_)
    sound_->write_until(packet->dts * av_q2d(encoder_->time_base()),
                        [this](AVPacket* sound) { mux_sound(sound); });
  file_->write(packet, picture_stream_, encoder_->time_base());
}

void Sink::mux_sound(AVPacket* packet) { file_->write(packet, sound_stream_, sound_->time_base()); }

void Sink::finish_tracks() {
  if (encoded_s_ < 0.0) return;
  encoder_->flush([this](AVPacket* packet) { mux_picture(packet); });
  if (sound_stream_)
    sound_->finish(encoded_s_ + encoder_->interval_s(),
                   [this](AVPacket* sound) { mux_sound(sound); });
}

bool Sink::failed() {
  std::lock_guard<std::mutex> lock(mutex_);
  return error_ != nullptr;
}

void Sink::rethrow() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (error_) std::rethrow_exception(error_);
}

}  // namespace refavs
