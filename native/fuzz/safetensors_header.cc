// Files built from tensors, with faults put in: see fuzz.h. Whether such a file is sound is computed from its plan, in
// exact arithmetic and over all pairs, not as native/model/safetensors_parse.cc does it.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "fuzz/choices.h"
#include "fuzz/fuzz.h"
#include "fuzz/tensors.h"

namespace {

using namespace eepo;
using fuzz::Choices;

/// A number as it is written.
struct Token {
  std::string text = "0";

  /// As the format wants it: digits without leading zeros, below 2^63. -1 otherwise.
  __int128 value() const {
    const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || text.size() > 19 || (text.size() > 1 && text[0] == '0')) return -1;
    __int128 n = 0;
    for (const char c : text) n = n * 10 + (c - '0');
    return n <= INT64_MAX ? n : -1;
  }
};

Token token(int64_t value) { return {std::to_string(value)}; }

struct Planned {
  std::string name, dtype;
  std::vector<Token> shape;
  Token begin, end;
  size_t missing = 0;   // 1 to 3: the key that is left out
  size_t repeated = 0;  // 1 to 3: the key that is written twice
};

struct Plan {
  std::vector<Planned> tensors;
  std::string metadata;  // as written; empty: none
  bool metadata_sound = true;
  std::string before, after;  // the header's braces
  bool blank_around = true;
  int64_t data_size = 0;
  int length_error = 0;
};

struct KnownDType {
  const char* name;
  int bits;
};
constexpr KnownDType kKnown[] = {{"F32", 32},    {"BF16", 16},       {"F16", 16}, {"F64", 64},    {"I64", 64},
                                 {"BOOL", 8},    {"U16", 16},        {"C64", 64}, {"F8_E5M2", 8}, {"F6_E2M3", 6},
                                 {"F4", 4},      {"I32", 32},        {"U32", 32}, {"U64", 64},    {"F8_E4M3", 8},
                                 {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"I16", 16}, {"F6_E3M2", 6}, {"I8", 8},
                                 {"U8", 8},      {"F8_E5M2FNUZ", 8}};
constexpr const char* kUnknown[] = {"f32", "F33", "", "I4", "F32 ", "F8_E4M3\\u0000", "BF16\\u202e"};
constexpr int kSizes[] = {1, 2, 3, 4, 0, 5};
constexpr const char* kStrange[] = {"9223372036854775807",
                                    "9223372036854775808",
                                    "4294967296",
                                    "3037000500",
                                    "-1",
                                    "18446744073709551616",
                                    "1.0",
                                    "1e1",
                                    "-0",
                                    "01",
                                    "null",
                                    "\"1\"",
                                    "[1]",
                                    "{}",
                                    "true",
                                    "1e999",
                                    "4611686018427387904",
                                    "2305843009213693952",
                                    "288230376151711744"};
constexpr const char* kNames[] = {
    "a", "b", "model.embed_tokens.weight", "", "\\u00e9", "c\\n", "\\ud83d\\ude00", "x\\u001b[31m"};

int bits_of(const std::string& dtype) {
  for (const auto& known : kKnown)
    if (dtype == known.name) return known.bits;
  return 0;
}

/// The elements of a shape; -1 where a size is none or the product, from the left, leaves 63 bits.
__int128 elements_of(const std::vector<Token>& shape) {
  __int128 product = 1;
  for (const Token& size : shape) {
    if (size.value() < 0) return -1;
    product *= size.value();
    if (product > INT64_MAX) return -1;
  }
  return product;
}

Planned planned(Choices& c, int64_t& offset, size_t index) {
  Planned t;
  t.name = c.below(4) == 0 ? c.of(kNames) : "t" + std::to_string(index);
  t.dtype = kKnown[c.below(std::size(kKnown))].name;
  for (size_t rank = c.below(5); rank > 0; --rank) t.shape.push_back(token(c.of(kSizes)));
  const auto bytes = static_cast<int64_t>(elements_of(t.shape)) * bits_of(t.dtype) / 8;
  t.begin = token(offset);
  offset += bytes;
  t.end = token(offset);
  return t;
}

void shift(Token& number, Choices& c) {
  const __int128 value = number.value();
  if (value < 0 || value > INT64_MAX - 8) return;
  number = token(static_cast<int64_t>(value) + static_cast<int64_t>(c.below(9)) - 4);
}

void spoil(Plan& plan, Choices& c) {
  if (plan.tensors.empty()) return;
  Planned& t = plan.tensors[c.below(plan.tensors.size())];
  Planned& other = plan.tensors[c.below(plan.tensors.size())];
  switch (c.below(14)) {
    case 0: shift(t.begin, c); break;
    case 1: shift(t.end, c); break;
    case 2: std::swap(t.begin, other.begin), std::swap(t.end, other.end); break;
    case 3: t.begin = {c.of(kStrange)}; break;
    case 4: t.end = {c.of(kStrange)}; break;
    case 5: t.shape.push_back({c.of(kStrange)}); break;
    case 6: t.shape.insert(t.shape.begin(), {c.of(kStrange)}); break;
    case 7: t.name = other.name; break;
    case 8: t.dtype = c.of(kUnknown); break;
    case 9: t.missing = 1 + c.below(3); break;
    case 10: t.repeated = 1 + c.below(3); break;
    case 11: plan.data_size += static_cast<int64_t>(c.below(9)) - 4; break;
    case 12: std::swap(t.dtype, other.dtype); break;
    default: t.begin = other.begin, t.end = other.end;
  }
}

