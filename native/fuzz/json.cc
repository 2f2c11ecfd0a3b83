// The JSON reader: see fuzz.h.
#include "core/json.h"

#include <algorithm>
#include <utility>

#include "fuzz/fuzz.h"
#include "fuzz/grammar.h"
#include "fuzz/json_text.h"

namespace {

using namespace eepo;

// What core/json.h refuses beyond the grammar.
bool stricter_than_grammar(std::string_view message) {
  return std::ranges::any_of(
      std::initializer_list<std::string_view>{": duplicate key ", ": nesting too deep ", ": too many values ",
                                              ": number out of range ", ": lone surrogate "},
      [&](std::string_view why) { return message.find(why) != message.npos; });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = fuzz::text_of(data, size);
  const bool grammatical = fuzz::Grammar(text).accepts();
  Json value;
  try {
    value = parse_json(text, fuzz::kSource);
  } catch (const Error& error) {
    fuzz::require_clear(error);
    fuzz::require(!grammatical || stricter_than_grammar(error.what()), "refused, although it is JSON:", error.what());
    return 0;
  }
  fuzz::require(grammatical, "accepted, although it is no JSON:", text);
  std::string once, twice;
  append_json(once, value);
  append_json(twice, parse_json(once, fuzz::kSource));
  fuzz::require(once == twice, "read otherwise after writing:", once);
  return 0;
}
