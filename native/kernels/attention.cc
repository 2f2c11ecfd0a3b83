#include "kernels/attention.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "core/team.h"
#include "kernels/blocks_isa.h"
#include "kernels/gemm.h"

namespace eepo {
namespace {

constexpr int64_t kQueries = 64;  // queries per block: the columns of the transposed scores

float scale_of(const AttentionShape& s) { return 1.0f / std::sqrt(static_cast<float>(s.head_dim)); }

// One thread's scratch. The softmax's vector code wants whole columns: a last, short block is computed with zero
// queries behind it.
struct Scratch {
  float *scores, *d_scores, *queries, *d_outputs, *transposed;
  float lse[kQueries], delta[kQueries];
};

// The scratch of every thread, allocated before the parallel region: an exception must not leave one.
class ThreadScratch {
 public:
  ThreadScratch(const Segments& segments, int64_t head_dim, bool backward) {
    int64_t longest = 0;
    for (int64_t s = 0; s < segments.count(); ++s)
      longest = std::max(longest, segments.prefix_length(s) + segments.length(s));
    scores_ = kQueries * longest;
    block_ = kQueries * head_dim;
    stride_ = (backward ? 2 : 1) * scores_ + 3 * block_;
    data_ = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(omp_get_max_threads() * stride_));
  }

  /// The calling thread's part.
  Scratch mine() const {
    float* blocks = data_.get() + omp_get_thread_num() * stride_;
    float* scores = blocks + 3 * block_;
    return {scores, scores + scores_, blocks, blocks + block_, blocks + 2 * block_, {}, {}};
  }

 private:
  int64_t scores_, block_, stride_;
  std::unique_ptr<float[]> data_;
};

// rows [count, head_dim] of a strided matrix into a dense, zero-padded [kQueries, head_dim]
void gather(const float* source, int64_t ld, int64_t count, int64_t head_dim, float* out) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(out + i * head_dim, source + i * ld, head_dim * sizeof(float));
  std::memset(out + count * head_dim, 0, (kQueries - count) * head_dim * sizeof(float));
}

// Where the keys of a segment lie: its prefix's tokens, then its own.
struct Parts {
  int64_t prefix_token, before;  // the prefix: first token, length
  int64_t own_token;

  /// body(row of the scores, first token, keys) for the prefix and for the first `own` keys of the segment itself.
  template <class Body>
  void each(int64_t own, Body body) const {
    if (before > 0) body(0, prefix_token, before);
    body(before, own_token, own);
  }
};

Parts parts_of(const Segments& segments, int64_t s) {
  const int64_t prefix = segments.prefix_of(s);
  return {prefix < 0 ? 0 : segments.offsets[prefix], segments.prefix_length(s), segments.offsets[s]};
}

}  // namespace

void attention(const float* qkv, const AttentionShape& shape, const Segments& segments, float* out, float* lse) {
  const int64_t count_segments = segments.count(), hd = shape.head_dim;
  const int64_t group = shape.heads / shape.kv_heads, ld = shape.ld, ld_out = shape.heads * hd;
  const float scale = scale_of(shape);
  const auto softmax = EEPO_ISA_DISPATCH(softmax_columns);
  const ThreadScratch scratch(segments, hd, false);
  TeamErrors errors;  // of a thread's first gemm_serial()
#pragma omp parallel
  {
    Scratch work = scratch.mine();
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t s = 0; s < count_segments; ++s)
      for (int64_t h = 0; h < shape.heads; ++h)
        errors.run([&] {
          const Parts parts = parts_of(segments, s);
          const int64_t begin = segments.offsets[s], length = segments.length(s);
          const float* k = qkv + (shape.heads + h / group) * hd;
          const float* v = k + shape.kv_heads * hd;
          for (int64_t q0 = 0; q0 < length; q0 += kQueries) {
            const int64_t count = std::min(kQueries, length - q0);
            gather(qkv + (begin + q0) * ld + h * hd, ld, count, hd, work.queries);
            float* scores = work.scores;
            parts.each(q0 + count, [&](int64_t at, int64_t token, int64_t keys) {
              gemm_serial(Op::None, Op::Transpose, keys, kQueries, hd, scale, k + token * ld, ld, work.queries, hd, 0,
                          scores + at * kQueries, kQueries);
            });
            softmax(scores, parts.before + q0 + count, parts.before + q0, kQueries, work.lse);
            // O^T = V^T P^T
            parts.each(q0 + count, [&](int64_t at, int64_t token, int64_t keys) {
              gemm_serial(Op::Transpose, Op::None, hd, kQueries, keys, 1, v + token * ld, ld, scores + at * kQueries,
                          kQueries, at == 0 ? 0 : 1, work.transposed, kQueries);
            });
            for (int64_t i = 0; i < count; ++i) {
              float* row = out + (begin + q0 + i) * ld_out + h * hd;
              for (int64_t d = 0; d < hd; ++d) row[d] = work.transposed[d * kQueries + i];
              if (lse) lse[(begin + q0 + i) * shape.heads + h] = work.lse[i];
            }
          }
        });
  }
  errors.rethrow();
}

