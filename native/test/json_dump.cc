// What native/core/json.cc makes of texts, for test/json-reader.test.ts, which asks JavaScript the same. Standard
// input: texts, each after its length (4 bytes, little-endian). Standard output, a line each: + and the value written
// again, or - and the error, both JSON.
#include <cstdint>
#include <cstdio>
#include <string>

#include "core/error.h"
#include "core/json.h"
#include "fuzz/json_text.h"

int main() {
  uint32_t length = 0;
  std::string text;
  while (std::fread(&length, sizeof length, 1, stdin) == 1) {
    text.resize(length);
    if (length > 0 && std::fread(text.data(), length, 1, stdin) != 1) return 1;
    std::string line;
    try {
      const eepo::Json value = eepo::parse_json(text, "text");
      line = "+";
      eepo::append_json(line, value);
    } catch (const eepo::Error& error) {
      line = "-";
      eepo::append_json_string(line, error.what());
    }
    line += '\n';
    if (std::fwrite(line.data(), line.size(), 1, stdout) != 1) return 1;
  }
  return 0;
}
