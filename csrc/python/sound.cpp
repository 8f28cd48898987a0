// Sound and clocks for those who read their devices themselves.
#include <algorithm>
#include <cmath>

#include "common.h"
#include "device_clock.h"
#include "live_sound.h"
#include "mel_track.h"
#include "parts.h"

namespace refavs {
namespace {

constexpr size_t kMostSamples = size_t{1} << 26;  // minutes of sound at any rate

// Sound in pieces with their times, for those who read it themselves.
class SoundTrack {
 public:
  SoundTrack() : mel_(kKept_s), sound_(&mel_) {}

  void push(const py::array& samples, int rate_hz, double at_s) {
    const auto mono = mono_samples(samples);
    if (rate_hz < 1000 || rate_hz > 768'000)
      throw py::value_error("rate_hz must be 1000 to 768000, not " + std::to_string(rate_hz));
    if (mono.size() > kMostSamples)
      throw py::value_error(std::to_string(mono.size()) + " samples at once are too many");
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

}  // namespace

void bind_sound(py::module_& m) {
  bind_clocks(m);
  bind_log_mel(m);
}

}  // namespace refavs
