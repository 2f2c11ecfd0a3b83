// The GPU's operations: our kernels and the platform's matrix products, on one stream.
//
// Everything is queued; the host waits only in download(), synchronize(), elapsed_ms() and the calls that return a
// number (complementary_loss, ascend, square_sum), and each wait is counted. Scratch memory goes back to the caching
// allocator when the next call begins: it is reused in stream order, so nobody waits for that either.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "core/error.h"
#include "cuda/factory.h"
#include "cuda/head_chunks.h"
#include "cuda/kernels.h"
#include "cuda/runtime.h"

namespace eepo::cuda {
namespace {

class CudaPlan : public AttentionPlan {
 public:
  AttentionTables tables;
  at::Tensor memory;
};
const AttentionTables& tables_of(const AttentionPlan& plan) { return static_cast<const CudaPlan&>(plan).tables; }

class CudaOps final : public Ops {
 public:
  explicit CudaOps(std::unique_ptr<Runtime> runtime) : runtime_(std::move(runtime)) {
    context_.stream = runtime_->stream();
    context_.multiprocessors = runtime_->info().multiprocessors;
    context_.scratch = [this](size_t bytes) {
      scratch_.push_back(runtime_->empty({static_cast<int64_t>((bytes + 7) / 8)}, DType::Int64));
      return scratch_.back().data_ptr();
    };
    context_.upload = [this](void* to, const void* host, size_t bytes) {
      runtime_->upload(to, host, static_cast<int64_t>(bytes));
    };
  }

  Device device() const override { return Device::Cuda; }
  DeviceInfo info() override { return runtime_->info(); }
  void begin_job() override { runtime_->begin_job(); }

  at::Tensor empty(const std::vector<int64_t>& shape, DType dtype) override { return runtime_->empty(shape, dtype); }
  bool owns(const at::Tensor& tensor) const override { return runtime_->owns(tensor); }
  at::Tensor convert(const at::Tensor& tensor, DType dtype) override { return runtime_->convert(tensor, dtype); }
  void zero(void* to, int64_t bytes) override { runtime_->zero(to, bytes); }
  void copy(void* to, const void* from, int64_t bytes) override { runtime_->copy(to, from, bytes); }
  void copy_2d(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t width,
               int64_t height) override {
    runtime_->copy_2d(to, to_pitch, from, from_pitch, width, height);
  }
  void upload(void* to, const void* host, int64_t bytes) override { runtime_->upload(to, host, bytes); }
  void download(void* host, const void* from, int64_t bytes) override {
    ++waits_;
    runtime_->download(host, from, bytes);
  }
  void synchronize() override {
    ++waits_;
    runtime_->synchronize();
  }
  int64_t synchronizations() const override { return waits_.load(); }
  MemoryStats memory() override { return runtime_->memory(); }
  void reset_peak() override { runtime_->reset_peak(); }
  void empty_cache() override {
    scratch_.clear();
    runtime_->empty_cache();
  }
  double elapsed_ms(const std::function<void()>& body) override {
    ++waits_;
    return runtime_->elapsed_ms(body);
  }

