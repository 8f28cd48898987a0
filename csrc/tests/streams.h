// Streams made in memory, and a server of them on loopback.
#pragma once

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "ffmpeg.h"

namespace refavs {

constexpr int kStreamWidth = 64, kStreamHeight = 48;

// MPEG-TS: 25 pictures a second, each brighter than the one before, and a tone if wanted.
std::string transport_stream(double seconds, bool sound);

// A packet of a file: a gray picture of 16 x 16, or 16 kHz mono of `samples` samples.
struct FilePacket {
  int64_t pts = 0;
  int samples = 0;  // 0: a picture
};

// NUT, which holds any time base and times.
std::string nut_file(AVRational time_base, const std::vector<FilePacket>& packets);

// A black PNG picture, whose file is small however large it is.
std::string png_file(int width, int height);

// Serves viewers from threads of its own.
class Server {
 public:
  enum class Then { kStall, kClose };

  // Listens on a host of loopback, on any port if `port` is 0. Each viewer gets `bytes` spread over
  // `seconds`, and then nothing more, or the end.
  Server(std::string bytes, double seconds, Then then, int port = 0,
         const std::string& host = "127.0.0.1");
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const { return port_; }
  std::string url(const std::string& scheme = "tcp") const;
  // Viewers so far.
  int viewers() const { return viewers_; }
  // Bytes that viewers sent, for example requests.
  size_t heard() const { return heard_; }

 private:
  void run();
  void serve(int viewer);
  bool wait(int descriptor, short events, int milliseconds);

  const std::string bytes_;
  const std::string host_;
  const double seconds_;
  const Then then_;
  int listener_ = -1;
  int port_ = 0;
  int wake_[2] = {-1, -1};  // a pipe
  std::atomic<int> viewers_{0};
  std::atomic<size_t> heard_{0};
  std::vector<std::thread> serving_;  // of the thread below
  std::thread thread_;
};

// A port where nobody listens.
int free_port();

}  // namespace refavs
