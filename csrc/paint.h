// Masks over a picture, in colour.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace refavs {

// Paints masks into pictures: a fill that lets the picture through, and an outline that does not.
//
// Not thread-safe: it keeps scratch memory.
class Painter {
 public:
  // `opacity`: of the fill, in 256ths; `outline`: pixels from the mask's edge inwards, along rows
  // and columns, that bear the full colour. The picture's own edge is an edge too.
  Painter(int opacity, int outline) : opacity_(opacity), outline_(outline) {}

  // `rgb`: [height, width, 3], rows `stride` bytes apart; `mask`: [height, width], 0 or 1.
  void paint(uint8_t* rgb, int64_t stride, int width, int height, const uint8_t* mask,
             const std::array<uint8_t, 3>& colour);

 private:
  int opacity_;
  int outline_;
  std::vector<uint8_t> inner_;
  std::vector<uint8_t> eroded_;
};

}  // namespace refavs
