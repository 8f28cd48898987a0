// refavs_rt._ingest: the only file here that knows Python. refavs_rt/_ingest.pyi documents it.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>
#include <memory>
#include <stdexcept>

#include "devices.h"
#include "error.h"
#include "ingest.h"
#include "jpeg.h"
#include "live_ingest.h"
#include "logmel.h"
#include "preprocess.h"
#include "sink.h"

namespace py = pybind11;

namespace refavs {
namespace {

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

py::array_t<float> array_of(std::vector<float> values, std::vector<py::ssize_t> shape) {
  const float* data = values.data();  // moving a vector does not move its memory
  return array_over(data, std::move(shape), std::move(values));
}

py::array_t<float> array_of(std::vector<MelFrame> frames) {
  const auto count = static_cast<py::ssize_t>(frames.size());
  const float* data = frames.empty() ? nullptr : frames.front().data();
  return array_over(data, {count, kMelBins}, std::move(frames));
}

std::string shape_text(const py::array& array) { return py::str(array.attr("shape")); }

py::array_t<uint8_t, py::array::c_style> rgb_image(const py::array& image) {
  if (!py::isinstance<py::array_t<uint8_t>>(image) || image.ndim() != 3 || image.shape(2) != 3 ||
      image.size() == 0)
    throw py::value_error("an image is uint8 [H, W, 3], not " +
                          std::string(py::str(image.dtype())) + " " + shape_text(image));
  return py::array_t<uint8_t, py::array::c_style>::ensure(image);
}

py::array_t<float, py::array::c_style> mono_samples(const py::array& samples) {
  if (!py::isinstance<py::array_t<float>>(samples) || samples.ndim() != 1)
    throw py::value_error("samples are float32 [n], not " + std::string(py::str(samples.dtype())) +
                          " " + shape_text(samples));
  return py::array_t<float, py::array::c_style>::ensure(samples);
}

Normalization normalization(const std::array<float, 3>& mean, const std::array<float, 3>& std) {
  for (float s : std)
    if (!(s > 0.0f)) throw py::value_error("std must be positive");
  return {mean, std};
}

void check_size(int size) {
  if (size < 1 || size > 4096)
    throw py::value_error("size must be 1 to 4096, not " + std::to_string(size));
}

// NaN, and what cannot be counted in samples, are refused too.
void check_offset(double audio_offset_s) {
  if (!(std::abs(audio_offset_s) <= 3600.0))
    throw py::value_error("audio_offset_s must be -3600 to 3600 seconds");
}

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

// What Python sees of a frame. Picture and tensor are converted when they are asked for, once.
class PyFrame {
 public:
  explicit PyFrame(Frame frame)
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

