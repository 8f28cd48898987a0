// Where an overlay is pushed to.
#pragma once

#include <string>

namespace refavs {

struct PushTarget {
  std::string url;
  std::string muxer;      // FFmpeg's name
  std::string protocols;  // those that FFmpeg may use, separated by commas
  std::string shown;      // for messages: without user, password, query and the key of an RTMP path
};

// Reads rtmp:// rtmps:// (FLV), rtsp:// rtsps:// (over TCP), srt:// udp:// tcp:// (MPEG-TS). Throws
// SinkError for anything else.
PushTarget parse_push(const std::string& typed);

}  // namespace refavs
