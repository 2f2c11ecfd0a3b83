// A trainable model: the decoder, its master weights, gradients, AdamW moments and the rollout copy theta'.
// All methods run on the device's thread, one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/cancel.h"
#include "device/ops.h"
#include "model/decoder.h"
#include "model/generate.h"
#include "train/batch.h"

namespace eepo {

enum class WeightSet : uint8_t { Policy, Rollout };

struct TokenStats {
  std::vector<float> logprob, entropy;
};

struct TokenComplements {
  std::vector<float> logprob, one_minus_p;
};

struct StepOptions {
  AdamW adamw;
  double max_grad_norm = 0;  // 0: off
};
struct StepReport {
  double grad_norm = 0;
  bool applied = false;
};

struct ForgetOptions {
  ComplementaryOptions loss;
  double eta = 0;
  bool normalize = false;  // divide the gradient by its global norm first
  float temperature = 1;
  int64_t probe_tokens = 256;
  int64_t micro_batch_tokens = 2048;
};
struct ForgetReport {
  ComplementaryResult loss;
  double grad_norm = 0, relative_step = 0, changed_frac = 0, stage1_logp_delta = 0;
  enum class Skipped : uint8_t { No, NoOpenToken, NonFinite } skipped = Skipped::No;
};

class Model {
 public:
  /// Without weights yet: load(), initialize() or clone() allocates them, on the device of `ops`.
  Model(const ModelConfig& config, Ops& ops) : ops_(ops), decoder_(config, ops) {}

  Device device() const { return ops_.device(); }
  Ops& ops() const { return ops_; }

  const ModelConfig& config() const { return decoder_.config(); }
  const Layout& layout() const { return decoder_.layout(); }

  /// Fills the weights from safetensors files (each path a shard). Every parameter must be found once with its
  /// shape; unknown tensors other than known buffers are an error. Memory is allocated once all of that is known, so a
  /// config.json that asks for far more than the files hold costs nothing.
  void load(const std::vector<std::string>& paths, const CancelToken& cancel);
  /// N(0, 0.02) matrices, ones for norms, zeros for biases; projections into the residual stream scaled by
  /// 1/sqrt(2 layers), as in GPT-2.
  void initialize(uint64_t seed);
  void save(const std::string& path, const CancelToken& cancel) const;
  std::shared_ptr<Model> clone() const;

  /// Log-prob of every next token (length T-1 per sequence) and entropy after every token (length T).
  TokenStats score(const Packed& batch, int64_t micro_batch_tokens, const CancelToken& cancel);

  /// Logits of every position, [tokens, vocab] floats, into memory of this device: for inspection; nothing in training
  /// forms them all.
  void logits(const Packed& batch, float* device_out, const CancelToken& cancel);

  std::vector<Sample> generate(const Packed& prompts, const GenerateOptions& options, WeightSet weights,
                               const CancelToken& cancel, const GenerateProgress& progress);

  /// Whether forwards that keep activations keep only the layers' inputs, and backward computes the rest again: the
  /// same bits, for a third more work and a fraction of the memory.
  void set_gradient_checkpointing(bool on) { keep_ = on ? Keep::Inputs : Keep::All; }
  bool gradient_checkpointing() const { return keep_ == Keep::Inputs; }

  /// Statistics of the response tokens. With `keep`, backward() may follow.
  TokenStats forward(const TrainBatch& batch, float temperature, bool keep, const CancelToken& cancel);
  /// Adds the gradient of sum a_t l_t + b_t H_t of the last kept forward; b may be empty. If it throws half-way, all
  /// gradients are cleared: step() must not apply half of one.
  void backward(const std::vector<float>& a, const std::vector<float>& b, const CancelToken& cancel);
  StepReport step(const StepOptions& options);
  void zero_grad();

  /// theta' = theta + eta grad L (Eq. 9-11), the gradient in micro-batches. `entropy`: recorded at sampling.
  ForgetReport forget(const TrainBatch& batch, const std::vector<float>& entropy, const ForgetOptions& options,
                      const CancelToken& cancel);
  void sync_rollout() { rollout_active_ = false; }

  // Flat (Layout::flat_offset), on the device.
  const float* master() const { return master_.data(); }
  const float* gradient() const { return gradient_.data(); }  // null before the first backward

 private:
  Weights view(const FloatBuffer& flat) const;
  Weights weights() const { return view(master_); }
  Weights weights_of(WeightSet set) const;
  void initialize_parameter(const Parameter& p, uint32_t index, uint64_t seed, float* w) const;
  /// The head's statistics of n hidden states, brought to the host.
  TokenStats head_stats(const Weights& weights, const float* hidden, const std::vector<int64_t>& targets,
                        float temperature, const CancelToken& cancel);
  /// Statistics of the response tokens under any weights, nothing kept.
  TokenStats inspect(const SharedBatch& shared, const Weights& weights, float temperature, const CancelToken& cancel);
  /// Forward of the policy's weights, activations and hidden states kept for accumulate().
  void run_kept(const SharedBatch& shared, float temperature, const CancelToken& cancel);
  /// Backward of the kept forward. `head_grad(head, targets, d_hidden, d_head)` is the head's part.
  using HeadGrad = std::function<void(const LinearHead&, const int64_t*, float*, float*)>;
  void accumulate(const Weights& weights, const CancelToken& cancel, const HeadGrad& head_grad);
  /// The unlearning loss's gradient of one micro-batch added, and l and 1 - p of its open tokens.
  TokenComplements accumulate_complements(const TrainBatch& batch, const float* entropy,
                                          const std::vector<int64_t>& offsets, const std::vector<float>& weight,
                                          const ForgetOptions& options, const CancelToken& cancel);

  Ops& ops_;
  Decoder decoder_;
  FloatBuffer master_, gradient_, moment1_, moment2_, rollout_;
  bool rollout_active_ = false;
  bool has_gradient_ = false;
  int64_t steps_ = 0;
  Keep keep_ = Keep::All;
  Activations kept_, scratch_;
  FloatBuffer hidden_, scratch_hidden_, d_hidden_, stats_;
  std::vector<int64_t> targets_;
  at::Tensor targets_memory_, scratch_targets_memory_;
  float temperature_ = 1;
};

}  // namespace eepo
