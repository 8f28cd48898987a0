#include "push_target.h"

#include <algorithm>
#include <cctype>

#include "address.h"
#include "error.h"

namespace refavs {
namespace {

struct Scheme {
  const char* name;
  const char* muxer;
  const char* protocols;
};

constexpr Scheme kSchemes[] = {
    {"rtmp", "flv", "rtmp,tcp"},
    {"rtmps", "flv", "rtmps,rtmp,tcp,tls"},
    {"rtsp", "rtsp", "rtsp,rtp,udp,tcp"},
    {"rtsps", "rtsp", "rtsp,rtsps,rtp,srtp,udp,tcp,tls"},
    {"srt", "mpegts", "srt"},
    {"udp", "mpegts", "udp"},
    {"tcp", "mpegts", "tcp"},
};

std::string shown(const std::string& typed, const Scheme& scheme) {
  std::string text = without_secrets_whole(typed);
  const size_t query = text.find_first_of("?#");
  const bool asks = query != std::string::npos;
  if (asks) text.resize(query);
  if (scheme.muxer == std::string("flv")) {
    // Behind the application stands the key.
    const size_t application = text.find('/', text.find("://") + 3);
    const size_t key =
        application == std::string::npos ? application : text.find('/', application + 1);
    if (key != std::string::npos) text.replace(key + 1, std::string::npos, "***");
  }
  return asks ? text + "?***" : text;
}

}  // namespace

PushTarget parse_push(const std::string& typed) {
  const size_t end = typed.find("://");
  std::string name = typed.substr(0, end == std::string::npos ? 0 : end);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const Scheme* scheme = std::find_if(std::begin(kSchemes), std::end(kSchemes),
                                      [&](const Scheme& known) { return name == known.name; });
  if (scheme == std::end(kSchemes) || typed.find('\0') != std::string::npos)
    // What follows is not shown: in an address that is not known anything may be a key.
    throw SinkError("the overlay cannot be pushed to '" +
                    typed.substr(0, std::min(typed.find_first_of("/?#@"), typed.size())) +
                    "': name rtmp://, rtmps://, rtsp://, rtsps://, srt://, udp:// or tcp://");
  PushTarget target{typed, scheme->muxer, scheme->protocols, shown(typed, *scheme)};
  if (typed.size() == end + 3 || typed[end + 3] == '/')
    throw SinkError(target.shown + ": names no host; write it as " + name + "://HOST:PORT/PATH");
  return target;
}

}  // namespace refavs
