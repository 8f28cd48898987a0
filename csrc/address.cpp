#include "address.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>

#include "error.h"

namespace refavs {
namespace {

// Containers that a stream of the network may come in. None of them opens further addresses but
// HLS, whose parts are looked at by may_open_part.
constexpr const char* kNetworkFormats =
    "hls,mpegts,mov,mp4,flv,live_flv,matroska,webm,mpjpeg,mjpeg,jpeg_pipe,ogg,wav,mp3,aac,flac,"
    "h264,hevc,avi,asf,mpeg,nut,ac3,rtsp,rtp,sdp";

// How a scheme of the network is opened.
struct Scheme {
  const char* name;
  const char* demuxer;
  const char* protocols;
};

constexpr Scheme kSchemes[] = {
    {"rtsp", "rtsp", "rtsp,rtp,srtp,udp,tcp"},
    {"rtsps", "rtsp", "rtsp,rtsps,rtp,srtp,udp,tcp,tls"},
    {"rtmp", "", "rtmp,tcp"},
    {"rtmps", "", "rtmps,rtmp,tcp,tls"},
    {"srt", "", "srt"},
    {"udp", "", "udp"},
    {"tcp", "", "tcp"},
    {"http", "", "http,https,tcp,tls,crypto"},
    {"https", "", "http,https,tcp,tls,crypto"},
};

// Keys of a query whose values are nobody's business.
constexpr const char* kSecretKeys[] = {"password", "passwd", "pass",       "pwd",  "token", "key",
                                       "secret",   "auth",   "passphrase", "user", "sig"};

// Parts of the names of properties, likewise.
constexpr const char* kSecretProperties[] = {"passw",      "passphrase", "pwd",     "-pw",
                                             "secret",     "token",      "user-id", "proxy-id",
                                             "access-key", "auth"};

bool starts_with(const std::string& text, const std::string& beginning) {
  return text.compare(0, beginning.size(), beginning) == 0;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

bool is_number(const std::string& text) {
  return !text.empty() && text.size() <= 4 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); });
}

// "scheme" of "scheme://...", in lower case; empty where the text is none.
std::string scheme_of(const std::string& text) {
  const size_t end = text.find("://");
  if (end == std::string::npos || end == 0) return "";
  const std::string scheme = lower(text.substr(0, end));
  const bool valid = std::all_of(scheme.begin(), scheme.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '+' || c == '-' || c == '.';
  });
  return valid && std::isalpha(static_cast<unsigned char>(scheme[0])) ? scheme : "";
}

// Loopback, private, link-local, shared and the like: whatever is not out in the world.
bool is_local(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const uint32_t ip = ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr);
    const auto in = [&](uint32_t net, int bits) {
      return (ip >> (32 - bits)) == (net >> (32 - bits));
    };
    return in(0x00000000, 8) || in(0x0a000000, 8) || in(0x64400000, 10) || in(0x7f000000, 8) ||
           in(0xa9fe0000, 16) || in(0xac100000, 12) || in(0xc0000000, 24) || in(0xc0a80000, 16) ||
           in(0xc6120000, 15) || ip >= 0xe0000000;
  }
  if (address.sa_family != AF_INET6) return true;
  const in6_addr& ip = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  // Mapped addresses, NAT64 and 6to4 lead to the IPv4 address within.
  constexpr uint8_t kNat64[12] = {0, 0x64, 0xff, 0x9b};
  const bool is_6to4 = ip.s6_addr[0] == 0x20 && ip.s6_addr[1] == 0x02;
  if (IN6_IS_ADDR_V4MAPPED(&ip) || std::memcmp(ip.s6_addr, kNat64, 12) == 0 || is_6to4) {
    sockaddr_in within = {};
    within.sin_family = AF_INET;
    std::memcpy(&within.sin_addr, &ip.s6_addr[is_6to4 ? 2 : 12], 4);
    return is_local(reinterpret_cast<const sockaddr&>(within));
  }
  return IN6_IS_ADDR_LOOPBACK(&ip) || IN6_IS_ADDR_UNSPECIFIED(&ip) || IN6_IS_ADDR_LINKLOCAL(&ip) ||
         IN6_IS_ADDR_SITELOCAL(&ip) || IN6_IS_ADDR_V4COMPAT(&ip) || IN6_IS_ADDR_MULTICAST(&ip) ||
         (ip.s6_addr[0] & 0xfe) == 0xfc;
}

bool resolves_to_local(const std::string& host) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return true;
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> list(found, &freeaddrinfo);
  for (const addrinfo* one = found; one; one = one->ai_next)
    if (is_local(*one->ai_addr)) return true;
  return false;
}

Address camera(const std::string& device) {
  Address address;
  address.kind = AddressKind::kDevice;
  address.url = device;
  address.demuxer = "video4linux2,v4l2";
  address.shown = device;
  return address;
}

