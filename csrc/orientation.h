// How a stored picture must be turned to be looked at.
#pragma once

namespace refavs {

// First transposed, then mirrored.
struct Orientation {
  bool transpose = false;
  bool flip_x = false;
  bool flip_y = false;

  bool is_upright() const { return !transpose && !flip_x && !flip_y; }
};

}  // namespace refavs
