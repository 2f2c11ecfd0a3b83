// The CPU's operations: the kernels themselves, memory from libtorch, nothing to wait for.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/CPUAllocator.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <limits>
#include <memory>

#include "core/error.h"
#include "device/ops.h"
#include "device/scalar_type.h"
#include "kernels/linear_head.h"

namespace eepo {
namespace {

struct CpuPlan : AttentionPlan {
  explicit CpuPlan(const Segments& of) : segments(of) {}
  Segments segments;
};
const Segments& segments_of(const AttentionPlan& plan) { return static_cast<const CpuPlan&>(plan).segments; }

int64_t physical_memory() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<int64_t>(sysconf(_SC_PAGESIZE));
}

// The kernels take targets on trust: a call with `bad_row` wants them looked at first.
bool targets_in_range(const int64_t* targets, int64_t rows, int64_t cols, int64_t* bad_row) {
  if (!targets || !bad_row) return true;
  for (int64_t r = 0; r < rows; ++r)
    if (targets[r] < 0 || targets[r] >= cols) {
      *bad_row = std::min(*bad_row, r);
      return false;
    }
  return true;
}

class CpuOps final : public Ops {
 public:
  Device device() const override { return Device::Cpu; }
  DeviceInfo info() override {
    DeviceInfo info;
    info.name = "cpu";
    info.total_bytes = physical_memory();
    info.free_bytes = static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<int64_t>(sysconf(_SC_PAGESIZE));
    return info;
  }

  at::Tensor empty(const std::vector<int64_t>& shape, DType dtype) override {
    int64_t bytes = static_cast<int64_t>(size_of(dtype));
    for (const int64_t d : shape)
      check(!__builtin_mul_overflow(bytes, d, &bytes), ErrorCode::OutOfMemory,
            "out of memory: more bytes were asked for than can be addressed");
    // Linux grants more than it has and kills the process at the first touch: refuse before that.
    check(bytes <= physical_memory(), ErrorCode::OutOfMemory, "out of memory: ", bytes,
          " bytes were asked for, this machine has ", physical_memory());
    const at::TensorOptions options = at::TensorOptions().dtype(scalar_type(dtype));
    if (bytes == 0) return at::empty(shape, options);
    auto block = std::make_shared<c10::DataPtr>(c10::GetCPUAllocator()->allocate(static_cast<size_t>(bytes)));
    count(bytes);
    return at::from_blob(
        block->get(), shape,
        [block, bytes](void*) mutable {
          block.reset();
          count(-bytes);
        },
        options);
  }
  bool owns(const at::Tensor& tensor) const override { return tensor.is_cpu(); }
  at::Tensor convert(const at::Tensor& tensor, DType dtype) override {
    return tensor.to(scalar_type(dtype), false, /*copy=*/true, at::MemoryFormat::Contiguous);
  }
  void zero(void* to, int64_t bytes) override {
    if (bytes) std::memset(to, 0, bytes);
  }
  void copy(void* to, const void* from, int64_t bytes) override {
    if (bytes) std::memcpy(to, from, bytes);
  }
  void copy_2d(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t width,
               int64_t height) override {
    for (int64_t i = 0; i < height; ++i)
      std::memcpy(static_cast<char*>(to) + i * to_pitch, static_cast<const char*>(from) + i * from_pitch, width);
  }
  void upload(void* to, const void* host, int64_t bytes) override { copy(to, host, bytes); }
  void download(void* host, const void* from, int64_t bytes) override { copy(host, from, bytes); }
  void synchronize() override {}
  int64_t synchronizations() const override { return 0; }
  MemoryStats memory() override { return {allocated_, peak_}; }
  void reset_peak() override { peak_ = allocated_.load(); }
  void empty_cache() override {}
  double elapsed_ms(const std::function<void()>& body) override {
    const auto begin = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  }

