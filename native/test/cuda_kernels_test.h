// The tests of the CUDA kernels, one function per file, and what they share. Built against the emulator and run by
// scripts/test-cuda-kernels.sh; the same sources run on a real device where there is one (scripts/gpu-check.sh).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cuda/kernels.h"
#include "test/device_memory.h"
#include "test/fixtures.h"

namespace eepo::test {

void test_cuda_token_stats();
void test_cuda_token_grad();
void test_cuda_sample();
void test_cuda_complementary_loss();
void test_cuda_ascend();
void test_cuda_adamw();
void test_cuda_blocks();
void test_cuda_attention();
void test_cuda_non_finite();

/// A row is summed by one block where there are at least twice as many rows as multiprocessors, else by several. Tests
/// take these numbers for either.
constexpr int kUnsplit = 1, kSplit = 64;

constexpr int64_t kNoRow = INT64_MAX;

/// Logits on the device, beginning `skew` elements into their memory: 1 takes away all alignment.
class DeviceLogits {
 public:
  explicit DeviceLogits(const Logits& logits, int64_t skew = 0)
      : host_(logits), skew_(skew * static_cast<int64_t>(size_of(logits.dtype))), memory_(padded(logits, skew_)) {}

  LogitsView view() const { return {memory_.data() + skew_, host_.dtype, host_.rows, host_.cols, host_.stride}; }
  MutableLogitsView mutable_view() {
    return {memory_.data() + skew_, host_.dtype, host_.rows, host_.cols, host_.stride};
  }
  /// The contents now; whatever lies before the first element must be as it was.
  Logits host() const {
    const std::vector<unsigned char> all = memory_.host();
    for (int64_t i = 0; i < skew_; ++i) check_untouched(all[static_cast<size_t>(i)]);
    Logits now = host_;
    now.bytes.assign(all.begin() + skew_, all.end());
    return now;
  }

 private:
  static std::vector<unsigned char> padded(const Logits& logits, int64_t skew) {
    std::vector<unsigned char> all(static_cast<size_t>(skew), 0x5a);
    all.insert(all.end(), logits.bytes.begin(), logits.bytes.end());
    return all;
  }
  static void check_untouched(unsigned char byte) {
    if (byte != 0x5a) check_true("memory in front of the logits is written", false);
  }
  Logits host_;
  int64_t skew_;
  DeviceArray<unsigned char> memory_;
};

/// token_stats on the device; bad_row receives the row reported, or kNoRow.
inline Stats device_stats(const LogitsView& device_view, const std::vector<int64_t>& targets, float temperature = 1,
                          int multiprocessors = 0, int64_t* bad_row = nullptr) {
  TestDevice device(multiprocessors);
  const int64_t n = device_view.rows;
  DeviceArray<int64_t> y(targets), bad(std::vector<int64_t>{kNoRow});
  DeviceArray<float> logprob(n), entropy(n), q(n);
  cuda::token_stats(device.context(), device_view, y.data(), temperature, logprob.data(), entropy.data(), q.data(),
                    bad.data());
  Stats s(0);
  s.logprob = logprob.host();
  s.entropy = entropy.host();
  s.q = q.host();
  if (bad_row != nullptr) *bad_row = bad.host()[0];
  return s;
}

inline bool same_stats(const Stats& a, const Stats& b) {
  return same_bits(a.logprob, b.logprob) && same_bits(a.entropy, b.entropy) && same_bits(a.q, b.q);
}

}  // namespace eepo::test
