// CPU form of the fused head: matrix products and row kernels over chunks of rows.
//
// Floor: the products' FLOPs, 2 rows dim vocab forward and 6 (of the active rows) backward; the logits of a chunk stay
// in the last-level cache where it is 8 MB or more.
#include "kernels/linear_head.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/token_grad.h"
#include "kernels/token_stats.h"

namespace eepo {
namespace {

// 8 MB of logits, but at least 32 rows: every chunk reads the whole head once.
int64_t chunk_rows(int64_t rows, int64_t vocab) {
  constexpr int64_t kChunkFloats = int64_t{2} << 20;
  const int64_t fitting = std::max<int64_t>(32, kChunkFloats / std::max<int64_t>(vocab, 1) / 32 * 32);
  return std::min(rows, fitting);
}

// Scratch memory that the thread keeps: fresh pages for every call would cost more than a small head's product.
class Scratch {
 public:
  float* floats(int64_t count) {
    if (count > capacity_) {
      data_.reset();
      data_ = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(count));
      capacity_ = count;
    }
    return data_.get();
  }

 private:
  std::unique_ptr<float[]> data_;
  int64_t capacity_ = 0;
};

thread_local Scratch logits_scratch, hidden_scratch, gradient_scratch;

void check_cancel(const CancelToken* cancel) {
  if (cancel) cancel->check();
}

template <class Active>
std::vector<int64_t> active_rows(int64_t rows, Active active) {
  std::vector<int64_t> chosen;
  for (int64_t row = 0; row < rows; ++row) {
    if (active(row)) chosen.push_back(row);
  }
  return chosen;
}

struct HeadShape {
  const float* hidden;
  GemmB head;
  int64_t rows, dim, vocab;
};

// d_hidden and d_head of the `active` rows. `gradient(logits, index, n, y)` turns the logits of n rows, those named by
// index[0..n), into their gradients in place; y are their targets.
template <class Gradient>
void active_grad(const HeadShape& shape, const int64_t* targets, const std::vector<int64_t>& active, Gradient gradient,
                 float* d_hidden, float* d_head, const CancelToken* cancel) {
  const int64_t dim = shape.dim, vocab = shape.vocab;
  const int64_t count = static_cast<int64_t>(active.size());
  if (count < shape.rows) std::memset(d_hidden, 0, static_cast<size_t>(shape.rows * dim) * sizeof(float));
  if (count == 0) return;

  const int64_t chunk = chunk_rows(count, vocab);
  float* logits = logits_scratch.floats(chunk * vocab);
  const size_t row_bytes = static_cast<size_t>(dim) * sizeof(float);
  std::vector<int64_t> y(static_cast<size_t>(chunk));
  for (int64_t first = 0; first < count; first += chunk) {
    check_cancel(cancel);
    const int64_t n = std::min(chunk, count - first);
    const int64_t* index = active.data() + first;
    for (int64_t i = 0; i < n; ++i) y[static_cast<size_t>(i)] = targets[index[i]];
    // Rows that follow one another are used where they lie; others are gathered and their gradients scattered.
    const bool dense = index[n - 1] - index[0] == n - 1;
    const float* h = shape.hidden + index[0] * dim;
    float* dh = d_hidden + index[0] * dim;
    if (!dense) {
      float* gathered = hidden_scratch.floats(chunk * dim);
      for (int64_t i = 0; i < n; ++i) std::memcpy(gathered + i * dim, shape.hidden + index[i] * dim, row_bytes);
      h = gathered;
      dh = gradient_scratch.floats(chunk * dim);
    }
    gemm(Op::None, Op::Transpose, n, vocab, dim, 1.0f, h, dim, shape.head, dim, 0.0f, logits, vocab);
    gradient(logits, index, n, y.data());
    gemm(Op::None, Op::None, n, dim, vocab, 1.0f, logits, vocab, shape.head, dim, 0.0f, dh, dim);
    if (d_head) gemm(Op::Transpose, Op::None, vocab, dim, n, 1.0f, logits, vocab, h, dim, 1.0f, d_head, dim);
    if (!dense) {
      for (int64_t i = 0; i < n; ++i) std::memcpy(d_hidden + index[i] * dim, dh + i * dim, row_bytes);
    }
  }
}

}  // namespace

