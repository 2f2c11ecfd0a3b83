#include "train/layout.h"

namespace eepo {

namespace {

constexpr int64_t aligned_size(int64_t n) { return (n + 15) / 16 * 16; }

}  // namespace

int64_t Layout::add(std::string name, std::vector<int64_t> shape, bool aligned) {
  Parameter p{std::move(name), std::move(shape)};
  int64_t& end = p.matrix() ? matrix_size_ : vector_size_;
  if (aligned) end = aligned_size(end);
  p.offset = end;
  end += p.size();
  parameter_count_ += p.size();
  by_name_.emplace(p.name, parameters_.size());
  parameters_.push_back(std::move(p));
  return parameters_.back().offset;
}

LinearSlot Layout::linear(LinearId id) const {
  const LayerOffsets& at = layers[id.layer];
  switch (id.kind) {
    case LinearKind::Qkv: return {at.qkv, qkv_width_, hidden_};
    case LinearKind::Output: return {at.o, hidden_, q_width_};
    case LinearKind::GateUp: return {at.gate_up, 2 * intermediate_, hidden_};
    case LinearKind::Down: return {at.down, hidden_, intermediate_};
  }
  fail(ErrorCode::Native, "no such linear layer");
}

Layout::Layout(const ModelConfig& c)
    : vocab_(c.vocab_size),
      hidden_(c.hidden_size),
      q_width_(c.q_width()),
      qkv_width_(c.qkv_width()),
      intermediate_(c.intermediate_size) {
  embed = add("model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
  for (int64_t l = 0; l < c.layers; ++l) {
    const std::string p = "model.layers." + std::to_string(l) + ".";
    LayerOffsets o{};
    o.norm1 = add(p + "input_layernorm.weight", {c.hidden_size});
    o.qkv = add(p + "self_attn.q_proj.weight", {c.q_width(), c.hidden_size});
    add(p + "self_attn.k_proj.weight", {c.kv_width(), c.hidden_size}, false);
    add(p + "self_attn.v_proj.weight", {c.kv_width(), c.hidden_size}, false);
    o.qkv_bias = o.o_bias = o.q_norm = o.k_norm = -1;
    if (c.qkv_bias) {
      o.qkv_bias = add(p + "self_attn.q_proj.bias", {c.q_width()});
      add(p + "self_attn.k_proj.bias", {c.kv_width()}, false);
      add(p + "self_attn.v_proj.bias", {c.kv_width()}, false);
    }
    if (c.qk_norm) {
      o.q_norm = add(p + "self_attn.q_norm.weight", {c.head_dim});
      o.k_norm = add(p + "self_attn.k_norm.weight", {c.head_dim});
    }
    o.o = add(p + "self_attn.o_proj.weight", {c.hidden_size, c.q_width()});
    if (c.o_bias) o.o_bias = add(p + "self_attn.o_proj.bias", {c.hidden_size});
    o.norm2 = add(p + "post_attention_layernorm.weight", {c.hidden_size});
    o.gate_up = add(p + "mlp.gate_proj.weight", {c.intermediate_size, c.hidden_size});
    add(p + "mlp.up_proj.weight", {c.intermediate_size, c.hidden_size}, false);
    o.down = add(p + "mlp.down_proj.weight", {c.hidden_size, c.intermediate_size});
    layers.push_back(o);
  }
  final_norm = add("model.norm.weight", {c.hidden_size});
  head = c.tied ? embed : add("lm_head.weight", {c.vocab_size, c.hidden_size});
  matrix_size_ = aligned_size(matrix_size_);
  vector_size_ = aligned_size(vector_size_);
}

}  // namespace eepo