  void gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const float* b,
            int64_t ldb, float beta, float* c, int64_t ldc) override {
    eepo::gemm(op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }
  void linear(const float* x, const WeightMatrix& w, int64_t rows, float* y) override {
    eepo::gemm(Op::None, Op::Transpose, rows, w.out, w.in, 1, x, w.in, {w.data, w.dtype}, w.in, 0, y, w.out);
  }
  void linear_input_grad(const float* dy, const WeightMatrix& w, int64_t rows, float* dx) override {
    eepo::gemm(Op::None, Op::None, rows, w.in, w.out, 1, dy, w.out, {w.data, w.dtype}, w.in, 0, dx, w.in);
  }
  void linear_weight_grad(const float* dy, const float* x, DType, int64_t rows, int64_t out, int64_t in,
                          float* dw) override {
    eepo::gemm(Op::Transpose, Op::None, out, in, rows, 1, dy, out, x, in, 1, dw, in);
  }
  void rms_norm(const float* x, const float* weight, float eps, const NormShape& shape, int64_t tokens, float* y,
                float* inv) override {
    eepo::rms_norm(x, weight, eps, shape, tokens, y, inv);
  }
  void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* inv, const NormShape& shape,
                         int64_t tokens, bool accumulate, float* dx, float* dweight) override {
    eepo::rms_norm_backward(dy, x, weight, inv, shape, tokens, accumulate, dx, dweight);
  }
  void swiglu(const float* gate_up, int64_t width, int64_t tokens, float* out) override {
    eepo::swiglu(gate_up, width, tokens, out);
  }
  void swiglu_backward(const float* gate_up, const float* d_out, int64_t width, int64_t tokens,
                       float* d_gate_up) override {
    eepo::swiglu_backward(gate_up, d_out, width, tokens, d_gate_up);
  }
  void rope(float* x, int64_t ld, int64_t heads, int64_t head_dim, const int32_t* positions, int64_t tokens,
            const float* cosine, const float* sine, bool inverse) override {
    eepo::rope(x, ld, heads, head_dim, positions, tokens, cosine, sine, inverse);
  }
  void embed(const WeightMatrix& table, const int32_t* ids, int64_t tokens, float* out) override {
    eepo::embed(table.data, table.dtype, ids, tokens, table.in, out);
  }
  void add_bias(float* x, const float* bias, int64_t rows, int64_t cols) override {
    eepo::add_bias(x, bias, rows, cols);
  }
  void bias_backward(const float* dx, int64_t rows, int64_t cols, float* dbias) override {
    eepo::bias_backward(dx, rows, cols, dbias);
  }
  void add(const float* x, int64_t n, float* y) override { eepo::add(x, n, y); }
  void cast(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n) override {
    eepo::ascend({{from, from_dtype, nullptr, DType::Float32, to, to_dtype, n}}, 0, Rounding::Nearest, 0);
  }
  void gather_rows(const float* x, const int32_t* rows, int64_t count, int64_t dim, float* out) override {
    for (int64_t r = 0; r < count; ++r)
      copy(out + r * dim, x + rows[r] * dim, dim * static_cast<int64_t>(sizeof(float)));
  }
  void scatter_add_rows(const float* d_out, const int32_t* host_rows, int64_t count, int64_t dim, float* x) override {
    eepo::scatter_add_rows(d_out, host_rows, count, dim, x);
  }

  std::shared_ptr<AttentionPlan> plan(const Segments& segments) override { return std::make_shared<CpuPlan>(segments); }
  void attention(const float* qkv, const AttentionShape& shape, const AttentionPlan& plan, float* out,
                 float* lse) override {
    eepo::attention(qkv, shape, segments_of(plan), out, lse);
  }
  void attention_backward(const float* d_out, const float* qkv, const float* out, const float* lse,
                          const AttentionShape& shape, const AttentionPlan& plan, float* d_qkv) override {
    eepo::attention_backward(d_out, qkv, out, lse, shape, segments_of(plan), d_qkv);
  }
  void cache_append(const float* qkv, const AttentionShape& shape, const CacheSlot* slots, int64_t tokens,
                    float* cache) override {
    eepo::cache_append(qkv, shape, slots, tokens, cache);
  }
  void attention_decode(const float* qkv, const AttentionShape& shape, const DecodeRow* rows, int64_t count,
                        const float* prompts, const float* own, float* out) override {
    eepo::attention_decode(qkv, shape, rows, count, prompts, own, out);
  }

