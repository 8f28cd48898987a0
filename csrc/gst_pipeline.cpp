#include "gst_pipeline.h"

#include <algorithm>
#include <cctype>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "error.h"

namespace refavs {
namespace {

using std::chrono::milliseconds;

constexpr size_t kPictures = 4;  // that wait to be fetched; then the oldest goes
constexpr size_t kSounds = 500;
constexpr uint64_t kSlice_ns = 20'000'000;    // between two looks at whether it is to be closed
constexpr uint64_t kReason_ns = 200'000'000;  // that the reason may come after the failure

// What the rest of the program reads without a conversion. A converter before the sink passes them
// on untouched.
constexpr const char* kPictureCaps =
    "video/x-raw, format=(string){ I420, NV12, NV21, YUY2, UYVY, Y42B, Y444, I420_10LE, P010_10LE, "
    "RGB, BGR, RGBx, BGRx, xRGB, xBGR, RGBA, BGRA, ARGB, ABGR, GRAY8, GRAY16_LE }";
constexpr const char* kSoundCaps =
    "audio/x-raw, format=(string){ F32LE, S16LE, S32LE, F64LE, U8 }, layout=(string)interleaved, "
    "channels=(int)[1, 2]";

// Of the sinks that are added here.
constexpr const char* kOwnPicture = "refavs-picture";
constexpr const char* kOwnSound = "refavs-sound";

bool holds_word(const std::string& text, const std::string& word) {
  const auto part_of_word = [&](size_t i) {
    return i < text.size() && (std::isalnum(static_cast<unsigned char>(text[i])) || text[i] == '_');
  };
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1))
    if (!(at > 0 && part_of_word(at - 1)) && !part_of_word(at + word.size())) return true;
  return false;
}

std::string last_line(std::string text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  const size_t end = text.rfind('\n');
  return end == std::string::npos ? "" : text.substr(end + 1);
}

std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  return text;
}

}  // namespace

// Outlives the pipeline's owner where GStreamer hangs.
class GstPipeline::Core : public std::enable_shared_from_this<Core> {
 public:
  Core(Address address, Wanted wanted)
      : lib_(gst::Library::get()), address_(std::move(address)), wanted_(wanted) {}

  void begin() {
    thread_ = std::thread([self = shared_from_this()] { self->work(); });
  }

  void close() {
    std::unique_lock<std::mutex> lock(mutex_);
    closing_ = true;
    samples_.clear();
    changed_.notify_all();
    if (changed_.wait_for(lock, kClose, [this] { return finished_; })) {
      lock.unlock();
      thread_.join();
    } else {
      thread_.detach();
    }
  }

  void wake() {
    std::lock_guard<std::mutex> lock(mutex_);
    woken_ = true;
    changed_.notify_all();
  }

