// Masks at the size of the picture, with their edges where the picture has them.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace refavs {

// The fast guided filter with a guide in colour (He, Sun: arXiv 1505.00996). In each window of a
// small copy of the picture, a mask is fitted by least squares as a linear function of the colour,
// mask = a . rgb + b; a and b are averaged over the windows that a pixel is in, stretched to the
// size of the picture, and applied to its colours. So a mask that is fitted coarsely follows what
// changes in the picture at its edge, and where nothing changes it is smooth.
//
// Not thread-safe: it keeps scratch memory.
class GuidedUpsampler {
 public:
  // `low`: side of the small copy; `radius`: of a window in its pixels; `epsilon`: how much the
  // squares of a, in units of 1, weigh against the fit.
  GuidedUpsampler(int width, int height, int low, int radius, float epsilon);

  int width() const { return width_; }
  int height() const { return height_; }
  int low() const { return low_; }

  // The picture as the network takes it, [3, size, size] with size a multiple of low: its means are
  // the small copy, in units of 1 once `scale` and `shift` of each channel are applied. What is the
  // same for all masks is computed here.
  void guide(const float* tensor, int size, const std::array<float, 3>& scale,
             const std::array<float, 3>& shift);
  // A mask [low, low] in [0, 1] and the picture itself, to [height, width]: 1 where the result is
  // above `threshold`, else 0.
  void run(const float* mask, const uint8_t* rgb, int64_t stride, float threshold, uint8_t* out);

 private:
  using Plane = std::vector<float>;
  struct Tap {
    int first;
    int second;
    float weight;  // of the second
  };
  static std::vector<Tap> taps(int from, int to);
  void box(const float* in, float* out);
  void fit(const float* mask);
  void bound();
  void fill(int y, float threshold, const uint8_t* pixels, uint8_t* line) const;

  int width_;
  int height_;
  int low_;
  int radius_;
  float epsilon_;
  std::vector<Tap> rows_;
  std::vector<Tap> columns_;
  std::vector<float> share_;  // 1 / the pixels of a window around each coordinate

  Plane guide_[3];
  Plane mean_[3];
  Plane inverse_[6];  // of the windows' covariance + epsilon: rr rg rb gg gb bb
  Plane mean_mask_;
  Plane with_mask_[3];
  Plane fit_[4];        // a of red, green, blue, and b
  Plane most_, least_;  // that any colour can give at each point of the fit
  Plane product_;
  Plane sums_;
  std::vector<float> total_;
  std::vector<int> begins_;  // where the pixels between two columns of the fit begin
};

}  // namespace refavs
