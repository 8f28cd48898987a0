// A live source by way of FFmpeg.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <vector>

#include "capture.h"
#include "hwaccel.h"

namespace refavs {

// Sources that FFmpeg gives as fast as they are read (files, lavfi, HLS) are paced by their
// timestamps.
// Pictures are decoded in a thread beside the reader; where it falls behind by kPackets or half a
// second, packets are skipped up to the next key frame.
class AvCapture : public Capture {
 public:
  // Throws IngestError.
  AvCapture(const Address& address, Wanted wanted, const CaptureOptions& options,
            const std::atomic<bool>& stopped);

  const SourceInfo& info() const override { return source_.info(); }
  void run(CaptureListener* listener) override;
  void stop() override;

 private:
  static constexpr size_t kPackets = 64;

  struct Queued {
    PacketPtr packet;
    int64_t at_us;
  };

  void read(CaptureListener* listener);
  void read_backlog(CaptureListener* listener);
  void date_first_picture(std::vector<PacketPtr>* packets) const;
  PacketPtr next_packet(CaptureListener* listener);
  void check_pictures(const AVPacket& packet);
  bool is_picture(const AVPacket& packet) const;
  AVRational base_of(const AVPacket& packet) const;
  void arrived(const AVPacket& packet, CaptureListener* listener) const;
  void use(PacketPtr packet, CaptureListener* listener);
  void pace(const AVPacket& packet, AVRational base);
  void sleep_until(int64_t time_us);
  int64_t queue_picture(PacketPtr packet);
  void decode_pictures(CaptureListener* listener);
  void decode_sound(const AVPacket* packet, CaptureListener* listener);

  Source source_;
  const bool paced_;
  const bool from_device_;
  const bool timeless_;  // pictures are as old as their packets
  CodecPtr video_codec_;
  CodecPtr audio_codec_;
  const int64_t picture_patience_us_;
  HardwareDecoder hardware_;
  std::atomic<bool> stopped_{false};

  // Of the reading thread.
  int64_t newest_us_ = AV_NOPTS_VALUE;  // time of the source
  int64_t shift_us_ = 0;                // from there to when it is due
  int64_t first_shift_us_ = 0;          // the same before anything was late
  bool skipping_ = false;
  int64_t picture_at_us_ = 0;  // when the last came; 0: nothing has

  std::mutex mutex_;  // pictures_, ended_, error_
  std::condition_variable changed_;
  std::deque<Queued> pictures_;
  bool ended_ = false;
  std::exception_ptr error_;
};

}  // namespace refavs
