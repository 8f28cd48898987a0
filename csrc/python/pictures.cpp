// Pictures in and out: the network's input, JPEG, MP4.
#include <optional>

#include "common.h"
#include "jpeg.h"
#include "parts.h"
#include "sink.h"

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

// Remembers the size for its messages.
class PySink {
 public:
  explicit PySink(const SinkOptions& options)
      : width_(options.width), height_(options.height), sink_(options) {}

  void write(const py::array& image, double pts_s) {
    const auto rgb = rgb_image(image);
    if (rgb.shape(0) != height_ || rgb.shape(1) != width_)
      throw py::value_error("an image of this sink is " + std::to_string(height_) + " high and " +
                            std::to_string(width_) + " wide, not " + shape_text(rgb));
    wait_for([&] { return sink_.write(rgb.data(), rgb.shape(1) * 3, pts_s, kPatience); });
  }
  void close() {
    py::gil_scoped_release release;
    sink_.close();
  }
  void abort() {
    py::gil_scoped_release release;
    sink_.abort();
  }
  const Sink& sink() const { return sink_; }

 private:
  int width_;
  int height_;
  Sink sink_;
};

std::unique_ptr<PySink> open_sink(const std::string& path, int width, int height, double frame_rate,
                                  const std::optional<std::string>& source,
                                  std::pair<int, int> pixel_aspect) {
  SinkOptions options;
  options.path = path;
  options.width = width;
  options.height = height;
  options.frame_rate = frame_rate;
  options.source = source.value_or("");
  options.pixel_aspect = {pixel_aspect.first, pixel_aspect.second};
  py::gil_scoped_release release;
  return std::make_unique<PySink>(options);
}

void bind_sink(py::module_& m) {
  py::class_<PySink>(m, "Sink")
      .def(py::init(&open_sink), py::arg("path"), py::arg("width"), py::arg("height"),
           py::kw_only(), py::arg("frame_rate"), py::arg("source") = py::none(),
           py::arg("pixel_aspect") = std::make_pair(1, 1))
      .def("write", &PySink::write, py::arg("image"), py::arg("pts_s"))
      .def("close", &PySink::close)
      .def("abort", &PySink::abort)
      .def("__enter__", [](py::object self) { return self; })
      .def("__exit__",
           [](PySink& self, const py::object& type, const py::object&, const py::object&) {
             if (type.is_none()) {
               self.close();
             } else {
               self.abort();
             }
           })
      .def_property_readonly("encoder", [](const PySink& self) { return self.sink().encoder(); })
      .def_property_readonly("sound", [](const PySink& self) { return self.sink().sound(); })
      .def_property_readonly("notes", [](const PySink& self) { return self.sink().notes(); });
}

}  // namespace

void bind_pictures(py::module_& m) {
  py::class_<PyJpegEncoder>(m, "JpegEncoder")
      .def(py::init<int>(), py::arg("quality") = 85)
      .def("encode", &PyJpegEncoder::encode, py::arg("image"));
  m.def("resize_normalize", &resize_normalize, py::arg("image"), py::arg("size"), py::kw_only(),
        py::arg("mean"), py::arg("std"));
  bind_sink(m);
}

}  // namespace refavs
