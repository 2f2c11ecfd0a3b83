#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/blocks_isa.h"
#include "kernels/gemm.h"

namespace eepo {
namespace {

constexpr int64_t kQueries = 64;  // queries per block: the columns of the transposed scores

float scale_of(const AttentionShape& s) { return 1.0f / std::sqrt(static_cast<float>(s.head_dim)); }

// The softmax's vector code wants whole columns: a last, short block is computed with zero queries behind it.
struct Scratch {
  std::vector<float> scores, d_scores, queries, d_outputs, transposed, lse, delta;
  void reserve(int64_t keys, int64_t head_dim) {
    scores.resize(std::max<size_t>(scores.size(), keys * kQueries));
    d_scores.resize(std::max<size_t>(d_scores.size(), keys * kQueries));
    queries.resize(std::max<size_t>(queries.size(), kQueries * head_dim));
    d_outputs.resize(std::max<size_t>(d_outputs.size(), kQueries * head_dim));
    transposed.resize(std::max<size_t>(transposed.size(), kQueries * head_dim));
    lse.resize(kQueries);
    delta.resize(kQueries);
  }
};

// rows [count, head_dim] of a strided matrix into a dense, zero-padded [kQueries, head_dim]
void gather(const float* source, int64_t ld, int64_t count, int64_t head_dim, float* out) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(out + i * head_dim, source + i * ld, head_dim * sizeof(float));
  std::memset(out + count * head_dim, 0, (kQueries - count) * head_dim * sizeof(float));
}

}  // namespace

void attention(const float* qkv, const AttentionShape& shape, const std::vector<int64_t>& offsets, float* out,
               float* lse) {
  const int64_t sequences = static_cast<int64_t>(offsets.size()) - 1, hd = shape.head_dim;
  const int64_t group = shape.heads / shape.kv_heads, ld = shape.ld, ld_out = shape.heads * hd;
  const float scale = scale_of(shape);
  const auto softmax = EEPO_ISA_DISPATCH(softmax_columns);
#pragma omp parallel
  {
    Scratch work;
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t s = 0; s < sequences; ++s)
      for (int64_t h = 0; h < shape.heads; ++h) {
        const int64_t begin = offsets[s], length = offsets[s + 1] - begin;
        work.reserve(length, hd);
        const float* q = qkv + begin * ld + h * hd;
        const float* k = qkv + begin * ld + (shape.heads + h / group) * hd;
        const float* v = k + shape.kv_heads * hd;
        for (int64_t q0 = 0; q0 < length; q0 += kQueries) {
          const int64_t count = std::min(kQueries, length - q0), keys = q0 + count;
          gather(q + q0 * ld, ld, count, hd, work.queries.data());
          float* scores = work.scores.data();
          gemm_serial(Op::None, Op::Transpose, keys, kQueries, hd, scale, k, ld, work.queries.data(), hd, 0, scores,
                      kQueries);
          softmax(scores, keys, q0, kQueries, work.lse.data());
          // O^T = V^T P^T
          gemm_serial(Op::Transpose, Op::None, hd, kQueries, keys, 1, v, ld, scores, kQueries, 0,
                      work.transposed.data(), kQueries);
          for (int64_t i = 0; i < count; ++i) {
            float* row = out + (begin + q0 + i) * ld_out + h * hd;
            for (int64_t d = 0; d < hd; ++d) row[d] = work.transposed[d * kQueries + i];
            if (lse) lse[(begin + q0 + i) * shape.heads + h] = work.lse[i];
          }
        }
      }
  }
}

