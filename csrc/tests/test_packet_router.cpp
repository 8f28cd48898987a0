#include <gtest/gtest.h>

#include <future>
#include <random>
#include <thread>

#include "packet_router.h"
#include "waiting.h"

namespace refavs {
namespace {

PacketPtr packet_of(int size, int64_t pts = 0) {
  PacketPtr packet = new_packet();
  if (av_new_packet(packet.get(), size) < 0) throw std::bad_alloc();
  packet->pts = pts;
  return packet;
}

template <typename Call>
auto in_a_thread(Call call) {
  return std::async(std::launch::async, call);
}

template <typename Result>
bool waits(std::future<Result>& call) {
  return call.wait_for(kAWhile) == std::future_status::timeout;
}

// How many packets the demuxer gets rid of, `limit` at most; it is known to be `at_least`.
int fill(PacketRouter* router, int size, bool sound, int at_least, int limit) {
  std::atomic<int> pushed{0};
  auto pushing = in_a_thread([&] {
    while (pushed < limit &&
           (sound ? router->push_audio(packet_of(size)) : router->push_video(packet_of(size))))
      ++pushed;
  });
  EXPECT_TRUE(eventually([&] { return pushed >= at_least; }));
  for (int before = -1; waits(pushing) && before != pushed;) before = pushed;
  const int count = pushed;
  router->stop();
  pushing.get();
  return count;
}

TEST(PacketRouter, PacketsComeInOrderAndThenTheEnd) {
  PacketRouter router;
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(router.push_video(packet_of(9, i)));
    EXPECT_TRUE(router.push_audio(packet_of(9, 100 + i)));
  }
  router.finish();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(router.pop_video()->pts, i);
    EXPECT_EQ(router.pop_audio()->pts, 100 + i);
  }
  EXPECT_EQ(router.pop_video(), nullptr);
  EXPECT_EQ(router.pop_audio(), nullptr);
}

TEST(PacketRouter, APictureQueueIsBoundedInPackets) {
  PacketRouter router;
  EXPECT_EQ(fill(&router, 100, false, 32, 1000), 32);
}

TEST(PacketRouter, QueuesAreBoundedInBytes) {
  PacketRouter router;
  EXPECT_LE(fill(&router, 4 << 20, true, 16, 1000), 16);
}

// A packet of no bytes still takes some hundred bytes of memory.
TEST(PacketRouter, EmptyPacketsAreBoundedToo) {
  PacketRouter router;
  EXPECT_LT(fill(&router, 0, true, 50000, 600000), 600000);
}

TEST(PacketRouter, WhoWaitsForSoundOpensAFullQueue) {
  PacketRouter router;
  for (int i = 0; i < 32; ++i) router.push_video(packet_of(9));
  auto pushing = in_a_thread([&] { return router.push_video(packet_of(9)); });
  EXPECT_TRUE(waits(pushing));
  router.set_audio_wanted(true);
  EXPECT_TRUE(pushing.get());
  EXPECT_TRUE(router.push_audio(packet_of(9)));
  auto next = in_a_thread([&] { return router.push_video(packet_of(9)); });
  EXPECT_TRUE(waits(next)) << "there is sound to decode now";
  router.stop();
  EXPECT_FALSE(next.get());
}

TEST(PacketRouter, SoundRunsAheadOnlyWherePicturesAreHungry) {
  PacketRouter router;
  router.set_audio_ahead(true);
  router.push_video(packet_of(9));
  router.push_audio(packet_of(9));
  auto popping = in_a_thread([&] { return router.pop_audio() != nullptr; });
  EXPECT_TRUE(waits(popping));
  EXPECT_NE(router.pop_video(), nullptr);
  EXPECT_TRUE(popping.get());
}

TEST(PacketRouter, SoundThatIsWantedIsNotHeldBack) {
  PacketRouter router;
  router.set_audio_ahead(true);
  router.push_video(packet_of(9));
  router.push_audio(packet_of(9));
  auto popping = in_a_thread([&] { return router.pop_audio() != nullptr; });
  EXPECT_TRUE(waits(popping));
  router.set_audio_wanted(true);
  EXPECT_TRUE(popping.get());
}

TEST(PacketRouter, DroppedPicturesAreReadOnlyWhereSoundIsWanted) {
  PacketRouter router;
  for (int i = 0; i < 5; ++i) router.push_video(packet_of(9));
  router.drop_video();
  auto pushing = in_a_thread([&] { return router.push_video(packet_of(9)); });
  EXPECT_TRUE(waits(pushing));
  router.set_audio_wanted(true);
  EXPECT_TRUE(pushing.get()) << "dropped, and the demuxer goes on";
  router.finish();
  EXPECT_EQ(router.pop_video(), nullptr);
}

TEST(PacketRouter, SoundBeyondAllMemoryIsOutOfReach) {
  PacketRouter router;
  router.set_audio_wanted(true);
  EXPECT_FALSE(router.audio_out_of_reach());
  std::atomic<bool> going{true};
  std::thread demuxer([&] {
    while (going && router.push_video(packet_of(8 << 20))) {
    }
  });
  EXPECT_TRUE(eventually([&] { return router.audio_out_of_reach(); }));
  going = false;
  router.stop();
  demuxer.join();
}

TEST(PacketRouter, StopLetsGoOfEveryWaiter) {
  PacketRouter router;
  for (int i = 0; i < 32; ++i) router.push_video(packet_of(9));
  auto pushing = in_a_thread([&] { return router.push_video(packet_of(9)); });
  auto sound = in_a_thread([&] { return router.pop_audio() == nullptr; });
  EXPECT_TRUE(waits(pushing) && waits(sound));
  router.stop();
  EXPECT_FALSE(pushing.get());
  EXPECT_TRUE(sound.get());
  EXPECT_EQ(router.pop_video(), nullptr);
  EXPECT_FALSE(router.push_audio(packet_of(9)));
}

// A demuxer of streams in random order, two decoders, and a consumer who now and then waits for
// sound: whatever the order is, all comes through.
TEST(PacketRouter, NothingLocksUp) {
  constexpr int kRounds = 20, kPackets = 400;
  for (int round = 0; round < kRounds; ++round) {
    PacketRouter router;
    std::atomic<int> pictures{0}, sounds{0};
    std::thread demuxer([&, round] {
      std::mt19937 random(static_cast<unsigned>(round));
      int left[2] = {kPackets, kPackets};
      while (left[0] + left[1] > 0) {
        int which = static_cast<int>(random() % 40 < unsigned(round) ? 0 : random() % 2);
        if (left[which] == 0) which = 1 - which;
        for (int run = static_cast<int>(random() % 60); run >= 0 && left[which] > 0; --run) {
          --left[which];
          EXPECT_TRUE(which == 0 ? router.push_video(packet_of(9))
                                 : router.push_audio(packet_of(9)));
        }
      }
      router.finish();
    });
    std::thread picture_decoder([&] {
      while (router.pop_video()) ++pictures;
    });
    std::thread sound_decoder([&] {
      while (router.pop_audio()) {
        ++sounds;
        router.set_audio_ahead(sounds > pictures + 20);
      }
    });
    EXPECT_TRUE(eventually([&] {
      router.set_audio_wanted(sounds < pictures);
      router.set_audio_ahead(sounds > pictures + 20);
      return pictures == kPackets && sounds == kPackets;
    })) << pictures
        << " pictures and " << sounds << " sounds in round " << round;
    router.stop();
    demuxer.join();
    picture_decoder.join();
    sound_decoder.join();
  }
}

}  // namespace
}  // namespace refavs
