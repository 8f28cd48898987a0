#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <future>

#include "error.h"
#include "files.h"
#include "live_ingest.h"
#include "streams.h"
#include "waiting.h"

namespace refavs {
namespace {

using Status = LiveIngest::Status;
using std::chrono::milliseconds;

const std::string kPattern = "lavfi:testsrc2=size=64x48:rate=25";
const std::string kPatternAndTone =
    "lavfi:testsrc2=size=64x48:rate=25[out0];sine=440:sample_rate=44100[out1]";

LiveOptions options(const std::string& microphone = "none") {
  LiveOptions options;
  options.size = 16;
  options.normalization = {{0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}};
  options.microphone = microphone;
  return options;
}

bool gives(LiveIngest* live, Frame* frame) { return live->next(frame, kAtLast) == Status::kFrame; }

void expect_to_close_promptly(LiveIngest* live) {
  EXPECT_LT(time_of([&] { live->close(); }), kPromptly);
  Frame frame;
  EXPECT_EQ(live->next(&frame, milliseconds(0)), Status::kEnd);
  EXPECT_EQ(live->wait_first(milliseconds(0)), Status::kEnd);
  EXPECT_EQ(live->counters().queue_depth, 0);
  live->close();
}

// While it lives, the default microphone is a device of ALSA that gives silence.
class SilentMicrophone {
 public:
  SilentMicrophone() {
    const std::string path = folder_.write("asound.conf",
                                           "pcm.silence { type null }\n"
                                           "pcm.!default {\n"
                                           "  type file slave.pcm silence\n"
                                           "  file \"/dev/null\" infile \"/dev/zero\" format raw\n"
                                           "}\n");
    setenv("ALSA_CONFIG_PATH", path.c_str(), 1);
    setenv("PULSE_SERVER", "unix:/nowhere/at/all", 1);
  }
  ~SilentMicrophone() {
    unsetenv("ALSA_CONFIG_PATH");
    unsetenv("PULSE_SERVER");
  }

