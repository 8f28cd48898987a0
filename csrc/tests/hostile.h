// What must hold whatever comes from outside: said once, for the fuzzers and for what they found.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace refavs {

// A file is read to its end, or as far as 32 frames, and its sound is copied: it gives frames in
// order and packets in order, or one error. Aborts the program where something else comes, or
// nothing within `patience`. Returns the number of frames.
int read_hostile_file(const uint8_t* data, size_t size, std::chrono::milliseconds patience);

// Decoded sound with times, lengths and formats of any kind, as a file's and as a live source's.
// Aborts the program where the samples are not those that were counted, or a window is none.
void read_hostile_sound(const uint8_t* data, size_t size);

// A text, taken for an address, for a message, and for a part of a stream. Aborts the program where
// it throws something else than IngestError, shows a password, or opens a host of the local
// network.
void read_hostile_address(const std::string& text);

}  // namespace refavs
