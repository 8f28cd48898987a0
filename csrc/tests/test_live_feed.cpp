#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include "error.h"
#include "live_feed.h"
#include "streams.h"
#include "waiting.h"

namespace refavs {
namespace {

using State = LiveFeed::State;

const std::string kPattern = "lavfi:testsrc2=size=64x48:rate=25";

// A feed, and what came of it.
class Watched {
 public:
  explicit Watched(const std::string& typed, Wanted wanted = Wanted::kPicture,
                   CaptureOptions options = {}) {
    LiveFeed::Target target;
    target.picture = [this](FramePtr frame, double at_s) {
      if (!frame->data[0] || frame->width <= 0) ++broken;
      take(at_s);
      ++pictures;
    };
    target.sound = [this](const AVFrame& frame, double at_s) {
      if (frame.nb_samples <= 0) ++broken;
      take(at_s);
      ++sounds;
    };
    target.restarted = [this] { ++restarts; };
    target.changed = [this] { ++changes; };
    feed = std::make_unique<LiveFeed>(
        parse_address(typed, wanted == Wanted::kSound ? Medium::kSound : Medium::kPicture), wanted,
        std::move(options), std::move(target), [this] { return now_s(); }, &notices);
  }

  bool reaches(State state) {
    return eventually([&] { return feed->state() == state; });
  }
  void expect_to_end_promptly() {
    EXPECT_LT(time_of([&] {
                feed->stop();
                feed->join();
              }),
              kPromptly);
    const int before = pictures + sounds;
    feed->stop();  // and once more
    feed->join();
    EXPECT_EQ(pictures + sounds, before);
    EXPECT_EQ(broken, 0);
    EXPECT_EQ(from_the_future, 0);
  }
  bool was_said(const std::string& beginning) {
    for (Notice& notice : notices.take()) said.push_back(std::move(notice.text));
    return std::any_of(said.begin(), said.end(), [&](const std::string& text) {
      return text.compare(0, beginning.size(), beginning) == 0;
    });
  }

  std::atomic<int> pictures{0}, sounds{0}, restarts{0}, changes{0}, broken{0}, from_the_future{0};
  Notices notices;
  std::vector<std::string> said;
  std::unique_ptr<LiveFeed> feed;

