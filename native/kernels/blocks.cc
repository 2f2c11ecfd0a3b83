#include "kernels/blocks.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace eepo {
namespace {

constexpr int64_t kRowBlock = 64;           // rows of one partial sum
constexpr int64_t kElementBlock = 1 << 15;  // elements of one flat range
constexpr int64_t kParallelWork = 1 << 14;  // floats below which the team is not woken

// body(block, begin, end) over fixed blocks of [0, n).
template <class Body>
void for_blocks(int64_t n, int64_t block, bool parallel, Body body) {
  const int64_t count = (n + block - 1) / block;
#pragma omp parallel for schedule(static) if (parallel && count > 1)
  for (int64_t i = 0; i < count; ++i) body(i, i * block, std::min(n, (i + 1) * block));
}

int64_t rows_per_block(int64_t rows, int64_t width) {
  return std::clamp<int64_t>(kParallelWork / std::max<int64_t>(1, width), 1, std::max<int64_t>(rows, 1));
}

template <class Body>
void for_rows(int64_t rows, int64_t width, Body body) {
  for_blocks(rows, rows_per_block(rows, width), rows * width >= kParallelWork,
             [&](int64_t, int64_t begin, int64_t end) { body(begin, end); });
}

}  // namespace

void rms_norm(const float* x, const float* weight, float eps, const NormShape& shape, int64_t tokens, float* y,
              float* inv) {
  const auto rows = EEPO_ISA_DISPATCH(rms_norm_rows);
  for_rows(tokens, shape.groups * shape.dim,
           [&](int64_t begin, int64_t end) { rows(x, weight, eps, shape, begin, end, y, inv); });
}

void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* inv, const NormShape& shape,
                       int64_t tokens, bool accumulate, float* dx, float* dweight) {
  const auto rows = EEPO_ISA_DISPATCH(rms_norm_backward_rows);
  const int64_t blocks = (tokens + kRowBlock - 1) / kRowBlock;
  std::vector<float> partial(blocks * shape.dim);
  for_blocks(tokens, kRowBlock, tokens * shape.groups * shape.dim >= kParallelWork,
             [&](int64_t block, int64_t begin, int64_t end) {
               rows(dy, x, weight, inv, shape, begin, end, accumulate, dx, partial.data() + block * shape.dim);
             });
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t i = 0; i < shape.dim; ++i) dweight[i] += partial[b * shape.dim + i];
}

void swiglu(const float* gate_up, int64_t width, int64_t tokens, float* out) {
  const auto rows = EEPO_ISA_DISPATCH(swiglu_rows);
  for_rows(tokens, width, [&](int64_t begin, int64_t end) { rows(gate_up, width, begin, end, out); });
}

void swiglu_backward(const float* gate_up, const float* d_out, int64_t width, int64_t tokens, float* d_gate_up) {
  const auto rows = EEPO_ISA_DISPATCH(swiglu_backward_rows);
  for_rows(tokens, width, [&](int64_t begin, int64_t end) { rows(gate_up, d_out, width, begin, end, d_gate_up); });
}

void rope(float* x, int64_t ld, int64_t heads, int64_t head_dim, const int32_t* positions, int64_t tokens,
          const float* cosine, const float* sine, bool inverse) {
  const int64_t half = head_dim / 2;
  const float sign = inverse ? -1.0f : 1.0f;
  for_rows(tokens, heads * head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* c = cosine + positions[t] * half;
      const float* s = sine + positions[t] * half;
      for (int64_t h = 0; h < heads; ++h) {
        float* first = x + t * ld + h * head_dim;
        float* second = first + half;
#pragma omp simd
        for (int64_t i = 0; i < half; ++i) {
          const float a = first[i], b = second[i];
          first[i] = a * c[i] - b * (sign * s[i]);
          second[i] = b * c[i] + a * (sign * s[i]);
        }
      }
    }
  });
}

void embed(const void* table, DType dtype, const int32_t* ids, int64_t tokens, int64_t dim, float* out) {
  for_rows(tokens, dim, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* to = out + t * dim;
      if (dtype == DType::Float32) {
        std::memcpy(to, static_cast<const float*>(table) + ids[t] * dim, dim * sizeof(float));
      } else {
        const uint16_t* from = static_cast<const uint16_t*>(table) + ids[t] * dim;
        for (int64_t i = 0; i < dim; ++i) to[i] = bf16_to_float(from[i]);
      }
    }
  });
}

void scatter_add_rows(const float* d_out, const int32_t* rows, int64_t count, int64_t dim, float* x) {
  // threads own columns, not rows: every element is summed in the order of r
  for_blocks(dim, 32, count * dim >= kParallelWork, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t r = 0; r < count; ++r)
      for (int64_t i = begin; i < end; ++i) x[rows[r] * dim + i] += d_out[r * dim + i];
  });
}

void add_bias(float* x, const float* bias, int64_t rows, int64_t cols) {
  for_rows(rows, cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t j = 0; j < cols; ++j) x[r * cols + j] += bias[j];
  });
}

void bias_backward(const float* dx, int64_t rows, int64_t cols, float* dbias) {
  for_blocks(cols, 32, rows * cols >= kParallelWork, [&](int64_t, int64_t begin, int64_t end) {
    float total[32] = {};
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = begin; j < end; ++j) total[j - begin] += dx[r * cols + j];
    for (int64_t j = begin; j < end; ++j) dbias[j] += total[j - begin];
  });
}

void add(const float* x, int64_t n, float* y) {
  const auto range = EEPO_ISA_DISPATCH(add_range);
  for_blocks(n, kElementBlock, true, [&](int64_t, int64_t begin, int64_t end) { range(x, begin, end, y); });
}

double square_sum(const float* x, int64_t n) {
  const auto range = EEPO_ISA_DISPATCH(square_sum_range);
  std::vector<double> partial((n + kElementBlock - 1) / kElementBlock);
  for_blocks(n, kElementBlock, true,
             [&](int64_t block, int64_t begin, int64_t end) { partial[block] = range(x, begin, end); });
  double total = 0;
  for (const double p : partial) total += p;
  return total;
}

void adamw(float* param, const float* grad, float* m, float* v, int64_t n, const AdamW& o, int64_t step,
           float grad_scale) {
  const auto range = EEPO_ISA_DISPATCH(adamw_range);
  const float bias1 = static_cast<float>(1.0 - std::pow(static_cast<double>(o.beta1), static_cast<double>(step)));
  const float bias2 = static_cast<float>(1.0 - std::pow(static_cast<double>(o.beta2), static_cast<double>(step)));
  for_blocks(n, kElementBlock, true, [&](int64_t, int64_t begin, int64_t end) {
    range(param, grad, m, v, begin, end, grad_scale, o.lr, o.beta1, o.beta2, o.eps, o.weight_decay, bias1, bias2);
  });
}

}  // namespace eepo
