// A live source by way of GStreamer.
#pragma once

#include <atomic>
#include <chrono>
#include <string>

#include "capture.h"
#include "gst_frames.h"
#include "gst_pipeline.h"

namespace refavs {

// Times are the pipeline's running time. A live pipeline that ends is lost; another has ended.
class GstCapture : public Capture {
 public:
  // Throws IngestError.
  GstCapture(const Address& address, Wanted wanted, const CaptureOptions& options,
             const std::atomic<bool>& stopped);

  const SourceInfo& info() const override { return info_; }
  void run(CaptureListener* listener) override;
  void stop() override { pipeline_.wake(); }

 private:
  GstPtr<gst::Sample> wait_first(Medium medium, const std::atomic<bool>& stopped);
  void hand_over(const GstSample& sample, CaptureListener* listener);

  const std::string shown_;
  const double silence_s_;
  std::chrono::milliseconds patience_{0};  // between pictures
  SourceInfo info_;
  GstFrames frames_;
  GstPipeline pipeline_;  // last: it ends first
};

}  // namespace refavs
