// The cameras, microphones and screens of this machine.
#pragma once

#include <string>
#include <vector>

namespace refavs {

struct Device {
  std::string medium;   // "camera", "microphone" or "screen"
  std::string address;  // what --camera or --mic takes
  std::string name;
};

// Those that can be told of without opening them.
std::vector<Device> list_devices();

}  // namespace refavs
