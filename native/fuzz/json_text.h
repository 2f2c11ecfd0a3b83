// A value read by core/json.h, written again: canonical, so that equal texts are equal values.
#pragma once

#include <charconv>
#include <string>

#include "core/json.h"

namespace eepo {

inline void append_json(std::string& out, const Json& value) {
  const auto number = [&](auto n) {
    char text[32];
    out.append(text, std::to_chars(text, text + sizeof text, n).ptr);
  };
  switch (value.kind) {
    case Json::Kind::Null: out += "null"; return;
    case Json::Kind::Bool: out += value.boolean ? "true" : "false"; return;
    case Json::Kind::Integer: return number(value.integer);
    case Json::Kind::Number: return number(value.number);
    case Json::Kind::String: return append_json_string(out, value.string);
    case Json::Kind::Array:
      out += '[';
      for (const Json& entry : value.array) {
        if (&entry != value.array.data()) out += ',';
        append_json(out, entry);
      }
      out += ']';
      return;
    case Json::Kind::Object:
      out += '{';
      for (const JsonMember& member : value.object) {
        if (&member != value.object.data()) out += ',';
        append_json_string(out, member.name);
        out += ':';
        append_json(out, member.value);
      }
      out += '}';
  }
}

}  // namespace eepo
