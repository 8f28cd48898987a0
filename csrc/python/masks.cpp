// Masks at the size of the picture, and over it.
#include "common.h"
#include "guided.h"
#include "paint.h"
#include "parts.h"

namespace refavs {
namespace {

using Floats = py::array_t<float, py::array::c_style>;

class PyGuidedUpsampler {
 public:
  PyGuidedUpsampler(int width, int height, int low, int radius, float epsilon)
      : upsampler_(checked(width), checked(height), checked(low), radius, epsilon) {
    if (radius < 1 || radius > low) throw py::value_error("radius must be 1 to low");
    if (!(epsilon > 0.0f)) throw py::value_error("epsilon must be positive");
  }

  py::array_t<bool> run(const Floats& masks, const Floats& tensor, const py::array& image,
                        const std::array<float, 3>& mean, const std::array<float, 3>& std,
                        float threshold) {
    const auto rgb = rgb_image(image);
    const int low = upsampler_.low();
    const py::ssize_t height = upsampler_.height(), width = upsampler_.width();
    if (rgb.shape(0) != height || rgb.shape(1) != width)
      throw py::value_error("an image of this upsampler is " + std::to_string(height) +
                            " high and " + std::to_string(width) + " wide, not " + shape_text(rgb));
    if (masks.ndim() != 3 || masks.shape(1) != low || masks.shape(2) != low)
      throw py::value_error("masks are [n, low, low], not " + shape_text(masks));
    if (tensor.ndim() != 3 || tensor.shape(0) != 3 || tensor.shape(1) != tensor.shape(2) ||
        tensor.shape(1) < low || tensor.shape(1) % low != 0)
      throw py::value_error("a tensor is [3, S, S] with S a multiple of " + std::to_string(low) +
                            ", not " + shape_text(tensor));
    py::array_t<bool> out({masks.shape(0), height, width});
    auto* bytes = reinterpret_cast<uint8_t*>(out.mutable_data());
    py::gil_scoped_release release;
    if (masks.shape(0) > 0)
      upsampler_.guide(tensor.data(), static_cast<int>(tensor.shape(1)), std, mean);
    for (py::ssize_t i = 0; i < masks.shape(0); ++i)
      upsampler_.run(masks.data() + i * low * low, rgb.data(), width * 3, threshold,
                     bytes + i * height * width);
    return out;
  }

 private:
  static int checked(int size) {
    if (size < 1 || size > 1 << 16)
      throw py::value_error("a size must be 1 to 65536, not " + std::to_string(size));
    return size;
  }

  GuidedUpsampler upsampler_;
};

// Into the picture itself.
void paint_mask(py::array& image, const py::array& mask, const std::array<uint8_t, 3>& colour,
                int opacity, int outline) {
  if (!py::isinstance<py::array_t<uint8_t>>(image) || image.ndim() != 3 || image.shape(2) != 3 ||
      image.strides(2) != 1 || image.strides(1) != 3 || !image.writeable())
    throw py::value_error(
        "an image to paint into is uint8 [H, W, 3], writable, its rows without gaps");
  const auto bits = py::array_t<bool, py::array::c_style>::ensure(mask);
  if (!py::isinstance<py::array_t<bool>>(mask) || mask.ndim() != 2 ||
      mask.shape(0) != image.shape(0) || mask.shape(1) != image.shape(1))
    throw py::value_error("a mask is bool [H, W] of the image's size, not " + shape_text(mask));
  if (opacity < 0 || opacity > 256 || outline < 0)
    throw py::value_error("opacity must be 0 to 256, and outline 0 or more");
  auto* rgb = static_cast<uint8_t*>(image.mutable_data());
  const auto* inside = reinterpret_cast<const uint8_t*>(bits.data());
  const int64_t stride = image.strides(0);
  const int width = static_cast<int>(image.shape(1)), height = static_cast<int>(image.shape(0));
  py::gil_scoped_release release;
  Painter(opacity, outline).paint(rgb, stride, width, height, inside, colour);
}

}  // namespace

void bind_masks(py::module_& m) {
  py::class_<PyGuidedUpsampler>(m, "GuidedUpsampler")
      .def(py::init<int, int, int, int, float>(), py::arg("width"), py::arg("height"),
           py::arg("low"), py::arg("radius"), py::arg("epsilon"))
      .def("run", &PyGuidedUpsampler::run, py::arg("masks"), py::arg("tensor"), py::arg("image"),
           py::kw_only(), py::arg("mean"), py::arg("std"), py::arg("threshold"));
  m.def("paint_mask", &paint_mask, py::arg("image"), py::arg("mask"), py::arg("colour"),
        py::kw_only(), py::arg("opacity"), py::arg("outline"));
}

}  // namespace refavs
