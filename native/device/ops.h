// Everything a device can do for us: memory, and the kernels on it. The decoder, the model and the bindings are written
// once against this interface; native/device/cpu_ops.cc is the CPU, native/cuda/ops.cc (a binary of its own, loaded
// only where a GPU is) is CUDA.
//
// Pointers are device memory of this device unless a name says `host`. Calls are made on the device's executor thread,
// in order; results are there for the next call, but on the GPU not yet for the host: only download(), synchronize()
// and the calls that return a value wait, and synchronizations() counts them. What each kernel computes is documented
// in kernels/<name>.h and not repeated here.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "core/device.h"
#include "core/dtype.h"
#include "kernels/ascend.h"
#include "kernels/attention.h"
#include "kernels/blocks.h"
#include "kernels/complementary_loss.h"
#include "kernels/gemm.h"
#include "kernels/non_finite.h"
#include "kernels/sample.h"
#include "kernels/token_grad.h"
#include "kernels/token_stats.h"

namespace eepo {

/// What a device keeps of one batch's segments for the attention calls of all its layers.
class AttentionPlan {
 public:
  virtual ~AttentionPlan() = default;
};

/// A weight matrix [out, in] as it is stored: dense, float32 or bfloat16.
struct WeightMatrix {
  const void* data;
  DType dtype;
  int64_t out, in;
};

/// hidden [rows, dim] and head [vocab, dim]; dense. Hidden states are of the head's dtype, or float32 with a head in
/// bfloat16: then the CPU widens the head, and the GPU rounds them.
struct LinearHead {
  const void* hidden;
  const void* head;
  DType dtype;
  int64_t rows, dim, vocab;
  DType hidden_dtype = dtype;
};

struct DeviceInfo {
  std::string name;
  int64_t total_bytes = 0, free_bytes = 0;
  int major = 0, minor = 0, multiprocessors = 0;
};

struct MemoryStats {
  int64_t allocated = 0, peak = 0;  // bytes in use by tensors, and their most since reset_peak()
};

class Ops {
 public:
  virtual ~Ops() = default;
  virtual Device device() const = 0;
  virtual DeviceInfo info() = 0;
  /// The executor's thread calls it before every job: makes this device and our stream the thread's current ones.
  virtual void begin_job() {}

  // ---- memory
  // ---------------------------------------------------------------------------------------------------------

  /// Uninitialised, dense. Throws OutOfMemory saying how much was asked for.
  virtual at::Tensor empty(const std::vector<int64_t>& shape, DType dtype) = 0;
  /// Whether the tensor's storage is this device's.
  virtual bool owns(const at::Tensor& tensor) const = 0;
  /// A dense copy in another dtype, on this device.
  virtual at::Tensor convert(const at::Tensor& tensor, DType dtype) = 0;
  virtual void zero(void* to, int64_t bytes) = 0;
  virtual void copy(void* to, const void* from, int64_t bytes) = 0;
  /// `height` rows of `width` bytes.
  virtual void copy_2d(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t width,
                       int64_t height) = 0;
  /// The host memory may be reused when this returns.
  virtual void upload(void* to, const void* host, int64_t bytes) = 0;
  /// Waits for the device.
  virtual void download(void* host, const void* from, int64_t bytes) = 0;
  virtual void synchronize() = 0;
  /// How often this device was waited for.
  virtual int64_t synchronizations() const = 0;
  virtual MemoryStats memory() = 0;
  virtual void reset_peak() = 0;
  /// Gives cached memory back to the system.
  virtual void empty_cache() = 0;
  /// Time the device needs for what `body` queues, in milliseconds. Waits.
  virtual double elapsed_ms(const std::function<void()>& body) = 0;

  /// A small table where this device's kernels can read it: on the CPU the vector itself, which must outlive its use;
  /// elsewhere a copy in `memory`.
  template <class T>
  const T* stage(const std::vector<T>& host, at::Tensor& memory) {
    return static_cast<const T*>(stage_bytes(host.data(), static_cast<int64_t>(host.size() * sizeof(T)), memory));
  }

  // ---- matrices and decoder layers: float32 but for the weights of linear layers
  // --------------------------------------

