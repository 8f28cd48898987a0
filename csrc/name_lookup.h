// The lookup of a host's name, which takes as long as no name server answers.
#pragma once

#include <functional>
#include <string>

namespace refavs {

enum class Lookup {
  kAnswered,  // whatever the answer is
  kNoAnswer,  // no name server has given any
  kGivenUp,
};

// Looks up what FFmpeg, which cannot be interrupted while it does so, is going to. Where `is_over`,
// which is asked several times a second, becomes true first, the thread that waits for the answer
// is left behind. Addresses in numbers need no lookup.
Lookup look_up(const std::string& host, const std::function<bool()>& is_over);

}  // namespace refavs
