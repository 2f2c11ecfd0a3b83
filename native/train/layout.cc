#include "train/layout.h"

namespace eepo {

int64_t Layout::add(std::string name, std::vector<int64_t> shape, bool aligned) {
  if (aligned) flat_size_ = (flat_size_ + 15) / 16 * 16;
  by_name_.emplace(name, parameters_.size());
  parameters_.push_back({std::move(name), std::move(shape), flat_size_});
  const int64_t offset = flat_size_, size = parameters_.back().size();
  flat_size_ += size;
  parameter_count_ += size;
  return offset;
}

Layout::Layout(const ModelConfig& c) {
  embed = add("model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
  for (int64_t l = 0; l < c.layers; ++l) {
    const std::string p = "model.layers." + std::to_string(l) + ".";
    LayerOffsets o{};
    o.norm1 = add(p + "input_layernorm.weight", {c.hidden_size});
    o.qkv = add(p + "self_attn.q_proj.weight", {c.q_width(), c.hidden_size});
    add(p + "self_attn.k_proj.weight", {c.kv_width(), c.hidden_size}, false);
    add(p + "self_attn.v_proj.weight", {c.kv_width(), c.hidden_size}, false);
    o.qkv_bias = o.q_norm = o.k_norm = -1;
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
    o.norm2 = add(p + "post_attention_layernorm.weight", {c.hidden_size});
    o.gate_up = add(p + "mlp.gate_proj.weight", {c.intermediate_size, c.hidden_size});
    add(p + "mlp.up_proj.weight", {c.intermediate_size, c.hidden_size}, false);
    o.down = add(p + "mlp.down_proj.weight", {c.hidden_size, c.intermediate_size});
    layers.push_back(o);
  }
  final_norm = add("model.norm.weight", {c.hidden_size});
  head = c.tied ? embed : add("lm_head.weight", {c.vocab_size, c.hidden_size});
  flat_size_ = (flat_size_ + 15) / 16 * 16;
}

}  // namespace eepo