void linear_token_stats(const float* hidden, const GemmB& head, int64_t rows, int64_t dim, int64_t vocab,
                        const int64_t* targets, float temperature, float* logprob, float* entropy, float* one_minus_p,
                        const CancelToken* cancel) {
  const int64_t chunk = chunk_rows(rows, vocab);
  float* logits = logits_scratch.floats(chunk * vocab);
  const auto from = [](float* out, int64_t row) { return out ? out + row : nullptr; };
  for (int64_t first = 0; first < rows; first += chunk) {
    check_cancel(cancel);
    const int64_t n = std::min(chunk, rows - first);
    gemm(Op::None, Op::Transpose, n, vocab, dim, 1.0f, hidden + first * dim, dim, head, dim, 0.0f, logits, vocab);
    token_stats({logits, DType::Float32, n, vocab, vocab}, targets ? targets + first : nullptr, temperature,
                from(logprob, first), from(entropy, first), from(one_minus_p, first));
  }
}

void linear_token_grad(const float* hidden, const GemmB& head, int64_t rows, int64_t dim, int64_t vocab,
                       const int64_t* targets, const float* a, const float* b, float temperature, float* d_hidden,
                       float* d_head, const CancelToken* cancel) {
  std::vector<float> a_chunk, b_chunk;
  const auto gradient = [&](float* logits, const int64_t* index, int64_t n, const int64_t* y) {
    a_chunk.clear();
    b_chunk.clear();
    for (int64_t i = 0; i < n; ++i) {
      a_chunk.push_back(a[index[i]]);
      if (b) b_chunk.push_back(b[index[i]]);
    }
    token_grad({logits, DType::Float32, n, vocab, vocab}, y, a_chunk.data(), b ? b_chunk.data() : nullptr, temperature);
  };
  const auto active = active_rows(rows, [&](int64_t r) { return a[r] != 0 || (b && b[r] != 0); });
  active_grad({hidden, head, rows, dim, vocab}, targets, active, gradient, d_hidden, d_head, cancel);
}

void linear_complementary_grad(const float* hidden, const GemmB& head, int64_t rows, int64_t dim, int64_t vocab,
                               const int64_t* targets, const float* weight, const ComplementaryOptions& options,
                               float temperature, float* logprob, float* one_minus_p, float* d_hidden, float* d_head,
                               const CancelToken* cancel) {
  std::fill_n(logprob, rows, std::numeric_limits<float>::quiet_NaN());
  std::fill_n(one_minus_p, rows, std::numeric_limits<float>::quiet_NaN());
  std::vector<float> chunk_weight, chunk_logprob, chunk_one_minus_p;
  const auto gradient = [&](float* logits, const int64_t* index, int64_t n, const int64_t* y) {
    chunk_weight.clear();
    for (int64_t i = 0; i < n; ++i) chunk_weight.push_back(weight[index[i]]);
    chunk_logprob.resize(static_cast<size_t>(n));
    chunk_one_minus_p.resize(static_cast<size_t>(n));
    complementary_grad({logits, DType::Float32, n, vocab, vocab}, y,
                       {chunk_weight.data(), options, chunk_logprob.data(), chunk_one_minus_p.data()}, temperature);
    for (int64_t i = 0; i < n; ++i) {
      logprob[index[i]] = chunk_logprob[static_cast<size_t>(i)];
      one_minus_p[index[i]] = chunk_one_minus_p[static_cast<size_t>(i)];
    }
  };
  const auto active = active_rows(rows, [&](int64_t r) { return weight[r] != 0; });
  active_grad({hidden, head, rows, dim, vocab}, targets, active, gradient, d_hidden, d_head, cancel);
}

}  // namespace eepo