Address microphone(const std::string& demuxer, const std::string& name) {
  Address address;
  address.kind = AddressKind::kDevice;
  address.demuxer = demuxer;
  address.url = name.empty() ? "default" : name;
  address.shown = demuxer + ":" + address.url;
  if (demuxer == "pulse") {
    // Pieces of 20 ms: left to itself the server collects as much as two seconds.
    address.options = {{"sample_rate", "48000"}, {"channels", "1"}, {"fragment_size", "1920"}};
  }
  return address;
}

// "?size=640x360&rate=15" into options of the screen grabber.
void read_screen_options(const std::string& query, Address* address) {
  for (size_t begin = 0; begin < query.size();) {
    const size_t end = std::min(query.find('&', begin), query.size());
    const std::string item = query.substr(begin, end - begin);
    const size_t equals = item.find('=');
    const std::string key = item.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : item.substr(equals + 1);
    if (key == "size") {
      address->options.emplace_back("video_size", value);
    } else if (key == "rate") {
      address->options.emplace_back("framerate", value);
    } else if (key == "cursor") {
      address->options.emplace_back("draw_mouse", value);
    } else {
      throw IngestError(address->shown + ": '" + without_secrets(key) +
                        "' is no option of a screen; give size=WxH, " +
                        "rate=N or cursor=0, as in screen::0.0+100,50?size=640x360&rate=15");
    }
    begin = end + 1;
  }
}

Address screen(const std::string& typed) {
  Address address;
  address.kind = AddressKind::kDevice;
  address.demuxer = "x11grab";
  address.shown = without_secrets(typed);
  std::string rest = typed.substr(std::strlen("screen:"));
  const size_t question = rest.find('?');
  if (question != std::string::npos) {
    read_screen_options(rest.substr(question + 1), &address);
    rest = rest.substr(0, question);
  }
  if (rest.empty()) {
    const char* display = std::getenv("DISPLAY");
    if (!display || !*display)
      throw IngestError(address.shown + ": there is no DISPLAY; name the screen, as in screen::0");
    rest = display;
  }
  address.url = rest;
  return address;
}

Address network(const std::string& typed, const Scheme& scheme) {
  Address address;
  address.kind = AddressKind::kNetwork;
  address.url = typed;
  address.demuxer = scheme.demuxer;
  address.protocols = scheme.protocols;
  address.shown = without_secrets_whole(typed);
  address.options = {{"format_whitelist", kNetworkFormats}};
  if (host_of(typed).empty() && scheme.name != std::string("udp"))
    throw IngestError(address.shown + ": names no host; write it as " + scheme.name +
                      "://HOST:PORT/PATH");
  return address;
}

// "user-pw=x", "user-pw = \"x y\"" and the like without x.
std::string without_secret_properties(std::string text) {
  const auto blank = [&](size_t i) { return std::isspace(static_cast<unsigned char>(text[i])); };
  const auto named = [&](size_t i) {
    return std::isalnum(static_cast<unsigned char>(text[i])) || text[i] == '-' || text[i] == '_';
  };
  for (size_t equals = text.find('='); equals != std::string::npos;
       equals = text.find('=', equals + 1)) {
    size_t end = equals;
    while (end > 0 && blank(end - 1)) --end;
    size_t begin = end;
    while (begin > 0 && named(begin - 1)) --begin;
    const std::string key = lower(text.substr(begin, end - begin));
    if (std::none_of(std::begin(kSecretProperties), std::end(kSecretProperties),
                     [&](const char* part) { return key.find(part) != std::string::npos; }))
      continue;
    size_t value = equals + 1;
    while (value < text.size() && blank(value)) ++value;
    if (text.compare(value, 3, "***") == 0) continue;  // of a URL
    size_t after = value;
    if (after < text.size() && (text[after] == '"' || text[after] == '\'')) {
      const char quote = text[after++];
      while (after < text.size() && text[after] != quote) after += text[after] == '\\' ? 2 : 1;
      after = std::min(after + 1, text.size());
    } else {
      while (after < text.size() && !blank(after)) after += text[after] == '\\' ? 2 : 1;
      after = std::min(after, text.size());
    }
    text.replace(value, after - value, "***");
  }
  return text;
}

std::string known_schemes() {
  std::string names;
  for (const Scheme& scheme : kSchemes) names += std::string(scheme.name) + "://, ";
  return names + "screen:, lavfi:, gst:, a device or a file";
}

