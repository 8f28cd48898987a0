// GStreamer's functions, as far as they are used here, found while running: nothing of GStreamer is
// needed to build, and where it is not installed only addresses that begin with "gst:" fail.
#pragma once

#include <cstddef>
#include <cstdint>

namespace refavs::gst {

struct Object;     // an element, a pipeline or a bus, counted by object_unref
struct Sample;     // of a sink: a buffer with its caps; counted by mini_object_unref, as are these
struct Caps;       // a format
struct Structure;  // one of a caps' structures, owned by it

// The layouts below are public and the same in all of GStreamer 1.x. Where a structure is longer
// than it is here, nothing of the rest is used and nothing is kept by value.

struct MiniObject {
  size_t type;
  int count;
  int lock_state;
  unsigned flags;
  void (*functions[3])();
  unsigned private_number;
  void* private_pointer;
};

struct Buffer {
  MiniObject object;
  void* pool;
  uint64_t pts_ns;
  uint64_t dts_ns;
  uint64_t duration_ns;
};

struct Message {
  MiniObject object;
  int type;
  uint64_t at_ns;
  Object* source;
};

struct Map {
  void* memory;
  int flags;
  uint8_t* data;
  size_t size;
  size_t most;
  void* of_the_user[4];
  void* reserved[4];
};

struct Segment {
  int flags;
  double rate;
  double applied_rate;
  int format;
};

struct VideoInfo {
  const void* format;
  int interlace_mode;
  int flags;
  int width;
  int height;
  size_t size;
  int views;
  int chroma_site;
  int range;  // kRange...
  int matrix;
  int transfer;
  int primaries;
  int aspect_num, aspect_den;
  int rate_num, rate_den;
  size_t offset[4];
  int stride[4];
};

struct VideoMeta {
  int meta_flags;
  const void* meta_info;
  Buffer* buffer;
  int flags;
  int format;
  int id;
  unsigned width;
  unsigned height;
  unsigned planes;
  size_t offset[4];
  int stride[4];
};

struct Error {
  uint32_t domain;
  int code;
  char* message;
};

struct SinkCallbacks {
  void (*ended)(Object* sink, void* user);
  int (*preroll)(Object* sink, void* user);
  int (*sample)(Object* sink, void* user);
  void* reserved[4];
};

constexpr uint64_t kNoTime = UINT64_MAX;
constexpr int kFormatTime = 3;
constexpr int kMapRead = 1;
constexpr unsigned kBufferCorrupted = 1u << 8;
constexpr int kMessageError = 1 << 1;
constexpr int kFlowOk = 0;
enum State { kNull = 1, kPaused = 3, kPlaying = 4 };
enum StateChange { kFailure = 0, kSuccess = 1, kAsync = 2, kNoPreroll = 3 };
enum Range { kRangeFull = 1, kRangeLimited = 2 };
enum Matrix {
  kMatrixRgb = 1,
  kMatrixFcc = 2,
  kMatrixBt709 = 3,
  kMatrixBt601 = 4,
  kMatrixSmpte240m = 5,
  kMatrixBt2020 = 6
};

struct Library {
  int (*init_check)(int* argc, char*** argv, Error** error);
  Object* (*parse_launch)(const char* description, Error** error);
  Object* (*bin_get_by_name)(Object* bin, const char* name);
  int (*element_set_state)(Object* element, int state);
  int (*element_get_state)(Object* element, int* state, int* pending, uint64_t timeout_ns);
  Object* (*element_get_bus)(Object* element);
  Message* (*bus_timed_pop_filtered)(Object* bus, uint64_t timeout_ns, int types);
  void (*message_parse_error)(Message* message, Error** error, char** debug);
  char* (*object_get_name)(Object* object);
  void (*object_unref)(void* object);
  void (*set_object_arg)(Object* object, const char* property, const char* value);

  Caps* (*caps_from_string)(const char* text);
  Structure* (*caps_get_structure)(const Caps* caps, unsigned index);
  const char* (*structure_get_string)(const Structure* structure, const char* field);
  int (*structure_get_int)(const Structure* structure, const char* field, int* value);

  void* (*mini_object_ref)(void* object);
  void (*mini_object_unref)(void* object);
  Buffer* (*sample_get_buffer)(Sample* sample);
  Caps* (*sample_get_caps)(Sample* sample);
  Segment* (*sample_get_segment)(Sample* sample);
  uint64_t (*segment_to_running_time)(const Segment* segment, int format, uint64_t position);
  int (*buffer_map)(Buffer* buffer, Map* map, int flags);
  void (*buffer_unmap)(Buffer* buffer, Map* map);

  void (*app_sink_set_caps)(Object* sink, const Caps* caps);
  Caps* (*app_sink_get_caps)(Object* sink);
  void (*app_sink_set_callbacks)(Object* sink, SinkCallbacks* callbacks, void* user,
                                 void (*forget)(void* user));
  Sample* (*app_sink_pull_sample)(Object* sink);
  size_t (*app_sink_get_type)();

  VideoInfo* (*video_info_new)();
  int (*video_info_from_caps)(VideoInfo* info, const Caps* caps);
  void (*video_info_free)(VideoInfo* info);
  VideoMeta* (*buffer_get_video_meta)(Buffer* buffer);

  void (*free)(void* memory);
  void (*error_free)(Error* error);
  int (*type_check_instance_is_a)(void* instance, size_t type);
  void (*thread_pool_stop_unused_threads)();

  // Loaded by the first call. Throws IngestError where GStreamer is missing, and says what to
  // install.
  static const Library& get();
};

}  // namespace refavs::gst
