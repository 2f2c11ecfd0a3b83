#include "model/decoder.h"

#include <algorithm>

namespace eepo {

void Decoder::linear(const Weights& weights, LinearId id, const float* x, int64_t rows, FloatBuffer& scratch,
                     float* y) const {
  const LinearSlot slot = layout_.linear(id);
  ops_.linear(x, weights.matrix(slot), rows, y);
  if (weights.adapter) adapter_forward(ops_, weights.adapter, id, slot, x, rows, scratch, y);
}

void Decoder::linear_backward(const Weights& weights, const Gradients& grad, LinearId id, const float* dy,
                              const float* x, int64_t rows, float* dx) {
  const LinearSlot slot = layout_.linear(id);
  if (grad.base()) ops_.linear_weight_grad(dy, x, weights.dtype, rows, slot.out, slot.in, grad.matrix(slot.at));
  ops_.linear_input_grad(dy, weights.matrix(slot), rows, dx);
  if (weights.adapter)
    adapter_backward(ops_, weights.adapter, grad.adapter, id, slot, dy, x, rows, adapter_scratch_, dx);
}

void Decoder::qkv_projection(const Weights& weights, int64_t layer, const float* normed, int64_t tokens,
                             const int32_t* positions, const RopeRows& angles, FloatBuffer& scratch, float* qkv,
                             LayerActivations* keep) const {
  const int64_t width = config_.qkv_width(), hd = config_.head_dim;
  const LayerOffsets& at = layout_.layers[layer];
  linear(weights, {layer, LinearKind::Qkv}, normed, tokens, scratch, qkv);
  if (config_.qkv_bias) ops_.add_bias(qkv, weights.vector(at.qkv_bias), tokens, width);
  if (config_.qk_norm) {
    float *inv_q = nullptr, *inv_k = nullptr;
    if (keep) {
      // the norm's backward needs q and k as they were before it
      const int64_t qk = config_.q_width() + config_.kv_width();
      float* raw = keep->qk_raw.reserve(ops_, tokens * qk);
      const auto floats = static_cast<int64_t>(sizeof(float));
      ops_.copy_2d(raw, qk * floats, qkv, width * floats, qk * floats, tokens);
      inv_q = keep->inv_q.reserve(ops_, tokens * config_.heads);
      inv_k = keep->inv_k.reserve(ops_, tokens * config_.kv_heads);
    }
    ops_.rms_norm(qkv, weights.vector(at.q_norm), config_.norm_eps, {config_.heads, hd, width, width}, tokens, qkv,
                  inv_q);
    float* k = qkv + config_.q_width();
    ops_.rms_norm(k, weights.vector(at.k_norm), config_.norm_eps, {config_.kv_heads, hd, width, width}, tokens, k,
                  inv_k);
  }
  // q and k heads lie side by side
  ops_.rope(qkv, width, config_.heads + config_.kv_heads, hd, positions, tokens, angles.cosine, angles.sine, false);
}

void Decoder::attention_output(const Weights& weights, int64_t layer, const float* mixed, int64_t tokens,
                               FloatBuffer& scratch, float* out) const {
  linear(weights, {layer, LinearKind::Output}, mixed, tokens, scratch, out);
  if (config_.o_bias) ops_.add_bias(out, weights.vector(layout_.layers[layer].o_bias), tokens, config_.hidden_size);
}

// Every token's place in its sequence, and the table that has the angles of all of them.
void Decoder::place(const Packed& batch, Activations& acts) {
  acts.positions.resize(batch.tokens());
  int64_t longest = 0;
  for (int64_t s = 0; s < batch.count(); ++s) longest = std::max(longest, batch.whole_length(s));
  acts.own_rope.reset();
  RopeTable* own = nullptr;
  if (rope_.own_angles(longest)) {
    own = &acts.own_rope.emplace(config_.rope, config_.head_dim);
    own->extend(ops_, rope_.longest_common());
  } else {
    rope_.extend(ops_, longest);
  }
  for (int64_t s = 0; s < batch.count(); ++s) {
    int64_t row = batch.prefix_length(s);
    if (own != nullptr && rope_.own_angles(batch.whole_length(s))) {
      row += own->rows();
      own->append_sequence(batch.whole_length(s));
    }
    for (int64_t t = batch.offsets[s]; t < batch.offsets[s + 1]; ++t) acts.positions[t] = static_cast<int32_t>(row++);
  }
  if (own != nullptr) own->upload(ops_);
}

void Decoder::forward(const Weights& weights, const Packed& batch, const std::vector<int32_t>& rows, Activations& acts,
                      Keep keep, float* hidden, const CancelToken& cancel, const KeyValueSink& sink) {
  const int64_t n = batch.tokens(), dim = config_.hidden_size;
  acts.valid = false;
  acts.batch = batch;
  acts.rows = rows;
  if (acts.keep != keep) acts.layers.clear();  // buffers of the other kind
  acts.keep = keep;
  acts.layers.resize(keep == Keep::Nothing ? 0 : config_.layers);
  place(batch, acts);
  acts.plan = ops_.plan(batch);
  acts.device_positions = ops_.stage(acts.positions, acts.positions_memory);
  acts.device_rows = ops_.stage(acts.rows, acts.rows_memory);
  const int32_t* ids = ops_.stage(acts.batch.ids, acts.ids_memory);

  float* x = narrow_.reserve(ops_, n * dim);
  ops_.embed(weights.matrix(layout_.embed_matrix()), ids, n, x);
  for (int64_t l = 0; l < config_.layers; ++l) {
    cancel.check();
    if (keep != Keep::Nothing)
      ops_.copy(acts.layers[l].input.reserve(ops_, n * dim), x, n * dim * static_cast<int64_t>(sizeof(float)));
    const bool all = keep == Keep::All;
    layer_forward(weights, l, acts, all ? acts.layers[l] : acts.passing, all, true, x, sink);
  }
  const auto asked = static_cast<int64_t>(rows.size());
  float* last = acts.last.reserve(ops_, asked * dim);
  ops_.gather_rows(x, acts.device_rows, asked, dim, last);
  ops_.rms_norm(last, weights.vector(layout_.final_norm), config_.norm_eps, {1, dim, dim, dim}, asked, hidden,
                acts.inv_final.reserve(ops_, asked));
  acts.valid = keep != Keep::Nothing;
}

void Decoder::layer_forward(const Weights& weights, int64_t l, const Activations& acts, LayerActivations& a, bool keep,
                            bool finish, float* x, const KeyValueSink& sink) {
  const int64_t n = acts.batch.tokens(), dim = config_.hidden_size, ffn = config_.intermediate_size;
  const NormShape norm{1, dim, dim, dim};
  const LayerOffsets& at = layout_.layers[l];
  float* normed = normed_.reserve(ops_, n * dim);
  float* branch = d_narrow_.reserve(ops_, n * dim);
  ops_.rms_norm(x, weights.vector(at.norm1), config_.norm_eps, norm, n, normed, a.inv1.reserve(ops_, n));
  float* qkv = a.qkv.reserve(ops_, n * config_.qkv_width());
  qkv_projection(weights, l, normed, n, acts.device_positions, angles(acts), adapter_scratch_, qkv,
                 keep ? &a : nullptr);
  if (sink) sink(l, qkv);
  float* mixed = a.attention.reserve(ops_, n * config_.q_width());
  ops_.attention(qkv, attention_shape(), *acts.plan, mixed, keep ? a.lse.reserve(ops_, n * config_.heads) : nullptr);
  attention_output(weights, l, mixed, n, adapter_scratch_, branch);
  ops_.add(branch, n * dim, x);

  if (keep) ops_.copy(a.middle.reserve(ops_, n * dim), x, n * dim * static_cast<int64_t>(sizeof(float)));
  ops_.rms_norm(x, weights.vector(at.norm2), config_.norm_eps, norm, n, normed, a.inv2.reserve(ops_, n));
  float* gate_up = a.gate_up.reserve(ops_, n * 2 * ffn);
  linear(weights, {l, LinearKind::GateUp}, normed, n, adapter_scratch_, gate_up);
  if (!finish) return;
  float* product = wide_.reserve(ops_, n * ffn);
  ops_.swiglu(gate_up, ffn, n, product);
  linear(weights, {l, LinearKind::Down}, product, n, adapter_scratch_, branch);
  ops_.add(branch, n * dim, x);
}

void Decoder::backward(const Weights& weights, Activations& acts, const float* d_hidden, const Gradients& grad,
                       const CancelToken& cancel) {
  const int64_t n = acts.batch.tokens(), dim = config_.hidden_size;
  const auto asked = static_cast<int64_t>(acts.rows.size());
  float* d_last = d_narrow_.reserve(ops_, std::max(asked, n) * dim);
  ops_.rms_norm_backward(d_hidden, acts.last.data(), weights.vector(layout_.final_norm), acts.inv_final.data(),
                         {1, dim, dim, dim}, asked, false, d_last, grad.vector(layout_.final_norm));
  float* dx = d_x_.reserve(ops_, n * dim);
  ops_.zero(dx, n * dim * static_cast<int64_t>(sizeof(float)));
  ops_.scatter_add_rows(d_last, acts.rows.data(), asked, dim, dx);
  for (int64_t l = config_.layers - 1; l >= 0; --l) {
    cancel.check();
    LayerActivations& kept = acts.layers[l];
    if (acts.keep == Keep::Inputs) {
      float* x = narrow_.reserve(ops_, n * dim);
      ops_.copy(x, kept.input.data(), n * dim * static_cast<int64_t>(sizeof(float)));
      layer_forward(weights, l, acts, acts.passing, true, false, x, nullptr);
    }
    layer_backward(weights, l, acts, acts.keep == Keep::Inputs ? acts.passing : kept, kept.input.data(), dx, grad);
  }
  if (grad.base()) ops_.scatter_add_rows(dx, acts.batch.ids.data(), n, dim, grad.matrix(layout_.embed));
}

void Decoder::layer_backward(const Weights& weights, int64_t l, const Activations& acts, const LayerActivations& a,
                             const float* input, float* dx, const Gradients& grad) {
  const int64_t n = acts.batch.tokens(), dim = config_.hidden_size, width = config_.qkv_width();
  const int64_t q_width = config_.q_width(), ffn = config_.intermediate_size, hd = config_.head_dim;
  const NormShape norm{1, dim, dim, dim};
  const LayerOffsets& at = layout_.layers[l];
  float* normed = normed_.reserve(ops_, n * dim);
  float* product = wide_.reserve(ops_, n * ffn);
  float* d_wide = d_wide_.reserve(ops_, n * 2 * ffn);
  float* d_product = d_qkv_.reserve(ops_, n * std::max({width, ffn, q_width}));
  float* d_branch = d_narrow_.reserve(ops_, n * std::max(dim, q_width));

  // x_out = middle + Wdown swiglu(Wgu rms(middle))
  ops_.swiglu(a.gate_up.data(), ffn, n, product);
  linear_backward(weights, grad, {l, LinearKind::Down}, dx, product, n, d_product);
  ops_.swiglu_backward(a.gate_up.data(), d_product, ffn, n, d_wide);
  ops_.rms_norm(a.middle.data(), weights.vector(at.norm2), config_.norm_eps, norm, n, normed, nullptr);
  linear_backward(weights, grad, {l, LinearKind::GateUp}, d_wide, normed, n, d_branch);
  ops_.rms_norm_backward(d_branch, a.middle.data(), weights.vector(at.norm2), a.inv2.data(), norm, n, true, dx,
                         grad.vector(at.norm2));

  // middle = input + Wo attention(...)
  if (config_.o_bias && grad.base()) ops_.bias_backward(dx, n, dim, grad.vector(at.o_bias));
  linear_backward(weights, grad, {l, LinearKind::Output}, dx, a.attention.data(), n, d_branch);
  float* d_qkv = d_product;
  ops_.attention_backward(d_branch, a.qkv.data(), a.attention.data(), a.lse.data(), attention_shape(), *acts.plan,
                          d_qkv);
  const RopeRows rope = angles(acts);
  ops_.rope(d_qkv, width, config_.heads + config_.kv_heads, hd, acts.device_positions, n, rope.cosine, rope.sine, true);
  if (config_.qk_norm) {
    const int64_t qk = q_width + config_.kv_width();
    float* dk = d_qkv + q_width;
    ops_.rms_norm_backward(d_qkv, a.qk_raw.data(), weights.vector(at.q_norm), a.inv_q.data(),
                           {config_.heads, hd, qk, width}, n, false, d_qkv, grad.vector(at.q_norm));
    ops_.rms_norm_backward(dk, a.qk_raw.data() + q_width, weights.vector(at.k_norm), a.inv_k.data(),
                           {config_.kv_heads, hd, qk, width}, n, false, dk, grad.vector(at.k_norm));
  }
  if (config_.qkv_bias && grad.base()) ops_.bias_backward(d_qkv, n, width, grad.vector(at.qkv_bias));
  ops_.rms_norm(input, weights.vector(at.norm1), config_.norm_eps, norm, n, normed, nullptr);
  linear_backward(weights, grad, {l, LinearKind::Qkv}, d_qkv, normed, n, d_branch);
  ops_.rms_norm_backward(d_branch, input, weights.vector(at.norm1), a.inv1.data(), norm, n, true, dx,
                         grad.vector(at.norm1));
}

void Decoder::decode(const Weights& weights, const int32_t* ids, const int32_t* positions, int64_t n, float* hidden,
                     DecodeScratch& scratch, const CacheView& cache) const {
  const int64_t dim = config_.hidden_size, q_width = config_.q_width(), ffn = config_.intermediate_size;
  const NormShape norm{1, dim, dim, dim};
  float* normed = scratch.normed.reserve(ops_, n * std::max(dim, q_width));
  float* x = scratch.x.reserve(ops_, n * dim);
  float* branch = scratch.branch.reserve(ops_, n * dim);
  float* qkv = scratch.qkv.reserve(ops_, n * config_.qkv_width());
  float* gate_up = scratch.gate_up.reserve(ops_, n * 2 * ffn);
  float* product = scratch.product.reserve(ops_, n * ffn);
  ops_.embed(weights.matrix(layout_.embed_matrix()), ids, n, x);
  for (int64_t l = 0; l < config_.layers; ++l) {
    const LayerOffsets& at = layout_.layers[l];
    ops_.rms_norm(x, weights.vector(at.norm1), config_.norm_eps, norm, n, normed, nullptr);
    qkv_projection(weights, l, normed, n, positions, rope_.at(), scratch.adapter, qkv, nullptr);
    float* mixed = normed;
    const AttentionShape shape = attention_shape();
    float* own = cache.own + l * cache.own_layer;
    ops_.cache_append(qkv, shape, cache.slots, n, own);
    ops_.attention_decode(qkv, shape, cache.rows, n, cache.prompts + l * cache.prompt_layer, own, mixed);
    attention_output(weights, l, mixed, n, scratch.adapter, branch);
    ops_.add(branch, n * dim, x);
    ops_.rms_norm(x, weights.vector(at.norm2), config_.norm_eps, norm, n, normed, nullptr);
    linear(weights, {l, LinearKind::GateUp}, normed, n, scratch.adapter, gate_up);
    ops_.swiglu(gate_up, ffn, n, product);
    linear(weights, {l, LinearKind::Down}, product, n, scratch.adapter, branch);
    ops_.add(branch, n * dim, x);
  }
  ops_.rms_norm(x, weights.vector(layout_.final_norm), config_.norm_eps, norm, n, hidden, nullptr);
}

}  // namespace eepo
