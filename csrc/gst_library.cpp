#include "gst_library.h"

#include <dlfcn.h>

#include <string>

#include "error.h"

namespace refavs::gst {
namespace {

constexpr const char* kMend =
    "; install it, on Debian or Ubuntu with: apt-get install libgstreamer1.0-0 "
    "libgstreamer-plugins-base1.0-0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good";

// GLib's libraries come with the first of them.
constexpr const char* kLibraries[] = {"libgstreamer-1.0.so.0", "libgstapp-1.0.so.0",
                                      "libgstvideo-1.0.so.0"};

// They stay loaded: GStreamer cannot be unloaded.
class Loader {
 public:
  Loader() {
    for (size_t i = 0; i < std::size(kLibraries); ++i) {
      handles_[i] = dlopen(kLibraries[i], RTLD_LAZY | RTLD_LOCAL);
      if (!handles_[i])
        throw IngestError(std::string("GStreamer is not installed (") + dlerror() + ")" + kMend);
    }
  }

  template <typename Function>
  void find(const char* name, Function* function) const {
    void* found = nullptr;
    for (void* handle : handles_)
      if (!found) found = dlsym(handle, name);
    if (!found)
      throw IngestError(std::string("GStreamer is too old or broken (it has no ") + name + ")" +
                        kMend);
    *function = reinterpret_cast<Function>(found);
  }

 private:
  void* handles_[std::size(kLibraries)] = {};
};

Library load() {
  const Loader loader;
  Library lib = {};
  loader.find("gst_init_check", &lib.init_check);
  loader.find("gst_parse_launch", &lib.parse_launch);
  loader.find("gst_bin_get_by_name", &lib.bin_get_by_name);
  loader.find("gst_element_set_state", &lib.element_set_state);
  loader.find("gst_element_get_state", &lib.element_get_state);
  loader.find("gst_element_get_bus", &lib.element_get_bus);
  loader.find("gst_bus_timed_pop_filtered", &lib.bus_timed_pop_filtered);
  loader.find("gst_message_parse_error", &lib.message_parse_error);
  loader.find("gst_object_get_name", &lib.object_get_name);
  loader.find("gst_object_unref", &lib.object_unref);
  loader.find("gst_util_set_object_arg", &lib.set_object_arg);
  loader.find("gst_caps_from_string", &lib.caps_from_string);
  loader.find("gst_caps_get_structure", &lib.caps_get_structure);
  loader.find("gst_structure_get_string", &lib.structure_get_string);
  loader.find("gst_structure_get_int", &lib.structure_get_int);
  loader.find("gst_mini_object_ref", &lib.mini_object_ref);
  loader.find("gst_mini_object_unref", &lib.mini_object_unref);
  loader.find("gst_sample_get_buffer", &lib.sample_get_buffer);
  loader.find("gst_sample_get_caps", &lib.sample_get_caps);
  loader.find("gst_sample_get_segment", &lib.sample_get_segment);
  loader.find("gst_segment_to_running_time", &lib.segment_to_running_time);
  loader.find("gst_buffer_map", &lib.buffer_map);
  loader.find("gst_buffer_unmap", &lib.buffer_unmap);
  loader.find("gst_app_sink_set_caps", &lib.app_sink_set_caps);
  loader.find("gst_app_sink_get_caps", &lib.app_sink_get_caps);
  loader.find("gst_app_sink_set_callbacks", &lib.app_sink_set_callbacks);
  loader.find("gst_app_sink_pull_sample", &lib.app_sink_pull_sample);
  loader.find("gst_app_sink_get_type", &lib.app_sink_get_type);
  loader.find("gst_video_info_new", &lib.video_info_new);
  loader.find("gst_video_info_from_caps", &lib.video_info_from_caps);
  loader.find("gst_video_info_free", &lib.video_info_free);
  loader.find("gst_buffer_get_video_meta", &lib.buffer_get_video_meta);
  loader.find("g_free", &lib.free);
  loader.find("g_error_free", &lib.error_free);
  loader.find("g_type_check_instance_is_a", &lib.type_check_instance_is_a);
  loader.find("g_thread_pool_stop_unused_threads", &lib.thread_pool_stop_unused_threads);
  return lib;
}

}  // namespace

const Library& Library::get() {
  static const Library library = load();  // where it throws, the next call tries again
  return library;
}

}  // namespace refavs::gst
