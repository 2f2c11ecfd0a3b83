#include "bench/floors.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cstring>

namespace eepo::bench {
namespace {

int64_t words_of(size_t bytes) { return static_cast<int64_t>(bytes / sizeof(uint64_t)); }

#ifdef __SSE2__
// Stores that pass by the caches: the memory written is not read first, so a copy moves two bytes for each and not
// three.
void copy_piece(char* to, const char* from, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0) {
    std::memcpy(to, from, bytes);
    return;
  }
  size_t i = 0;
  for (; i + 64 <= bytes; i += 64) {
    __builtin_prefetch(from + i + 4096);
    for (size_t k = i; k < i + 64; k += 16)
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + k), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k)));
  }
  std::memcpy(to + i, from + i, bytes - i);
  _mm_sfence();
}
#else
void copy_piece(char* to, const char* from, size_t bytes) { std::memcpy(to, from, bytes); }
#endif

}  // namespace

// 64-bit words and several sums at once: plain enough for the compiler to vectorize in any instruction set.
uint64_t read_all(const void* data, size_t bytes) {
  const uint64_t* words = static_cast<const uint64_t*>(data);
  const int64_t count = words_of(bytes);
  uint64_t total = 0;
#pragma omp parallel for simd reduction(+ : total) schedule(static)
  for (int64_t i = 0; i < count; ++i) total += words[i];
  return total;
}

void read_write_all(void* data, size_t bytes) {
  uint64_t* words = static_cast<uint64_t*>(data);
  const int64_t count = words_of(bytes);
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < count; ++i) words[i] ^= 0x8000800080008000u;
}

void copy_all(void* to, const void* from, size_t bytes) {
  constexpr int64_t kPiece = 4096;
  const int64_t size = static_cast<int64_t>(bytes);
#pragma omp parallel for schedule(static)
  for (int64_t begin = 0; begin < size; begin += kPiece)
    copy_piece(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin,
               static_cast<size_t>(std::min(kPiece, size - begin)));
}

}  // namespace eepo::bench