 private:
  const Folder folder_;
};

TEST(LiveIngest, FramesComeWithTheirSound) {
  LiveIngest live(kPatternAndTone, options("auto"));
  ASSERT_EQ(live.wait_first(kAtLast), Status::kFrame);
  EXPECT_EQ(live.width(), 64);
  EXPECT_EQ(live.height(), 48);
  EXPECT_TRUE(live.has_audio());
  Frame frame;
  double last_s = -1.0;
  do {
    ASSERT_TRUE(gives(&live, &frame));
    EXPECT_GT(frame.pts_s, last_s);
    EXPECT_LE(frame.pts_s, live.now_s());
    std::vector<float> tensor(size_t(3) * 16 * 16, std::nanf(""));
    frame.picture.tensor(tensor.data());
    EXPECT_TRUE(
        std::all_of(tensor.begin(), tensor.end(), [](float x) { return std::isfinite(x); }));
    last_s = frame.pts_s;
  } while (frame.sound.missing_samples > 0 && frame.pts_s < 20.0);
  EXPECT_EQ(frame.sound.missing_samples, 0);
  EXPECT_TRUE(frame.has_audio);
  expect_to_close_promptly(&live);
}

TEST(LiveIngest, NothingComesWithinNoTime) {
  LiveIngest live("lavfi:testsrc2=size=64x48:rate=1", options());
  ASSERT_EQ(live.wait_first(kAtLast), Status::kFrame);
  Frame frame;
  ASSERT_TRUE(gives(&live, &frame));
  EXPECT_EQ(live.next(&frame, milliseconds(0)), Status::kTimeout);
  expect_to_close_promptly(&live);
}

TEST(LiveIngest, ACameraThatEndsEnds) {
  LiveIngest live(kPattern + ":duration=0.3", options());
  ASSERT_EQ(live.wait_first(kAtLast), Status::kFrame);
  Frame frame;
  int frames = 0;
  while (gives(&live, &frame)) ++frames;
  EXPECT_GE(frames, 1);
  EXPECT_EQ(live.next(&frame, milliseconds(0)), Status::kEnd);
  expect_to_close_promptly(&live);
}

TEST(LiveIngest, ACameraOrMicrophoneThatFailsIsAnError) {
  LiveIngest camera("lavfi:nosuchfilter", options());
  EXPECT_THROW(camera.wait_first(kAtLast), IngestError);
  EXPECT_LT(time_of([&] { camera.close(); }), kPromptly);
  LiveIngest microphone(kPattern, options("lavfi:nosuchfilter"));
  EXPECT_THROW(microphone.wait_first(kAtLast), IngestError);
  EXPECT_LT(time_of([&] { microphone.close(); }), kPromptly);
}

TEST(LiveIngest, AWrongAddressIsToldAtOnce) {
  EXPECT_THROW(LiveIngest("gopher://x/", options()), IngestError);
  EXPECT_THROW(LiveIngest(kPattern, options("gopher://x/")), IngestError);
  EXPECT_THROW(LiveIngest("gopher://x/", options(kPatternAndTone)), IngestError)
      << "with a microphone that is open already";
}

// Microphones

TEST(LiveIngest, TheDefaultMicrophoneIsFoundAndNoneIsSaidOnce) {
  {
    const SilentMicrophone silent;
    LiveIngest live(kPattern, options("auto"));
    ASSERT_EQ(live.wait_first(kAtLast), Status::kFrame);
    EXPECT_TRUE(live.has_audio());
    EXPECT_LT(time_of([&] { live.close(); }), kPromptly);
  }
  setenv("ALSA_CONFIG_PATH", "/nowhere/at/all", 1);
  setenv("PULSE_SERVER", "unix:/nowhere/at/all", 1);
  LiveIngest live(kPattern, options("auto"));
  ASSERT_EQ(live.wait_first(kAtLast), Status::kFrame);
  EXPECT_FALSE(live.has_audio());
  Frame frame;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(gives(&live, &frame));
  const std::vector<Notice> notices = live.take_notices();
  ASSERT_EQ(notices.size(), 1u);
  EXPECT_EQ(notices[0].text.substr(0, 9), "no sound:");
  unsetenv("ALSA_CONFIG_PATH");
  unsetenv("PULSE_SERVER");
  expect_to_close_promptly(&live);
}

// The sound of the microphone goes on in its thread while the camera's begins anew in another.
TEST(LiveIngest, ACameraThatComesBackLeavesTheMicrophoneAlone) {
  const SilentMicrophone silent;
  Server server(transport_stream(3.0, false), 0.3, Server::Then::kClose);
  LiveIngest live(server.url(), options("auto"));
  ASSERT_EQ(live.wait_first(kAtLast), Status::kFrame);
  ASSERT_TRUE(live.has_audio());
  EXPECT_TRUE(eventually([&] { return live.counters().camera.reconnects >= 3; }));
  EXPECT_EQ(live.counters().microphone.reconnects, 0);
  expect_to_close_promptly(&live);
}

TEST(LiveIngest, ACameraThatComesBackWithSoundDoesNotSpeakIntoTheMicrophone) {
  const SilentMicrophone silent;
  auto server = std::make_unique<Server>(transport_stream(20.0, false), 20.0, Server::Then::kStall);
  const int port = server->port();
  LiveIngest live(server->url(), options("auto"));
  ASSERT_EQ(live.wait_first(kAtLast), Status::kFrame);
  server.reset();
  server = std::make_unique<Server>(transport_stream(20.0, true), 20.0, Server::Then::kStall, port);
  ASSERT_TRUE(eventually([&] { return live.counters().camera.reconnects == 1; }));
  const double back_s = live.now_s();
  Frame frame;
  do {
    ASSERT_TRUE(gives(&live, &frame));
    ASSERT_LT(frame.pts_s, back_s + 20.0);
  } while (frame.pts_s < back_s + 1.5);
  for (float sample : frame.sound.samples) ASSERT_EQ(sample, 0.0f) << "the microphone is silent";
  expect_to_close_promptly(&live);
}

// close() from every state, and from another thread than next()

TEST(LiveIngest, ClosesBeforeAnything) {
  LiveIngest live(kPatternAndTone, options("auto"));
  expect_to_close_promptly(&live);
}

TEST(LiveIngest, IsLetGoOfWithoutClose) {
  for (int i = 0; i < 10; ++i) {
    LiveIngest live(kPatternAndTone, options(i % 2 ? "auto" : kPatternAndTone));
    if (i > 4) live.wait_first(milliseconds(20 * i));
  }
}

TEST(LiveIngest, ClosesWhileTheCameraIsDeaf) {
  Server server("", 0.0, Server::Then::kStall);
  LiveIngest live(server.url(), options());
  ASSERT_TRUE(eventually([&] { return server.viewers() == 1; }));
  auto waiting = std::async(std::launch::async, [&] { return live.wait_first(kAtLast); });
  EXPECT_EQ(waiting.wait_for(kAWhile), std::future_status::timeout);
  EXPECT_LT(time_of([&] { live.close(); }), kPromptly);
  EXPECT_EQ(waiting.get(), Status::kEnd);
  expect_to_close_promptly(&live);
}

TEST(LiveIngest, ClosesWhileTheMicrophoneIsDeaf) {
  Server server("", 0.0, Server::Then::kStall);
  LiveIngest live(kPattern, options(server.url()));
  ASSERT_TRUE(eventually([&] { return server.viewers() == 1; }));
  EXPECT_EQ(live.wait_first(kAWhile), Status::kTimeout) << "the microphone is not settled";
  expect_to_close_promptly(&live);
}

TEST(LiveIngest, ClosesWhileAPictureIsWaitedFor) {
  LiveIngest live("lavfi:testsrc2=size=64x48:rate=0.1", options());
  ASSERT_EQ(live.wait_first(kAtLast), Status::kFrame);
  Frame frame;
  ASSERT_TRUE(gives(&live, &frame));
  auto waiting = std::async(std::launch::async, [&] {
    Frame never;
    return live.next(&never, kAtLast);
  });
  EXPECT_EQ(waiting.wait_for(kAWhile), std::future_status::timeout);
  EXPECT_LT(time_of([&] { live.close(); }), kPromptly);
  EXPECT_EQ(waiting.get(), Status::kEnd);
}

TEST(LiveIngest, ClosesWhileItIsLost) {
  auto server = std::make_unique<Server>(transport_stream(20.0, true), 20.0, Server::Then::kStall);
  LiveIngest live(server->url(), options("auto"));
  ASSERT_EQ(live.wait_first(kAtLast), Status::kFrame);
  server.reset();
  Frame frame;
  EXPECT_TRUE(eventually([&] {
    live.next(&frame, milliseconds(0));
    for (const Notice& notice : live.take_notices())
      if (notice.text.substr(0, 5) == "lost:") return true;
    return false;
  }));
  EXPECT_TRUE(eventually([&] { return live.next(&frame, milliseconds(0)) == Status::kTimeout; }));
  expect_to_close_promptly(&live);
}

TEST(LiveIngest, EveryThreadMayAsk) {
  Server server(transport_stream(3.0, true), 0.3, Server::Then::kClose);
  LiveIngest live(server.url(), options(kPatternAndTone));
  std::atomic<bool> going{true};
  std::thread asker([&] {
    while (going) {
      live.counters();
      live.has_audio();
      live.info();
      live.take_notices();
      live.width();
    }
  });
  ASSERT_EQ(live.wait_first(kAtLast), Status::kFrame);
  Frame frame;
  EXPECT_TRUE(eventually([&] {
    live.next(&frame, milliseconds(10));
    return live.counters().camera.reconnects >= 1;
  }));
  std::thread closer([&] { live.close(); });
  live.close();
  closer.join();
  going = false;
  asker.join();
}

}  // namespace
}  // namespace refavs
