#include "core/json.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "core/utf8.h"

namespace eepo {
namespace {

constexpr int kMaxDepth = 32;
// A parsed value takes far more memory than its text; the largest real headers hold some hundred thousand.
constexpr int kMaxValues = 4'000'000;

class Parser {
 public:
  Parser(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  Json document() {
    if (text_.starts_with("\xef\xbb\xbf")) error("byte order mark");
    const size_t bad = find_invalid_utf8(text_);
    if (bad != std::string_view::npos) {
      at_ = bad;
      error("invalid UTF-8");
    }
    Json value = parse(0);
    space();
    if (at_ != text_.size()) error("unexpected text after the JSON value");
    return value;
  }

 private:
  template <class... Parts>
  [[noreturn]] void error(const Parts&... what) const {
    fail(ErrorCode::InvalidFile, source_, ": ", what..., " at byte ", at_, " of its JSON header");
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
      ++at_;
  }
  void expect(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) error("invalid literal");
    at_ += word.size();
  }

  Json parse(int depth) {
    if (depth > kMaxDepth) error("nesting too deep");
    if (++values_ > kMaxValues) error("too many values");
    space();
    Json value;
    switch (peek()) {
      case '{': return object(depth);
      case '[': return array(depth);
      case '"':
        value.kind = Json::Kind::String;
        value.string = string();
        return value;
      case 't':
        expect("true");
        value.kind = Json::Kind::Bool;
        value.boolean = true;
        return value;
      case 'f':
        expect("false");
        value.kind = Json::Kind::Bool;
        return value;
      case 'n': expect("null"); return value;
      default: return number();
    }
  }

  Json object(int depth) {
    Json value;
    value.kind = Json::Kind::Object;
    ++at_;
    space();
    if (peek() == '}') return ++at_, value;
    while (true) {
      space();
      if (peek() != '"') error("expected a key");
      std::string key = string();
      space();
      if (peek() != ':') error("expected ':'");
      ++at_;
      value.object.push_back({std::move(key), parse(depth + 1)});
      space();
      const char c = peek();
      if (c != ',' && c != '}') error("expected ',' or '}'");
      ++at_;
      if (c != '}') continue;
      refuse_duplicates(value);
      return value;
    }
  }

  // Sorted, not hashed: whoever wrote the file can choose keys of one hash.
  void refuse_duplicates(const Json& object) const {
    std::vector<std::string_view> names;
    names.reserve(object.object.size());
    for (const JsonMember& member : object.object) names.emplace_back(member.name);
    std::ranges::sort(names);
    const auto twice = std::ranges::adjacent_find(names);
    if (twice != names.end()) error("duplicate key ", printable(*twice), " in the object that ends");
  }

  Json array(int depth) {
    Json value;
    value.kind = Json::Kind::Array;
    ++at_;
    space();
    if (peek() == ']') return ++at_, value;
    while (true) {
      value.array.push_back(parse(depth + 1));
      space();
      const char c = peek();
      if (c != ',' && c != ']') error("expected ',' or ']'");
      ++at_;
      if (c == ']') return value;
    }
  }

  uint32_t hex4() {
    if (at_ + 4 > text_.size()) error("truncated \\u escape");
    uint32_t code = 0;
    const auto [end, status] = std::from_chars(text_.data() + at_, text_.data() + at_ + 4, code, 16);
    if (status != std::errc() || end != text_.data() + at_ + 4) error("invalid \\u escape");
    at_ += 4;
    return code;
  }

  std::string string() {
    std::string out;
    ++at_;
    while (true) {
      if (at_ >= text_.size()) error("unterminated string");
      const char c = text_[at_++];
      if (c == '"') return out;
      if (static_cast<unsigned char>(c) < 0x20) error("control character in a string");
      if (c != '\\') {
        out += c;
        continue;
      }
      if (at_ >= text_.size()) error("unterminated escape");
      switch (const char e = text_[at_++]; e) {
        case '"':
        case '\\':
        case '/': out += e; break;
        case 'b': out += '\b'; break;
        case 'f': out += '\f'; break;
        case 'n': out += '\n'; break;
        case 'r': out += '\r'; break;
        case 't': out += '\t'; break;
        case 'u': {
          uint32_t code = hex4();
          if (code >= 0xd800 && code < 0xdc00) {
            if (text_.substr(at_, 2) != "\\u") error("lone surrogate");
            at_ += 2;
            const uint32_t low = hex4();
            if (low < 0xdc00 || low >= 0xe000) error("lone surrogate");
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
          } else if (code >= 0xdc00 && code < 0xe000) {
            error("lone surrogate");
          }
          append_utf8(out, code);
          break;
        }
        default: error("invalid escape");
      }
    }
  }

  Json number() {
    const size_t begin = at_;
    const auto digits = [&] {
      const size_t first = at_;
      while (peek() >= '0' && peek() <= '9') ++at_;
      if (at_ == first) error("invalid value");
    };
    if (peek() == '-') ++at_;
    if (peek() == '0')
      ++at_;
    else
      digits();
    bool integral = true;
    if (peek() == '.') {
      integral = false;
      ++at_;
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      integral = false;
      ++at_;
      if (peek() == '+' || peek() == '-') ++at_;
      digits();
    }
    Json value;
    const char *first = text_.data() + begin, *last = text_.data() + at_;
    const bool minus_zero = last - first == 2 && first[0] == '-' && first[1] == '0';  // no integer has that sign
    if (integral && !minus_zero && std::from_chars(first, last, value.integer).ec == std::errc()) {
      value.kind = Json::Kind::Integer;
      value.number = static_cast<double>(value.integer);
      return value;
    }
    if (std::from_chars(first, last, value.number).ec != std::errc()) error("number out of range");
    value.kind = Json::Kind::Number;
    return value;
  }

  std::string_view text_;
  const std::string& source_;
  size_t at_ = 0;
  int values_ = 0;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& source) { return Parser(text, source).document(); }

void append_json_string(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += kHex[(c >> 4) & 0xf];
      out += kHex[c & 0xf];
    } else {
      out += c;
    }
  }
  out += '"';
}

}  // namespace eepo
