// Whole files, as bytes: see fuzz.h.
#include "model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <string>

#include "fuzz/fuzz.h"
#include "fuzz/tensors.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using namespace eepo;

constexpr size_t kLength = 8;

/// The largest integer in the header, which of a sound file is where its data end.
uint64_t largest_integer(std::string_view header) {
  uint64_t largest = 0, value = 0;
  for (const char c : header) {
    value = c >= '0' && c <= '9' ? std::min<uint64_t>(value * 10 + static_cast<uint64_t>(c - '0'), 1 << 20) : 0;
    largest = std::max(largest, value);
  }
  return largest;
}

}  // namespace

/// Mutates the header as text and then states its length; sometimes makes the data as long as the header wants them.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  if (size < kLength || max_size < 4 * kLength || random() % 16 == 0) return LLVMFuzzerMutate(data, size, max_size);
  uint64_t length = 0;
  std::memcpy(&length, data, kLength);
  if (length > size - kLength) length = size - kLength;
  std::string header(reinterpret_cast<char*>(data) + kLength, length);
  std::string body(reinterpret_cast<char*>(data) + kLength + length, size - kLength - length);
  const size_t room = max_size - kLength;
  if (random() % 8 != 0) {
    header.resize(room);
    header.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(header.data()), length, room));
  }
  const size_t left = room - header.size();
  if (random() % 2 == 0) body.resize(std::min<uint64_t>(largest_integer(header), left), '\x3f');
  if (random() % 16 == 0) body.resize(random() % (left + 1));
  body.resize(std::min(body.size(), left));
  length = header.size();
  std::memcpy(data, &length, kLength);
  std::memcpy(data + kLength, header.data(), header.size());
  std::memcpy(data + kLength + header.size(), body.data(), body.size());
  return kLength + header.size() + body.size();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file = fuzz::text_of(data, size);
  try {
    const FileTensors tensors = parse_safetensors(file, fuzz::kSource);
    fuzz::require_whole(tensors, file);
    fuzz::read_all(tensors);
  } catch (const Error& error) {
    fuzz::require_clear(error);
  }
  return 0;
}
