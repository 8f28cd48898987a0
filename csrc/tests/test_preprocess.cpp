#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "preprocess.h"

namespace refavs {
namespace {

const Normalization kImagenet = {{0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};

// Weights of PIL's triangle filter, over all inputs, in doubles.
std::vector<double> weights(int from, int to, int output) {
  const double scale = double(from) / to;
  const double support = std::max(1.0, scale);
  const double center = (output + 0.5) * scale;
  std::vector<double> list(static_cast<size_t>(from));
  double sum = 0.0;
  for (int i = 0; i < from; ++i) {
    list[static_cast<size_t>(i)] = std::max(0.0, 1.0 - std::abs((i + 0.5 - center) / support));
    sum += list[static_cast<size_t>(i)];
  }
  for (double& weight : list) weight /= sum;
  return list;
}

class Preprocess : public testing::TestWithParam<std::array<int, 3>> {};

TEST_P(Preprocess, IsTheFormula) {
  const auto [width, height, size] = GetParam();
  const int stride = width * 3 + 5;
  std::mt19937 random(7);
  std::vector<uint8_t> rgb(static_cast<size_t>(stride) * height);
  for (uint8_t& value : rgb) value = static_cast<uint8_t>(random());
  const size_t area = static_cast<size_t>(size) * size;
  std::vector<float> out(3 * area, std::numeric_limits<float>::quiet_NaN());
  Resizer resizer(width, height, size, kImagenet, rgb24_layout());
  Planes planes;
  planes.data[0] = rgb.data();
  planes.stride[0] = stride;
  resizer.run(planes, out.data());
  for (int y = 0; y < size; ++y) {
    const std::vector<double> down = weights(height, size, y);
    for (int x = 0; x < size; ++x) {
      const std::vector<double> across = weights(width, size, x);
      for (int c = 0; c < 3; ++c) {
        double sum = 0.0;
        for (int j = 0; j < height; ++j)
          for (int i = 0; i < width; ++i)
            sum += down[j] * across[i] * rgb[static_cast<size_t>(j) * stride + 3 * i + c];
        const double expected = (sum / 255.0 - kImagenet.mean[c]) / kImagenet.std[c];
        ASSERT_NEAR(out[c * area + static_cast<size_t>(y) * size + x], expected, 2e-5);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Preprocess, Preprocess,
    testing::Values(std::array<int, 3>{1, 1, 1}, std::array<int, 3>{1, 1, 7},
                    std::array<int, 3>{2, 33, 5}, std::array<int, 3>{61, 3, 16},
                    std::array<int, 3>{37, 23, 10}, std::array<int, 3>{16, 16, 16},
                    std::array<int, 3>{5, 4, 31}, std::array<int, 3>{90, 70, 1}));

}  // namespace
}  // namespace refavs