  void gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const float* b,
            int64_t ldb, float beta, float* c, int64_t ldc) override {
    runtime_->gemm(op_a, op_b, m, n, k, alpha, {const_cast<float*>(a), DType::Float32, lda},
                   {const_cast<float*>(b), DType::Float32, ldb}, beta, {c, DType::Float32, ldc});
  }
  void linear(const float* x, const WeightMatrix& w, int64_t rows, float* y) override {
    at::Tensor memory;
    const Matrix weight = matrix(w), in = rounded(x, rows, w.in, w.dtype, memory);
    runtime_->gemm(Op::None, Op::Transpose, rows, w.out, w.in, 1, in, weight, 0, {y, DType::Float32, w.out});
  }
  void linear_input_grad(const float* dy, const WeightMatrix& w, int64_t rows, float* dx) override {
    at::Tensor memory;
    const Matrix weight = matrix(w), in = rounded(dy, rows, w.out, w.dtype, memory);
    runtime_->gemm(Op::None, Op::None, rows, w.in, w.out, 1, in, weight, 0, {dx, DType::Float32, w.in});
  }
  void linear_weight_grad(const float* dy, const float* x, DType dtype, int64_t rows, int64_t out, int64_t in,
                          float* dw) override {
    at::Tensor dy_memory, x_memory;
    const Matrix left = rounded(dy, rows, out, dtype, dy_memory), right = rounded(x, rows, in, dtype, x_memory);
    runtime_->gemm(Op::Transpose, Op::None, out, in, rows, 1, left, right, 1, {dw, DType::Float32, in});
  }
  void rms_norm(const float* x, const float* weight, float eps, const NormShape& shape, int64_t tokens, float* y,
                float* inv) override {
    launch([&] { cuda::rms_norm(context_, x, weight, eps, shape, tokens, y, inv); });
  }
  void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* inv, const NormShape& shape,
                         int64_t tokens, bool accumulate, float* dx, float* dweight) override {
    launch([&] { cuda::rms_norm_backward(context_, dy, x, weight, inv, shape, tokens, accumulate, dx, dweight); });
  }
  void swiglu(const float* gate_up, int64_t width, int64_t tokens, float* out) override {
    launch([&] { cuda::swiglu(context_, gate_up, width, tokens, out); });
  }
  void swiglu_backward(const float* gate_up, const float* d_out, int64_t width, int64_t tokens,
                       float* d_gate_up) override {
    launch([&] { cuda::swiglu_backward(context_, gate_up, d_out, width, tokens, d_gate_up); });
  }
  void rope(float* x, int64_t ld, int64_t heads, int64_t head_dim, const int32_t* positions, int64_t tokens,
            const float* cosine, const float* sine, bool inverse) override {
    launch([&] { cuda::rope(context_, x, ld, heads, head_dim, positions, tokens, cosine, sine, inverse); });
  }
  void embed(const WeightMatrix& table, const int32_t* ids, int64_t tokens, float* out) override {
    launch([&] { cuda::embed(context_, table.data, table.dtype, ids, tokens, table.in, out); });
  }
  void add_bias(float* x, const float* bias, int64_t rows, int64_t cols) override {
    launch([&] { cuda::add_bias(context_, x, bias, rows, cols); });
  }
  void bias_backward(const float* dx, int64_t rows, int64_t cols, float* dbias) override {
    launch([&] { cuda::bias_backward(context_, dx, rows, cols, dbias); });
  }
  void add(const float* x, int64_t n, float* y) override {
    launch([&] { cuda::add(context_, x, n, y); });
  }
  void cast(const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n) override {
    launch([&] { cuda::cast(context_, from, from_dtype, to, to_dtype, n); });
  }
  void gather_rows(const float* x, const int32_t* rows, int64_t count, int64_t dim, float* out) override {
    launch([&] { cuda::gather_rows(context_, x, rows, count, dim, out); });
  }
  void scatter_add_rows(const float* d_out, const int32_t* host_rows, int64_t count, int64_t dim, float* x) override {
    launch([&] { cuda::scatter_add_rows(context_, d_out, host_rows, count, dim, x); });
  }

  std::shared_ptr<AttentionPlan> plan(const Segments& segments) override {
    auto plan = std::make_shared<CudaPlan>();
    plan->tables = plan_attention(segments);
    plan->tables.device = stage(plan->tables.words, plan->memory);
    return plan;
  }
  void attention(const float* qkv, const AttentionShape& shape, const AttentionPlan& plan, float* out,
                 float* lse) override {
    launch([&] { cuda::attention(context_, qkv, shape, tables_of(plan), out, lse); });
  }
  void attention_backward(const float* d_out, const float* qkv, const float* out, const float* lse,
                          const AttentionShape& shape, const AttentionPlan& plan, float* d_qkv) override {
    launch([&] { cuda::attention_backward(context_, d_out, qkv, out, lse, shape, tables_of(plan), d_qkv); });
  }
  void cache_append(const float* qkv, const AttentionShape& shape, const CacheSlot* slots, int64_t tokens,
                    float* cache) override {
    launch([&] { cuda::cache_append(context_, qkv, shape, slots, tokens, cache); });
  }
  void attention_decode(const float* qkv, const AttentionShape& shape, const DecodeRow* rows, int64_t count,
                        const float* prompts, const float* own, float* out) override {
    launch([&] { cuda::attention_decode(context_, qkv, shape, rows, count, prompts, own, out); });
  }

