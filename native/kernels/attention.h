// Causal grouped-query attention over packed sequences, forward and backward, and one decoding step on the cache.
//
//   P = softmax(scale Q K^T + causal mask),  O = P V;   lse = log of the softmax's denominator, saved for backward
//
// Scores of a block of queries are formed transposed ([keys, 64]): the softmax of 64 queries then runs down the
// columns in vector lanes, and both products are matrix products with full register tiles even for heads as narrow
// as 8. Backward forms P again from lse, so nothing of size [T, T] is ever kept.
//
// A segment may have a prefix: another segment whose keys and values it sees before its own. So a prompt is computed
// once for all its responses, forward and backward.
#pragma once

#include <cstdint>
#include <vector>

namespace eepo {

struct AttentionShape {
  int64_t heads, kv_heads, head_dim;
  int64_t ld;  // distance between tokens in qkv rows [q heads | k heads | v heads]
};

/// Token offsets of packed segments, [segments + 1], and each one's prefix: the index of an earlier segment without a
/// prefix of its own, or -1. An empty `prefix` means none anywhere.
struct Segments {
  std::vector<int64_t> offsets;
  std::vector<int64_t> prefix;

  int64_t count() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t length(int64_t s) const { return offsets[s + 1] - offsets[s]; }
  int64_t prefix_of(int64_t s) const { return prefix.empty() ? -1 : prefix[s]; }
  int64_t prefix_length(int64_t s) const { return prefix_of(s) < 0 ? 0 : length(prefix_of(s)); }
};

/// out: [tokens, heads * head_dim]. lse: [tokens, heads], may be null.
void attention(const float* qkv, const AttentionShape& shape, const Segments& segments, float* out, float* lse);

/// d_qkv is overwritten (same layout as qkv).
void attention_backward(const float* d_out, const float* qkv, const float* out, const float* lse,
                        const AttentionShape& shape, const Segments& segments, float* d_qkv);

/// The cache: slots of `kv_heads` pairs of transposed [head_dim, capacity] keys and values. Capacities are multiples of
/// 16, memory starts zeroed. Slots are named by where they start, in floats, so that one table serves every layer.
inline int64_t cache_slot_floats(const AttentionShape& s, int64_t capacity) {
  return 2 * s.kv_heads * s.head_dim * capacity;
}

/// Where one token's keys and values go.
struct CacheSlot {
  int64_t at;  // start of the slot in the layer's cache
  int32_t capacity, position;
};

/// Writes the keys and values of qkv row t to slots[t], for every token.
void cache_append(const float* qkv, const AttentionShape& shape, const CacheSlot* slots, int64_t tokens, float* cache);

/// What one row sees when it decodes: the prompt it shares with others, and its own tokens so far (this one included).
struct DecodeRow {
  int64_t prompt_at, own_at;  // start of the slots in the layer's two caches
  int32_t prompt_length, prompt_capacity, own_length, own_capacity;
};

/// One query token per row against its prompt's and its own cache. qkv: [count, ld]; out: [count, heads * head_dim].
void attention_decode(const float* qkv, const AttentionShape& shape, const DecodeRow* rows, int64_t count,
                      const float* prompts, const float* own, float* out);

}  // namespace eepo
