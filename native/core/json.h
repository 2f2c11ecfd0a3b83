// A small, strict JSON reader (RFC 8259) for the headers of weight files, which are hostile input. Nesting and the
// number of values are bounded, and integers of 64 bits are kept exactly. Refused, although the grammar allows them:
// duplicate keys, escapes of lone surrogates, numbers that no double comes near (1e999, 1e-999), a byte order mark.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace eepo {

struct JsonMember;

struct Json {
  enum class Kind : uint8_t { Null, Bool, Integer, Number, String, Array, Object };
  Kind kind = Kind::Null;
  bool boolean = false;
  int64_t integer = 0;  // Integer
  double number = 0;    // Integer and Number
  std::string string;
  std::vector<Json> array;
  std::vector<JsonMember> object;  // in file order

  const Json* find(std::string_view key) const;
};

struct JsonMember {
  std::string name;
  Json value;
};

inline const Json* Json::find(std::string_view key) const {
  for (const auto& [name, value] : object)
    if (name == key) return &value;
  return nullptr;
}

/// Parses the whole text; `source` names it in errors (ErrorCode::InvalidFile with the byte offset).
Json parse_json(std::string_view text, const std::string& source);

/// Appends a quoted, escaped JSON string; `text` is UTF-8.
void append_json_string(std::string& out, std::string_view text);

}  // namespace eepo
