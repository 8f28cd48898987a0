// Ways out for pictures and sound: files and streams.
#include <optional>

#include "common.h"
#include "parts.h"
#include "push.h"
#include "sink.h"
#include "sound_record.h"

namespace refavs {
namespace {

// Remembers the size for its messages.
class Size {
 public:
  explicit Size(const PictureFormat& format) : width_(format.width), height_(format.height) {}

  py::array_t<uint8_t, py::array::c_style> checked(const py::array& image) const {
    auto rgb = rgb_image(image);
    if (rgb.shape(0) != height_ || rgb.shape(1) != width_)
      throw py::value_error("an image of this sink is " + std::to_string(height_) + " high and " +
                            std::to_string(width_) + " wide, not " + shape_text(rgb));
    return rgb;
  }

 private:
  int width_;
  int height_;
};

class PySink {
 public:
  explicit PySink(const SinkOptions& options) : size_(options), sink_(options) {}

  void write(const py::array& image, double pts_s) {
    const auto rgb = size_.checked(image);
    wait_for([&] { return sink_.write(rgb.data(), rgb.shape(1) * 3, pts_s, kPatience); });
  }
  void close() {
    py::gil_scoped_release release;
    sink_.close();
  }
  void abort(bool keep) {
    py::gil_scoped_release release;
    sink_.abort(keep);
  }
  const Sink& sink() const { return sink_; }

 private:
  Size size_;
  Sink sink_;
};

class PyPush {
 public:
  explicit PyPush(const PushOptions& options) : size_(options), push_(options) {}

  bool write(const py::array& image, double pts_s) {
    const auto rgb = size_.checked(image);
    py::gil_scoped_release release;
    return push_.write(rgb.data(), rgb.shape(1) * 3, pts_s);
  }
  void close() {
    py::gil_scoped_release release;
    push_.close();
  }
  py::dict counters() const {
    const PushCounters c = push_.counters();
    py::dict result;
    result["sent"] = c.sent;
    result["dropped"] = c.dropped;
    result["reconnects"] = c.reconnects;
    return result;
  }
  py::list take_notices() {
    py::list result;
    for (const Notice& notice : push_.take_notices())
      result.append(py::make_tuple(notice.at_s, notice.text));
    return result;
  }
  const Push& push() const { return push_; }

 private:
  Size size_;
  Push push_;
};

template <typename Options>
Options options_of(int width, int height, double frame_rate,
                   const std::optional<std::string>& source, std::shared_ptr<SoundRecord> record,
                   std::pair<int, int> pixel_aspect) {
  Options options;
  options.width = width;
  options.height = height;
  options.frame_rate = frame_rate;
  options.source = source.value_or("");
  options.record = std::move(record);
  options.pixel_aspect = {pixel_aspect.first, pixel_aspect.second};
  return options;
}

std::unique_ptr<PySink> open_sink(const std::string& path, int width, int height, double frame_rate,
                                  const std::optional<std::string>& source,
                                  std::shared_ptr<SoundRecord> record,
                                  std::pair<int, int> pixel_aspect) {
  auto options =
      options_of<SinkOptions>(width, height, frame_rate, source, std::move(record), pixel_aspect);
  options.path = path;
  py::gil_scoped_release release;
  return std::make_unique<PySink>(options);
}

std::unique_ptr<PyPush> open_push(const std::string& url, int width, int height, double frame_rate,
                                  const std::optional<std::string>& source,
                                  std::shared_ptr<SoundRecord> record,
                                  std::pair<int, int> pixel_aspect) {
  auto options =
      options_of<PushOptions>(width, height, frame_rate, source, std::move(record), pixel_aspect);
  options.url = url;
  py::gil_scoped_release release;
  return std::make_unique<PyPush>(options);
}

void bind_sink(py::module_& m) {
  py::class_<PySink>(m, "Sink", py::release_gil_before_calling_cpp_dtor())
      .def(py::init(&open_sink), py::arg("path"), py::arg("width"), py::arg("height"),
           py::kw_only(), py::arg("frame_rate"), py::arg("source") = py::none(),
           py::arg("record") = py::none(), py::arg("pixel_aspect") = std::make_pair(1, 1))
      .def("write", &PySink::write, py::arg("image"), py::arg("pts_s"))
      .def("close", &PySink::close)
      .def("abort", &PySink::abort, py::arg("keep") = false)
      .def_property_readonly("encoder", [](const PySink& self) { return self.sink().encoder(); })
      .def_property_readonly("sound", [](const PySink& self) { return self.sink().sound(); })
      .def_property_readonly("part", [](const PySink& self) { return self.sink().part(); })
      .def_property_readonly("notes", [](const PySink& self) { return self.sink().notes(); });
}

void bind_push(py::module_& m) {
  py::class_<PyPush>(m, "Push", py::release_gil_before_calling_cpp_dtor())
      .def(py::init(&open_push), py::arg("url"), py::arg("width"), py::arg("height"), py::kw_only(),
           py::arg("frame_rate"), py::arg("source") = py::none(), py::arg("record") = py::none(),
           py::arg("pixel_aspect") = std::make_pair(1, 1))
      .def("write", &PyPush::write, py::arg("image"), py::arg("pts_s"))
      .def("close", &PyPush::close)
      .def("take_notices", &PyPush::take_notices)
      .def_property_readonly("counters", &PyPush::counters)
      .def_property_readonly("shown", [](const PyPush& self) { return self.push().shown(); })
      .def_property_readonly("notes", [](const PyPush& self) { return self.push().notes(); });
}

}  // namespace

void bind_outputs(py::module_& m) {
  bind_sink(m);
  bind_push(m);
}

}  // namespace refavs
