// Hands the demuxer's packets to the two decoders.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>

#include "ffmpeg.h"

namespace refavs {

// One queue a stream. Two plain bounded queues would lock up: the demuxer waits for room for a
// picture, the decoder of pictures for the consumer, and the consumer for sound that the demuxer
// has not read yet. So the demuxer stops at a full video queue only while nobody waits for sound,
// and the sound's decoder may run ahead of the consumer only while the pictures' decoder is hungry.
// A file whose streams lie further apart than kMaxBytes cannot be played in step: then the one who
// waits for sound is told to go on without.
//
// Thread-safe.
class PacketRouter {
 public:
  // Demuxer. False: stopped.
  bool push_video(PacketPtr packet);
  bool push_audio(PacketPtr packet);
  void finish();

  // No more pictures are wanted: theirs are dropped, and more is read only where sound is waited
  // for.
  void drop_video();

  // Decoders. Null: no more packets.
  PacketPtr pop_video();
  PacketPtr pop_audio();

  // Whether the sound's decoder is well ahead of the consumer.
  void set_audio_ahead(bool ahead);

  // Consumer: whether it waits for sound, and whether that cannot come.
  void set_audio_wanted(bool wanted);
  bool audio_out_of_reach() const;

  void stop();

 private:
  static constexpr size_t kVideoPackets = 32;
  static constexpr size_t kMaxBytes = size_t(64) << 20;

  // Of memory, for an empty packet too.
  static size_t bytes(const AVPacket& packet) { return static_cast<size_t>(packet.size) + 512; }

  bool push(std::deque<PacketPtr>* queue, PacketPtr packet);
  PacketPtr take(std::deque<PacketPtr>* queue);
  bool has_room() const;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<PacketPtr> video_;
  std::deque<PacketPtr> audio_;
  size_t bytes_ = 0;
  bool audio_wanted_ = false;
  bool audio_ahead_ = false;
  bool video_dropped_ = false;
  bool finished_ = false;
  bool stopped_ = false;
};

}  // namespace refavs
