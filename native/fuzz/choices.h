// The input of a harness that builds its own data: every choice takes a byte or more, and there is always another.
#pragma once

#include <cstddef>
#include <cstdint>

namespace eepo::fuzz {

class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return at_ == size_; }
  uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  /// From 0 to count - 1; count is at most 256.
  size_t below(size_t count) { return byte() % count; }
  template <class T, size_t kCount>
  const T& of(const T (&list)[kCount]) {
    return list[below(kCount)];
  }
  uint64_t word() {
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | byte();
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

}  // namespace eepo::fuzz
