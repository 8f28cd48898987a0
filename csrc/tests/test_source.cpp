#include <gtest/gtest.h>

#include <fstream>

#include "error.h"
#include "files.h"
#include "source.h"
#include "streams.h"
#include "waiting.h"

namespace refavs {
namespace {

const Patience kPatience = {10.0, 5.0};

std::string answer(const std::string& body) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\nConnection: close\r\n\r\n" + body;
}

std::string redirection(const std::string& url) {
  return "HTTP/1.1 302 Found\r\nLocation: " + url +
         "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
}

Source opened(const std::string& url) {
  return Source(parse_address(url, Medium::kPicture), Wanted::kPicture, {}, kPatience, nullptr);
}

TEST(Source, AServerMaySendToAnotherPortOfItsHost) {
  const Server video(answer(transport_stream(2.0, false)), 0.0, Server::Then::kClose);
  const Server first(redirection(video.url("http") + "/video.ts"), 0.0, Server::Then::kClose);
  EXPECT_TRUE(opened(first.url("http") + "/").info().has_video);
  EXPECT_GE(video.viewers(), 1);
}

TEST(Source, AServerMaySendToNoOtherHostOfTheLocalNetwork) {
  const Server video(answer(transport_stream(2.0, false)), 0.0, Server::Then::kClose, 0,
                     "127.0.0.2");
  const Server first(redirection(video.url("http") + "/video.ts"), 0.0, Server::Then::kClose);
  EXPECT_THROW(opened(first.url("http") + "/"), IngestError);
}

// The segments of a playlist, each by a request of its own, are as free as that.
TEST(Source, ASegmentMayBeSentToNoOtherHostOfTheLocalNetwork) {
  const Server video(answer(transport_stream(2.0, false)), 0.0, Server::Then::kClose, 0,
                     "127.0.0.2");
  const Server moved(redirection(video.url("http") + "/video.ts"), 0.0, Server::Then::kClose);
  const Server playlist(answer("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n" +
                               moved.url("http") + "/0.ts\n#EXT-X-ENDLIST\n"),
                        0.0, Server::Then::kClose);
  EXPECT_THROW(opened(playlist.url("http") + "/live.m3u8"), IngestError);
  EXPECT_GE(moved.viewers(), 1);
}

// On a connection that is kept, the answer to the second request would lead there unseen.
TEST(Source, NorMayTheNextOne) {
  const Server video(answer(transport_stream(2.0, false)), 0.0, Server::Then::kClose, 0,
                     "127.0.0.2");
  const std::string segment = transport_stream(2.0, false);
  const Server segments("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: " +
                            std::to_string(segment.size()) + "\r\n\r\n" + segment +
                            redirection(video.url("http") + "/video.ts"),
                        0.0, Server::Then::kStall);
  const std::string url = segments.url("http");
  std::string list = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n";
  for (const char* name : {"/0.ts", "/1.ts", "/2.ts", "/3.ts"})
    list += "#EXTINF:2,\n" + url + name + "\n";
  const Server playlist(answer(list + "#EXT-X-ENDLIST\n"), 0.0, Server::Then::kClose);
  Source source(parse_address(playlist.url("http") + "/live.m3u8", Medium::kPicture),
                Wanted::kPicture, {}, kPatience, nullptr);
  const PacketPtr packet = new_packet();
  while (source.read(packet.get()) >= 0) av_packet_unref(packet.get());
  EXPECT_EQ(segments.viewers(), 4) << "a request, a connection";
  EXPECT_EQ(video.viewers(), 0);
}

TEST(Source, ASegmentOfItsOwnHostIsRead) {
  const Server video(answer(transport_stream(2.0, false)), 0.0, Server::Then::kClose);
  const Server playlist(answer("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n" +
                               video.url("http") + "/0.ts\n#EXT-X-ENDLIST\n"),
                        0.0, Server::Then::kClose);
  EXPECT_TRUE(opened(playlist.url("http") + "/live.m3u8").info().has_video);
}

TEST(Source, SilenceIsNotWaitedForLongerThanItsPatience) {
  const Server deaf("", 0.0, Server::Then::kStall);
  const Address address = parse_address(deaf.url(), Medium::kPicture);
  const auto took = time_of([&] {
    EXPECT_THROW(Source(address, Wanted::kPicture, {}, {0.3, 0.3}, nullptr), IngestError);
  });
  EXPECT_GE(took.count(), 290);
  EXPECT_LT(took, std::chrono::milliseconds(300) + kPromptly);

  const Server stalls(transport_stream(3.0, false), 0.0, Server::Then::kStall);
  Source source(parse_address(stalls.url(), Medium::kPicture), Wanted::kPicture, {}, {10.0, 0.3},
                nullptr);
  const PacketPtr packet = new_packet();
  EXPECT_THROW(
      {
        while (source.read(packet.get()) >= 0) av_packet_unref(packet.get());
      },
      IngestError);
}

TEST(Source, ReadingEndsWhereItIsStopped) {
  const Server stalls(transport_stream(3.0, false), 0.0, Server::Then::kStall);
  Source source(parse_address(stalls.url(), Medium::kPicture), Wanted::kPicture, {}, kPatience,
                nullptr);
  int status = 0;
  std::thread reader([&] {
    const PacketPtr packet = new_packet();
    while ((status = source.read(packet.get())) >= 0) av_packet_unref(packet.get());
  });
  std::this_thread::sleep_for(kAWhile);
  EXPECT_LT(time_of([&] {
              source.stop();
              reader.join();
            }),
            kPromptly);
  EXPECT_EQ(status, AVERROR_EXIT);
}

TEST(Source, WhatIsNoMediaFileIsTold) {
  const Folder folder;
  for (const char* text : {"", "plain text\n",
                           "RIFF\xff\xff\xff\xff"
                           "AVI LIST",
                           "#EXTM3U\n/etc/passwd\n", "ffconcat version 1.0\nfile /etc/passwd\n"}) {
    const std::string path = folder.write("file.bin", text);
    EXPECT_THROW(Source source(path), IngestError) << text;
  }
  EXPECT_THROW(Source source(folder.path()), IngestError);
  EXPECT_THROW(Source source(folder.path() + "/none"), IngestError);
}

}  // namespace
}  // namespace refavs