  void token_stats(const LogitsView& logits, const int64_t* targets, float temperature, float* logprob, float* entropy,
                   float* one_minus_p, int64_t* bad_row) override {
    if (!targets_in_range(targets, logits.rows, logits.cols, bad_row)) return;
    eepo::token_stats(logits, targets, temperature, logprob, entropy, one_minus_p);
  }
  void token_grad(const MutableLogitsView& logits, const int64_t* targets, const float* a, const float* b,
                  float temperature, int64_t* bad_row) override {
    if (!targets_in_range(targets, logits.rows, logits.cols, bad_row)) return;
    eepo::token_grad(logits, targets, a, b, temperature);
  }
  void linear_token_stats(const LinearHead& head, const int64_t* targets, float temperature, float* logprob,
                          float* entropy, float* one_minus_p, const CancelToken* cancel) override {
    eepo::linear_token_stats(static_cast<const float*>(head.hidden), checked(head), head.rows, head.dim, head.vocab,
                             targets, temperature, logprob, entropy, one_minus_p, cancel);
  }
  void linear_token_grad(const LinearHead& head, const int64_t* targets, const float* host_a, const float* host_b,
                         float temperature, float* d_hidden, float* d_head, const CancelToken* cancel) override {
    eepo::linear_token_grad(static_cast<const float*>(head.hidden), checked(head), head.rows, head.dim, head.vocab,
                            targets, host_a, host_b, temperature, d_hidden, d_head, cancel);
  }
  void complementary_grad(const MutableLogitsView& logits, const int64_t* targets, const ComplementaryRows& rows,
                          float temperature, int64_t* bad_row) override {
    if (!targets_in_range(targets, logits.rows, logits.cols, bad_row)) return;
    eepo::complementary_grad(logits, targets, rows, temperature);
  }
  void linear_complementary_grad(const LinearHead& head, const int64_t* targets, const float* host_weight,
                                 const ComplementaryOptions& options, float temperature, float* host_logprob,
                                 float* host_one_minus_p, float* d_hidden, float* d_head,
                                 const CancelToken* cancel) override {
    eepo::linear_complementary_grad(static_cast<const float*>(head.hidden), checked(head), head.rows, head.dim,
                                    head.vocab, targets, host_weight, options, temperature, host_logprob,
                                    host_one_minus_p, d_hidden, d_head, cancel);
  }
  ComplementaryResult complementary_loss(const float* logprob, const float* entropy, const float* one_minus_p,
                                         const int64_t* offsets, int64_t sequences, int64_t /*tokens*/,
                                         const float* weight, float* carry, const ComplementaryOptions& options,
                                         float* a, uint8_t* gate) override {
    return eepo::complementary_loss(logprob, entropy, one_minus_p, offsets, sequences, weight, carry, options, a, gate);
  }
  AscendReport ascend(const std::vector<AscendTensor>& tensors, double eta, Rounding rounding, uint64_t seed) override {
    return eepo::ascend(tensors, eta, rounding, seed);
  }
  void sample(const LogitsView& logits, const SampleOptions& options, const PhiloxCounter* host_counters,
              int64_t* token, float* logprob, float* entropy) override {
    eepo::sample(logits, options, host_counters, token, logprob, entropy);
  }
  void adamw(float* param, const float* grad, float* m, float* v, int64_t n, const AdamW& options, int64_t step,
             float grad_scale) override {
    eepo::adamw(param, grad, m, v, n, options, step, grad_scale);
  }
  double square_sum(const float* x, int64_t n) override { return eepo::square_sum(x, n); }
  int64_t first_non_finite(const void* x, DType dtype, int64_t n) override {
    return eepo::first_non_finite(x, dtype, n);
  }

 protected:
  const void* stage_bytes(const void* host, int64_t, at::Tensor&) override { return host; }

 private:
  // Tensors outlive the job that made them and are freed on any thread.
  static void count(int64_t bytes) {
    const int64_t now = allocated_ += bytes;
    int64_t peak = peak_;
    while (now > peak && !peak_.compare_exchange_weak(peak, now)) {
    }
  }
  static inline std::atomic<int64_t> allocated_ = 0, peak_ = 0;

  static GemmB checked(const LinearHead& head) {
    check(head.hidden_dtype == DType::Float32 && head.dtype != DType::Float16, ErrorCode::Unsupported,
          "the CPU's head works on float32 hidden states and a float32 or bfloat16 head: convert them first");
    return {head.head, head.dtype};
  }
};

}  // namespace

Ops& cpu_ops() {
  static CpuOps ops;
  return ops;
}

}  // namespace eepo
