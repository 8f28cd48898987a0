// libFuzzer: any bytes as frames of sound.
#include "ffmpeg.h"
#include "hostile.h"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  av_log_set_level(AV_LOG_QUIET);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  refavs::read_hostile_sound(data, size);
  return 0;
}
