// The formats, sizes and rates that a V4L2 camera offers, and the choice among them.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace refavs {

struct CameraMode {
  std::string format;  // FFmpeg's name of the pixel format, or of the codec
  bool compressed = false;
  int width = 0;
  int height = 0;
  double rate = 0.0;  // frames a second, the highest
};

struct WantedMode {
  int width = 0;  // 0: near 1280 x 720
  int height = 0;
  double rate = 0.0;  // 0: kEnough or more
};

// Frames a second that look like a film.
constexpr double kEnough = 24.0;

// What the camera offers of what FFmpeg decodes here: raw and Motion JPEG. Empty where it does not
// tell. Sizes that a camera offers by steps are listed at the usual ones.
std::vector<CameraMode> camera_modes(const std::string& device);

// "1280x720" into a wanted mode. Throws IngestError for another text.
WantedMode wanted_mode(const std::string& size, double rate);

// First the size: the one asked for, else the nearest in area to 1280 x 720 of those that come at
// the wanted rate in any format, else at the highest rate there is. Then the format: raw where it
// is fast enough, since it costs no decoding and has no artefacts, else the fastest. Nothing where
// the size asked for is not offered.
std::optional<CameraMode> choose_mode(const std::vector<CameraMode>& modes, WantedMode wanted);

}  // namespace refavs
