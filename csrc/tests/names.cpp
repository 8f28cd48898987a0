#include "names.h"

#include <netdb.h>

#include <map>

namespace refavs {
namespace {

std::map<std::string, std::vector<std::string>>& names() {
  static std::map<std::string, std::vector<std::string>> table;
  return table;
}

}  // namespace

void name_host(const std::string& name, const std::vector<std::string>& addresses) {
  names()[name] = addresses;
}

}  // namespace refavs

// The linker's --wrap=getaddrinfo puts the first in the place of the second.
extern "C" {
int __real_getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                       addrinfo** found);

int __wrap_getaddrinfo(const char* node, const char* service, const addrinfo* hints,
                       addrinfo** found) {
  addrinfo numeric = hints ? *hints : addrinfo{};
  numeric.ai_flags |= AI_NUMERICHOST;
  const auto named = refavs::names().find(node ? node : "");
  if (named == refavs::names().end()) return __real_getaddrinfo(node, service, &numeric, found);
  *found = nullptr;
  for (auto address = named->second.rbegin(); address != named->second.rend(); ++address) {
    addrinfo* first = nullptr;
    const int status = __real_getaddrinfo(address->c_str(), service, &numeric, &first);
    if (status != 0) return status;
    addrinfo* last = first;
    while (last->ai_next) last = last->ai_next;
    last->ai_next = *found;
    *found = first;
  }
  return 0;
}
}
