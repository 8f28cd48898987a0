#include "paint.h"

#include <algorithm>
#include <cstring>

namespace refavs {
namespace {

struct Box {
  int left, top, right, bottom;  // the last two are outside
};

Box box_of(const uint8_t* mask, int width, int height) {
  Box box = {width, height, 0, 0};
  for (int y = 0; y < height; ++y) {
    const uint8_t* row = mask + size_t(y) * width;
    const auto* first = static_cast<const uint8_t*>(std::memchr(row, 1, width));
    if (!first) continue;
    int last = width - 1;
    while (!row[last]) --last;
    box.left = std::min(box.left, static_cast<int>(first - row));
    box.right = std::max(box.right, last + 1);
    box.top = std::min(box.top, y);
    box.bottom = y + 1;
  }
  return box;
}

}  // namespace

void Painter::paint(uint8_t* rgb, int64_t stride, int width, int height, const uint8_t* mask,
                    const std::array<uint8_t, 3>& colour) {
  const Box box = box_of(mask, width, height);
  if (box.right <= box.left) return;
  // The part of the mask, with a border of nothing around it.
  const int w = box.right - box.left, h = box.bottom - box.top, pitch = w + 2;
  inner_.assign(size_t(pitch) * (h + 2), 0);
  eroded_.assign(inner_.size(), 0);
  for (int y = 0; y < h; ++y)
    std::memcpy(inner_.data() + size_t(y + 1) * pitch + 1,
                mask + size_t(box.top + y) * width + box.left, w);
  for (int i = 0; i < outline_; ++i) {
    for (int y = 1; y <= h; ++y) {
      const uint8_t* in = inner_.data() + size_t(y) * pitch + 1;
      uint8_t* out = eroded_.data() + size_t(y) * pitch + 1;
      for (int x = 0; x < w; ++x)
        out[x] = in[x] & in[x - 1] & in[x + 1] & in[x - pitch] & in[x + pitch];
    }
    inner_.swap(eroded_);
  }
  const int keep = 256 - opacity_;
  const std::array<int, 3> add = {colour[0] * opacity_, colour[1] * opacity_, colour[2] * opacity_};
  for (int y = 0; y < h; ++y) {
    const uint8_t* inside = mask + size_t(box.top + y) * width + box.left;
    const uint8_t* inner = inner_.data() + size_t(y + 1) * pitch + 1;
    uint8_t* pixel = rgb + (box.top + y) * stride + int64_t(box.left) * 3;
    for (int x = 0; x < w; ++x, pixel += 3) {
      if (!inside[x]) continue;
      for (int c = 0; c < 3; ++c)
        pixel[c] = inner[x] ? static_cast<uint8_t>((pixel[c] * keep + add[c]) >> 8) : colour[c];
    }
  }
}

}  // namespace refavs
