// Streams made in memory, and a server of them on loopback.
#pragma once

#include <atomic>
#include <string>
#include <thread>

namespace refavs {

constexpr int kStreamWidth = 64, kStreamHeight = 48;

// MPEG-TS: 25 pictures a second, each brighter than the one before, and a tone if wanted.
std::string transport_stream(double seconds, bool sound);

// Serves one viewer at a time, from a thread of its own.
class Server {
 public:
  enum class Then { kStall, kClose };

  // Listens on 127.0.0.1, on any port if `port` is 0. Each viewer gets `bytes` spread over
  // `seconds`, and then nothing more, or the end.
  Server(std::string bytes, double seconds, Then then, int port = 0);
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
  const double seconds_;
  const Then then_;
  int listener_ = -1;
  int port_ = 0;
  int wake_[2] = {-1, -1};  // a pipe
  std::atomic<int> viewers_{0};
  std::atomic<size_t> heard_{0};
  std::thread thread_;
};

// A port where nobody listens.
int free_port();

}  // namespace refavs
