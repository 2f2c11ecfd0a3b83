// A recogniser of JSON (RFC 8259) that shares nothing with core/json.cc: a loop and a stack of brackets, no values. It
// takes bytes; whether they are UTF-8 is asked of one table-free rule for each length.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace eepo::fuzz {

class Grammar {
 public:
  explicit Grammar(std::string_view text) : text_(text) {}

  /// Whether the text is one JSON value in UTF-8.
  bool accepts() {
    enum { Value, ValueOrEnd, KeyOrEnd, Key, After } want = Value;
    std::string open;
    while (true) {
      blank();
      if (at_ == text_.size()) return want == After && open.empty();
      const char c = text_[at_];
      if (want == After) {
        if (open.empty()) return false;
        ++at_;
        if (c == ',')
          want = open.back() == '{' ? Key : Value;
        else if (c == (open.back() == '{' ? '}' : ']'))
          open.pop_back();
        else
          return false;
      } else if ((want == KeyOrEnd && c == '}') || (want == ValueOrEnd && c == ']')) {
        ++at_;
        open.pop_back();
        want = After;
      } else if (want == Key || want == KeyOrEnd) {
        if (!string()) return false;
        blank();
        if (!take(':')) return false;
        want = Value;
      } else if (c == '{' || c == '[') {
        ++at_;
        open += c;
        want = c == '{' ? KeyOrEnd : ValueOrEnd;
      } else {
        if (!scalar()) return false;
        want = After;
      }
    }
  }

 private:
  bool take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void blank() { at_ = std::min(text_.find_first_not_of(" \t\n\r", at_), text_.size()); }
  bool digits() {
    const size_t end = std::min(text_.find_first_not_of("0123456789", at_), text_.size());
    return std::exchange(at_, end) != end;
  }

  bool scalar() {
    for (const std::string_view word : {"true", "false", "null"})
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return true;
      }
    if (text_[at_] == '"') return string();
    take('-');
    if (!take('0') && !digits()) return false;
    if (take('.') && !digits()) return false;
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      if (!digits()) return false;
    }
    return true;
  }

  bool string() {
    if (!take('"')) return false;
    while (at_ < text_.size()) {
      if (take('"')) return true;
      if (!take('\\')) {
        if (!character()) return false;
        continue;
      }
      if (take('u')) {
        const std::string_view four = text_.substr(at_, 4);
        if (four.size() < 4 || four.find_first_not_of("0123456789abcdefABCDEF") != four.npos) return false;
        at_ += 4;
      } else {
        if (at_ == text_.size() || std::string_view("\"\\/bfnrt").find(text_[at_]) == std::string_view::npos)
          return false;
        ++at_;
      }
    }
    return false;
  }

  bool character() {
    const auto byte = [&](size_t i) -> unsigned {
      return at_ + i < text_.size() ? static_cast<unsigned char>(text_[at_ + i]) : 0;
    };
    const auto in = [&](size_t i, unsigned low, unsigned high) { return byte(i) >= low && byte(i) <= high; };
    const auto tail = [&](size_t i) { return in(i, 0x80, 0xbf); };
    size_t bytes = 0;  // the rows of table 3-7 of the Unicode standard
    if (in(0, 0x20, 0x7f)) bytes = 1;
    if (in(0, 0xc2, 0xdf) && tail(1)) bytes = 2;
    if (in(0, 0xe0, 0xe0) && in(1, 0xa0, 0xbf) && tail(2)) bytes = 3;
    if ((in(0, 0xe1, 0xec) || in(0, 0xee, 0xef)) && tail(1) && tail(2)) bytes = 3;
    if (in(0, 0xed, 0xed) && in(1, 0x80, 0x9f) && tail(2)) bytes = 3;
    if (in(0, 0xf0, 0xf0) && in(1, 0x90, 0xbf) && tail(2) && tail(3)) bytes = 4;
    if (in(0, 0xf1, 0xf3) && tail(1) && tail(2) && tail(3)) bytes = 4;
    if (in(0, 0xf4, 0xf4) && in(1, 0x80, 0x8f) && tail(2) && tail(3)) bytes = 4;
    at_ += bytes;
    return bytes > 0;
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace eepo::fuzz
