#include "name_lookup.h"

#include <netdb.h>
#include <sys/socket.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

namespace refavs {
namespace {

constexpr auto kSlice = std::chrono::milliseconds(20);

struct Answer {
  std::mutex mutex;  // status
  std::condition_variable woken;
  std::optional<int> status;
};

int resolve(const std::string& host, int flags) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const int status = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (found) freeaddrinfo(found);
  return status;
}

}  // namespace

Lookup look_up(const std::string& host, const std::function<bool()>& is_over) {
  if (host.empty() || resolve(host, AI_NUMERICHOST) == 0) return Lookup::kAnswered;
  const auto answer = std::make_shared<Answer>();
  std::thread([answer, host] {
    const int status = resolve(host, 0);
    std::lock_guard<std::mutex> lock(answer->mutex);
    answer->status = status;
    answer->woken.notify_all();
  }).detach();
  std::unique_lock<std::mutex> lock(answer->mutex);
  while (!answer->woken.wait_for(lock, kSlice, [&] { return answer->status.has_value(); }))
    if (is_over()) return Lookup::kGivenUp;
  return *answer->status == EAI_AGAIN ? Lookup::kNoAnswer : Lookup::kAnswered;
}

}  // namespace refavs