namespace {

// Segments that share keys: one without a prefix and those that have it as theirs. Their gradients meet in its dK and
// dV, so a group is one thread's.
std::vector<std::vector<int64_t>> groups_of(const Segments& segments) {
  std::vector<std::vector<int64_t>> groups;
  std::vector<int64_t> group_of(segments.count());
  for (int64_t s = 0; s < segments.count(); ++s) {
    const int64_t prefix = segments.prefix_of(s);
    if (prefix < 0) groups.emplace_back();
    group_of[s] = prefix < 0 ? static_cast<int64_t>(groups.size()) - 1 : group_of[prefix];
    groups[group_of[s]].push_back(s);
  }
  return groups;
}

}  // namespace

void attention_backward(const float* d_out, const float* qkv, const float* out, const float* lse,
                        const AttentionShape& shape, const Segments& segments, float* d_qkv) {
  const int64_t hd = shape.head_dim;
  const int64_t group = shape.heads / shape.kv_heads, ld = shape.ld, ld_out = shape.heads * hd;
  const float scale = scale_of(shape);
  const auto probability = EEPO_ISA_DISPATCH(probability_columns);
  const auto softmax_backward = EEPO_ISA_DISPATCH(softmax_backward_columns);
  const auto groups = groups_of(segments);
  const auto count_groups = static_cast<int64_t>(groups.size());
  const ThreadScratch scratch(segments, hd, true);
  TeamErrors errors;
#pragma omp parallel
  {
    Scratch work = scratch.mine();
    // one key-value head of one group per task: its query heads and segments add to dK and dV in order
#pragma omp for schedule(dynamic, 1) collapse(2)
    for (int64_t r = 0; r < count_groups; ++r)
      for (int64_t g = 0; g < shape.kv_heads; ++g)
        errors.run([&] {
          const float* k = qkv + (shape.heads + g) * hd;
          const float* v = k + shape.kv_heads * hd;
          float* dk = d_qkv + (shape.heads + g) * hd;
          float* dv = dk + shape.kv_heads * hd;
          for (const int64_t s : groups[r])
            for (int64_t t = segments.offsets[s]; t < segments.offsets[s + 1]; ++t) {
              std::memset(dk + t * ld, 0, hd * sizeof(float));
              std::memset(dv + t * ld, 0, hd * sizeof(float));
            }
          for (const int64_t s : groups[r]) {
            const Parts parts = parts_of(segments, s);
            const int64_t begin = segments.offsets[s], length = segments.length(s);
            for (int64_t h = g * group; h < (g + 1) * group; ++h)
              for (int64_t q0 = 0; q0 < length; q0 += kQueries) {
                const int64_t count = std::min(kQueries, length - q0), all_keys = parts.before + q0 + count;
                const float* o = out + (begin + q0) * ld_out + h * hd;
                gather(qkv + (begin + q0) * ld + h * hd, ld, count, hd, work.queries);
                gather(d_out + (begin + q0) * ld_out + h * hd, ld_out, count, hd, work.d_outputs);
                for (int64_t i = 0; i < kQueries; ++i) {
                  float delta = 0;
                  if (i < count)
                    for (int64_t d = 0; d < hd; ++d) delta += work.d_outputs[i * hd + d] * o[i * ld_out + d];
                  work.delta[i] = delta;
                  // padding queries see probability 0: exp(x - inf)
                  work.lse[i] = i < count ? lse[(begin + q0 + i) * shape.heads + h] : INFINITY;
                }
                float* p = work.scores;
                float* dp = work.d_scores;
                const float *q = work.queries, *d_o = work.d_outputs;
                parts.each(q0 + count, [&](int64_t at, int64_t token, int64_t keys) {
                  gemm_serial(Op::None, Op::Transpose, keys, kQueries, hd, scale, k + token * ld, ld, q, hd, 0,
                              p + at * kQueries, kQueries);
                });
                probability(p, all_keys, parts.before + q0, kQueries, work.lse);
                // dV += P^T dO,  dP^T = V dO^T
                parts.each(q0 + count, [&](int64_t at, int64_t token, int64_t keys) {
                  gemm_serial(Op::None, Op::None, keys, hd, kQueries, 1, p + at * kQueries, kQueries, d_o, hd, 1,
                              dv + token * ld, ld);
                  gemm_serial(Op::None, Op::Transpose, keys, kQueries, hd, 1, v + token * ld, ld, d_o, hd, 0,
                              dp + at * kQueries, kQueries);
                });
                softmax_backward(p, dp, work.delta, all_keys, kQueries);
                // dK += scale dS^T Q,  dQ^T = scale K^T dS^T
                parts.each(q0 + count, [&](int64_t at, int64_t token, int64_t keys) {
                  gemm_serial(Op::None, Op::None, keys, hd, kQueries, scale, dp + at * kQueries, kQueries, q, hd, 1,
                              dk + token * ld, ld);
                  gemm_serial(Op::Transpose, Op::None, hd, kQueries, keys, scale, k + token * ld, ld,
                              dp + at * kQueries, kQueries, at == 0 ? 0 : 1, work.transposed, kQueries);
                });
                for (int64_t i = 0; i < count; ++i) {
                  float* row = d_qkv + (begin + q0 + i) * ld + h * hd;
                  for (int64_t d = 0; d < hd; ++d) row[d] = work.transposed[d * kQueries + i];
                }
              }
          }
        });
  }
  errors.rethrow();
}

