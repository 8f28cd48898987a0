// Sources of frames.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <future>
#include <optional>

#include "common.h"
#include "devices.h"
#include "frame.h"
#include "ingest.h"
#include "live_ingest.h"
#include "parts.h"

namespace refavs {
namespace {

FrameOptions frame_options(int size, const std::array<float, 3>& mean,
                           const std::array<float, 3>& std, double audio_offset_s,
                           std::optional<int64_t> max_frames, std::optional<double> duration_s) {
  check_size(size);
  if (max_frames && *max_frames < 1) throw py::value_error("max_frames must be at least 1");
  if (duration_s && !(*duration_s > 0.0)) throw py::value_error("duration_s must be positive");
  // NaN, and what cannot be counted in samples, are refused too.
  if (!(std::abs(audio_offset_s) <= 3600.0))
    throw py::value_error("audio_offset_s must be -3600 to 3600 seconds");
  FrameOptions options;
  options.size = size;
  options.normalization = normalization(mean, std);
  options.audio_offset_s = audio_offset_s;
  options.max_frames = max_frames.value_or(-1);
  options.duration_s = duration_s.value_or(-1.0);
  return options;
}

int decoder_threads_of(int asked) {
  if (asked < 0) throw py::value_error("decode_threads must not be negative");
  return asked;
}

std::unique_ptr<Ingest> open_ingest(const std::string& source, bool is_file, int size,
                                    const std::array<float, 3>& mean,
                                    const std::array<float, 3>& std, double audio_offset_s,
                                    std::optional<int64_t> max_frames,
                                    std::optional<double> duration_s, int decode_threads) {
  IngestOptions options;
  static_cast<FrameOptions&>(options) =
      frame_options(size, mean, std, audio_offset_s, max_frames, duration_s);
  options.decode_threads = decoder_threads_of(decode_threads);
  const Address address = is_file ? file_address(source) : parse_address(source, Medium::kPicture);
  // On a thread of its own, since a server may take its time and Ctrl-C must not wait for it.
  auto stopped = std::make_shared<std::atomic<bool>>(false);
  options.stopped = stopped;
  std::future<std::unique_ptr<Ingest>> opening =
      std::async(std::launch::async, [&] { return std::make_unique<Ingest>(address, options); });
  try {
    wait_for([&] { return opening.wait_for(kPatience) == std::future_status::ready; });
  } catch (...) {
    *stopped = true;
    py::gil_scoped_release release;
    opening.wait();
    throw;
  }
  std::unique_ptr<Ingest> ingest = opening.get();
  wait_for([&] { return ingest->wait_first(kPatience) != Ingest::Status::kTimeout; });
  return ingest;
}

PyFrame next_frame(Ingest& ingest) {
  Frame frame;
  Ingest::Status status = Ingest::Status::kTimeout;
  wait_for([&] {
    status = ingest.next(&frame, kPatience);
    return status != Ingest::Status::kTimeout;
  });
  if (status == Ingest::Status::kEnd) throw py::stop_iteration();
  return PyFrame(std::move(frame));
}

py::dict counters(const Ingest& ingest) {
  const IngestCounters c = ingest.counters();
  py::dict result;
  result["decoded"] = c.decoded;
  result["delivered"] = c.delivered;
  result["corrupt"] = c.corrupt;
  result["corrupt_audio"] = c.corrupt_audio;
  result["read_errors"] = c.read_errors;
  result["missing_pictures"] = c.missing_pictures;
  result["repaired_pts"] = c.repaired_pts;
  result["audio_gap_samples"] = c.audio_gap_samples;
  result["audio_overlap_samples"] = c.audio_overlap_samples;
  return result;
}

py::object name_or_none(const std::string& name) {
  if (name.empty()) return py::none();
  return py::str(name);
}

py::tuple pixel_aspect(const SourceInfo& info) {
  const AVRational stored = info.pixel_aspect;
  return info.orientation.transpose ? py::make_tuple(stored.den, stored.num)
                                    : py::make_tuple(stored.num, stored.den);
}

std::unique_ptr<LiveIngest> open_live(
    const std::string& camera, int size, const std::array<float, 3>& mean,
    const std::array<float, 3>& std, const std::string& microphone, double audio_offset_s,
    std::optional<int64_t> max_frames, std::optional<double> duration_s, double latency_s,
    double silence_s, int decode_threads, const std::string& hwaccel,
    const std::string& camera_size, double camera_rate) {
  LiveOptions options;
  static_cast<FrameOptions&>(options) =
      frame_options(size, mean, std, audio_offset_s, max_frames, duration_s);
  if (!(latency_s >= 0.0 && latency_s <= 10.0))
    throw py::value_error("latency_s must be 0 to 10 seconds");
  if (!(silence_s >= 0.5 && silence_s <= 3600.0))
    throw py::value_error("silence_s must be 0.5 to 3600 seconds");
  options.microphone = microphone;
  options.capture.latency_s = latency_s;
  options.capture.silence_s = silence_s;
  options.capture.decode_threads = decoder_threads_of(decode_threads);
  options.capture.hwaccel = hwaccel;
  options.capture.camera_size = camera_size;
  options.capture.camera_rate = camera_rate;
  auto live = std::make_unique<LiveIngest>(camera, options);
  wait_for([&] { return live->wait_first(kPatience) != LiveIngest::Status::kTimeout; });
  return live;
}

// None: nothing came within the timeout.
std::optional<PyFrame> read_live(LiveIngest& live, std::optional<double> timeout_s) {
  constexpr double kLongest_s = 1e6;
  if (timeout_s && std::isnan(*timeout_s))
    throw py::value_error("timeout_s must be a number of seconds");
  const auto until =
      std::chrono::steady_clock::now() +
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(
          std::chrono::duration<double>(std::clamp(timeout_s.value_or(0.0), 0.0, kLongest_s)));
  Frame frame;
  LiveIngest::Status status = LiveIngest::Status::kTimeout;
  wait_for([&] {
    auto patience = kPatience;
    if (timeout_s)
      patience = std::clamp(std::chrono::duration_cast<std::chrono::milliseconds>(
                                until - std::chrono::steady_clock::now()),
                            std::chrono::milliseconds(0), kPatience);
    status = live.next(&frame, patience);
    return status != LiveIngest::Status::kTimeout ||
           (timeout_s && std::chrono::steady_clock::now() >= until);
  });
  if (status == LiveIngest::Status::kEnd) throw py::stop_iteration();
  if (status == LiveIngest::Status::kTimeout) return std::nullopt;
  return PyFrame(std::move(frame));
}

py::dict live_counters(const LiveIngest& live) {
  const LiveCounters c = live.counters();
  py::dict result;
  result["decoded"] = c.camera.decoded;
  result["delivered"] = c.delivered;
  result["dropped"] = c.dropped;
  result["late"] = c.camera.late;
  result["corrupt"] = c.camera.corrupt;
  result["corrupt_audio"] = c.camera.corrupt_audio + c.microphone.corrupt_audio;
  result["reconnects"] = c.camera.reconnects + c.microphone.reconnects;
  result["clock_jumps"] = c.camera.clock_jumps + c.microphone.clock_jumps;
  result["repaired_pts"] = c.repaired_pts;
  result["sound_late"] = c.sound_late;
  result["queue_depth"] = c.queue_depth;
  result["audio_gap_samples"] = c.audio_gap_samples;
  result["audio_overlap_samples"] = c.audio_overlap_samples;
  result["camera_drift_ppm"] = c.camera_drift_ppm;
  result["sound_drift_ppm"] = c.sound_drift_ppm;
  result["sound_error_s"] = c.sound_error_s;
  return result;
}

py::list live_notices(LiveIngest& live) {
  py::list result;
  for (const Notice& notice : live.take_notices())
    result.append(py::make_tuple(notice.at_s, notice.text));
  return result;
}

template <typename Source>
void close(Source& source) {
  py::gil_scoped_release release;
  source.close();
}

// What all sources have.
template <typename Source>
void bind_source(py::class_<Source>& source) {
  source.def("__iter__", [](py::object self) { return self; })
      .def("close", &close<Source>)
      .def("__enter__", [](py::object self) { return self; })
      .def("__exit__", [](Source& self, const py::args&) { close(self); })
      .def_property_readonly("path", &Source::path)
      .def_property_readonly("size", [](const Source& self) { return self.options().size; })
      .def_property_readonly("width", &Source::width)
      .def_property_readonly("height", &Source::height)
      .def_property_readonly("frame_rate",
                             [](const Source& self) { return self.info().frame_rate; })
      .def_property_readonly("pixel_aspect",
                             [](const Source& self) { return pixel_aspect(self.info()); })
      .def_property_readonly("has_audio", &Source::has_audio)
      .def_property_readonly(
          "video_codec", [](const Source& self) { return name_or_none(self.info().video_codec); })
      .def_property_readonly("notes", [](const Source& self) { return self.info().notes; });
}

void bind_ingest(py::module_& m) {
  py::class_<Ingest> source(m, "Ingest", py::release_gil_before_calling_cpp_dtor());
  bind_source(source);
  source
      .def(py::init(&open_ingest), py::arg("source"), py::kw_only(), py::arg("is_file") = false,
           py::arg("size"), py::arg("mean"), py::arg("std"), py::arg("audio_offset_s") = 0.0,
           py::arg("max_frames") = py::none(), py::arg("duration_s") = py::none(),
           py::arg("decode_threads") = 0)
      .def("__next__", &next_frame)
      .def_property_readonly("is_file", &Ingest::is_file)
      .def_property_readonly("duration_s",
                             [](const Ingest& self) { return self.info().duration_s; })
      .def_property_readonly("has_video", [](const Ingest& self) { return self.info().has_video; })
      .def_property_readonly(
          "audio_codec", [](const Ingest& self) { return name_or_none(self.info().audio_codec); })
      .def_property_readonly("counters", &counters);
}

void bind_live(py::module_& m) {
  py::class_<SoundRecord, std::shared_ptr<SoundRecord>>(m, "SoundRecord");
  py::class_<LiveIngest> source(m, "LiveIngest", py::release_gil_before_calling_cpp_dtor());
  bind_source(source);
  source
      .def(py::init(&open_live), py::arg("camera"), py::kw_only(), py::arg("size"), py::arg("mean"),
           py::arg("std"), py::arg("microphone") = "auto", py::arg("audio_offset_s") = 0.0,
           py::arg("max_frames") = py::none(), py::arg("duration_s") = py::none(),
           py::arg("latency_s") = 0.2, py::arg("silence_s") = 5.0, py::arg("decode_threads") = 0,
           py::arg("hwaccel") = "", py::arg("camera_size") = "", py::arg("camera_rate") = 0.0)
      .def("__next__", [](LiveIngest& self) { return *read_live(self, std::nullopt); })
      .def("read", &read_live, py::arg("timeout_s"))
      .def_property_readonly("now_s", &LiveIngest::now_s)
      .def_property_readonly("origin_s", &LiveIngest::origin_s)
      .def_property_readonly("counters", &live_counters)
      .def("record_sound", &LiveIngest::record_sound)
      .def("take_notices", &live_notices);
}

py::list listed_devices() {
  std::vector<Device> devices;
  {
    py::gil_scoped_release release;
    devices = list_devices();
  }
  py::list result;
  for (const Device& device : devices)
    result.append(py::make_tuple(device.medium, device.address, device.name));
  return result;
}

}  // namespace

void bind_sources(py::module_& m) {
  bind_frame(m);
  bind_ingest(m);
  bind_live(m);
  m.def("list_devices", &listed_devices);
}

}  // namespace refavs