void attention_backward(const float* d_out, const float* qkv, const float* out, const float* lse,
                        const AttentionShape& shape, const std::vector<int64_t>& offsets, float* d_qkv) {
  const int64_t sequences = static_cast<int64_t>(offsets.size()) - 1, hd = shape.head_dim;
  const int64_t group = shape.heads / shape.kv_heads, ld = shape.ld, ld_out = shape.heads * hd;
  const float scale = scale_of(shape);
  const auto probability = EEPO_ISA_DISPATCH(probability_columns);
  const auto softmax_backward = EEPO_ISA_DISPATCH(softmax_backward_columns);
#pragma omp parallel
  {
    Scratch work;
    // one key-value head per task: its query heads add to dK and dV in order
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t s = 0; s < sequences; ++s)
      for (int64_t g = 0; g < shape.kv_heads; ++g) {
        const int64_t begin = offsets[s], length = offsets[s + 1] - begin;
        work.reserve(length, hd);
        const float* k = qkv + begin * ld + (shape.heads + g) * hd;
        const float* v = k + shape.kv_heads * hd;
        float* dk = d_qkv + begin * ld + (shape.heads + g) * hd;
        float* dv = dk + shape.kv_heads * hd;
        for (int64_t t = 0; t < length; ++t) {
          std::memset(dk + t * ld, 0, hd * sizeof(float));
          std::memset(dv + t * ld, 0, hd * sizeof(float));
        }
        for (int64_t h = g * group; h < (g + 1) * group; ++h)
          for (int64_t q0 = 0; q0 < length; q0 += kQueries) {
            const int64_t count = std::min(kQueries, length - q0), keys = q0 + count;
            const float* o = out + (begin + q0) * ld_out + h * hd;
            gather(qkv + (begin + q0) * ld + h * hd, ld, count, hd, work.queries.data());
            gather(d_out + (begin + q0) * ld_out + h * hd, ld_out, count, hd, work.d_outputs.data());
            for (int64_t i = 0; i < kQueries; ++i) {
              float delta = 0;
              if (i < count)
                for (int64_t d = 0; d < hd; ++d) delta += work.d_outputs[i * hd + d] * o[i * ld_out + d];
              work.delta[i] = delta;
              // padding queries see probability 0: exp(x - inf)
              work.lse[i] = i < count ? lse[(begin + q0 + i) * shape.heads + h] : INFINITY;
            }
            float* p = work.scores.data();
            float* dp = work.d_scores.data();
            gemm_serial(Op::None, Op::Transpose, keys, kQueries, hd, scale, k, ld, work.queries.data(), hd, 0, p,
                        kQueries);
            probability(p, keys, q0, kQueries, work.lse.data());
            // dV += P^T dO,  dP^T = V dO^T
            gemm_serial(Op::None, Op::None, keys, hd, kQueries, 1, p, kQueries, work.d_outputs.data(), hd, 1, dv, ld);
            gemm_serial(Op::None, Op::Transpose, keys, kQueries, hd, 1, v, ld, work.d_outputs.data(), hd, 0, dp,
                        kQueries);
            softmax_backward(p, dp, work.delta.data(), keys, kQueries);
            // dK += scale dS^T Q,  dQ^T = scale K^T dS^T
            gemm_serial(Op::None, Op::None, keys, hd, kQueries, scale, dp, kQueries, work.queries.data(), hd, 1, dk,
                        ld);
            gemm_serial(Op::Transpose, Op::None, hd, kQueries, keys, scale, k, ld, dp, kQueries, 0,
                        work.transposed.data(), kQueries);
            for (int64_t i = 0; i < count; ++i) {
              float* row = d_qkv + (begin + q0 + i) * ld + h * hd;
              for (int64_t d = 0; d < hd; ++d) row[d] = work.transposed[d * kQueries + i];
            }
          }
      }
  }
}

void cache_append(const float* qkv_row, const AttentionShape& shape, float* slot, int64_t capacity, int64_t position) {
  const int64_t hd = shape.head_dim;
  const float* k = qkv_row + shape.heads * hd;
  const float* v = k + shape.kv_heads * hd;
  for (int64_t g = 0; g < shape.kv_heads; ++g) {
    float* keys = slot + 2 * g * hd * capacity;
    float* values = keys + hd * capacity;
    for (int64_t d = 0; d < hd; ++d) {
      keys[d * capacity + position] = k[g * hd + d];
      values[d * capacity + position] = v[g * hd + d];
    }
  }
}

void attention_decode(const float* qkv, const AttentionShape& shape, const std::vector<DecodeRow>& rows, float* out) {
  const int64_t hd = shape.head_dim, group = shape.heads / shape.kv_heads;
  const float scale = scale_of(shape);
  const auto decode = EEPO_ISA_DISPATCH(decode_head);
  const int64_t count = static_cast<int64_t>(rows.size());
  int64_t longest = 0;
  for (const DecodeRow& row : rows) longest = std::max(longest, row.prompt_length + row.own_length);
#pragma omp parallel
  {
    std::vector<float> scratch(longest + 32);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < count; ++r) {
      const DecodeRow& row = rows[r];
      for (int64_t h = 0; h < shape.heads; ++h) {
        const int64_t at = 2 * (h / group) * hd;
        const CacheSlice slices[2] = {{row.prompt + at * row.prompt_capacity,
                                       row.prompt + (at + hd) * row.prompt_capacity, row.prompt_length,
                                       row.prompt_capacity},
                                      {row.own + at * row.own_capacity, row.own + (at + hd) * row.own_capacity,
                                       row.own_length, row.own_capacity}};
        decode(qkv + r * shape.ld + h * hd, hd, scale, slices, 2, scratch.data(), out + (r * shape.heads + h) * hd);
      }
    }
  }
}

}  // namespace eepo
