// UTF-8 (RFC 3629) of strangers: decoded strictly, and made fit for an error message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace eepo {

struct CodePoint {
  uint32_t value = 0;
  size_t bytes = 0;  // 0: these bytes are no character
};

/// The character at text[at], where at < text.size(). Overlong forms, surrogates and what lies beyond U+10FFFF are
/// none.
CodePoint decode_utf8(std::string_view text, size_t at);

/// Appends a character of 1 to 4 bytes; `code` is at most U+10FFFF.
void append_utf8(std::string& out, uint32_t code);

/// Where the first bytes are that are no character; npos where all are.
size_t find_invalid_utf8(std::string_view text);

/// A name out of a file, as an error message may show it: characters that could steer a terminal or reorder a line are
/// written as U+XXXX, bytes that are no character as \xXX, and of a long one only the first 120 bytes are kept.
std::string printable(std::string_view text);

}  // namespace eepo