// `ends`: what a URL ends at, besides the end of the text.
std::string hidden(const std::string& text, const std::string& ends) {
  std::string shown;
  size_t at = 0;
  for (;;) {
    const size_t begin = text.find("://", at);
    if (begin == std::string::npos) break;
    const size_t authority = begin + 3;
    // A password may hold anything, escaped or not, so all is hidden up to the last @ before what
    // ends the URL.
    const size_t end = std::min(text.find_first_of(ends, authority), text.size());
    const size_t user_end = text.substr(0, end).rfind('@');
    shown += text.substr(at, authority - at);
    at = authority;
    if (user_end == std::string::npos || user_end < authority) continue;
    shown += "***";
    at = user_end;
  }
  shown += text.substr(at);

  for (size_t mark = shown.find_first_of("?&#"); mark != std::string::npos;
       mark = shown.find_first_of("?&#", mark + 1)) {
    const size_t equals = shown.find('=', mark);
    if (equals == std::string::npos) break;
    const std::string key = lower(shown.substr(mark + 1, equals - mark - 1));
    const bool secret =
        std::any_of(std::begin(kSecretKeys), std::end(kSecretKeys),
                    [&](const char* name) { return key.find(name) != std::string::npos; });
    if (!secret) continue;
    const size_t end = std::min(shown.find_first_of("&#" + ends, equals), shown.size());
    shown.replace(equals + 1, end - equals - 1, "***");
  }
  return without_secret_properties(shown);
}

}  // namespace

Address parse_address(const std::string& typed, Medium medium) {
  if (typed.empty()) throw IngestError("the address of a source is empty; name " + known_schemes());
  if (typed.find('\0') != std::string::npos)
    throw IngestError("the address of a source holds a zero byte; check it");
  if (medium == Medium::kPicture) {
    if (is_number(typed)) return camera("/dev/video" + typed);
    if (typed == "default") return camera("/dev/video0");
  } else {
    if (is_number(typed)) return microphone("alsa", "hw:" + typed);
    if (typed == "default") return microphone("pulse", "");
  }
  if (starts_with(typed, "/dev/video")) return camera(typed);
  if (starts_with(typed, "pulse:")) return microphone("pulse", typed.substr(6));
  if (starts_with(typed, "alsa:")) return microphone("alsa", typed.substr(5));
  if (starts_with(typed, "screen:")) return screen(typed);
  Address address;
  if (starts_with(typed, "lavfi:")) {
    address.kind = AddressKind::kGenerated;
    address.url = typed.substr(6);
    address.demuxer = "lavfi";
    address.shown = typed;
    return address;
  }
  if (starts_with(typed, "gst:")) {
    address.kind = AddressKind::kPipeline;
    address.url = typed.substr(4);
    address.shown = without_secrets(typed);
    if (address.url.find_first_not_of(" \t\n") == std::string::npos)
      throw IngestError("gst: names no pipeline; write it as for gst-launch-1.0, as in " +
                        std::string("\"gst:v4l2src device=/dev/video0\""));
    return address;
  }
  const std::string scheme = scheme_of(typed);
  for (const Scheme& known : kSchemes)
    if (scheme == known.name) return network(typed, known);
  std::error_code error;
  if (!scheme.empty() && !std::filesystem::exists(typed, error))
    throw IngestError(without_secrets_whole(typed) + ": " + scheme +
                      ":// is not known here; name " + known_schemes());
  return file_address(typed);
}

Address file_address(const std::string& path) {
  Address address;
  address.url = "file:" + path;  // the prefix keeps "a:b.mp4" from being read as a protocol
  address.protocols = "file";
  address.shown = path;
  return address;
}

std::string host_of(const std::string& url) {
  const size_t begin = url.find("://");
  if (begin == std::string::npos) return "";
  std::string authority = url.substr(begin + 3);
  authority = authority.substr(0, authority.find_first_of("/?#"));
  const size_t at = authority.rfind('@');
  if (at != std::string::npos) authority = authority.substr(at + 1);
  const size_t bracket = authority.find(']');
  if (authority[0] == '[' && bracket != std::string::npos)
    return lower(authority.substr(1, bracket - 1));
  return lower(authority.substr(0, authority.find(':')));
}

std::string without_secrets(const std::string& text) { return hidden(text, " \"'"); }

std::string without_secrets_whole(const std::string& address) { return hidden(address, ""); }

bool may_open_part(const Address& address, const std::string& url) {
  if (address.kind != AddressKind::kNetwork || url == address.url) return true;
  // An encrypted part is a protocol upon another: "crypto+http://...", "crypto:http://...".
  size_t begin = 0;
  while (url.compare(begin, 7, "crypto+") == 0 || url.compare(begin, 7, "crypto:") == 0) begin += 7;
  const std::string part = url.substr(begin);
  // FFmpeg reads "http:HOST/..." and "http:/HOST/..." too, where the first :// is no host's.
  if (scheme_of(part).empty()) return false;
  const std::string host = host_of(part);
  return !host.empty() && (host == host_of(address.url) || !resolves_to_local(host));
}

}  // namespace refavs
