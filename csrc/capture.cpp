#include "capture.h"

#include "av_capture.h"
#include "gst_capture.h"

namespace refavs {

std::unique_ptr<Capture> open_capture(const Address& address, Wanted wanted,
                                      const CaptureOptions& options,
                                      const std::atomic<bool>& stopped) {
  if (address.kind == AddressKind::kPipeline)
    return std::make_unique<GstCapture>(address, wanted, options, stopped);
  return std::make_unique<AvCapture>(address, wanted, options, stopped);
}

}  // namespace refavs
