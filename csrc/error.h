// The two errors of this library. Their text is one line that names the file and the mend.
#pragma once

#include <stdexcept>

namespace refavs {

// A source cannot be read.
class IngestError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// An output cannot be written.
class SinkError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace refavs
