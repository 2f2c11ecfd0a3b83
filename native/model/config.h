// What the decoder needs to know of config.json. TypeScript (lib/config-json.ts) reads and checks the file, old
// and new style; this is the normalized result.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "core/error.h"

namespace eepo {

enum class RopeType : uint8_t { Default, Linear, Dynamic, Yarn, Llama3 };

/// Rotary frequencies, defaults resolved (lib/rope.ts says what each is).
struct RopeConfig {
  RopeType type = RopeType::Default;
  double theta = 10000.0;
  double factor = 1;
  int64_t original_positions = 0;
  double low_freq = 1, high_freq = 4;                          // llama3
  double beta_fast = 32, beta_slow = 1, attention_factor = 1;  // yarn
  bool truncate = true;                                        // yarn
};

struct ModelConfig {
  int64_t vocab_size = 0, hidden_size = 0, intermediate_size = 0, layers = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0, max_positions = 0;
  float norm_eps = 1e-6f;
  RopeConfig rope;
  bool tied = false;      // lm_head is embed_tokens
  bool qkv_bias = false;  // qwen2, or attention_bias
  bool o_bias = false;    // attention_bias of llama and qwen3
  bool qk_norm = false;   // qwen3: RMSNorm of every query and key head before rope

  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
  int64_t qkv_width() const { return q_width() + 2 * kv_width(); }

  void validate() const {
    const auto positive = [](int64_t value, const char* name) {
      check(value > 0 && value < (int64_t{1} << 31), ErrorCode::InvalidFile, "config.json: ", name,
            " must be a positive integer, got ", value);
    };
    positive(vocab_size, "vocab_size");
    positive(hidden_size, "hidden_size");
    positive(intermediate_size, "intermediate_size");
    positive(layers, "num_hidden_layers");
    positive(heads, "num_attention_heads");
    positive(kv_heads, "num_key_value_heads");
    positive(head_dim, "head_dim");
    positive(max_positions, "max_position_embeddings");
    check(heads % kv_heads == 0, ErrorCode::InvalidFile, "config.json: num_attention_heads (", heads,
          ") must be a multiple of num_key_value_heads (", kv_heads, ")");
    check(head_dim % 2 == 0, ErrorCode::InvalidFile, "config.json: head_dim must be even for rotary embeddings, got ",
          head_dim);
    check(head_dim <= 65536, ErrorCode::InvalidFile, "config.json: head_dim must be at most 65536, got ", head_dim);
    check(std::isfinite(norm_eps) && norm_eps > 0, ErrorCode::InvalidFile,
          "config.json: rms_norm_eps must be positive and finite as a float32, got ", norm_eps);
    // Before anything grows with these numbers: sizes and offsets must stay far from overflow.
    check(layers <= 10'000, ErrorCode::InvalidFile, "config.json: num_hidden_layers must be at most 10000, got ",
          layers);
    const auto wide = [](int64_t value) { return static_cast<double>(value); };
    const double attention = wide(hidden_size) * wide(head_dim) * 2 * (wide(heads) + wide(kv_heads));
    const double layer = attention + 3 * wide(hidden_size) * wide(intermediate_size);
    const double total = 2 * wide(vocab_size) * wide(hidden_size) + wide(layers) * layer;
    check(total < 1e14, ErrorCode::InvalidFile, "config.json: its sizes make a model of ", total,
          " parameters; at most 1e14 can be addressed");
  }
};

}  // namespace eepo