  void token_stats(const LogitsView& logits, const int64_t* targets, float temperature, float* logprob, float* entropy,
                   float* one_minus_p, int64_t* bad_row) override {
    launch([&] { cuda::token_stats(context_, logits, targets, temperature, logprob, entropy, one_minus_p, bad_row); });
  }
  void token_grad(const MutableLogitsView& logits, const int64_t* targets, const float* a, const float* b,
                  float temperature, int64_t* bad_row) override {
    const LogitsView in{logits.data, logits.dtype, logits.rows, logits.cols, logits.stride};
    launch([&] { cuda::token_grad(context_, in, targets, a, b, temperature, logits, bad_row); });
  }

  void linear_token_stats(const LinearHead& mixed, const int64_t* targets, float temperature, float* logprob,
                          float* entropy, float* one_minus_p, const CancelToken* cancel) override {
    at::Tensor hidden_memory;
    const LinearHead head = uniform(mixed, hidden_memory);
    const int64_t chunk = chunk_rows(head.rows, head.vocab), stride = logits_stride(head.vocab);
    const at::Tensor memory = runtime_->empty({chunk * stride}, DType::Float32);
    const auto from = [](auto* values, int64_t row) { return values ? values + row : nullptr; };
    for (int64_t first = 0; first < head.rows; first += chunk) {
      if (cancel) cancel->check();
      const int64_t n = std::min(chunk, head.rows - first);
      project(head, row_of(head, first), n, memory.data_ptr(), stride);
      launch([&] {
        cuda::token_stats(context_, {memory.data_ptr(), DType::Float32, n, head.vocab, stride}, from(targets, first),
                          temperature, from(logprob, first), from(entropy, first), from(one_minus_p, first), nullptr);
      });
    }
  }

  void linear_token_grad(const LinearHead& head, const int64_t* targets, const float* host_a, const float* host_b,
                         float temperature, float* d_hidden, float* d_head, const CancelToken* cancel) override {
    const Active active(head.rows, [&](int64_t r) { return host_a[r] != 0 || (host_b && host_b[r] != 0); });
    std::vector<float> packed;  // a of all active rows, then b
    packed.reserve(2 * active.rows.size());
    for (const int64_t row : active.rows) packed.push_back(host_a[row]);
    if (host_b)
      for (const int64_t row : active.rows) packed.push_back(host_b[row]);
    at::Tensor memory;
    const float* a = stage(packed, memory);
    const float* b = host_b ? a + active.count() : nullptr;
    active_grad(head, targets, active, d_hidden, d_head, cancel,
                [&](const LogitsView& z, const int64_t* y, int64_t first, const MutableLogitsView& dz) {
                  cuda::token_grad(context_, z, y, a + first, b ? b + first : nullptr, temperature, dz, nullptr);
                });
  }

  void complementary_grad(const MutableLogitsView& logits, const int64_t* targets, const ComplementaryRows& rows,
                          float temperature, int64_t* bad_row) override {
    const LogitsView in{logits.data, logits.dtype, logits.rows, logits.cols, logits.stride};
    launch([&] { cuda::complementary_grad(context_, in, targets, rows, temperature, logits, bad_row); });
  }

