// A GStreamer pipeline that runs, and what comes out of it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "address.h"
#include "gst_library.h"
#include "source.h"

namespace refavs {

// Owns a sample, a buffer or caps of GStreamer.
template <typename T>
class GstPtr {
 public:
  GstPtr() = default;
  explicit GstPtr(T* owned) : object_(owned) {}
  GstPtr(GstPtr&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  GstPtr& operator=(GstPtr&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~GstPtr() {
    if (object_) gst::Library::get().mini_object_unref(object_);
  }
  // One owner more.
  static GstPtr share(T* object) {
    return GstPtr(static_cast<T*>(gst::Library::get().mini_object_ref(object)));
  }
  T* get() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  T* object_ = nullptr;
};

// What one buffer holds: a picture, or a piece of sound.
struct GstSample {
  Medium medium = Medium::kPicture;
  GstPtr<gst::Sample> sample;
  int64_t skipped = 0;  // pictures before it that nobody fetched in time
};

// A description that holds no appsink gets one at its end, for pictures or for sound, as is wanted;
// one that holds its own names them `picture` and `sound`.
//
// A pipeline is live where GStreamer says so: it gives what comes when it comes, and is never
// waited for. One that is not (a file) is held to its own times by GStreamer.
//
// All calls that may hang are made on a thread of the pipeline. Where one does, the destructor
// leaves the thread behind after kClose, to end by itself.
//
// Thread-safe.
class GstPipeline {
 public:
  static constexpr auto kClose = std::chrono::milliseconds(500);

  enum class Status { kSample, kTimeout, kWoken, kEnded };

  // Begins to open it. Throws IngestError where GStreamer is missing.
  GstPipeline(const Address& address, Wanted wanted);
  ~GstPipeline();
  GstPipeline(const GstPipeline&) = delete;
  GstPipeline& operator=(const GstPipeline&) = delete;

  // Waits until the first sample of `medium` is there, shares it and leaves it there.
  // Throws IngestError for an error of the pipeline.
  Status wait_first(Medium medium, std::chrono::milliseconds timeout, GstPtr<gst::Sample>* first);
  // The next in the order they came. Throws IngestError likewise.
  Status next(GstSample* sample, std::chrono::milliseconds timeout);
  // Makes next() return, now and from now on.
  void wake();

  // Known once there is a first sample.
  bool is_live() const;
  bool has(Medium medium) const;

 private:
  class Core;
  std::shared_ptr<Core> core_;
};

}  // namespace refavs
