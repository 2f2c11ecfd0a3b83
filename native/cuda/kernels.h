// The launchers of all CUDA kernels. What each computes, its shapes and its contract are in native/kernels/<name>.h;
// here is only what differs: all pointers are device memory unless said otherwise, nothing waits for the device, and a
// result that the host wants is left in device memory. Row counts may be 0 (nothing is launched) and beyond 65,536.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/philox.h"
#include "kernels/ascend.h"
#include "kernels/attention.h"
#include "kernels/blocks.h"
#include "kernels/complementary_loss.h"
#include "kernels/sample.h"
#include "kernels/token_grad.h"
#include "kernels/token_stats.h"

struct CUstream_st;

namespace eepo::cuda {

using Stream = CUstream_st*;

/// Where kernels run and where their scratch memory comes from.
struct Context {
  Stream stream;
  int multiprocessors;  // of the device: how many blocks fill it
  /// Device memory, 256-byte aligned, contents undefined, good for kernels launched on `stream` until the next call of
  /// a launcher of this header.
  std::function<void*(size_t bytes)> scratch;
  /// Copies host memory to the device in stream order; the host memory may be reused at once.
  std::function<void(void* to, const void* from_host, size_t bytes)> upload;
};

// ---- rows of logits (token_stats.cu, token_grad.cu, sample.cu)
// ----------------------------------------------------------

/// kernels/token_stats.h. A target out of range makes its row's logprob and one_minus_p NaN and, where bad_row is not
/// null, lowers *bad_row (set to INT64_MAX by the caller) to the first such row.
void token_stats(const Context& context, const LogitsView& logits, const int64_t* targets, float temperature,
                 float* logprob, float* entropy, float* one_minus_p, int64_t* bad_row);

/// kernels/token_grad.h, but the gradient may go elsewhere or change type on the way: row r is written to
/// out + r * out.stride. `out.data` may be `logits.data` with the same dtype and stride, or with a narrower dtype and
/// the same distance in bytes between rows (a row of float logits becomes bfloat16 gradients in its own front half).
/// A bad target of a row with a or b not 0: as in token_stats, and the row becomes NaN.
void token_grad(const Context& context, const LogitsView& logits, const int64_t* targets, const float* a,
                const float* b, float temperature, const MutableLogitsView& out, int64_t* bad_row);

/// kernels/token_grad.h: complementary_grad; all arrays of `rows` on the device. `out` and a bad target as of
/// token_grad (a row of weight 0 has none).
void complementary_grad(const Context& context, const LogitsView& logits, const int64_t* targets,
                        const ComplementaryRows& rows, float temperature, const MutableLogitsView& out,
                        int64_t* bad_row);

/// kernels/sample.h; counters on the device. A row with NaN, +inf or no finite logit gets token -1, NaN statistics, and
/// lowers *bad_row (which may be null). logprob and entropy are the bits token_stats gives on the same device.
void sample(const Context& context, const LogitsView& logits, const SampleOptions& options,
            const PhiloxCounter* counters, int64_t* token, float* logprob, float* entropy, int64_t* bad_row);

// ---- the unlearning loss and steps (complementary_loss.cu, ascend.cu, adamw.cu)
// -----------------------------------------

struct ComplementaryDeviceResult {
  double loss;
  long long tokens, open_tokens, clamped_low, clamped_high, active_tokens;
  long long bad_token;  // the first token with a NaN log-prob or non-finite entropy, or -1
};
/// kernels/complementary_loss.h; all arrays (offsets and carry too) on the device; `tokens` = offsets[sequences]. One
/// result is written. The loss is summed in double in a fixed order: the same bits every time.
void complementary_loss(const Context& context, const float* logprob, const float* entropy, const float* one_minus_p,
                        const int64_t* offsets, int64_t sequences, int64_t tokens, const float* weight, float* carry,
                        const ComplementaryOptions& options, float* a, uint8_t* gate,
                        ComplementaryDeviceResult* result);

/// kernels/ascend.h in one launch (the table of tensors is uploaded): the same bits as on the CPU. *changed is set.
void ascend(const Context& context, const std::vector<AscendTensor>& tensors, double eta, Rounding rounding,
            uint64_t seed, unsigned long long* changed);

/// blocks.h: adamw.
void adamw(const Context& context, float* param, const float* grad, float* m, float* v, int64_t n, const AdamW& options,
           int64_t step, float grad_scale);

/// *out = sum x^2 in double, in a fixed order.
void square_sum(const Context& context, const float* x, int64_t n, double* out);

/// kernels/non_finite.h: lowers *first, set by the caller, to the index of the first element that is not finite.
void first_non_finite(const Context& context, const void* x, DType dtype, int64_t n, long long* first);

/// Rows of any dtype (an even number of bytes each) moved: to[r] = from[rows[r]], and to[rows[r]] = from[r]; rows
/// distinct.
void gather_row_bytes(const Context& context, const void* from, const int64_t* rows, int64_t count, int64_t row_bytes,
                      void* to);
void scatter_row_bytes(const Context& context, const void* from, const int64_t* rows, int64_t count, int64_t row_bytes,
                       void* to);

// ---- decoder layers (blocks.cu, attention.cu): float32, kernels/blocks.h and kernels/attention.h
// ------------------------

void rms_norm(const Context& context, const float* x, const float* weight, float eps, const NormShape& shape,
              int64_t tokens, float* y, float* inv);
void rms_norm_backward(const Context& context, const float* dy, const float* x, const float* weight, const float* inv,
                       const NormShape& shape, int64_t tokens, bool accumulate, float* dx, float* dweight);
void swiglu(const Context& context, const float* gate_up, int64_t width, int64_t tokens, float* out);
void swiglu_backward(const Context& context, const float* gate_up, const float* d_out, int64_t width, int64_t tokens,
                     float* d_gate_up);
void rope(const Context& context, float* x, int64_t ld, int64_t heads, int64_t head_dim, const int32_t* positions,
          int64_t tokens, const float* cosine, const float* sine, bool inverse);
void embed(const Context& context, const void* table, DType dtype, const int32_t* ids, int64_t tokens, int64_t dim,
           float* out);
/// Between float32 and bfloat16, to nearest even.
void cast(const Context& context, const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n);
void add_bias(const Context& context, float* x, const float* bias, int64_t rows, int64_t cols);
void bias_backward(const Context& context, const float* dx, int64_t rows, int64_t cols, float* dbias);
void add(const Context& context, const float* x, int64_t n, float* y);
/// out[r] = x[rows[r]]
void gather_rows(const Context& context, const float* x, const int32_t* rows, int64_t count, int64_t dim, float* out);
/// x[host_rows[r]] += d_out[r]. The rows are on the HOST: they are grouped there by what they name, so that every row
/// of x is summed by one thread a column, in the order of r.
void scatter_add_rows(const Context& context, const float* d_out, const int32_t* host_rows, int64_t count, int64_t dim,
                      float* x);

/// The tables of one batch's segments on the device. Made on the host by plan_attention, uploaded as one block.
struct AttentionTables {
  std::vector<int32_t> words;  // host copy; layout private to attention.cu
  const int32_t* device = nullptr;
  int64_t segments = 0, tokens = 0, query_blocks = 0, key_blocks = 0;
};
AttentionTables plan_attention(const Segments& segments);
void attention(const Context& context, const float* qkv, const AttentionShape& shape, const AttentionTables& tables,
               float* out, float* lse);
/// Deterministic: every gradient is summed by one block in a fixed order, no atomics.
void attention_backward(const Context& context, const float* d_out, const float* qkv, const float* out,
                        const float* lse, const AttentionShape& shape, const AttentionTables& tables, float* d_qkv);
void cache_append(const Context& context, const float* qkv, const AttentionShape& shape, const CacheSlot* slots,
                  int64_t tokens, float* cache);
void attention_decode(const Context& context, const float* qkv, const AttentionShape& shape, const DecodeRow* rows,
                      int64_t count, const float* prompts, const float* own, float* out);

}  // namespace eepo::cuda
