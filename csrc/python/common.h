// What all parts of the binding share: waiting, and arrays.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "logmel.h"
#include "preprocess.h"

namespace py = pybind11;

namespace refavs {

// Between two looks at Python's signals while a call waits.
constexpr auto kPatience = std::chrono::milliseconds(100);

// Calls `attempt` without the GIL until it returns true; Ctrl-C ends the wait.
template <typename Attempt>
void wait_for(Attempt attempt) {
  for (;;) {
    bool done = false;
    {
      py::gil_scoped_release release;
      done = attempt();
    }
    if (done) return;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

// An array over memory that `owner` keeps alive.
template <typename T, typename Owner>
py::array_t<T> array_over(const T* data, std::vector<py::ssize_t> shape, Owner owner) {
  auto held = std::make_unique<Owner>(std::move(owner));
  py::capsule capsule(held.get(), [](void* p) { delete static_cast<Owner*>(p); });
  held.release();
  return py::array_t<T>(std::move(shape), data, capsule);
}

inline py::array_t<float> array_of(std::vector<float> values, std::vector<py::ssize_t> shape) {
  const float* data = values.data();  // moving a vector does not move its memory
  return array_over(data, std::move(shape), std::move(values));
}

inline py::array_t<float> array_of(std::vector<MelFrame> frames) {
  const auto count = static_cast<py::ssize_t>(frames.size());
  const float* data = frames.empty() ? nullptr : frames.front().data();
  return array_over(data, {count, kMelBins}, std::move(frames));
}

inline std::string shape_text(const py::array& array) { return py::str(array.attr("shape")); }

inline py::array_t<uint8_t, py::array::c_style> rgb_image(const py::array& image) {
  if (!py::isinstance<py::array_t<uint8_t>>(image) || image.ndim() != 3 || image.shape(2) != 3 ||
      image.size() == 0)
    throw py::value_error("an image is uint8 [H, W, 3], not " +
                          std::string(py::str(image.dtype())) + " " + shape_text(image));
  return py::array_t<uint8_t, py::array::c_style>::ensure(image);
}

inline py::array_t<float, py::array::c_style> mono_samples(const py::array& samples) {
  if (!py::isinstance<py::array_t<float>>(samples) || samples.ndim() != 1)
    throw py::value_error("samples are float32 [n], not " + std::string(py::str(samples.dtype())) +
                          " " + shape_text(samples));
  return py::array_t<float, py::array::c_style>::ensure(samples);
}

inline Normalization normalization(const std::array<float, 3>& mean,
                                   const std::array<float, 3>& std) {
  for (float s : std)
    if (!(s > 0.0f)) throw py::value_error("std must be positive");
  return {mean, std};
}

inline void check_size(int size) {
  if (size < 1 || size > 4096)
    throw py::value_error("size must be 1 to 4096, not " + std::to_string(size));
}

}  // namespace refavs
