// From a picture's samples to the network's input.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "orientation.h"

namespace refavs {

// out = (value / 255 - mean) / std, per channel in R, G, B order.
struct Normalization {
  std::array<float, 3> mean;
  std::array<float, 3> std;
};

// Where the samples of one channel stand, 8 bits each.
struct Channel {
  int plane = 0;
  int step = 1;     // bytes from one sample to the next
  int offset = 0;   // bytes from the beginning of a row to its first sample
  int shift_x = 0;  // one sample is for 2^shift_x pixels across and 2^shift_y down: 0 or 1
  int shift_y = 0;
};

// The channels of a picture, and what they say of red, green and blue:
// rgb[i] = bias[i] + sum over c of matrix[i][c] * sample[c], of 0 to 255.
struct PixelLayout {
  std::vector<Channel> channels;  // at most 3
  std::array<std::array<float, 3>, 3> matrix = {};
  std::array<float, 3> bias = {};
};

// [height, width, 3] bytes.
PixelLayout rgb24_layout();

struct Planes {
  std::array<const uint8_t*, 4> data = {};
  std::array<int64_t, 4> stride = {};  // bytes from one row to the next
};

// Stretches pictures of one size and layout to [3, S, S] float32 by an antialiased triangle filter,
// the one of PIL.Image.resize(BILINEAR) and of torch's interpolate(mode="bilinear",
// antialias=True), and normalises them. Channels are stretched before they are turned into RGB:
// that is the same, since both are linear, but for what rounding and clamping to a byte would
// change at full size. A sample of colour that is for several pixels counts for each of them alike.
//
// Not thread-safe: it keeps scratch memory.
class Resizer {
 public:
  Resizer(int width, int height, int size, const Normalization& normalization,
          const PixelLayout& layout, Orientation orientation = {});

  // `out`: [3, size, size], upright.
  void run(const Planes& planes, float* out);

 private:
  // Output i is the sum of weights[i * taps + k] * input[first[i] + k] over k < taps.
  struct Filter {
    int taps = 0;
    std::vector<int> first;
    std::vector<float> weights;
  };
  // What rows of one plane have in common.
  struct Plane {
    int index = 0;
    int row_bytes = 0;
    Filter vertical;
    std::vector<float> row;
  };
  struct Across {
    size_t plane = 0;  // of planes_
    Filter horizontal;
    std::vector<float> line;
  };

  static Filter triangle_filter(int from, int to);
  static Filter shared(const Filter& filter, int shift, int from);
  static Filter strided(const Filter& filter, int step, int offset);
  size_t plane_of(const Channel& channel, int width, int height, const Filter& vertical);
  void write_line(float* out, int y) const;
  void turn(float* out) const;

  int size_;
  Orientation orientation_;
  std::array<std::array<float, 3>, 3> matrix_;
  std::array<float, 3> bias_;
  std::array<float, 3> scale_;
  std::array<float, 3> shift_;
  std::vector<Plane> planes_;
  std::vector<Across> channels_;
  std::vector<float> stored_;  // [3, S, S] before it is turned
};

}  // namespace refavs
