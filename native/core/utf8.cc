#include "core/utf8.h"

#include <algorithm>
#include <cstdio>

namespace eepo {
namespace {

constexpr size_t kLongestShown = 120;

bool steers(uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) ||       // C0, DEL, C1
         code == 0x200e || code == 0x200f || code == 0x61c ||  // marks of direction
         (code >= 0x2028 && code <= 0x202e) ||                 // separators of lines, embeddings, overrides
         (code >= 0x2066 && code <= 0x2069);                   // isolates
}

void append_format(std::string& out, const char* format, uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, format, value);
  out += text;
}

}  // namespace

CodePoint decode_utf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  const size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() - at < bytes) return {};
  uint32_t code = first & (0x7fu >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3fu);
  }
  const bool overlong = (bytes == 3 && code < 0x800) || (bytes == 4 && code < 0x10000);
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return overlong || surrogate || code > 0x10ffff ? CodePoint{} : CodePoint{code, bytes};
}

void append_utf8(std::string& out, uint32_t code) {
  const auto tail = [&](unsigned shift) { out += static_cast<char>(0x80 | (code >> shift & 0x3f)); };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | code >> 12);
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xf0 | code >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

size_t find_invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = decode_utf8(text, at).bytes;
    if (bytes == 0) return at;
    at += bytes;
  }
  return std::string_view::npos;
}

std::string printable(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto [code, bytes] = decode_utf8(text, at);
    const size_t taken = std::max<size_t>(bytes, 1);
    if (at + taken > kLongestShown) {
      out += "... (" + std::to_string(text.size()) + " bytes)";
      break;
    }
    if (bytes == 0)
      append_format(out, "\\x%02x", static_cast<unsigned char>(text[at]));
    else if (steers(code))
      append_format(out, "U+%04X", code);
    else
      out += text.substr(at, bytes);
    at += taken;
  }
  return out;
}

}  // namespace eepo
