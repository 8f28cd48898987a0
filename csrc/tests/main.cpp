#include <gtest/gtest.h>

#include "ffmpeg.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  av_log_set_level(AV_LOG_FATAL);  // many tests are about what FFmpeg complains of
  return RUN_ALL_TESTS();
}
