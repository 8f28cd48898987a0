// libFuzzer: any bytes as a file.
#include "ffmpeg.h"
#include "hostile.h"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  av_log_set_level(AV_LOG_QUIET);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // libFuzzer's own -timeout is shorter, and keeps the input.
  refavs::read_hostile_file(data, size, std::chrono::minutes(5));
  return 0;
}
