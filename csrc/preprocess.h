// From a picture's bytes to the network's input.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace refavs {

// out = (value / 255 - mean) / std, per channel in R, G, B order.
struct Normalization {
  std::array<float, 3> mean;
  std::array<float, 3> std;
};

// Stretches RGB pictures of one size to [3, S, S] float32 by an antialiased triangle filter, the
// one of PIL.Image.resize(BILINEAR) and of torch's interpolate(mode="bilinear", antialias=True),
// and normalises them. PIL rounds to bytes after each pass; this does not, so they differ by less
// than 1/255 before normalisation.
//
// Not thread-safe: it keeps a row of scratch memory.
class Resizer {
 public:
  Resizer(int width, int height, int size, const Normalization& normalization);

  int width() const { return width_; }
  int height() const { return height_; }

  // `rgb`: [height, width, 3], rows `stride` bytes apart. `out`: [3, size, size].
  void run(const uint8_t* rgb, int64_t stride, float* out);

 private:
  // Output i is the sum of weights[i * taps + k] * input[first[i] + k] over k < taps.
  struct Filter {
    int taps = 0;
    std::vector<int> first;
    std::vector<float> weights;
  };
  static Filter triangle_filter(int from, int to);

  int width_;
  int height_;
  int size_;
  std::array<float, 3> scale_;
  std::array<float, 3> shift_;
  Filter horizontal_;
  Filter vertical_;
  std::vector<float> row_;
};

}  // namespace refavs
