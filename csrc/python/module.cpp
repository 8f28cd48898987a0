// refavs_rt._ingest; refavs_rt/_ingest.pyi documents it.
#include <string>

#include "error.h"
#include "ffmpeg.h"
#include "parts.h"

PYBIND11_MODULE(_ingest, m) {
  namespace py = pybind11;
  using namespace refavs;
  // FFmpeg prints to stderr what reaches the caller as errors, counters and notes.
  av_log_set_level(AV_LOG_FATAL);
  py::register_exception<IngestError>(m, "IngestError", PyExc_RuntimeError);
  py::register_exception<SinkError>(m, "SinkError", PyExc_RuntimeError);
  bind_sources(m);
  bind_sound(m);
  bind_pictures(m);
  bind_masks(m);
  bind_outputs(m);
  m.def("ffmpeg_version", [] { return std::string(av_version_info()); });
}
