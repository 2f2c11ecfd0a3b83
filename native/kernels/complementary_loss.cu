// CUDA form of complementary_loss (see complementary_loss.h): the CPU's gates, and its coefficients but for the last
// bit of the double-precision exponential.
//
// The trick: one block per sequence; a thread forms the windowed mean of its tokens from the entropies themselves (and
// the carry before them), newest first, as the CPU does, so neither chunks nor threads show. Every sequence leaves one
// partial result; a second kernel of one block adds those in their order.
//
// Floor: 8 bytes read (12 with one_minus_p) and 4 written (5 with gate) per token; the window's other entropies come
// from the first-level cache. Per token: one double exp and, of open tokens, one log: a few hundred double operations,
// which no run notices (a batch has some 10^5 tokens).
#include "cuda/common.cuh"
#include "cuda/kernels.h"
#include "kernels/complementary_rule.h"

namespace eepo::cuda {
namespace {

constexpr int kThreads = 128;

struct Inputs {
  const float *logprob, *entropy, *one_minus_p;
  const int64_t* offsets;
  int64_t sequences;
  const float* weight;
  float* carry;
  ComplementaryOptions options;
  float* a;
  uint8_t* gate;
};

/// The tokens of one sequence in this call, and the entropies that precede them.
struct Sequence {
  int64_t begin, tokens;
  double weight;
  float* carry;  // [window - 1], newest first; may be null
};

__device__ __forceinline__ Sequence sequence_of(const Inputs& in, int64_t k) {
  const int64_t begin = in.offsets[k], tokens = in.offsets[k + 1] - begin;
  const double weight = in.weight != nullptr
                            ? static_cast<double>(in.weight[k])
                            : 1.0 / __dmul_rn(static_cast<double>(in.sequences), static_cast<double>(tokens));
  return {begin, tokens, weight, in.carry != nullptr ? in.carry + k * (in.options.window - 1) : nullptr};
}

__device__ __forceinline__ double window_mean(const float* entropy, const Sequence& seq, int64_t t, int window) {
  double sum = 0;
  int count = 0;
  for (int back = 0; back < window; ++back) {
    float value = __uint_as_float(0x7fffffffu);
    if (back <= t) {
      value = entropy[seq.begin + t - back];
    } else if (seq.carry != nullptr) {
      value = seq.carry[back - t - 1];
    }
    if (value != value) break;  // the response's start
    sum = __dadd_rn(sum, static_cast<double>(value));
    ++count;
  }
  return sum / count;
}

__device__ __forceinline__ bool finite(float x) { return fabsf(x) <= 3.402823466e38f; }

/// NaN would close the gate in silence, and in `carry` it means "no token".
__device__ __forceinline__ bool bad_token(const Inputs& in, int64_t i) {
  const float l = in.logprob[i];
  return l != l || l > 3.402823466e38f || !finite(in.entropy[i]) ||
         (in.one_minus_p != nullptr && !finite(in.one_minus_p[i]));
}

constexpr long long kNoToken = 0x7fffffffffffffffLL;

__device__ __forceinline__ ComplementaryDeviceResult no_result() { return {0, 0, 0, 0, 0, 0, kNoToken}; }

__device__ __forceinline__ void add(ComplementaryDeviceResult& sum, const ComplementaryDeviceResult& part) {
  sum.loss = __dadd_rn(sum.loss, part.loss);
  sum.tokens += part.tokens;
  sum.open_tokens += part.open_tokens;
  sum.clamped_low += part.clamped_low;
  sum.clamped_high += part.clamped_high;
  sum.active_tokens += part.active_tokens;
  sum.bad_token = sum.bad_token < part.bad_token ? sum.bad_token : part.bad_token;
}

/// The sum over the block, in thread 0.
__device__ __forceinline__ ComplementaryDeviceResult block_sum(ComplementaryDeviceResult mine) {
  __shared__ ComplementaryDeviceResult warps[kThreads / kWarp];
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    add(mine,
        {__shfl_xor_sync(kFullMask, mine.loss, offset), __shfl_xor_sync(kFullMask, mine.tokens, offset),
         __shfl_xor_sync(kFullMask, mine.open_tokens, offset), __shfl_xor_sync(kFullMask, mine.clamped_low, offset),
         __shfl_xor_sync(kFullMask, mine.clamped_high, offset), __shfl_xor_sync(kFullMask, mine.active_tokens, offset),
         __shfl_xor_sync(kFullMask, mine.bad_token, offset)});
  }
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = mine;
  __syncthreads();
  ComplementaryDeviceResult total = no_result();
  for (const ComplementaryDeviceResult& part : warps) add(total, part);
  return total;
}

__device__ __forceinline__ void run_token(const Inputs& in, const Sequence& seq, int64_t t,
                                          ComplementaryDeviceResult& sum) {
  const int64_t i = seq.begin + t;
  sum.tokens += 1;
  if (bad_token(in, i) && i < sum.bad_token) sum.bad_token = i;
  const bool open = window_mean(in.entropy, seq, t, in.options.window) < static_cast<double>(in.options.alpha);
  if (in.gate != nullptr) in.gate[i] = open ? 1 : 0;
  float a = 0;
  if (open) {
    const double l = static_cast<double>(in.logprob[i]);
    const double q = in.one_minus_p != nullptr ? static_cast<double>(in.one_minus_p[i]) : -expm1(l);
    const ComplementaryTerm term = complementary_term(l, exp(l), q, in.options);
    sum.loss = __dadd_rn(sum.loss, __dmul_rn(seq.weight, term.value));
    sum.open_tokens += 1;
    sum.clamped_low += term.low ? 1 : 0;
    sum.clamped_high += term.high ? 1 : 0;
    if (seq.weight != 0 && term.slope != 0) a = static_cast<float>(__dmul_rn(seq.weight, term.slope));
    sum.active_tokens += a != 0 ? 1 : 0;
  }
  in.a[i] = a;
}

/// By the block. From the oldest slots down, a round at a time, so that a slot is read before it is overwritten.
__device__ __forceinline__ void update_carry(const float* entropy, const Sequence& seq, int window) {
  for (int64_t top = window - 2; top >= 0; top -= kThreads) {
    const int64_t slot = top - threadIdx.x;
    float value = 0;
    if (slot >= 0) {
      value = slot < seq.tokens ? entropy[seq.begin + seq.tokens - 1 - slot] : seq.carry[slot - seq.tokens];
    }
    __syncthreads();
    if (slot >= 0) seq.carry[slot] = value;
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads) run_sequences(Inputs in, ComplementaryDeviceResult* parts) {
  const int64_t k = blockIdx.x;
  const Sequence seq = sequence_of(in, k);
  ComplementaryDeviceResult sum = no_result();
  for (int64_t t = threadIdx.x; t < seq.tokens; t += kThreads) run_token(in, seq, t, sum);
  sum = block_sum(sum);  // a barrier: every window has been read
  if (threadIdx.x == 0) parts[k] = sum;
  if (seq.carry != nullptr) update_carry(in.entropy, seq, in.options.window);
}

__global__ void __launch_bounds__(kThreads)
    add_parts(const ComplementaryDeviceResult* parts, int64_t count, ComplementaryDeviceResult* result) {
  ComplementaryDeviceResult sum = no_result();
  for (int64_t k = threadIdx.x; k < count; k += kThreads) add(sum, parts[k]);
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  if (sum.bad_token == kNoToken) sum.bad_token = -1;
  *result = sum;
}

}  // namespace

void complementary_loss(const Context& context, const float* logprob, const float* entropy, const float* one_minus_p,
                        const int64_t* offsets, int64_t sequences, [[maybe_unused]] int64_t tokens, const float* weight,
                        float* carry, const ComplementaryOptions& options, float* a, uint8_t* gate,
                        ComplementaryDeviceResult* result) {
  ComplementaryDeviceResult* parts = nullptr;
  if (sequences > 0) {
    parts = static_cast<ComplementaryDeviceResult*>(
        context.scratch(static_cast<size_t>(sequences) * sizeof(ComplementaryDeviceResult)));
    const Inputs in{logprob, entropy, one_minus_p, offsets, sequences, weight, carry, options, a, gate};
    EEPO_LAUNCH((run_sequences), static_cast<unsigned>(sequences), kThreads, 0, context.stream, in, parts);
  }
  EEPO_LAUNCH((add_parts), 1, kThreads, 0, context.stream, parts, sequences, result);
}

}  // namespace eepo::cuda
