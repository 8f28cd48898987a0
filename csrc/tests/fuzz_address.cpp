// libFuzzer: any bytes as an address.
#include "hostile.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  refavs::read_hostile_address(std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
