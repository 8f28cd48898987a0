#include "frame.h"

#include <cstring>

namespace refavs {
namespace {

// A caller's float32 [3, S, S] that a tensor may be written to: a numpy array, or what gives its
// memory by DLPack.
py::array tensor_target(const py::object& out, int size) {
  const bool is_array = py::isinstance<py::array>(out);
  if (!is_array && !py::hasattr(out, "__dlpack__"))
    throw py::type_error("a tensor is written to a numpy array or what has __dlpack__, not " +
                         std::string(py::str(py::type::of(out).attr("__name__"))));
  const py::array array =
      is_array ? py::array(out) : py::array(py::module_::import("numpy").attr("from_dlpack")(out));
  if (!py::isinstance<py::array_t<float, py::array::c_style>>(array) || array.ndim() != 3 ||
      array.shape(0) != 3 || array.shape(1) != size || array.shape(2) != size)
    throw py::value_error("a tensor is written to float32 [3, " + std::to_string(size) + ", " +
                          std::to_string(size) + "] without gaps, not " +
                          std::string(py::str(array.dtype())) + " " + shape_text(array));
  // Some numpy call all memory that comes by DLPack read-only, since it could not say so.
  if (is_array && !array.writeable()) throw py::value_error("the array is read-only");
  return array;
}

}  // namespace

PyFrame::PyFrame(Frame frame)
    : index(frame.index),
      pts_s(frame.pts_s),
      width(frame.picture.width()),
      height(frame.picture.height()),
      samples(py::none()),
      log_mel(py::none()),
      audio_end_s(py::none()),
      audio_missing_samples(frame.sound.missing_samples),
      picture_(std::move(frame.picture)) {
  if (!frame.has_audio) return;
  samples = array_of(std::move(frame.sound.samples), {kPatchSamples});
  log_mel = array_of(std::move(frame.sound.log_mel), {kPatchFrames, kMelBins});
  audio_end_s = py::float_(frame.sound.end_s);
}

py::object PyFrame::image() {
  if (image_.is_none()) {
    RgbPicture made;
    {
      const Picture picture = picture_;
      py::gil_scoped_release release;
      made = picture.rgb();
    }
    image_ = array_over<uint8_t>(made.rgb.get(), {made.height, made.width, 3}, made.rgb);
    let_go();
  }
  return image_;
}

py::object PyFrame::tensor() {
  if (tensor_.is_none()) {
    const py::ssize_t size = picture_.size();
    py::array_t<float> made({py::ssize_t(3), size, size});
    write(picture_, made.mutable_data());
    tensor_ = made;
    let_go();
  }
  return tensor_;
}

void PyFrame::write_tensor(const py::object& out) {
  const Picture picture = picture_;  // another thread may let it go while Python makes the target
  if (tensor_.is_none()) {
    const py::array target = tensor_target(out, picture.size());
    write(picture, static_cast<float*>(const_cast<void*>(target.data())));
  } else {
    const py::array made(tensor_);
    const py::array target = tensor_target(out, static_cast<int>(made.shape(1)));
    std::memcpy(const_cast<void*>(target.data()), made.data(), made.nbytes());
  }
}

void PyFrame::write(const Picture picture, float* out) {
  py::gil_scoped_release release;
  picture.tensor(out);
}

void PyFrame::let_go() {
  if (!image_.is_none() && !tensor_.is_none()) picture_ = Picture();
}

void bind_frame(py::module_& m) {
  py::class_<PyFrame>(m, "Frame")
      .def_readonly("index", &PyFrame::index)
      .def_readonly("pts_s", &PyFrame::pts_s)
      .def_readonly("width", &PyFrame::width)
      .def_readonly("height", &PyFrame::height)
      .def_property_readonly("image", &PyFrame::image)
      .def_property_readonly("tensor", &PyFrame::tensor)
      .def("write_tensor", &PyFrame::write_tensor, py::arg("out"))
      .def_readonly("samples", &PyFrame::samples)
      .def_readonly("log_mel", &PyFrame::log_mel)
      .def_readonly("audio_end_s", &PyFrame::audio_end_s)
      .def_readonly("audio_missing_samples", &PyFrame::audio_missing_samples);
}

}  // namespace refavs
