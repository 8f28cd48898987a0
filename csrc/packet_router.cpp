#include "packet_router.h"

namespace refavs {

bool PacketRouter::push_video(PacketPtr packet) { return push(&video_, std::move(packet)); }

bool PacketRouter::push_audio(PacketPtr packet) { return push(&audio_, std::move(packet)); }

bool PacketRouter::push(std::deque<PacketPtr>* queue, PacketPtr packet) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || has_room(); });
  if (stopped_) return false;
  if (queue == &video_ && video_dropped_) return true;
  bytes_ += bytes(*packet);
  queue->push_back(std::move(packet));
  changed_.notify_all();
  return true;
}

bool PacketRouter::has_room() const {
  if (bytes_ >= kMaxBytes) return false;
  if (audio_wanted_ && audio_.empty()) return true;
  return !video_dropped_ && video_.size() < kVideoPackets;
}

void PacketRouter::finish() {
  std::lock_guard<std::mutex> lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

void PacketRouter::drop_video() {
  std::lock_guard<std::mutex> lock(mutex_);
  video_dropped_ = true;
  for (const PacketPtr& packet : video_) bytes_ -= bytes(*packet);
  video_.clear();
  changed_.notify_all();
}

PacketPtr PacketRouter::pop_video() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || finished_ || !video_.empty(); });
  return take(&video_);
}

PacketPtr PacketRouter::pop_audio() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [&] {
    if (stopped_ || finished_) return true;
    return !audio_.empty() && (!audio_ahead_ || audio_wanted_ || video_.empty());
  });
  return take(&audio_);
}

PacketPtr PacketRouter::take(std::deque<PacketPtr>* queue) {
  if (stopped_ || queue->empty()) return nullptr;
  PacketPtr packet = std::move(queue->front());
  queue->pop_front();
  bytes_ -= bytes(*packet);
  changed_.notify_all();
  return packet;
}

void PacketRouter::set_audio_ahead(bool ahead) {
  std::lock_guard<std::mutex> lock(mutex_);
  audio_ahead_ = ahead;
  changed_.notify_all();
}

void PacketRouter::set_audio_wanted(bool wanted) {
  std::lock_guard<std::mutex> lock(mutex_);
  audio_wanted_ = wanted;
  changed_.notify_all();
}

bool PacketRouter::audio_out_of_reach() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return audio_wanted_ && audio_.empty() && bytes_ >= kMaxBytes;
}

void PacketRouter::stop() {
  std::lock_guard<std::mutex> lock(mutex_);
  stopped_ = true;
  video_.clear();
  audio_.clear();
  bytes_ = 0;
  changed_.notify_all();
}

}  // namespace refavs