  py::object image() {
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

  py::object tensor() {
    if (tensor_.is_none()) {
      const py::ssize_t size = picture_.size();
      py::array_t<float> made({py::ssize_t(3), size, size});
      write(made.mutable_data());
      tensor_ = made;
      let_go();
    }
    return tensor_;
  }

  void write_tensor(const py::object& out) {
    if (tensor_.is_none()) {
      const py::array target = tensor_target(out, picture_.size());
      write(static_cast<float*>(const_cast<void*>(target.data())));
    } else {
      const py::array made(tensor_);
      const py::array target = tensor_target(out, static_cast<int>(made.shape(1)));
      std::memcpy(const_cast<void*>(target.data()), made.data(), made.nbytes());
    }
  }

  const int64_t index;
  const double pts_s;
  const int width;
  const int height;
  py::object samples;
  py::object log_mel;
  py::object audio_end_s;
  const int64_t audio_missing_samples;

 private:
  void write(float* out) {
    const Picture picture = picture_;
    py::gil_scoped_release release;
    picture.tensor(out);
  }

  void let_go() {
    if (!image_.is_none() && !tensor_.is_none()) picture_ = Picture();
  }

  Picture picture_;
  py::object image_ = py::none();
  py::object tensor_ = py::none();
};

std::unique_ptr<Ingest> open_ingest(const std::string& source, bool is_file, int size,
                                    const std::array<float, 3>& mean,
                                    const std::array<float, 3>& std, double audio_offset_s,
                                    std::optional<int64_t> max_frames,
                                    std::optional<double> duration_s, int decode_threads) {
  check_size(size);
  if (max_frames && *max_frames < 1) throw py::value_error("max_frames must be at least 1");
  if (duration_s && !(*duration_s > 0.0)) throw py::value_error("duration_s must be positive");
  if (decode_threads < 0) throw py::value_error("decode_threads must not be negative");
  check_offset(audio_offset_s);
  IngestOptions options;
  options.size = size;
  options.normalization = normalization(mean, std);
  options.audio_offset_s = audio_offset_s;
  options.max_frames = max_frames.value_or(-1);
  options.duration_s = duration_s.value_or(-1.0);
  options.decode_threads = decode_threads;
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

void close_ingest(Ingest& ingest) {
  py::gil_scoped_release release;
  ingest.close();
}

void bind_ingest(py::module_& m) {
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

  py::class_<Ingest>(m, "Ingest")
      .def(py::init(&open_ingest), py::arg("source"), py::kw_only(), py::arg("is_file") = false,
           py::arg("size"), py::arg("mean"), py::arg("std"), py::arg("audio_offset_s") = 0.0,
           py::arg("max_frames") = py::none(), py::arg("duration_s") = py::none(),
           py::arg("decode_threads") = 0)
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", &next_frame)
      .def("close", &close_ingest)
      .def("__enter__", [](py::object self) { return self; })
      .def("__exit__", [](Ingest& self, const py::args&) { close_ingest(self); })
      .def_property_readonly("path", [](const Ingest& self) { return self.source().path(); })
      .def_property_readonly("is_file", &Ingest::is_file)
      .def_property_readonly("size", [](const Ingest& self) { return self.options().size; })
      .def_property_readonly("width", &Ingest::width)
      .def_property_readonly("height", &Ingest::height)
      .def_property_readonly("frame_rate",
                             [](const Ingest& self) { return self.source().info().frame_rate; })
      .def_property_readonly("duration_s",
                             [](const Ingest& self) { return self.source().info().duration_s; })
      .def_property_readonly("pixel_aspect",
                             [](const Ingest& self) { return pixel_aspect(self.source().info()); })
      .def_property_readonly("has_video",
                             [](const Ingest& self) { return self.source().info().has_video; })
      .def_property_readonly("has_audio",
                             [](const Ingest& self) { return self.source().info().has_audio; })
      .def_property_readonly(
          "video_codec",
          [](const Ingest& self) { return name_or_none(self.source().info().video_codec); })
      .def_property_readonly(
          "audio_codec",
          [](const Ingest& self) { return name_or_none(self.source().info().audio_codec); })
      .def_property_readonly("notes", [](const Ingest& self) { return self.source().info().notes; })
      .def_property_readonly("counters", &counters);
}

std::unique_ptr<LiveIngest> open_live(
    const std::string& camera, int size, const std::array<float, 3>& mean,
    const std::array<float, 3>& std, const std::string& microphone, double audio_offset_s,
    std::optional<int64_t> max_frames, std::optional<double> duration_s, double latency_s,
    double silence_s, int decode_threads, const std::string& hwaccel,
    const std::string& camera_size, double camera_rate) {
  check_size(size);
  if (max_frames && *max_frames < 1) throw py::value_error("max_frames must be at least 1");
  if (duration_s && !(*duration_s > 0.0)) throw py::value_error("duration_s must be positive");
  if (decode_threads < 0) throw py::value_error("decode_threads must not be negative");
  check_offset(audio_offset_s);
  if (!(latency_s >= 0.0 && latency_s <= 10.0))
    throw py::value_error("latency_s must be 0 to 10 seconds");
  if (!(silence_s >= 0.5 && silence_s <= 3600.0))
    throw py::value_error("silence_s must be 0.5 to 3600 seconds");
  LiveOptions options;
  options.size = size;
  options.normalization = normalization(mean, std);
  options.audio_offset_s = audio_offset_s;
  options.max_frames = max_frames.value_or(-1);
  options.duration_s = duration_s.value_or(-1.0);
  options.microphone = microphone;
  options.capture.latency_s = latency_s;
  options.capture.silence_s = silence_s;
  options.capture.decode_threads = decode_threads;
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

void close_live(LiveIngest& live) {
  py::gil_scoped_release release;
  live.close();
}

// Sound in pieces with their times, for those who read it themselves.
class SoundTrack {
 public:
  SoundTrack() : mel_(kKept_s), sound_(&mel_) {}

  void push(const py::array& samples, int rate_hz, double at_s) {
    const auto mono = mono_samples(samples);
    if (rate_hz < 1000 || rate_hz > 768'000)
      throw py::value_error("rate_hz must be 1000 to 768000, not " + std::to_string(rate_hz));
    if (!std::isfinite(at_s)) throw py::value_error("at_s must be a finite number of seconds");
    FramePtr frame = new_frame();
    frame->format = AV_SAMPLE_FMT_FLT;
    frame->sample_rate = rate_hz;
    frame->nb_samples = static_cast<int>(mono.size());
    set_default_channels(frame.get(), 1);
    if (frame->nb_samples == 0) return;
    if (av_frame_get_buffer(frame.get(), 0) < 0) throw std::bad_alloc();
    std::copy_n(mono.data(), mono.size(), reinterpret_cast<float*>(frame->data[0]));
    sound_.push(*frame, at_s);
  }

  py::tuple window(double at_s) {
    const double hops = std::floor(at_s * kSampleRateHz / kHopSamples + 1e-6);
    if (!(hops >= 0.0 && hops < 1e12))
      throw py::value_error("at_s must be a number of seconds from 0 on");
    MelPatch patch = mel_.take(static_cast<int64_t>(hops));
    return py::make_tuple(array_of(std::move(patch.samples), {kPatchSamples}),
                          array_of(std::move(patch.log_mel), {kPatchFrames, kMelBins}), patch.end_s,
                          patch.missing_samples);
  }

  const LiveSound& sound() const { return sound_; }

 private:
  static constexpr double kKept_s = 10.0;

  MelTrack mel_;
  LiveSound sound_;
};

void bind_clocks(py::module_& m) {
  py::class_<SoundTrack>(m, "SoundTrack")
      .def(py::init<>())
      .def("push", &SoundTrack::push, py::arg("samples"), py::arg("rate_hz"), py::arg("at_s"))
      .def("window", &SoundTrack::window, py::arg("at_s"))
      .def_property_readonly("drift_ppm",
                             [](const SoundTrack& self) { return self.sound().drift_ppm(); })
      .def_property_readonly("error_s",
                             [](const SoundTrack& self) { return self.sound().error_s(); });
  py::class_<DeviceClock>(m, "DeviceClock")
      .def(py::init<>())
      .def("observe", &DeviceClock::observe, py::arg("pts_s"), py::arg("now_s"))
      .def("map", &DeviceClock::map, py::arg("pts_s"))
      .def_property_readonly("drift_ppm", &DeviceClock::drift_ppm);
}

void bind_live(py::module_& m) {
  py::class_<LiveIngest>(m, "LiveIngest")
      .def(py::init(&open_live), py::arg("camera"), py::kw_only(), py::arg("size"), py::arg("mean"),
           py::arg("std"), py::arg("microphone") = "auto", py::arg("audio_offset_s") = 0.0,
           py::arg("max_frames") = py::none(), py::arg("duration_s") = py::none(),
           py::arg("latency_s") = 0.2, py::arg("silence_s") = 5.0, py::arg("decode_threads") = 0,
           py::arg("hwaccel") = "", py::arg("camera_size") = "", py::arg("camera_rate") = 0.0)
      .def("__iter__", [](py::object self) { return self; })
      .def("__next__", [](LiveIngest& self) { return *read_live(self, std::nullopt); })
      .def("read", &read_live, py::arg("timeout_s"))
      .def("close", &close_live)
      .def("__enter__", [](py::object self) { return self; })
      .def("__exit__", [](LiveIngest& self, const py::args&) { close_live(self); })
      .def_property_readonly("path", &LiveIngest::path)
      .def_property_readonly("size", [](const LiveIngest& self) { return self.options().size; })
      .def_property_readonly("width", &LiveIngest::width)
      .def_property_readonly("height", &LiveIngest::height)
      .def_property_readonly("frame_rate",
                             [](const LiveIngest& self) { return self.info().frame_rate; })
      .def_property_readonly("pixel_aspect",
                             [](const LiveIngest& self) { return pixel_aspect(self.info()); })
      .def_property_readonly("has_audio", &LiveIngest::has_audio)
      .def_property_readonly(
          "video_codec",
          [](const LiveIngest& self) { return name_or_none(self.info().video_codec); })
      .def_property_readonly("notes", [](const LiveIngest& self) { return self.info().notes; })
      .def_property_readonly("now_s", &LiveIngest::now_s)
      .def_property_readonly("origin_s", &LiveIngest::origin_s)
      .def_property_readonly("counters", &live_counters)
      .def("take_notices", &live_notices);
}

py::array_t<float> offline_log_mel(const py::array& samples) {
  const auto mono = mono_samples(samples);
  std::vector<MelFrame> frames;
  {
    py::gil_scoped_release release;
    StreamingLogMel().push(mono.data(), static_cast<size_t>(mono.size()), &frames);
  }
  return array_of(std::move(frames));
}

void bind_log_mel(py::module_& m) {
  m.def("log_mel", &offline_log_mel, py::arg("samples"));
  py::class_<StreamingLogMel>(m, "StreamingLogMel")
      .def(py::init<>())
      .def(
          "push",
          [](StreamingLogMel& self, const py::array& samples) {
            const auto mono = mono_samples(samples);
            std::vector<MelFrame> frames;
            self.push(mono.data(), static_cast<size_t>(mono.size()), &frames);
            return array_of(std::move(frames));
          },
          py::arg("samples"));
}

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
}  // namespace refavs

PYBIND11_MODULE(_ingest, m) {
  using namespace refavs;
  // FFmpeg prints to stderr what reaches the caller as errors, counters and notes.
  av_log_set_level(AV_LOG_FATAL);
  py::register_exception<IngestError>(m, "IngestError", PyExc_RuntimeError);
  py::register_exception<SinkError>(m, "SinkError", PyExc_RuntimeError);
  bind_ingest(m);
  bind_live(m);
  bind_clocks(m);
  bind_log_mel(m);
  bind_sink(m);
  py::class_<PyJpegEncoder>(m, "JpegEncoder")
      .def(py::init<int>(), py::arg("quality") = 85)
      .def("encode", &PyJpegEncoder::encode, py::arg("image"));
  m.def("resize_normalize", &resize_normalize, py::arg("image"), py::arg("size"), py::kw_only(),
        py::arg("mean"), py::arg("std"));
  m.def("list_devices", [] {
    std::vector<Device> devices;
    {
      py::gil_scoped_release release;
      devices = list_devices();
    }
    py::list result;
    for (const Device& device : devices)
      result.append(py::make_tuple(device.medium, device.address, device.name));
    return result;
  });
  m.def("ffmpeg_version", [] { return std::string(av_version_info()); });
}