void frame(Plan& plan, Choices& c) {
  switch (c.below(24)) {
    case 1: plan.metadata = "{}"; break;
    case 2: plan.metadata = "null"; break;
    case 3: plan.metadata = R"({"format":"pt","a":"\u0000"})"; break;
    case 4: plan.metadata = R"({"format":1})", plan.metadata_sound = false; break;
    case 5: plan.metadata = R"(["format"])", plan.metadata_sound = false; break;
    case 6: plan.metadata = R"({"a":"1","a":"1"})", plan.metadata_sound = false; break;
    case 7: plan.metadata = R"({"a":{"b":"c"}})", plan.metadata_sound = false; break;
    case 8: plan.after = "   "; break;
    case 9: plan.before = " \n\t\r"; break;
    case 10: plan.before = "\xef\xbb\xbf", plan.blank_around = false; break;
    case 11: plan.after = std::string(1, '\0'), plan.blank_around = false; break;
    case 12: plan.after = "{}", plan.blank_around = false; break;
    case 13: plan.length_error = 1; break;
    case 14: plan.length_error = -1; break;
    case 15: plan.length_error = 1 << 30; break;
    default: break;
  }
}

Plan plan_of(Choices& c) {
  Plan plan;
  frame(plan, c);
  const size_t faults = std::max<size_t>(c.below(8), 4) - 4;
  for (size_t count = c.below(7), i = 0; i < count; ++i) plan.tensors.push_back(planned(c, plan.data_size, i));
  for (size_t i = 0; i < faults; ++i) spoil(plan, c);
  plan.data_size = std::max<int64_t>(plan.data_size, 0);
  for (size_t i = plan.tensors.size(); i > 1; --i) std::swap(plan.tensors[i - 1], plan.tensors[c.below(i)]);
  return plan;
}

bool sound(const Planned& t, int64_t data_size) {
  const __int128 elements = elements_of(t.shape), begin = t.begin.value(), end = t.end.value();
  const __int128 bits = elements * bits_of(t.dtype);
  return t.missing == 0 && t.repeated == 0 && bits_of(t.dtype) > 0 && elements >= 0 && bits <= INT64_MAX &&
         bits % 8 == 0 && begin >= 0 && begin <= end && end <= data_size && bits / 8 == end - begin;
}

bool disjoint(const Planned& a, const Planned& b) {
  const __int128 from = std::max(a.begin.value(), b.begin.value()), to = std::min(a.end.value(), b.end.value());
  return a.name != b.name && from >= to;
}

bool sound(const Plan& plan) {
  if (!plan.metadata_sound || !plan.blank_around || plan.length_error != 0) return false;
  __int128 covered = 0;
  for (const Planned& t : plan.tensors) {
    if (!sound(t, plan.data_size)) return false;
    covered += t.end.value() - t.begin.value();
    for (const Planned& other : plan.tensors)
      if (&other != &t && !disjoint(t, other)) return false;
  }
  // an empty tensor shares no byte with any, but must lie between two
  return covered == plan.data_size;
}

bool empty_inside(const Plan& plan) {
  for (const Planned& t : plan.tensors)
    for (const Planned& other : plan.tensors)
      if (t.begin.value() == t.end.value() && other.begin.value() < t.begin.value() &&
          t.begin.value() < other.end.value())
        return true;
  return false;
}

std::string entry_text(const Planned& t, Choices& c) {
  std::string shape;
  for (const Token& size : t.shape) shape += (shape.empty() ? "" : ",") + size.text;
  const std::string members[] = {R"("dtype":")" + t.dtype + '"', R"("shape":[)" + shape + ']',
                                 R"("data_offsets":[)" + t.begin.text + ", " + t.end.text + ']'};
  std::string text;
  const size_t first = c.below(3);
  for (size_t i = 0; i < 3; ++i) {
    const size_t key = (first + i) % 3 + 1;
    if (key == t.missing) continue;
    text += (text.empty() ? "" : ",") + members[key - 1];
    if (key == t.repeated) text += "," + members[key - 1];
  }
  return '"' + t.name + "\":{" + text + '}';
}

std::string file_text(const Plan& plan, Choices& c) {
  std::string header;
  if (!plan.metadata.empty()) header = R"("__metadata__":)" + plan.metadata;
  for (const Planned& t : plan.tensors) header += (header.empty() ? "" : ",") + entry_text(t, c);
  header = plan.before + '{' + header + '}' + plan.after;
  const uint64_t length = header.size() + static_cast<uint64_t>(static_cast<int64_t>(plan.length_error));
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + std::string(static_cast<size_t>(plan.data_size), '?');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Choices c(data, size);
  const Plan plan = plan_of(c);
  // an exact allocation, so that a byte read beyond it is seen
  const std::string text = file_text(plan, c);
  const std::vector<char> file(text.begin(), text.end());
  const std::string_view bytes(file.data(), file.size());
  const bool expected = sound(plan) && !empty_inside(plan);
  try {
    const FileTensors tensors = parse_safetensors(bytes, fuzz::kSource);
    fuzz::require(expected, "accepted, although it is not sound:", text);
    fuzz::require(tensors.size() == plan.tensors.size(), "a tensor is missing:", text);
    fuzz::require_whole(tensors, bytes);
    fuzz::read_all(tensors);
  } catch (const Error& error) {
    fuzz::require_clear(error);
    fuzz::require(!expected, "refused, although it is sound:", error.what());
  }
  return 0;
}
