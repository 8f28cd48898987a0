// FFmpeg's pixel formats as layouts of channels.
#pragma once

#include <optional>

#include "ffmpeg.h"
#include "preprocess.h"

namespace refavs {

// How the samples of a picture stand and what colours they are: by the frame's own matrix and
// range, BT.601 where it names none, as the ffmpeg tool takes them. Nothing for formats with other
// than 8 bits a sample, palettes, and colour shared by more than 2 x 2 pixels.
std::optional<PixelLayout> pixel_layout(const AVFrame& frame);

// Whether Y, U and V of a frame go from 0 to 255.
bool is_full_range(const AVFrame& frame);

}  // namespace refavs