  Status wait_first(Medium medium, milliseconds timeout, GstPtr<gst::Sample>* first) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto found = [&] {
      return std::find_if(samples_.begin(), samples_.end(),
                          [&](const GstSample& one) { return one.medium == medium; });
    };
    const auto there = [&] { return found() != samples_.end(); };
    changed_.wait_for(lock, timeout, [&] { return there() || !error_.empty() || has_ended(); });
    if (there()) {
      *first = GstPtr<gst::Sample>::share(found()->sample.get());
      return Status::kSample;
    }
    if (!error_.empty()) throw IngestError(error_);
    return has_ended() ? Status::kEnded : Status::kTimeout;
  }

  Status next(GstSample* sample, milliseconds timeout) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait_for(lock, timeout, [&] {
      return woken_ || !samples_.empty() || !error_.empty() || has_ended();
    });
    if (woken_) return Status::kWoken;
    if (!samples_.empty()) {
      *sample = std::move(samples_.front());
      samples_.pop_front();
      return Status::kSample;
    }
    if (!error_.empty()) throw IngestError(error_);
    return has_ended() ? Status::kEnded : Status::kTimeout;
  }

  bool is_live() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return live_;
  }

  bool has(Medium medium) const {
    std::lock_guard<std::mutex> lock(mutex_);
    return outlet(medium).used;
  }

 private:
  // A sink of the pipeline.
  struct Outlet {
    gst::Object* sink = nullptr;
    bool used = false;
    bool ended = false;
  };

  // What GStreamer calls a sink's functions with.
  struct Caller {
    std::shared_ptr<Core> core;
    Medium medium;
  };

  Outlet& outlet(Medium medium) { return medium == Medium::kPicture ? picture_ : sound_; }
  const Outlet& outlet(Medium medium) const {
    return medium == Medium::kPicture ? picture_ : sound_;
  }

  bool has_ended() const {
    return (picture_.used || sound_.used) && (!picture_.used || picture_.ended) &&
           (!sound_.used || sound_.ended);
  }

  bool is_closing() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return closing_;
  }

  void fail(const std::string& what) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (error_.empty()) error_ = address_.shown + ": " + without_secrets(one_line(what));
    changed_.notify_all();
  }

  void work() {
    try {
      open();
      while (!is_closing() && take_error(kSlice_ns)) {
      }
    } catch (const std::exception& error) {
      fail(error.what());
    }
    let_go();
    std::lock_guard<std::mutex> lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  }

  void open() {
    init();
    parse();
    const bool own = !holds_word(address_.url, "appsink");
    find_sink(Medium::kPicture, own ? kOwnPicture : "picture");
    find_sink(Medium::kSound, own ? kOwnSound : "sound");
    check_sinks();
    bus_ = lib_.element_get_bus(pipeline_);
    int change = lib_.element_set_state(pipeline_, gst::kPaused);
    while (change == gst::kAsync && !is_closing() && take_error(0))
      change = lib_.element_get_state(pipeline_, nullptr, nullptr, kSlice_ns);
    if (is_closing() || !has_changed(change)) return;
    if (change == gst::kNoPreroll) {
      for (const Outlet* one : {&picture_, &sound_})
        if (one->sink) lib_.set_object_arg(one->sink, "sync", "false");
      std::lock_guard<std::mutex> lock(mutex_);
      live_ = true;
    }
    has_changed(lib_.element_set_state(pipeline_, gst::kPlaying));
  }

  void init() {
    static std::mutex mutex;
    std::lock_guard<std::mutex> lock(mutex);
    gst::Error* error = nullptr;
    if (!lib_.init_check(nullptr, nullptr, &error)) {
      throw IngestError("GStreamer does not start (" + text_of(error) +
                        "); check its installation with gst-inspect-1.0");
    }
  }

  void parse() {
    std::string description = address_.url;
    if (!holds_word(description, "appsink"))
      description += wanted_ == Wanted::kSound
                         ? std::string(" ! audioconvert ! appsink name=") + kOwnSound
                         : std::string(" ! videoconvert ! appsink name=") + kOwnPicture;
    gst::Error* error = nullptr;
    pipeline_ = lib_.parse_launch(description.c_str(), &error);
    if (error || !pipeline_) {
      const std::string reason = text_of(error);
      const bool no_element = reason.find("no element") != std::string::npos;
      throw IngestError("GStreamer does not take it (" + reason + "); " +
                        (no_element ? "correct its name, or install the package that has it, such "
                                      "as gstreamer1.0-plugins-good"
                                    : "try it with gst-launch-1.0"));
    }
  }

  void find_sink(Medium medium, const char* name) {
    gst::Object* sink = lib_.bin_get_by_name(pipeline_, name);
    if (!sink) return;
    const bool wanted =
        medium == Medium::kPicture ? wanted_ != Wanted::kSound : wanted_ != Wanted::kPicture;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      outlet(medium).sink = sink;
      outlet(medium).used = wanted;
    }
    if (!lib_.type_check_instance_is_a(sink, lib_.app_sink_get_type()))
      throw IngestError(std::string("its element '") + name +
                        "' is no appsink; give that name to one, or leave out all");
    if (GstPtr<gst::Caps> caps(lib_.app_sink_get_caps(sink)); !caps) {
      const GstPtr<gst::Caps> known(
          lib_.caps_from_string(medium == Medium::kPicture ? kPictureCaps : kSoundCaps));
      lib_.app_sink_set_caps(sink, known.get());
    }
    // What comes is fetched at once; nothing is kept beside that, and nothing waits.
    for (const auto& [property, value] :
         {std::pair("max-buffers", "1"), {"drop", "true"}, {"enable-last-sample", "false"}})
      lib_.set_object_arg(sink, property, value);
    gst::SinkCallbacks callbacks = {};
    callbacks.ended = [](gst::Object*, void* caller) {
      static_cast<Caller*>(caller)->core->end(static_cast<Caller*>(caller)->medium);
    };
    callbacks.sample = [](gst::Object* from, void* caller) {
      static_cast<Caller*>(caller)->core->take(from, static_cast<Caller*>(caller)->medium);
      return gst::kFlowOk;
    };
    lib_.app_sink_set_callbacks(sink, &callbacks, new Caller{shared_from_this(), medium},
                                [](void* caller) { delete static_cast<Caller*>(caller); });
  }

  void check_sinks() const {
    if (wanted_ != Wanted::kSound && !picture_.used)
      throw IngestError("has an appsink, but none for pictures; write appsink name=picture");
    if (wanted_ == Wanted::kSound && !sound_.used)
      throw IngestError("has an appsink, but none for sound; write appsink name=sound");
  }

  // On a thread of GStreamer's.
  void take(gst::Object* sink, Medium medium) {
    GstSample taken;
    taken.medium = medium;
    taken.sample = GstPtr<gst::Sample>(lib_.app_sink_pull_sample(sink));
    std::lock_guard<std::mutex> lock(mutex_);
    if (!taken.sample || closing_ || !outlet(medium).used) return;
    const size_t most = medium == Medium::kPicture ? kPictures : kSounds;
    size_t waiting = 0;
    for (const GstSample& one : samples_) waiting += one.medium == medium;
    if (waiting >= most) {
      auto oldest = samples_.begin();
      while (oldest->medium != medium) ++oldest;
      skipped_ += medium == Medium::kPicture ? 1 : 0;
      samples_.erase(oldest);
    }
    if (medium == Medium::kPicture) taken.skipped = std::exchange(skipped_, 0);
    samples_.push_back(std::move(taken));
    changed_.notify_all();
  }

  void end(Medium medium) {
    // Where a source breaks, its error is told before the end comes.
    take_error(0);
    std::lock_guard<std::mutex> lock(mutex_);
    outlet(medium).ended = true;
    changed_.notify_all();
  }

  // False: the pipeline has failed.
  bool take_error(uint64_t timeout_ns) {
    std::lock_guard<std::mutex> one_reader(bus_mutex_);  // until what it read is told
    const GstPtr<gst::Message> message(
        lib_.bus_timed_pop_filtered(bus_, timeout_ns, gst::kMessageError));
    if (message) fail(text_of(message.get()));
    std::lock_guard<std::mutex> lock(mutex_);
    return error_.empty();
  }

  // False: the pipeline has failed.
  bool has_changed(int change) {
    if (!take_error(change == gst::kFailure ? kReason_ns : 0)) return false;
    if (change == gst::kFailure) fail("GStreamer does not start it; try it with gst-launch-1.0");
    return change != gst::kFailure;
  }

  std::string text_of(gst::Error* error) const {
    if (!error) return "it gives no reason";
    const std::string text = error->message;
    lib_.error_free(error);
    return text;
  }

  // "v4l2src0: Cannot identify device '/dev/video9'. (system error: No such file or directory)"
  std::string text_of(gst::Message* message) const {
    gst::Error* error = nullptr;
    char* debug = nullptr;
    lib_.message_parse_error(message, &error, &debug);
    std::string text = text_of(error);
    if (debug) {
      const std::string detail = last_line(debug);
      lib_.free(debug);
      if (!detail.empty() && detail != text) text += " (" + detail + ")";
    }
    if (!message->source) return text;
    char* name = lib_.object_get_name(message->source);
    text = std::string(name) + ": " + text;
    lib_.free(name);
    return text;
  }

  void let_go() {
    if (!pipeline_) return;
    lib_.element_set_state(pipeline_, gst::kNull);
    for (gst::Object* object : {picture_.sink, sound_.sink, bus_, pipeline_})
      if (object) lib_.object_unref(object);
    lib_.thread_pool_stop_unused_threads();
  }

  const gst::Library& lib_;
  const Address address_;
  const Wanted wanted_;
  std::thread thread_;

  // Of that thread. The bus is there before anything comes.
  gst::Object* pipeline_ = nullptr;
  gst::Object* bus_ = nullptr;
  std::mutex bus_mutex_;

  mutable std::mutex mutex_;  // those below
  std::condition_variable changed_;
  Outlet picture_;  // their sinks are of the thread
  Outlet sound_;
  bool live_ = false;
  std::deque<GstSample> samples_;
  int64_t skipped_ = 0;
  std::string error_;
  bool woken_ = false;
  bool closing_ = false;
  bool finished_ = false;
};

GstPipeline::GstPipeline(const Address& address, Wanted wanted)
    : core_(std::make_shared<Core>(address, wanted)) {
  core_->begin();
}

GstPipeline::~GstPipeline() { core_->close(); }

GstPipeline::Status GstPipeline::wait_first(Medium medium, milliseconds timeout,
                                            GstPtr<gst::Sample>* first) {
  return core_->wait_first(medium, timeout, first);
}

GstPipeline::Status GstPipeline::next(GstSample* sample, milliseconds timeout) {
  return core_->next(sample, timeout);
}

void GstPipeline::wake() { core_->wake(); }
bool GstPipeline::is_live() const { return core_->is_live(); }
bool GstPipeline::has(Medium medium) const { return core_->has(medium); }

}  // namespace refavs