 private:
  double now_s() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  }
  void take(double at_s) {
    if (!(at_s <= now_s())) ++from_the_future;
  }

  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

const std::string& silent_pictures() {
  static const std::string bytes = transport_stream(20.0, false);
  return bytes;
}

TEST(LiveFeed, OpensAndIsPaced) {
  Watched watched(kPattern);
  ASSERT_TRUE(watched.reaches(State::kOpen));
  EXPECT_TRUE(watched.feed->info()->has_video);
  const auto began = std::chrono::steady_clock::now();
  const int before = watched.pictures;
  ASSERT_TRUE(eventually([&] { return watched.pictures >= before + 25; }));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  EXPECT_GT(took.count(), 0.9) << "25 pictures are a second";
  EXPECT_NEAR(watched.feed->counters().decoded, watched.pictures, 2);
  watched.expect_to_end_promptly();
}

TEST(LiveFeed, PicturesAndSoundOfAServerCome) {
  Server server(transport_stream(20.0, true), 20.0, Server::Then::kStall);
  Watched watched(server.url(), Wanted::kPictureAndSound);
  ASSERT_TRUE(watched.reaches(State::kOpen));
  EXPECT_TRUE(watched.feed->info()->has_audio);
  EXPECT_TRUE(eventually([&] { return watched.pictures > 20 && watched.sounds > 20; }));
  EXPECT_TRUE(std::isfinite(watched.feed->drift_ppm()));
  watched.expect_to_end_promptly();
}

TEST(LiveFeed, GeneratedPicturesThatEndHaveEnded) {
  Watched watched(kPattern + ":duration=0.2");
  ASSERT_TRUE(watched.reaches(State::kEnded));
  EXPECT_EQ(watched.pictures, 5);
  EXPECT_NO_THROW(watched.feed->rethrow());
  EXPECT_TRUE(watched.notices.take().empty());
  watched.expect_to_end_promptly();
}

TEST(LiveFeed, AFirstAttemptThatFailsIsTheEnd) {
  for (const std::string& typed :
       {"tcp://127.0.0.1:" + std::to_string(free_port()), std::string("lavfi:nosuchfilter"),
        std::string("/dev/video63"), std::string("no such file.mp4")}) {
    Watched watched(typed);
    ASSERT_TRUE(watched.reaches(State::kFailed)) << typed;
    EXPECT_THROW(watched.feed->rethrow(), IngestError) << typed;
    EXPECT_FALSE(watched.feed->info());
    watched.expect_to_end_promptly();
  }
}

TEST(LiveFeed, SoundThatIsAskedForMustBeThere) {
  Watched watched(kPattern, Wanted::kSound);
  ASSERT_TRUE(watched.reaches(State::kFailed));
  EXPECT_THROW(watched.feed->rethrow(), IngestError);
}

TEST(LiveFeed, AServerThatClosesIsOpenedAgain) {
  Server server(transport_stream(3.0, false), 0.3, Server::Then::kClose);
  Watched watched(server.url());
  EXPECT_TRUE(eventually([&] { return watched.feed->counters().reconnects >= 2; }));
  EXPECT_GE(watched.pictures, 30) << "all of each time";
  EXPECT_GE(server.viewers(), 3);
  EXPECT_GE(watched.restarts, 2);
  EXPECT_TRUE(eventually([&] { return watched.was_said("back: "); }));
  EXPECT_TRUE(watched.was_said("lost: "));
  watched.expect_to_end_promptly();
}

TEST(LiveFeed, AServerThatFallsSilentIsLost) {
  Server server(transport_stream(2.0, false), 0.2, Server::Then::kStall);
  CaptureOptions options;
  options.silence_s = 0.5;
  Watched watched(server.url(), Wanted::kPicture, options);
  ASSERT_TRUE(watched.reaches(State::kOpen));
  EXPECT_TRUE(watched.reaches(State::kLost));
  EXPECT_TRUE(watched.was_said("lost: "));
  watched.expect_to_end_promptly();
}

TEST(LiveFeed, AServerThatComesBackIsFound) {
  auto server = std::make_unique<Server>(silent_pictures(), 20.0, Server::Then::kStall);
  const int port = server->port();
  Watched watched(server->url());
  ASSERT_TRUE(eventually([&] { return watched.pictures > 0; }));
  server.reset();
  ASSERT_TRUE(watched.reaches(State::kLost));
  server = std::make_unique<Server>(silent_pictures(), 20.0, Server::Then::kStall, port);
  const int before = watched.pictures;
  EXPECT_TRUE(watched.reaches(State::kOpen));
  EXPECT_TRUE(eventually([&] { return watched.pictures > before; }));
  watched.expect_to_end_promptly();
}

// stop() from every state

TEST(LiveFeed, StopsWhereASecondHasNotPassedYet) {
  Watched watched(kPattern);
  watched.expect_to_end_promptly();
}

TEST(LiveFeed, StopsWhileAServerIsDeafToIt) {
  Server server("", 0.0, Server::Then::kStall);
  Watched watched(server.url());
  ASSERT_TRUE(eventually([&] { return server.viewers() == 1; }));
  EXPECT_EQ(watched.feed->state(), State::kOpening);
  watched.expect_to_end_promptly();
}

TEST(LiveFeed, StopsWhileTheStreamIsProbed) {
  Server server(silent_pictures().substr(0, 2000), 0.0, Server::Then::kStall);
  Watched watched(server.url());
  ASSERT_TRUE(eventually([&] { return server.viewers() == 1; }));
  watched.expect_to_end_promptly();
}

TEST(LiveFeed, StopsWhileNothingComes) {
  Server server(silent_pictures(), 0.2, Server::Then::kStall);
  Watched watched(server.url());
  ASSERT_TRUE(eventually([&] { return watched.pictures >= 5; }));
  watched.expect_to_end_promptly();
}

TEST(LiveFeed, StopsWhileItIsLost) {
  auto server = std::make_unique<Server>(silent_pictures(), 20.0, Server::Then::kStall);
  Watched watched(server->url());
  ASSERT_TRUE(watched.reaches(State::kOpen));
  server.reset();
  ASSERT_TRUE(watched.reaches(State::kLost));
  watched.expect_to_end_promptly();
}

TEST(LiveFeed, StopsWhileItIsOpenedAgain) {
  auto server = std::make_unique<Server>(silent_pictures(), 20.0, Server::Then::kStall);
  const int port = server->port();
  Watched watched(server->url());
  ASSERT_TRUE(watched.reaches(State::kOpen));
  server.reset();
  ASSERT_TRUE(watched.reaches(State::kLost));
  server = std::make_unique<Server>("", 0.0, Server::Then::kStall, port);
  ASSERT_TRUE(eventually([&] { return server->viewers() >= 1; }));
  EXPECT_EQ(watched.feed->state(), State::kLost);
  watched.expect_to_end_promptly();
}

TEST(LiveFeed, ManyAreMadeAndLetGo) {
  for (int i = 0; i < 30; ++i) {
    Watched watched(i % 2 ? kPattern : kPattern + ":duration=0.1", Wanted::kPicture);
    eventually([&] { return watched.pictures >= i % 3; });
    if (i % 3 == 0) watched.feed->stop();
  }
}

TEST(LiveFeed, EveryThreadMayAsk) {
  Server server(transport_stream(3.0, true), 0.3, Server::Then::kClose);
  Watched watched(server.url(), Wanted::kPictureAndSound);
  std::atomic<bool> going{true};
  std::thread asker([&] {
    while (going) {
      watched.feed->state();
      watched.feed->info();
      watched.feed->counters();
      watched.feed->drift_ppm();
      watched.notices.take();
    }
  });
  EXPECT_TRUE(eventually([&] { return watched.feed->counters().reconnects >= 1; }));
  watched.expect_to_end_promptly();
  going = false;
  asker.join();
}

}  // namespace
}  // namespace refavs
