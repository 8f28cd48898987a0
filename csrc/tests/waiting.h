// Waiting in tests: always for an event, never for ever.
#pragma once

#include <chrono>
#include <thread>

namespace refavs {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// What csrc promises to end in, and what a sanitizer may make of it.
constexpr auto kPromptly = std::chrono::milliseconds(kSanitized ? 5000 : 1000);
// Whatever comes at all comes within this time, on a slow machine that does other work.
constexpr auto kAtLast = std::chrono::seconds(30);
// What does not happen is not seen for this long.
constexpr auto kAWhile = std::chrono::milliseconds(60);

// Whether `happened()` becomes true within `patience`.
template <typename Happened>
bool eventually(Happened happened, std::chrono::milliseconds patience = kAtLast) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (!happened()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

template <typename Action>
std::chrono::milliseconds time_of(Action action) {
  const auto began = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                               began);
}

}  // namespace refavs
