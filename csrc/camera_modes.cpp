#include "camera_modes.h"

#include <fcntl.h>
#include <linux/videodev2.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "error.h"

namespace refavs {
namespace {

constexpr double kUsualArea = 1280.0 * 720.0;
constexpr int kUsualSizes[][2] = {{320, 240},  {640, 360},  {640, 480},   {800, 600},
                                  {1024, 768}, {1280, 720}, {1920, 1080}, {3840, 2160}};

struct KnownFormat {
  uint32_t fourcc;
  const char* name;
  bool compressed;
};

constexpr KnownFormat kFormats[] = {
    {V4L2_PIX_FMT_YUYV, "yuyv422", false}, {V4L2_PIX_FMT_UYVY, "uyvy422", false},
    {V4L2_PIX_FMT_NV12, "nv12", false},    {V4L2_PIX_FMT_YUV420, "yuv420p", false},
    {V4L2_PIX_FMT_RGB24, "rgb24", false},  {V4L2_PIX_FMT_BGR24, "bgr24", false},
    {V4L2_PIX_FMT_GREY, "gray", false},    {V4L2_PIX_FMT_MJPEG, "mjpeg", true},
    {V4L2_PIX_FMT_JPEG, "mjpeg", true},
};

class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : fd_(open(path.c_str(), O_RDWR | O_NONBLOCK)) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  template <typename Argument>
  bool ask(unsigned long what, Argument* argument) const {
    return fd_ >= 0 && ioctl(fd_, what, argument) >= 0;
  }

 private:
  int fd_;
};

double highest_rate(const Descriptor& camera, uint32_t fourcc, int width, int height) {
  double highest = 0.0;
  v4l2_frmivalenum interval = {};
  interval.pixel_format = fourcc;
  interval.width = static_cast<uint32_t>(width);
  interval.height = static_cast<uint32_t>(height);
  for (; camera.ask(VIDIOC_ENUM_FRAMEINTERVALS, &interval); ++interval.index) {
    const bool discrete = interval.type == V4L2_FRMIVAL_TYPE_DISCRETE;
    const v4l2_fract shortest = discrete ? interval.discrete : interval.stepwise.min;
    if (shortest.numerator > 0)
      highest = std::max(highest, double(shortest.denominator) / shortest.numerator);
    if (!discrete) break;
  }
  return highest;
}

std::vector<std::pair<int, int>> sizes_of(const Descriptor& camera, uint32_t fourcc) {
  std::vector<std::pair<int, int>> sizes;
  v4l2_frmsizeenum size = {};
  size.pixel_format = fourcc;
  for (; camera.ask(VIDIOC_ENUM_FRAMESIZES, &size); ++size.index) {
    if (size.type == V4L2_FRMSIZE_TYPE_DISCRETE) {
      sizes.emplace_back(size.discrete.width, size.discrete.height);
      continue;
    }
    const v4l2_frmsize_stepwise& steps = size.stepwise;
    for (const auto& [width, height] : kUsualSizes) {
      const auto w = static_cast<uint32_t>(width), h = static_cast<uint32_t>(height);
      if (w >= steps.min_width && w <= steps.max_width && h >= steps.min_height &&
          h <= steps.max_height && (w - steps.min_width) % std::max(1u, steps.step_width) == 0 &&
          (h - steps.min_height) % std::max(1u, steps.step_height) == 0)
        sizes.emplace_back(width, height);
    }
    break;
  }
  return sizes;
}

double from_usual(const CameraMode& mode) {
  return std::abs(std::log(double(mode.width) * mode.height / kUsualArea));
}

}  // namespace

std::vector<CameraMode> camera_modes(const std::string& device) {
  std::vector<CameraMode> modes;
  const Descriptor camera(device);
  v4l2_fmtdesc format = {};
  format.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  for (; camera.ask(VIDIOC_ENUM_FMT, &format); ++format.index) {
    for (const KnownFormat& known : kFormats) {
      if (known.fourcc != format.pixelformat) continue;
      for (const auto& [width, height] : sizes_of(camera, known.fourcc))
        modes.push_back({known.name, known.compressed, width, height,
                         highest_rate(camera, known.fourcc, width, height)});
    }
  }
  return modes;
}

WantedMode wanted_mode(const std::string& size, double rate) {
  WantedMode wanted;
  wanted.rate = rate;
  if (size.empty()) return wanted;
  char rest = 0;
  if (std::sscanf(size.c_str(), "%5dx%5d%c", &wanted.width, &wanted.height, &rest) != 2 ||
      wanted.width < 1 || wanted.height < 1)
    throw IngestError("camera size '" + size + "' is none; write it as 1280x720");
  return wanted;
}

std::optional<CameraMode> choose_mode(const std::vector<CameraMode>& modes, WantedMode wanted) {
  const double enough = wanted.rate > 0.0 ? wanted.rate : kEnough;
  double fastest = 0.0;
  for (const CameraMode& mode : modes) fastest = std::max(fastest, mode.rate);
  const double needed = std::min(enough, fastest);

  std::optional<CameraMode> best;
  const auto is_better = [&](const CameraMode& mode) {
    if (!best) return true;
    if (wanted.width == 0) {
      const bool fast = mode.rate >= needed, best_fast = best->rate >= needed;
      if (fast != best_fast) return fast;
      const double near = from_usual(mode), best_near = from_usual(*best);
      if (near != best_near) return near < best_near;
    }
    const bool raw = !mode.compressed && mode.rate >= needed;
    const bool best_raw = !best->compressed && best->rate >= needed;
    return raw != best_raw ? raw : mode.rate > best->rate;
  };
  for (const CameraMode& mode : modes) {
    if (wanted.width > 0 && (mode.width != wanted.width || mode.height != wanted.height)) continue;
    if (is_better(mode)) best = mode;
  }
  return best;
}

}  // namespace refavs