  virtual void gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
                    const float* b, int64_t ldb, float beta, float* c, int64_t ldc) = 0;
  /// y[rows, out] = x[rows, in] W^T. A CPU widens bfloat16 weights; a GPU rounds x to them, sums in float32.
  virtual void linear(const float* x, const WeightMatrix& w, int64_t rows, float* y) = 0;
  /// dx[rows, in] = dy[rows, out] W, as above.
  virtual void linear_input_grad(const float* dy, const WeightMatrix& w, int64_t rows, float* dx) = 0;
  /// dW[out, in] += dy^T x. `dtype` is that of the weights: with bfloat16 a GPU rounds both operands to it.
  virtual void linear_weight_grad(const float* dy, const float* x, DType dtype, int64_t rows, int64_t out, int64_t in,
                                  float* dw) = 0;
  virtual void rms_norm(const float* x, const float* weight, float eps, const NormShape& shape, int64_t tokens,
                        float* y, float* inv) = 0;
  virtual void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* inv,
                                 const NormShape& shape, int64_t tokens, bool accumulate, float* dx,
                                 float* dweight) = 0;
  virtual void swiglu(const float* gate_up, int64_t width, int64_t tokens, float* out) = 0;
  virtual void swiglu_backward(const float* gate_up, const float* d_out, int64_t width, int64_t tokens,
                               float* d_gate_up) = 0;
  virtual void rope(float* x, int64_t ld, int64_t heads, int64_t head_dim, const int32_t* positions, int64_t tokens,
                    const float* cosine, const float* sine, bool inverse) = 0;
  virtual void embed(const WeightMatrix& table, const int32_t* ids, int64_t tokens, float* out) = 0;
  virtual void add_bias(float* x, const float* bias, int64_t rows, int64_t cols) = 0;
  virtual void bias_backward(const float* dx, int64_t rows, int64_t cols, float* dbias) = 0;
  virtual void add(const float* x, int64_t n, float* y) = 0;
  /// Between float32 and bfloat16, rounding to nearest even.
  virtual void cast(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n) = 0;
  /// out[r] = x[rows[r]]
  virtual void gather_rows(const float* x, const int32_t* rows, int64_t count, int64_t dim, float* out) = 0;
  /// Back, and the gradient of embed: x[host_rows[r]] += d_out[r], in the order of r. A row may be named many times.
  virtual void scatter_add_rows(const float* d_out, const int32_t* host_rows, int64_t count, int64_t dim, float* x) = 0;

  virtual std::shared_ptr<AttentionPlan> plan(const Segments& segments) = 0;
  virtual void attention(const float* qkv, const AttentionShape& shape, const AttentionPlan& plan, float* out,
                         float* lse) = 0;
  virtual void attention_backward(const float* d_out, const float* qkv, const float* out, const float* lse,
                                  const AttentionShape& shape, const AttentionPlan& plan, float* d_qkv) = 0;
  virtual void cache_append(const float* qkv, const AttentionShape& shape, const CacheSlot* slots, int64_t tokens,
                            float* cache) = 0;
  virtual void attention_decode(const float* qkv, const AttentionShape& shape, const DecodeRow* rows, int64_t count,
                                const float* prompts, const float* own, float* out) = 0;

  // ---- the head, the losses, the steps
  // --------------------------------------------------------------------------------

  /// targets (may be null) on the device. `bad_row`: null, or one int64 on the device, lowered to the first row whose
  /// target lies outside the vocabulary; without it targets are the caller's promise.
  virtual void token_stats(const LogitsView& logits, const int64_t* targets, float temperature, float* logprob,
                           float* entropy, float* one_minus_p, int64_t* bad_row) = 0;
  virtual void token_grad(const MutableLogitsView& logits, const int64_t* targets, const float* a, const float* b,
                          float temperature, int64_t* bad_row) = 0;
  /// Targets are the caller's promise.
  virtual void linear_token_stats(const LinearHead& head, const int64_t* targets, float temperature, float* logprob,
                                  float* entropy, float* one_minus_p, const CancelToken* cancel) = 0;
  /// d_hidden [rows, dim] is overwritten, d_head [vocab, dim] added to, or null for a head
  /// that is not trained; both float32. The coefficients come from the
  /// host: rows whose a and b are both 0 are dropped there, before anything is computed.
  virtual void linear_token_grad(const LinearHead& head, const int64_t* targets, const float* host_a,
                                 const float* host_b, float temperature, float* d_hidden, float* d_head,
                                 const CancelToken* cancel) = 0;
  /// kernels/token_grad.h: complementary_grad; arrays on the device. `bad_row` as of token_stats.
  virtual void complementary_grad(const MutableLogitsView& logits, const int64_t* targets,
                                  const ComplementaryRows& rows, float temperature, int64_t* bad_row) = 0;
  /// kernels/linear_head.h: weights come from the host and statistics go there. Waits.
  virtual void linear_complementary_grad(const LinearHead& head, const int64_t* targets, const float* host_weight,
                                         const ComplementaryOptions& options, float temperature, float* host_logprob,
                                         float* host_one_minus_p, float* d_hidden, float* d_head,
                                         const CancelToken* cancel) = 0;
  /// All arrays on the device. Waits (it returns numbers). Throws NonFinite as kernels/complementary_loss.h says.
  virtual ComplementaryResult complementary_loss(const float* logprob, const float* entropy, const float* one_minus_p,
                                                 const int64_t* offsets, int64_t sequences, int64_t tokens,
                                                 const float* weight, float* carry, const ComplementaryOptions& options,
                                                 float* a, uint8_t* gate) = 0;
  /// Waits (it returns a count).
  virtual AscendReport ascend(const std::vector<AscendTensor>& tensors, double eta, Rounding rounding,
                              uint64_t seed) = 0;
  /// `host_counters`: [rows]. A row that cannot be drawn from gets token -1 (and NaN); the caller reads the tokens
  /// anyway.
  virtual void sample(const LogitsView& logits, const SampleOptions& options, const PhiloxCounter* host_counters,
                      int64_t* token, float* logprob, float* entropy) = 0;
  virtual void adamw(float* param, const float* grad, float* m, float* v, int64_t n, const AdamW& options, int64_t step,
                     float grad_scale) = 0;
  /// Waits (it returns a number).
  virtual double square_sum(const float* x, int64_t n) = 0;
  /// Waits (it returns an index).
  virtual int64_t first_non_finite(const void* x, DType dtype, int64_t n) = 0;

 protected:
  virtual const void* stage_bytes(const void* host, int64_t bytes, at::Tensor& memory) = 0;
};

/// The CPU's, always there.
Ops& cpu_ops();
/// A device's; throws Unsupported when its binary was not loaded.
Ops& ops_of(Device device);
/// Called once, with the operations of the CUDA half. They are never destroyed.
void install_cuda_ops(Ops* ops);
bool has_cuda_ops();

}  // namespace eepo
