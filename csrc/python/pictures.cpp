// Pictures in and out: the network's input, JPEG.
#include "common.h"
#include "jpeg.h"
#include "parts.h"

namespace refavs {
namespace {

py::array_t<float> resize_normalize(const py::array& image, int size,
                                    const std::array<float, 3>& mean,
                                    const std::array<float, 3>& std) {
  check_size(size);
  const auto rgb = rgb_image(image);
  const Normalization how = normalization(mean, std);
  std::vector<float> tensor(size_t(3) * size * size);
  {
    py::gil_scoped_release release;
    Resizer resizer(static_cast<int>(rgb.shape(1)), static_cast<int>(rgb.shape(0)), size, how,
                    rgb24_layout());
    Planes planes;
    planes.data[0] = rgb.data();
    planes.stride[0] = rgb.shape(1) * 3;
    resizer.run(planes, tensor.data());
  }
  return array_of(std::move(tensor), {3, size, size});
}

class PyJpegEncoder {
 public:
  explicit PyJpegEncoder(int quality) : encoder_(checked(quality)) {}

  py::bytes encode(const py::array& image) {
    const auto rgb = rgb_image(image);
    std::vector<uint8_t> bytes;
    {
      py::gil_scoped_release release;
      bytes = encoder_.encode(rgb.data(), static_cast<int>(rgb.shape(1)),
                              static_cast<int>(rgb.shape(0)), rgb.shape(1) * 3);
    }
    return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

 private:
  static int checked(int quality) {
    if (quality < 1 || quality > 100)
      throw py::value_error("quality must be 1 to 100, not " + std::to_string(quality));
    return quality;
  }

  JpegEncoder encoder_;
};

}  // namespace

void bind_pictures(py::module_& m) {
  py::class_<PyJpegEncoder>(m, "JpegEncoder")
      .def(py::init<int>(), py::arg("quality") = 85)
      .def("encode", &PyJpegEncoder::encode, py::arg("image"));
  m.def("resize_normalize", &resize_normalize, py::arg("image"), py::arg("size"), py::kw_only(),
        py::arg("mean"), py::arg("std"));
}

}  // namespace refavs
