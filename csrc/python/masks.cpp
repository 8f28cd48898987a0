// Masks at the size of the picture.
#include "common.h"
#include "guided.h"
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

  py::array_t<bool> run(const Floats& masks, const Floats& small, const py::array& image,
                        float threshold) {
    const auto rgb = rgb_image(image);
    const int low = upsampler_.low();
    const py::ssize_t height = upsampler_.height(), width = upsampler_.width();
    if (rgb.shape(0) != height || rgb.shape(1) != width)
      throw py::value_error("an image of this upsampler is " + std::to_string(height) +
                            " high and " + std::to_string(width) + " wide, not " + shape_text(rgb));
    if (masks.ndim() != 3 || masks.shape(1) != low || masks.shape(2) != low)
      throw py::value_error("masks are [n, low, low], not " + shape_text(masks));
    if (small.ndim() != 3 || small.shape(0) != 3 || small.shape(1) != low || small.shape(2) != low)
      throw py::value_error("small is [3, low, low], not " + shape_text(small));
    py::array_t<bool> out({masks.shape(0), height, width});
    auto* bytes = reinterpret_cast<uint8_t*>(out.mutable_data());
    py::gil_scoped_release release;
    if (masks.shape(0) > 0) upsampler_.guide(small.data());
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

}  // namespace

void bind_masks(py::module_& m) {
  py::class_<PyGuidedUpsampler>(m, "GuidedUpsampler")
      .def(py::init<int, int, int, int, float>(), py::arg("width"), py::arg("height"),
           py::arg("low"), py::arg("radius"), py::arg("epsilon"))
      .def("run", &PyGuidedUpsampler::run, py::arg("masks"), py::arg("small"), py::arg("image"),
           py::arg("threshold"));
}

}  // namespace refavs