void cache_append(const float* qkv, const AttentionShape& shape, const CacheSlot* slots, int64_t tokens, float* cache) {
  const int64_t hd = shape.head_dim;
#pragma omp parallel for schedule(static) if (tokens > 1)
  for (int64_t t = 0; t < tokens; ++t) {
    const float* k = qkv + t * shape.ld + shape.heads * hd;
    const float* v = k + shape.kv_heads * hd;
    const int64_t capacity = slots[t].capacity, position = slots[t].position;
    for (int64_t g = 0; g < shape.kv_heads; ++g) {
      float* keys = cache + slots[t].at + 2 * g * hd * capacity;
      float* values = keys + hd * capacity;
      for (int64_t d = 0; d < hd; ++d) {
        keys[d * capacity + position] = k[g * hd + d];
        values[d * capacity + position] = v[g * hd + d];
      }
    }
  }
}

void attention_decode(const float* qkv, const AttentionShape& shape, const DecodeRow* rows, int64_t count,
                      const float* prompts, const float* own, float* out) {
  const int64_t hd = shape.head_dim, group = shape.heads / shape.kv_heads;
  const float scale = scale_of(shape);
  const auto decode = EEPO_ISA_DISPATCH(decode_head);
  int64_t longest = 0;
  for (int64_t r = 0; r < count; ++r)
    longest = std::max(longest, int64_t{rows[r].prompt_length} + int64_t{rows[r].own_length});
  const int64_t stride = longest + 32;  // each slice is rounded up to 16
  // allocated here: an exception must not leave the parallel region
  const auto scratch = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(omp_get_max_threads() * stride));
#pragma omp parallel
  {
    float* mine = scratch.get() + omp_get_thread_num() * stride;
#pragma omp for schedule(static)
    for (int64_t r = 0; r < count; ++r) {
      const DecodeRow& row = rows[r];
      for (int64_t h = 0; h < shape.heads; ++h) {
        const int64_t at = 2 * (h / group) * hd;
        const auto slice = [&](const float* slot, int64_t length, int64_t capacity) {
          return CacheSlice{slot + at * capacity, slot + (at + hd) * capacity, length, capacity};
        };
        const CacheSlice slices[2] = {slice(prompts + row.prompt_at, row.prompt_length, row.prompt_capacity),
                                      slice(own + row.own_at, row.own_length, row.own_capacity)};
        decode(qkv + r * shape.ld + h * hd, hd, scale, slices, 2, mine, out + (r * shape.heads + h) * hd);
      }
    }
  }
}

}  // namespace eepo
