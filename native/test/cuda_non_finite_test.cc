// Tests of the CUDA first_non_finite against the CPU's.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/non_finite.h"
#include "test/cuda_kernels_test.h"

namespace eepo::test {
namespace {

template <class Word>
int64_t on_device(const std::vector<Word>& words, int64_t skew, DType dtype) {
  const int64_t n = static_cast<int64_t>(words.size()) - skew;
  TestDevice device;
  DeviceArray<Word> x(words);
  DeviceArray<long long> first(std::vector<long long>{n});
  cuda::first_non_finite(device.context(), x.data() + skew, dtype, n, first.data());
  const int64_t found = first.host()[0];
  return found < n ? found : -1;
}

// Bad elements at `places`; the lowest must be found, by both.
template <class Word>
void test_places(DType dtype, int64_t n, int64_t skew, const std::vector<int64_t>& places,
                 const std::vector<Word>& values, const char* name) {
  std::vector<Word> words(static_cast<size_t>(n + skew),
                          static_cast<Word>(dtype == DType::Float32 ? 0x7f7fffff : 0x7bff));
  if (skew > 0) words[0] = values[0];  // in front of the array
  int64_t want = -1;
  for (size_t i = 0; i < places.size(); ++i) {
    words[static_cast<size_t>(places[i] + skew)] = values[i % values.size()];
    want = want < 0 ? places[i] : std::min(want, places[i]);
  }
  check_true(text("cuda first_non_finite %s n=%d", name, static_cast<int>(n)), on_device(words, skew, dtype) == want);
  check_true(text("first_non_finite %s n=%d", name, static_cast<int>(n)),
             first_non_finite(words.data() + skew, dtype, n) == want);
}

}  // namespace

void test_cuda_non_finite() {
  const std::vector<uint32_t> single = {0x7fc00000, 0x7f800000, 0xff800000, 0x7f800001};
  const std::vector<uint16_t> brain = {0x7fc0, 0x7f80, 0xff80}, half = {0x7e00, 0x7c00, 0xfc00};
  for (const int64_t n : {1, 255, 256, 65537, 300001})
    for (const int64_t skew : {0, 1}) {
      test_places(DType::Float32, n, skew, {}, single, "float32, none");
      test_places(DType::Float32, n, skew, {n - 1}, single, "float32, the last");
      test_places(DType::Float32, n, skew, {n - 1, n / 2, n / 3}, single, "float32, several");
      test_places(DType::BFloat16, n, skew, {n - 1, n / 2}, brain, "bfloat16");
      test_places(DType::BFloat16, n, skew, {}, brain, "bfloat16, none");
      test_places(DType::Float16, n, skew, {n / 2}, half, "float16");
      test_places(DType::Float16, n, skew, {}, half, "float16, none");
    }
  check_true("first_non_finite of nothing", first_non_finite(nullptr, DType::Float32, 0) == -1);
  TestDevice device;
  cuda::first_non_finite(device.context(), nullptr, DType::Float32, 0, nullptr);
}

}  // namespace eepo::test
