// Coverage-guided fuzzing of everything native that reads bytes or numbers of a file: libFuzzer with the address and
// undefined-behaviour sanitizers. One harness per .cc beside this file, each a whole program without libtorch:
//
//   json                 core/json.cc: agrees with a second, simpler reader of the grammar (grammar.h); what was read
//                        and written again is read the same
//   safetensors          bytes of a file; the mutator keeps the header's length right, so that most inputs get past it
//   safetensors_header   headers and data made of parts with faults in them: accepted if and only if exact arithmetic
//                        over all pairs of tensors says so
//   conversion           dtype conversion while reading, against the compiler's own float types
//   model_config         sizes of config.json and adapter_config.json: what passes the checks has parameters that lie
//                        side by side and rotary angles that are numbers
//
// scripts/fuzz.sh builds and runs them. What an input may do is throw eepo::Error; anything else is a finding, a failed
// require() included. The inputs worth keeping are in corpus/<harness>/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/error.h"
#include "core/utf8.h"

namespace eepo::fuzz {

/// Ends the process: libFuzzer keeps the input.
inline void require(bool condition, const char* what, std::string_view detail = {}) {
  if (condition) return;
  std::fprintf(stderr, "FINDING: %s %.*s\n", what, static_cast<int>(detail.size()), detail.data());
  std::abort();
}

constexpr const char* kSource = "some/file";

/// An error about a file: of the right class, naming the file, in one line that is text.
inline void require_clear(const Error& error) {
  const std::string_view message = error.what();
  require(error.code() == ErrorCode::InvalidFile, "an error of another class:", message);
  require(message.starts_with(std::string(kSource) + ": "), "an error that does not name the file:", message);
  require(message.size() < 1000, "an error that is no sentence:", message);
  require(find_invalid_utf8(message) == std::string_view::npos, "an error that is not UTF-8:", message);
  for (const char c : message)
    require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, "an error with control characters:", message);
}

inline std::string_view text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace eepo::fuzz
