// What csrc's own look-ups of host names find in the tests: no name server is asked.
#pragma once

#include <string>
#include <vector>

namespace refavs {

// From now on `name` has these numeric addresses. Names not told are not found.
void name_host(const std::string& name, const std::vector<std::string>& addresses);

}  // namespace refavs
