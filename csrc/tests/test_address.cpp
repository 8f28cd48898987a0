#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "address.h"
#include "error.h"
#include "names.h"

namespace refavs {
namespace {

Address picture(const std::string& typed) { return parse_address(typed, Medium::kPicture); }
Address sound(const std::string& typed) { return parse_address(typed, Medium::kSound); }

std::string option(const Address& address, const std::string& name) {
  for (const auto& [key, value] : address.options)
    if (key == name) return value;
  return "";
}

TEST(Address, ANumberIsACameraOrASoundCard) {
  EXPECT_EQ(picture("0").url, "/dev/video0");
  EXPECT_EQ(picture("12").demuxer, "video4linux2,v4l2");
  EXPECT_EQ(picture("default").url, "/dev/video0");
  EXPECT_EQ(sound("1").url, "hw:1");
  EXPECT_EQ(sound("1").demuxer, "alsa");
  EXPECT_EQ(sound("default").demuxer, "pulse");
  EXPECT_EQ(picture("12345").kind, AddressKind::kFile) << "too long for the number of a camera";
}

TEST(Address, DevicesAreNamed) {
  EXPECT_EQ(sound("pulse:mine.monitor").url, "mine.monitor");
  EXPECT_EQ(sound("pulse:").url, "default");
  EXPECT_EQ(sound("alsa:plughw:1,0").url, "plughw:1,0");
  EXPECT_EQ(picture("/dev/video7").kind, AddressKind::kDevice);
}

TEST(Address, AScreenHasAPlaceAndOptions) {
  const Address screen = picture("screen::0.0+100,50?size=640x360&rate=15&cursor=0");
  EXPECT_EQ(screen.demuxer, "x11grab");
  EXPECT_EQ(screen.url, ":0.0+100,50");
  EXPECT_EQ(option(screen, "video_size"), "640x360");
  EXPECT_EQ(option(screen, "framerate"), "15");
  EXPECT_EQ(option(screen, "draw_mouse"), "0");
  EXPECT_THROW(picture("screen::0?colour=1"), IngestError);
  const char* display = std::getenv("DISPLAY");
  const std::string before = display ? display : "";
  setenv("DISPLAY", ":77", 1);
  EXPECT_EQ(picture("screen:").url, ":77");
  unsetenv("DISPLAY");
  EXPECT_THROW(picture("screen:"), IngestError);
  if (display) setenv("DISPLAY", before.c_str(), 1);
}

TEST(Address, AStreamMayUseItsOwnProtocols) {
  for (const char* scheme : {"rtsp", "rtsps", "rtmp", "srt", "udp", "tcp", "http", "https"}) {
    const Address address = picture(std::string(scheme) + "://192.0.2.1:99/live");
    EXPECT_EQ(address.kind, AddressKind::kNetwork);
    const std::string listed = "," + address.protocols + ",";
    EXPECT_NE(listed.find("," + std::string(scheme) + ","), std::string::npos) << scheme;
    EXPECT_EQ(listed.find(",file,"), std::string::npos) << scheme;
    EXPECT_NE(option(address, "format_whitelist"), "");
  }
  EXPECT_EQ(picture("RTSP://192.0.2.1/live").demuxer, "rtsp");
  EXPECT_THROW(picture("http:///live"), IngestError);
  EXPECT_THROW(picture("rtsp://user:word@/live"), IngestError);
  EXPECT_NO_THROW(picture("udp://:1234"));
  EXPECT_THROW(picture("gopher://192.0.2.1/"), IngestError);
}

TEST(Address, WhatIsLeftIsAFile) {
  for (const char* name : {"a.mp4", "dir/a b.mkv", "a:b.mp4", "pulse.mp4", "-1", "://x"}) {
    EXPECT_EQ(picture(name).kind, AddressKind::kFile) << name;
    EXPECT_EQ(picture(name).url, "file:" + std::string(name));
    EXPECT_EQ(picture(name).protocols, "file");
  }
  EXPECT_EQ(file_address("http://x/").url, "file:http://x/");
  EXPECT_EQ(picture("lavfi:testsrc").url, "testsrc");
}

TEST(Address, NothingAndAZeroByteAreRefused) {
  EXPECT_THROW(picture(""), IngestError);
  EXPECT_THROW(picture(std::string("a\0b", 3)), IngestError);
}

// Secrets

TEST(Address, UsersPasswordsAndKeysAreNotShown) {
  const struct {
    const char *text, *shown;
  } cases[] = {
      {"rtsp://admin:hunter2@h/live", "rtsp://***@h/live"},
      {"rtsp://hunter2@h/live", "rtsp://***@h/live"},
      {"rtsp://admin:hun/ter2@h/live", "rtsp://***@h/live"},
      {"rtsp://admin:hun@ter2@h:554/live", "rtsp://***@h:554/live"},
      {"rtsp://admin:hun?ter2@h/live", "rtsp://***@h/live"},
      {"rtsp://admin:hun#ter2@h/live", "rtsp://***@h/live"},
      {"rtsp://admin:hunter2@h", "rtsp://***@h"},
      {"two: http://a:hunter2@h/ and http://b:hunter2@i/", "two: http://***@h/ and http://***@i/"},
      {"http://h/?token=hunter2&x=1", "http://h/?token=***&x=1"},
      {"http://h/?x=1&Api_Key=hunter2#t", "http://h/?x=1&Api_Key=***#t"},
      {"http://h/#access_token=hunter2", "http://h/#access_token=***"},
      {"srt://h?passphrase=hunter2", "srt://h?passphrase=***"},
      {"http://h/?a&X-Amz-Signature=hunter2", "http://h/?a&X-Amz-Signature=***"},
      {"http://h:80/live?x=1", "http://h:80/live?x=1"},
      {"a plain sentence", "a plain sentence"},
      {"", ""},
  };
  for (const auto& [text, shown] : cases) EXPECT_EQ(without_secrets(text), shown);
}

TEST(Address, WhatEndsAUrlInASentenceEndsNoneThatWasTyped) {
  for (const std::string password : {"it's", "a b", "say \"x\""}) {
    const std::string typed = "rtsp://admin:" + password + "@h:554/live";
    EXPECT_EQ(picture(typed).shown, "rtsp://***@h:554/live");
    EXPECT_EQ(without_secrets_whole("http://h/?token=" + password + "&x=1"),
              "http://h/?token=***&x=1");
  }
}

// Whatever the parts are, the password is in none of what is shown, and the host is in it.
TEST(Address, NoPasswordIsShownWhateverItIsMadeOf) {
  std::mt19937 random(11);
  const std::string letters = "abz019.-_~!$&'()*+,;=:%/@?#[]";
  for (int i = 0; i < 20000; ++i) {
    std::string filler;
    for (size_t n = random() % 6; n > 0; --n) filler += letters[random() % letters.size()];
    std::string rest = random() % 2 ? "/live" : "";
    if (random() % 2) rest += "?size=4";
    const std::string password = "QQQ" + filler + "QQQ";
    const std::string url = "rtsp://user:" + password + "@host.example:554" + rest;
    EXPECT_EQ(without_secrets_whole(url).find("QQQ"), std::string::npos) << url;
    if (filler.find('\'') != std::string::npos) continue;  // ends a URL in a message
    const std::string shown = without_secrets("cannot open '" + url + "'");
    EXPECT_EQ(shown.find("QQQ"), std::string::npos) << url << " is shown as " << shown;
    EXPECT_NE(shown.find("host.example:554"), std::string::npos) << url;
    EXPECT_EQ(without_secrets(shown), shown);
  }
}

// Parts of a stream

struct Part {
  const char* url;
  bool allowed;
};

TEST(Address, PartsOfAStreamReachNoLocalHost) {
  const Address address = picture("http://93.184.216.34/live.m3u8");
  const Part parts[] = {
      {"http://93.184.216.34/0.ts", true},
      {"https://1.1.1.1/0.ts", true},
      {"http://1.1.1.1:8080/0.ts?from=http://1.0.0.1/", true},
      {"http://user:word@1.1.1.1/0.ts", true},
      {"crypto+http://1.1.1.1/0.ts", true},
      {"crypto:http://1.1.1.1/0.ts", true},
      {"http://[2606:4700:4700::1111]/0.ts", true},
      // IPv4
      {"http://127.0.0.1/", false},
      {"http://127.1/", false},
      {"http://2130706433/", false},
      {"http://0x7f000001/", false},
      {"http://0177.0.0.1/", false},
      {"http://0/", false},
      {"http://10.1.2.3/", false},
      {"http://100.64.0.1/", false},
      {"http://169.254.169.254/latest/meta-data", false},
      {"http://172.16.0.1/", false},
      {"http://172.31.255.255/", false},
      {"http://172.32.0.1/", true},
      {"http://192.168.1.1/", false},
      {"http://198.18.0.1/", false},
      {"http://192.0.0.1/", false},
      {"http://224.0.0.1/", false},
      {"http://255.255.255.255/", false},
      // IPv6
      {"http://[::1]/", false},
      {"http://[::]/", false},
      {"http://[fe80::1]/", false},
      {"http://[fec0::1]/", false},
      {"http://[fd00::1]/", false},
      {"http://[ff02::1]/", false},
      {"http://[::ffff:127.0.0.1]/", false},
      {"http://[::ffff:7f00:1]/", false},
      {"http://[::ffff:1.1.1.1]/", true},
      {"http://[::127.0.0.1]/", false},
      {"http://[64:ff9b::10.0.0.1]/", false},
      {"http://[64:ff9b::1.1.1.1]/", true},
      {"http://[2002:7f00:1::]/", false},
      // Another host than it looks like
      {"http://1.1.1.1@127.0.0.1/", false},
      {"http://1.1.1.1:80@127.0.0.1:80/", false},
      {"http://127.0.0.1/?from=http://1.1.1.1/", false},
      {"http://127.0.0.1#http://1.1.1.1/", false},
      {"http:127.0.0.1/?from=http://1.1.1.1/", false},
      {"http:/127.0.0.1/?from=http://1.1.1.1/", false},
      {"http:127.0.0.1://1.1.1.1/", false},
      {"crypto:http:127.0.0.1/://1.1.1.1/", false},
      {"crypto+http://127.0.0.1/", false},
      {"crypto:http://127.0.0.1/", false},
      {"crypto+crypto+http://127.0.0.1/", false},
      {"tcp://127.0.0.1:22", false},
      {"http://[127.0.0.1/", false},
      {"http://127.0.0.1\\@1.1.1.1/", true},  // the user 127.0.0.1\ to FFmpeg too
      // No host
      {"http:///0.ts", false},
      {"http://:80/0.ts", false},
      {"http://user@/0.ts", false},
      {"file:///etc/passwd", false},
      {"/etc/passwd", false},
      {"data:text/plain,x", false},
      {"", false},
      {"://", false},
  };
  for (const Part& part : parts)
    EXPECT_EQ(may_open_part(address, part.url), part.allowed) << part.url;
}

TEST(Address, NamesAreLookedUp) {
  const Address address = picture("http://93.184.216.34/live.m3u8");
  name_host("world.example", {"1.1.1.1", "2606:4700:4700::1111"});
  name_host("inside.example", {"192.168.7.7"});
  name_host("both.example", {"1.1.1.1", "::1"});
  EXPECT_TRUE(may_open_part(address, "http://world.example/0.ts"));
  EXPECT_TRUE(may_open_part(address, "http://WORLD.example:8080/0.ts"));
  EXPECT_FALSE(may_open_part(address, "http://inside.example/0.ts"));
  EXPECT_FALSE(may_open_part(address, "http://both.example/0.ts"));
  EXPECT_FALSE(may_open_part(address, "http://unknown.example/0.ts"));
}

TEST(Address, AStreamsOwnHostIsItsOwn) {
  const Address camera = picture("http://192.168.1.5:8080/live.m3u8");
  EXPECT_TRUE(may_open_part(camera, "http://192.168.1.5/0.ts"));
  EXPECT_FALSE(may_open_part(camera, "http://192.168.1.6/0.ts"));
  const Address six = picture("http://[fd00::5]/live.m3u8");
  EXPECT_TRUE(may_open_part(six, "http://[FD00::5]:81/0.ts"));
  // What was typed may be opened, also where it names no host.
  for (const char* typed : {"udp://:1234", "udp://@239.0.0.1:1234", "tcp://localhost:9"})
    EXPECT_TRUE(may_open_part(picture(typed), typed)) << typed;
}

TEST(Address, AFileMayHavePartsAnywhereThatItsProtocolsReach) {
  EXPECT_TRUE(may_open_part(file_address("a.m3u8"), "file:b.ts"));
}

}  // namespace
}  // namespace refavs
