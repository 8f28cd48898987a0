// What a user types for a source, and what may be opened for it.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace refavs {

enum class AddressKind {
  kFile,
  kDevice,     // a camera, a microphone, a screen
  kNetwork,    // a stream behind a URL
  kGenerated,  // lavfi: FFmpeg's own test sources
  kPipeline,   // of GStreamer
};

// What the address was typed for: a number is a camera for pictures and a sound card for sound.
enum class Medium { kPicture, kSound };

struct Address {
  AddressKind kind = AddressKind::kFile;
  std::string url;        // what is opened
  std::string demuxer;    // FFmpeg's name for it; empty: FFmpeg finds out
  std::string protocols;  // those that FFmpeg may use, separated by commas
  std::vector<std::pair<std::string, std::string>> options;  // of the demuxer
  std::string shown;  // for messages: without users, passwords and keys
};

// Reads an address:
//
//   0, /dev/video0                     a V4L2 camera, or for sound an ALSA card
//   default, pulse:NAME, alsa:NAME     a microphone
//   screen::0.0+100,50?size=640x360    an X11 screen, or a part of it (rate= too)
//   rtsp: rtmp: srt: udp: tcp: http:   a stream
//   lavfi:GRAPH                        FFmpeg's test sources
//   gst:PIPELINE                       what gst-launch-1.0 takes, see GstPipeline
//   anything else                      a file
//
// Throws IngestError for what is none of them.
Address parse_address(const std::string& typed, Medium medium);

// A file, whatever its name looks like.
Address file_address(const std::string& path);

// The host of "scheme://user:password@host:port/...", in lower case, without the brackets of IPv6;
// empty where there is none.
std::string host_of(const std::string& url);

// The text with users, passwords and keys replaced by ***: those of URLs in it, and those that are
// properties of GStreamer's elements (user-pw=...).
std::string without_secrets(const std::string& text);

// The same of a text that is one address as a whole, whatever its password holds: a blank or a
// quotation mark, which end a URL in a sentence, end none here.
std::string without_secrets_whole(const std::string& address);

// Whether a stream that was opened at `address` may open `url` for a part of itself (a segment of a
// playlist). A stream of the network reaches no host of the local network but its own.
bool may_open_part(const Address& address, const std::string& url);

}  // namespace refavs
