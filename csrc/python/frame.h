// What Python sees of a frame.
#pragma once

#include "common.h"
#include "ingest.h"

namespace refavs {

// Picture and tensor are converted when they are asked for, once.
class PyFrame {
 public:
  explicit PyFrame(Frame frame);

  py::object image();
  py::object tensor();
  void write_tensor(const py::object& out);

  const int64_t index;
  const double pts_s;
  const int width;
  const int height;
  py::object samples;
  py::object log_mel;
  py::object audio_end_s;
  const int64_t audio_missing_samples;

 private:
  static void write(Picture picture, float* out);
  void let_go();

  Picture picture_;
  py::object image_ = py::none();
  py::object tensor_ = py::none();
};

void bind_frame(py::module_& m);

}  // namespace refavs