  void linear_complementary_grad(const LinearHead& head, const int64_t* targets, const float* host_weight,
                                 const ComplementaryOptions& options, float temperature, float* host_logprob,
                                 float* host_one_minus_p, float* d_hidden, float* d_head,
                                 const CancelToken* cancel) override {
    std::fill_n(host_logprob, head.rows, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(host_one_minus_p, head.rows, std::numeric_limits<float>::quiet_NaN());
    const Active active(head.rows, [&](int64_t r) { return host_weight[r] != 0; });
    const int64_t count = active.count();
    std::vector<float> packed;
    packed.reserve(active.rows.size());
    for (const int64_t row : active.rows) packed.push_back(host_weight[row]);
    at::Tensor memory;
    const float* weight = stage(packed, memory);
    const at::Tensor seen = runtime_->empty({2 * count}, DType::Float32);  // l, then 1 - p, of the active rows
    auto* logprob = static_cast<float*>(seen.data_ptr());
    active_grad(head, targets, active, d_hidden, d_head, cancel,
                [&](const LogitsView& z, const int64_t* y, int64_t first, const MutableLogitsView& dz) {
                  const ComplementaryRows rows{weight + first, options, logprob + first, logprob + count + first};
                  cuda::complementary_grad(context_, z, y, rows, temperature, dz, nullptr);
                });
    if (count == 0) return;
    std::vector<float> host(static_cast<size_t>(2 * count));
    download(host.data(), logprob, 2 * count * static_cast<int64_t>(sizeof(float)));
    for (int64_t i = 0; i < count; ++i) {
      host_logprob[active.rows[i]] = host[i];
      host_one_minus_p[active.rows[i]] = host[count + i];
    }
  }

  ComplementaryResult complementary_loss(const float* logprob, const float* entropy, const float* one_minus_p,
                                         const int64_t* offsets, int64_t sequences, int64_t tokens, const float* weight,
                                         float* carry, const ComplementaryOptions& options, float* a,
                                         uint8_t* gate) override {
    const at::Tensor memory = runtime_->empty({sizeof(ComplementaryDeviceResult) / 8}, DType::Int64);
    launch([&] {
      cuda::complementary_loss(context_, logprob, entropy, one_minus_p, offsets, sequences, tokens, weight, carry,
                               options, a, gate, static_cast<ComplementaryDeviceResult*>(memory.data_ptr()));
    });
    ComplementaryDeviceResult seen;
    download(&seen, memory.data_ptr(), sizeof(seen));
    check(seen.bad_token < 0, ErrorCode::NonFinite, "token ", seen.bad_token,
          " has a log-prob that is NaN or an entropy that is not finite");
    return {seen.loss, seen.tokens, seen.open_tokens, seen.clamped_low, seen.clamped_high, seen.active_tokens};
  }

  AscendReport ascend(const std::vector<AscendTensor>& tensors, double eta, Rounding rounding, uint64_t seed) override {
    AscendReport report;
    for (const AscendTensor& tensor : tensors) report.elements += tensor.size;
    const at::Tensor memory = runtime_->empty({1}, DType::Int64);
    auto* changed = static_cast<unsigned long long*>(memory.data_ptr());
    launch([&] { cuda::ascend(context_, tensors, eta, rounding, seed, changed); });
    unsigned long long seen = 0;
    download(&seen, changed, sizeof(seen));
    report.changed = static_cast<int64_t>(seen);
    return report;
  }

  void sample(const LogitsView& logits, const SampleOptions& options, const PhiloxCounter* host_counters,
              int64_t* token, float* logprob, float* entropy) override {
    if (logits.rows == 0) return;
    const int64_t bytes = logits.rows * static_cast<int64_t>(sizeof(PhiloxCounter));
    const at::Tensor memory = runtime_->empty({bytes / 8}, DType::Int64);
    upload(memory.data_ptr(), host_counters, bytes);
    launch([&] {
      cuda::sample(context_, logits, options, static_cast<const PhiloxCounter*>(memory.data_ptr()), token, logprob,
                   entropy, nullptr);
    });
  }

  void adamw(float* param, const float* grad, float* m, float* v, int64_t n, const AdamW& options, int64_t step,
             float grad_scale) override {
    launch([&] { cuda::adamw(context_, param, grad, m, v, n, options, step, grad_scale); });
  }
  double square_sum(const float* x, int64_t n) override {
    const at::Tensor memory = runtime_->empty({1}, DType::Int64);
    launch([&] { cuda::square_sum(context_, x, n, static_cast<double*>(memory.data_ptr())); });
    double sum = 0;
    download(&sum, memory.data_ptr(), sizeof(sum));
    return sum;
  }
  int64_t first_non_finite(const void* x, DType dtype, int64_t n) override {
    const at::Tensor memory = runtime_->empty({1}, DType::Int64);
    auto* first = static_cast<long long*>(memory.data_ptr());
    long long found = n;
    upload(first, &found, sizeof(found));
    launch([&] { cuda::first_non_finite(context_, x, dtype, n, first); });
    download(&found, first, sizeof(found));
    return found < n ? found : -1;
  }

 protected:
  const void* stage_bytes(const void* host, int64_t bytes, at::Tensor& memory) override {
    const int64_t words = (bytes + 7) / 8;
    if (!memory.defined() || memory.numel() < words) {
      memory = at::Tensor();
      memory = runtime_->empty({std::max<int64_t>(words, 1)}, DType::Int64);
    }
    if (bytes > 0) upload(memory.data_ptr(), host, bytes);
    return memory.data_ptr();
  }

 private:
  /// The rows that a gradient comes from, known on the host.
  struct Active {
    std::vector<int64_t> rows;

    template <class Test>
    Active(int64_t count, Test test) {
      for (int64_t row = 0; row < count; ++row)
        if (test(row)) rows.push_back(row);
    }
    int64_t count() const { return static_cast<int64_t>(rows.size()); }
    bool dense() const { return rows.empty() || rows.back() - rows.front() == count() - 1; }
  };

  /// d_hidden (overwritten) and d_head (added to) of the active rows, chunk by chunk: logits, `gradient` in their
  /// place, two products. gradient(z, y, first, dz) is called for active rows [first, first + z.rows).
  template <class Gradient>
  void active_grad(const LinearHead& mixed, const int64_t* targets, const Active& active, float* d_hidden,
                   float* d_head, const CancelToken* cancel, Gradient gradient) {
    at::Tensor hidden_memory;
    const LinearHead head = uniform(mixed, hidden_memory);
    const int64_t count = active.count(), dim = head.dim, vocab = head.vocab;
    const auto width = static_cast<int64_t>(size_of(head.dtype));
    constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
    if (count < head.rows) zero(d_hidden, head.rows * dim * kFloat);
    if (count == 0) return;

    const int64_t chunk = chunk_rows(count, vocab), stride = logits_stride(vocab);
    const at::Tensor logits = runtime_->empty({chunk * stride}, DType::Float32);
    const bool dense = active.dense();
    at::Tensor gathered, gradients, y_memory, rows_memory;
    if (!dense) {
      gathered = runtime_->empty({chunk, dim}, head.dtype);
      gradients = runtime_->empty({chunk, dim}, DType::Float32);
      y_memory = runtime_->empty({chunk}, DType::Int64);
      stage(active.rows, rows_memory);
    }
    for (int64_t first = 0; first < count; first += chunk) {
      if (cancel) cancel->check();
      const int64_t n = std::min(chunk, count - first), front = active.rows[first];
      const void* hidden = row_of(head, front);
      const int64_t* y = targets + front;
      float* dh = d_hidden + front * dim;
      const int64_t* rows = dense ? nullptr : static_cast<const int64_t*>(rows_memory.data_ptr()) + first;
      if (!dense) {
        launch([&] {
          gather_row_bytes(context_, head.hidden, rows, n, dim * width, gathered.data_ptr());
          gather_row_bytes(context_, targets, rows, n, sizeof(int64_t), y_memory.data_ptr());
        });
        hidden = gathered.data_ptr();
        y = static_cast<const int64_t*>(y_memory.data_ptr());
        dh = static_cast<float*>(gradients.data_ptr());
      }
      project(head, hidden, n, logits.data_ptr(), stride);
      // The gradient takes the head's dtype, which the products below want, in the front of each row of logits.
      const MutableLogitsView dz{logits.data_ptr(), head.dtype, n, vocab, stride * kFloat / width};
      launch([&] { gradient(LogitsView{logits.data_ptr(), DType::Float32, n, vocab, stride}, y, first, dz); });
      const Matrix z{dz.data, dz.dtype, dz.stride}, w{const_cast<void*>(head.head), head.dtype, dim};
      const Matrix h{const_cast<void*>(hidden), head.dtype, dim};
      runtime_->gemm(Op::None, Op::None, n, dim, vocab, 1, z, w, 0, {dh, DType::Float32, dim});
      if (d_head) runtime_->gemm(Op::Transpose, Op::None, vocab, dim, n, 1, z, h, 1, {d_head, DType::Float32, dim});
      if (!dense) launch([&] { scatter_row_bytes(context_, dh, rows, n, dim * kFloat, d_hidden); });
    }
  }

  static Matrix matrix(const WeightMatrix& w) { return {const_cast<void*>(w.data), w.dtype, w.in}; }

  /// x [rows, cols] in the dtype that a product wants: itself, or a rounded copy in `memory`.
  Matrix rounded(const float* x, int64_t rows, int64_t cols, DType dtype, at::Tensor& memory) {
    if (dtype == DType::Float32) return {const_cast<float*>(x), dtype, cols};
    memory = runtime_->empty({rows, cols}, dtype);
    cast(x, DType::Float32, memory.data_ptr(), dtype, rows * cols);
    return {memory.data_ptr(), dtype, cols};
  }

  /// The head with hidden states of its own dtype, those in `memory` where they have to be rounded.
  LinearHead uniform(LinearHead head, at::Tensor& memory) {
    if (head.hidden_dtype == head.dtype) return head;
    head.hidden = rounded(static_cast<const float*>(head.hidden), head.rows, head.dim, head.dtype, memory).data;
    head.hidden_dtype = head.dtype;
    return head;
  }

  template <class Body>
  void launch(Body body) {
    scratch_.clear();  // of the call before; the allocator reuses it in stream order
    body();
    runtime_->check_launches();
  }

  static const void* row_of(const LinearHead& head, int64_t row) {
    return static_cast<const char*>(head.hidden) + row * head.dim * static_cast<int64_t>(size_of(head.dtype));
  }

  /// logits[n, vocab] = hidden[n, dim] head^T, float32.
  void project(const LinearHead& head, const void* hidden, int64_t n, void* logits, int64_t stride) {
    runtime_->gemm(Op::None, Op::Transpose, n, head.vocab, head.dim, 1,
                   {const_cast<void*>(hidden), head.dtype, head.dim},
                   {const_cast<void*>(head.head), head.dtype, head.dim}, 0, {logits, DType::Float32, stride});
  }

  std::unique_ptr<Runtime> runtime_;
  Context context_;
  std::vector<at::Tensor> scratch_;
  std::atomic<int64_t> waits_{0};
};

}  // namespace
}  // namespace eepo::cuda

extern "C" __attribute__((visibility("default"))) eepo::Ops* eepo_cuda_ops(const char* addon_version,
                                                                           std::string* error) {
  if (std::strcmp(addon_version, EEPO_VERSION) != 0) {
    *error = std::string("the CUDA half is of eepo " EEPO_VERSION ", the addon of ") + addon_version +
             "; build both anew: npx eepo build --cuda";
    return nullptr;
  }
  try {
    auto runtime = eepo::cuda::make_runtime(error);
    if (!runtime) return nullptr;
    return new eepo::cuda::CudaOps(std::move(runtime));  // for the life of the process
  } catch (const std::exception& failure) {
    *error = failure.what();
    return nullptr;
  }
}
