#include "devices.h"

#include <fcntl.h>
#include <linux/videodev2.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

#include "ffmpeg.h"

namespace refavs {
namespace {

constexpr int kMostCameras = 64;

void list_cameras(std::vector<Device>* devices) {
  for (int number = 0; number < kMostCameras; ++number) {
    const std::string path = "/dev/video" + std::to_string(number);
    const int fd = open(path.c_str(), O_RDWR | O_NONBLOCK);
    if (fd < 0) continue;
    v4l2_capability capability = {};
    const bool told = ioctl(fd, VIDIOC_QUERYCAP, &capability) >= 0;
    close(fd);
    // A camera has further nodes, for example of metadata.
    const uint32_t able = capability.capabilities & V4L2_CAP_DEVICE_CAPS ? capability.device_caps
                                                                         : capability.capabilities;
    if (told && (able & V4L2_CAP_VIDEO_CAPTURE))
      devices->push_back(
          {"camera", std::to_string(number), reinterpret_cast<const char*>(capability.card)});
  }
}

void list_sounds(const char* demuxer, std::vector<Device>* devices) {
  const AVInputFormat* format = av_find_input_format(demuxer);
  AVDeviceInfoList* list = nullptr;
  if (!format || avdevice_list_input_sources(mutable_format(format), nullptr, nullptr, &list) < 0) {
    if (list) avdevice_free_list_devices(&list);
    return;
  }
  for (int i = 0; i < list->nb_devices; ++i) {
    const AVDeviceInfo& device = *list->devices[i];
    devices->push_back({"microphone", std::string(demuxer) + ":" + device.device_name,
                        device.device_description ? device.device_description : ""});
  }
  avdevice_free_list_devices(&list);
}

}  // namespace

std::vector<Device> list_devices() {
  avdevice_register_all();
  std::vector<Device> devices;
  list_cameras(&devices);
  list_sounds("pulse", &devices);
  list_sounds("alsa", &devices);
  const char* display = std::getenv("DISPLAY");
  if (display && *display)
    devices.push_back({"screen", std::string("screen:") + display, "the X11 screen"});
  return devices;
}

}  // namespace refavs
