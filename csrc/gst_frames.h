// Samples of GStreamer as FFmpeg's frames, without a copy.
#pragma once

#include <string>
#include <utility>

#include "ffmpeg.h"
#include "gst_pipeline.h"

namespace refavs {

// Not thread-safe.
class GstFrames {
 public:
  // `shown` names the pipeline in messages.
  explicit GstFrames(std::string shown) : shown_(std::move(shown)) {}

  // The frame refers to the sample's memory and keeps it. Null: the memory is smaller than its
  // format says. Throws IngestError where the format is none of those that a GstPipeline asks for.
  FramePtr picture(gst::Sample* sample);
  FramePtr sound(gst::Sample* sample);

  // Of the last picture's format; 0 where it does not tell.
  double frame_rate() const { return frame_rate_; }
  AVRational pixel_aspect() const { return pixel_aspect_; }

 private:
  void read_picture_format(gst::Caps* caps);
  void read_sound_format(gst::Caps* caps);

  const std::string shown_;
  GstPtr<gst::Caps> picture_caps_;  // those that were read last
  GstPtr<gst::Caps> sound_caps_;
  AVPixelFormat pixel_format_ = AV_PIX_FMT_NONE;
  gst::VideoInfo video_ = {};
  double frame_rate_ = 0.0;
  AVRational pixel_aspect_ = {1, 1};
  AVSampleFormat sample_format_ = AV_SAMPLE_FMT_NONE;
  int rate_hz_ = 0;
  int channels_ = 0;
};

// When it was captured, in seconds of the pipeline's running time; NaN where it does not tell.
double running_time_s(gst::Sample* sample);

bool is_corrupted(gst::Sample* sample);

}  // namespace refavs
