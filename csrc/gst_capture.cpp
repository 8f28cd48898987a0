#include "gst_capture.h"

#include <algorithm>
#include <chrono>

#include "error.h"

namespace refavs {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr double kOpen_s = 15.0;
constexpr double kPictures = 5.0;          // may be missing of a slow camera
constexpr auto kSlice = milliseconds(20);  // between two looks at `stopped` while opening

milliseconds in_ms(double seconds) { return milliseconds(static_cast<int64_t>(seconds * 1e3)); }

}  // namespace

GstCapture::GstCapture(const Address& address, Wanted wanted, const CaptureOptions& options,
                       const std::atomic<bool>& stopped)
    : shown_(address.shown),
      silence_s_(options.silence_s),
      frames_(address.shown),
      pipeline_(address, wanted) {
  if (wanted == Wanted::kSound) {
    wait_first(Medium::kSound, stopped);
  } else {
    frames_.picture(wait_first(Medium::kPicture, stopped).get());
  }
  info_.has_video = pipeline_.has(Medium::kPicture);
  info_.has_audio = pipeline_.has(Medium::kSound);
  if (info_.has_video) info_.video_codec = "raw";
  if (info_.has_audio) info_.audio_codec = "raw";
  info_.frame_rate = frames_.frame_rate();
  info_.pixel_aspect = frames_.pixel_aspect();
  const double slow_s = info_.frame_rate > 0.0 ? kPictures / info_.frame_rate : 0.0;
  patience_ = in_ms(std::max(silence_s_, slow_s));
}

// As long as a device may take to start.
GstPtr<gst::Sample> GstCapture::wait_first(Medium medium, const std::atomic<bool>& stopped) {
  const auto until = Clock::now() + in_ms(std::max(kOpen_s, silence_s_));
  for (;;) {
    GstPtr<gst::Sample> first;
    const GstPipeline::Status status = pipeline_.wait_first(medium, kSlice, &first);
    if (status == GstPipeline::Status::kSample) return first;
    if (stopped) throw IngestError(shown_ + ": closed before it was open");
    const std::string what = medium == Medium::kPicture ? "no picture" : "no sound";
    if (status == GstPipeline::Status::kEnded)
      throw IngestError(shown_ + ": has ended, with " + what + "; try it with gst-launch-1.0");
    if (Clock::now() >= until) throw IngestError(shown_ + ": sends " + what + "; check its source");
  }
}

void GstCapture::run(CaptureListener* listener) {
  auto picture_at = Clock::now();
  for (;;) {
    GstSample sample;
    switch (pipeline_.next(&sample, in_ms(silence_s_))) {
      case GstPipeline::Status::kSample:
        if (sample.medium == Medium::kPicture || !info_.has_video) picture_at = Clock::now();
        if (Clock::now() - picture_at > patience_)
          throw IngestError(shown_ + ": sends sound and no pictures; check the camera");
        hand_over(sample, listener);
        break;
      case GstPipeline::Status::kWoken:
        return;
      case GstPipeline::Status::kEnded:
        if (!pipeline_.is_live()) return;
        throw IngestError(shown_ + ": the other side has closed it");
      case GstPipeline::Status::kTimeout:
        throw IngestError(shown_ + ": sends nothing; check the device or the network");
    }
  }
}

void GstCapture::hand_over(const GstSample& taken, CaptureListener* listener) {
  gst::Sample* sample = taken.sample.get();
  const bool is_picture = taken.medium == Medium::kPicture;
  const double pts_s = running_time_s(sample);
  if (taken.skipped > 0) listener->late(taken.skipped);
  FramePtr frame = is_picture ? frames_.picture(sample) : frames_.sound(sample);
  if (!frame || is_corrupted(sample)) listener->corrupt(is_picture ? 1 : 0, is_picture ? 0 : 1);
  if (!frame) return;
  if (is_picture) {
    listener->arrived(pts_s);
    listener->picture(std::move(frame), pts_s);
  } else {
    // Its end had been heard when it came.
    listener->arrived(pts_s + double(frame->nb_samples) / frame->sample_rate);
    listener->sound(*frame, pts_s);
  }
}

}  // namespace refavs
