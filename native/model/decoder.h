// One decoder for qwen2, qwen3 and llama: forward over packed sequences, and its backward by hand.
//
//   x = E[ids];  per layer:  x += Wo attention(rope(norm(Wqkv rms(x) + b)));  x += Wdown swiglu(Wgu rms(x))
//   hidden = rms(x)  of the rows asked for
//
// No padding: sequences lie one behind the other. What backward needs is kept per layer (inputs of the two
// residual branches, q/k/v after rope, attention's output and log-sum-exp, gate and up), or with gradient checkpointing
// the layer's input alone; norms and the SwiGLU product are formed again. Weights are a view (model/weights.h): theta
// and theta' are two of them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/buffer.h"
#include "core/cancel.h"
#include "device/ops.h"
#include "model/config.h"
#include "model/rope.h"
#include "model/weights.h"
#include "train/layout.h"

namespace eepo {

/// Token ids of packed segments (whole sequences, or prompts and their responses; see Segments).
struct Packed : Segments {
  std::vector<int32_t> ids;
  /// Tokens of the whole sequence each segment is of, where angles depend on it and prefix and segment are not all of
  /// it. Empty: they are.
  std::vector<int64_t> whole;
  int64_t whole_length(int64_t s) const { return whole.empty() ? prefix_length(s) + length(s) : whole[s]; }
  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
};

struct LayerActivations {
  FloatBuffer input, inv1, qkv, qk_raw, inv_q, inv_k, attention, lse, middle, inv2, gate_up;
};

/// What of a forward stays for a backward. Inputs: of every layer only what went in (gradient checkpointing); the
/// backward computes a layer again before it goes back through it, with the same bits.
enum class Keep : uint8_t { Nothing, Inputs, All };

/// What one forward keeps for one backward. Buffers are reused from batch to batch.
struct Activations {
  Packed batch;
  Keep keep = Keep::Nothing;
  std::vector<int32_t> positions;     // every token's row of the rope table
  std::optional<RopeTable> own_rope;  // the table, where the batch needs one of its own
  std::shared_ptr<AttentionPlan> plan;
  at::Tensor ids_memory, positions_memory, rows_memory;  // copies on the device
  const int32_t* device_positions = nullptr;
  const int32_t* device_rows = nullptr;
  std::vector<LayerActivations> layers;  // none, or one each
  LayerActivations passing;              // of the layer being computed, where it is not kept
  FloatBuffer last, inv_final;           // input of the final norm (rows asked for only), its 1/rms
  std::vector<int32_t> rows;             // the token rows whose hidden state was asked for, with repetitions
  bool valid = false;
};

/// The key-value caches as one decoding step sees them: of layer l they start at prompts + l * prompt_layer and own +
/// l * own_layer. `rows` and `slots` (where each row's new keys and values go, in own) are device tables.
struct CacheView {
  const float* prompts;
  float* own;
  int64_t prompt_layer, own_layer;
  const DecodeRow* rows;
  const CacheSlot* slots;
};

/// The buffers of one thread's decode().
struct DecodeScratch {
  FloatBuffer x, normed, branch, qkv, gate_up, product, adapter;
};

class Decoder {
 public:
  Decoder(const ModelConfig& config, Ops& ops)
      : ops_(ops), config_(config), layout_(config), rope_(config.rope, config.head_dim) {}

  Ops& ops() const { return ops_; }
  const ModelConfig& config() const { return config_; }
  const Layout& layout() const { return layout_; }

  /// Called after each layer's q, k, v are ready, to fill a cache: (layer, qkv rows).
  using KeyValueSink = std::function<void(int64_t layer, const float* qkv)>;

  /// Sequences longer than this may not share a prompt: its angles are another's with every length (dynamic rope).
  int64_t sharing_limit() const { return rope_.longest_common(); }

  /// hidden: [rows.size(), hidden_size], the final hidden states of those token rows. What `keep` names is left in
  /// `acts` for backward; otherwise its buffers are scratch.
  void forward(const Weights& weights, const Packed& batch, const std::vector<int32_t>& rows, Activations& acts,
               Keep keep, float* hidden, const CancelToken& cancel, const KeyValueSink& sink = nullptr);

  /// logits[rows, vocab] of final hidden states.
  void logits(const Weights& weights, const float* hidden, int64_t rows, float* out) const {
    ops_.linear(hidden, weights.matrix(layout_.head_matrix()), rows, out);
  }

  /// From d_hidden of the same rows: adds every parameter's gradient but the head's into `grad`; with an adapter only
  /// the adapter's.
  void backward(const Weights& weights, Activations& acts, const float* d_hidden, const Gradients& grad,
                const CancelToken& cancel);

  /// Makes rope ready for positions [0, count); decode() needs it done.
  void extend_positions(int64_t count) { rope_.extend(ops_, count); }

  /// One token per row, all layers, on a cache; hidden: [count, hidden_size], final hidden states. ids and positions on
  /// the device. Touches nothing of the decoder but constants, so on the CPU several threads may each run their own
  /// rows with a scratch of their own.
  void decode(const Weights& weights, const int32_t* ids, const int32_t* positions, int64_t count, float* hidden,
              DecodeScratch& scratch, const CacheView& cache) const;

  /// Frees what forward and backward work in; the next one allocates it again.
  void release_scratch() {
    for (FloatBuffer* buffer : {&normed_, &wide_, &d_wide_, &d_narrow_, &d_x_, &d_qkv_, &narrow_, &adapter_scratch_})
      *buffer = {};
  }

  AttentionShape attention_shape() const {
    return {config_.heads, config_.kv_heads, config_.head_dim, config_.qkv_width()};
  }

 private:
  void place(const Packed& batch, Activations& acts);
  RopeRows angles(const Activations& acts) const { return acts.own_rope ? acts.own_rope->at() : rope_.at(); }
  void qkv_projection(const Weights& weights, int64_t layer, const float* normed, int64_t tokens,
                      const int32_t* positions, const RopeRows& angles, FloatBuffer& scratch, float* qkv,
                      LayerActivations* keep) const;
  void attention_output(const Weights& weights, int64_t layer, const float* mixed, int64_t tokens, FloatBuffer& scratch,
                        float* out) const;
  /// One layer on x [tokens, hidden_size], in place. `keep`: everything backward needs goes into `a`, but the input.
  /// Without `finish` it stops at gate_up, after which nothing is left to keep.
  void layer_forward(const Weights& weights, int64_t layer, const Activations& acts, LayerActivations& a, bool keep,
                     bool finish, float* x, const KeyValueSink& sink);
  /// dx, the gradient of the layer's output, becomes that of its input.
  void layer_backward(const Weights& weights, int64_t layer, const Activations& acts, const LayerActivations& a,
                      const float* input, float* dx, const Gradients& grad);

  // The only places that multiply by a layer's weight matrix. `scratch` is the adapter's.
  /// y[rows, out] = x[rows, in] W^T (+ scale x A^T B^T)
  void linear(const Weights& weights, LinearId id, const float* x, int64_t rows, FloatBuffer& scratch, float* y) const;
  /// dx[rows, in] = dy[rows, out] W (+ the adapter's); dW[out, in] += dy^T x, or the adapter's dA and dB.
  void linear_backward(const Weights& weights, const Gradients& grad, LinearId id, const float* dy, const float* x,
                       int64_t rows, float* dx);

  Ops& ops_;
  ModelConfig config_;
  Layout layout_;
  RopeTable rope_;
  FloatBuffer normed_, wide_, d_wide_, d_narrow_, d_x_, d_qkv_, narrow_, adapter_scratch_;
};

}  // namespace eepo
