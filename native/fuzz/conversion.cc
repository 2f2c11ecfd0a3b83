// Values of every dtype that is read, at every alignment: see fuzz.h.
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "fuzz/tensors.h"

namespace {

using namespace eepo;

/// The conversion of the reference: the compiler's. bfloat16 is the upper half of a float32.
template <class From>
float reference(const uint8_t* at, FileDType dtype) {
  From value;
  std::memcpy(&value, at, sizeof value);
  if constexpr (sizeof(From) == 2) {
    if (dtype == FileDType::BF16)
      return std::bit_cast<float>(static_cast<uint32_t>(std::bit_cast<uint16_t>(value)) << 16);
  }
  return static_cast<float>(value);
}

/// Of the two nearest bfloat16 values, the nearer; of two as near, the even one.
uint16_t nearest_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const auto low = static_cast<uint16_t>(bits >> 16);  // towards zero
  const auto high = static_cast<uint16_t>(low + 1);
  const uint32_t rest = bits & 0xffff;
  if (rest == 0x8000) return low % 2 == 0 ? low : high;
  return rest < 0x8000 ? low : high;
}

template <class From>
void compare(const uint8_t* data, size_t size, FileDType dtype) {
  const auto count = static_cast<int64_t>(size / sizeof(From));
  FileTensor tensor{dtype, "", {count}, data, count * static_cast<int64_t>(sizeof(From)), count};
  std::vector<float> wide(count);
  std::vector<uint16_t> narrow(count);
  convert(tensor, DType::Float32, wide.data());
  convert(tensor, DType::BFloat16, narrow.data());
  for (int64_t i = 0; i < count; ++i) {
    const float want = reference<From>(data + i * sizeof(From), dtype);
    if (std::isnan(want)) {
      fuzz::require(std::isnan(wide[i]) && std::isnan(bf16_to_float(narrow[i])), "a NaN was lost");
      continue;
    }
    fuzz::require(std::bit_cast<uint32_t>(wide[i]) == std::bit_cast<uint32_t>(want), "float32 is another number");
    fuzz::require(narrow[i] == nearest_bf16(want), "bfloat16 is not the nearest number");
    fuzz::require(bf16_to_float(float_to_bf16(bf16_to_float(narrow[i]))) == bf16_to_float(narrow[i]),
                  "bfloat16 does not survive float32");
    if (dtype == FileDType::F16) {
      uint16_t bits = 0;
      std::memcpy(&bits, data + 2 * i, 2);
      fuzz::require(float_to_f16(wide[i]) == bits, "float16 does not survive float32");
    }
  }
  fuzz::require(same_values(tensor, tensor), "a tensor differs from itself");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  switch (data[0] % 4) {
    case 0: compare<double>(data + 1, size - 1, FileDType::F64); break;
    case 1: compare<float>(data + 1, size - 1, FileDType::F32); break;
    case 2: compare<_Float16>(data + 1, size - 1, FileDType::F16); break;
    default: compare<_Float16>(data + 1, size - 1, FileDType::BF16);
  }
  return 0;
}
