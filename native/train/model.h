// A model: the decoder, its weights and, if it can be trained, gradients, AdamW moments and the rollout copy theta'.
//
// Trainable: a float32 master copy belongs to the optimizer. In float32 it is what forward, backward and stage 1 read;
// in bfloat16 they read a working copy of the matrices, the master rounded to nearest after every step (norms and
// biases are read from the master). Frozen: the working copy alone. With an adapter (model/adapter.h): a frozen base,
// and master, gradient, moments and theta' are the adapter's; copies of such a model share the base. All methods run on
// the device's thread, one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/cancel.h"
#include "device/ops.h"
#include "model/decoder.h"
#include "model/diagnose.h"
#include "model/generate.h"
#include "train/batch.h"
#include "train/weight_copy.h"

namespace eepo {

class SafetensorsFile;

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
  std::optional<NonFinite> cause;  // of a step that was not applied: the first gradient that is not finite
};

struct ModelOptions {
  DType dtype = DType::Float32;  // of the matrices: float32 or bfloat16
  bool trainable = true;
};

/// Bytes of the files that have been read, and of all.
using LoadProgress = std::function<void(int64_t done, int64_t total)>;

/// Bytes on the device by purpose. 0: not allocated (yet).
struct MemoryUse {
  int64_t master = 0, working = 0, gradient = 0, moments = 0, rollout = 0;
};

/// What eta measures: theta' - theta = eta g, eta g / ||g||, or eta ||theta|| g / ||g||.
enum class StepLength : uint8_t { Eta, GradNorm, Relative };

struct ForgetOptions {
  ComplementaryOptions loss;
  double eta = 0;
  StepLength length = StepLength::Eta;
  int64_t steps = 1;                     // the gradient of every later one is taken at the theta' before it
  bool random_direction = false;         // the control: every step as long, but in a direction drawn at random
  double memory = 0;                     // share of the last iteration's theta' - theta that is added first
  DType rollout_dtype = DType::Float32;  // of theta': the model's, or float32 for one without rounding
  uint64_t seed = 0;                     // keys the rounding of a bfloat16 theta', and random directions
  uint32_t iteration = 0;
  float temperature = 1;
  int64_t probe_tokens = 256;
  int64_t micro_batch_tokens = 2048;
};
struct ForgetReport {
  ComplementaryResult loss;  // of the first step, like grad_norm
  int64_t steps = 0;         // taken
  double grad_norm = 0, relative_step = 0, changed_frac = 0, stage1_logp_delta = 0;
  enum class Skipped : uint8_t { No, NoOpenToken, NonFinite } skipped = Skipped::No;
  std::optional<eepo::NonFinite> cause;  // with NonFinite
};

class Model {
 public:
  /// Without weights yet: load(), initialize() or clone() allocates them, on the device of `ops`.
  Model(const ModelConfig& config, Ops& ops, ModelOptions options = {})
      : ops_(ops), decoder_(config, ops), dtype_(options.dtype), trainable_(options.trainable) {}

  Device device() const { return ops_.device(); }
  Ops& ops() const { return ops_; }
  DType dtype() const { return dtype_; }
  bool trainable() const { return trainable_ || adapter_; }

  const ModelConfig& config() const { return decoder_.config(); }
  const Layout& layout() const { return decoder_.layout(); }
  /// Null without an adapter.
  const AdapterLayout* adapter() const { return adapter_.get(); }
  /// What is trained: the adapter's parameters, or the model's.
  const std::vector<Parameter>& trained() const { return adapter_ ? adapter_->parameters() : layout().parameters(); }
  int64_t trained_count() const;
  /// Where a parameter of trained() lies in the flat buffers.
  int64_t trained_offset(const Parameter& p) const { return adapter_ ? p.offset : layout().flat_offset(p); }

  /// Fills the weights from safetensors files (each path a shard). Every parameter must be found once with its
  /// shape; unknown tensors other than known buffers are an error. Memory is allocated once all of that is known, so a
  /// config.json that asks for far more than the files hold costs nothing. A trainable model that has weights gets
  /// these in their place, and loses its gradients and moments.
  void load(const std::vector<std::string>& paths, const CancelToken& cancel, const LoadProgress& progress = nullptr);
  /// N(0, 0.02) matrices, ones for norms, zeros for biases; projections into the residual stream scaled by
  /// 1/sqrt(2 layers), as in GPT-2.
  void initialize(uint64_t seed);
  /// One file of the named parameters in float32 or bfloat16 (rounded from the master, where there is one). An adapter
  /// is merged: W + scale B A.
  void save(const std::string& path, const std::vector<std::string>& names, DType dtype,
            const CancelToken& cancel) const;
  /// Gives a frozen model an adapter: A uniform in +-1/sqrt(in), as PEFT does, and B zero.
  void attach(const AdapterConfig& config, uint64_t seed);
  /// The same, read from a file in PEFT's format: every A and B once, with its shape, and nothing else.
  void attach(const AdapterConfig& config, const std::string& path, const CancelToken& cancel);
  /// Puts the numbers of such a file in the place of the adapter's; gradients and moments are lost.
  void restore_adapter(const std::string& path, const CancelToken& cancel);
  /// The optimizer's state, by parameter of trained(), float32: <name>.exp_avg and <name>.exp_avg_sq, and how many
  /// steps were taken, `step`. Before the first step there is nothing but that.
  void save_optimizer(const std::string& path, const CancelToken& cancel) const;
  /// Reads such a file: names, shapes and dtypes are those of trained(), every value is finite and no second moment
  /// negative, or nothing is changed.
  void load_optimizer(const std::string& path, const CancelToken& cancel);
  /// In PEFT's format, float32.
  void save_adapter(const std::string& path, const CancelToken& cancel) const;
  /// The weights alone. A frozen copy, but for a trainable float32 model: that one's can be trained.
  std::shared_ptr<Model> clone() const;
  /// Elements [begin, begin + count) of a parameter of the model (without adapter) as float32, on the device.
  void read(const Parameter& p, int64_t begin, int64_t count, float* out) const;
  MemoryUse memory() const;

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

  /// Statistics of the response tokens. With `keep`, backward() may follow. Without `adapter`: of the base, kept never.
  TokenStats forward(const TrainBatch& batch, float temperature, bool keep, bool adapter, const CancelToken& cancel);
  /// Adds the gradient of sum a_t l_t + b_t H_t of the last kept forward; b may be empty. If it throws half-way, all
  /// gradients are cleared: step() must not apply half of one.
  void backward(const std::vector<float>& a, const std::vector<float>& b, const CancelToken& cancel);
  StepReport step(const StepOptions& options);
  void zero_grad();

  /// The first tensor with NaN or Infinity, in the order of computation: weights, what the response tokens of the batch
  /// (which may be empty) pass through, one sequence after the other, then gradients and moments. It changes nothing
  /// but scratch memory. Without `adapter`: of the base.
  std::optional<NonFinite> find_non_finite(const TrainBatch& batch, WeightSet set, bool adapter, float temperature,
                                           const CancelToken& cancel);

  /// theta' = theta + eta grad L (Eq. 9-11), the gradient in micro-batches. `entropy`: recorded at sampling.
  ForgetReport forget(const TrainBatch& batch, const std::vector<float>& entropy, const ForgetOptions& options,
                      const CancelToken& cancel);
  void sync_rollout() { rollout_active_ = false; }
  /// What is remembered of theta' (ForgetOptions::memory) at the end of this iteration becomes nothing.
  void drop_memory(uint32_t iteration);
  /// theta' - theta at the end of this iteration, as the next one will remember it: <name>.delta by parameter of
  /// trained(), float32, and `iteration`, that of the step; without one only that.
  void save_memory(const std::string& path, uint32_t iteration, const CancelToken& cancel) const;
  /// Reads such a file, or changes nothing.
  void load_memory(const std::string& path, const CancelToken& cancel);

  /// Of what is trained, flat, on the device.
  const float* master() const { return master_.data(); }
  /// The same. Null before the first backward. Throws Unsupported if frozen.
  const float* gradient() const {
    require_trainable("gradients");
    return gradient_.data();
  }

 private:
  /// Where a parameter is kept: in the master, or in the working copy of a frozen model.
  struct Place {
    void* data;
    DType dtype;
  };
  Place place(const Parameter& p);
  void allocate();
  /// working = round(master), where there are both.
  void refresh_working();
  void require_trainable(const char* call) const;
  int64_t trained_size() const { return adapter_ ? adapter_->size() : layout().flat_size(); }
  void allocate_adapter(const AdapterConfig& config);
  void read_adapter(const SafetensorsFile& file, const CancelToken& cancel);
  /// The weights are others now: what was computed from the old ones is void.
  void reset_training();
  Weights base_weights() const;
  Weights weights() const;
  Weights rollout_weights() const;
  Weights weights_of(WeightSet set) const;
  void initialize_parameter(const Parameter& p, uint32_t index, uint64_t seed, float* w) const;
  /// The head's statistics of n hidden states, brought to the host.
  TokenStats head_stats(const Weights& weights, const float* hidden, const std::vector<int64_t>& targets,
                        float temperature, const CancelToken& cancel);
  /// Statistics of the response tokens under any weights, nothing kept.
  TokenStats inspect(const SharedBatch& shared, const Weights& weights, float temperature, const CancelToken& cancel);
  /// The first number that is not finite of gradients or moments, in the order of a backward.
  std::optional<NonFinite> find_in_trained(const float* flat) const;
  /// Forward of any weights, activations and hidden states kept for accumulate().
  void run_kept(const Weights& weights, const SharedBatch& shared, float temperature, const CancelToken& cancel);
  /// Backward of the kept forward. `head_grad(head, targets, d_hidden, d_head)` is the head's part.
  using HeadGrad = std::function<void(const LinearHead&, const int64_t*, float*, float*)>;
  void accumulate(const Weights& weights, const CancelToken& cancel, const HeadGrad& head_grad);
  /// The unlearning loss's gradient of one micro-batch added, and l and 1 - p of its open tokens.
  TokenComplements accumulate_complements(const Weights& weights, const TrainBatch& batch, const float* entropy,
                                          const std::vector<int64_t>& offsets, const std::vector<float>& weight,
                                          const ForgetOptions& options, const CancelToken& cancel);
  /// The loss, and of the first `probed` sequences l and a of every response token.
  struct UnlearningGradient {
    ComplementaryResult loss;
    std::vector<float> logprob, a;
  };
  /// The whole batch's gradient of L under `weights`, into the gradient buffer.
  UnlearningGradient accumulate_unlearning(const Weights& weights, const TrainBatch& batch,
                                           const std::vector<float>& entropy, size_t probed,
                                           const ForgetOptions& options, const CancelToken& cancel);
  /// Random numbers in the place of the gradient, and their norm.
  double randomize_gradient(const ForgetOptions& options, int64_t step);
  /// find_non_finite of theta' before it is given out.
  std::optional<NonFinite> find_under_rollout(const TrainBatch& batch, float temperature, const CancelToken& cancel);
  /// theta' = theta + eta direction; `step` keys the rounding.
  AscendReport ascend_into_rollout(const float* direction, double eta, int64_t step, const ForgetOptions& options);

  /// theta' - theta, unrounded: where one step is added to another, or to what is remembered. Two, because an iteration
  /// that was cut short is made again, from what there was before it.
  struct Displacement {
    FloatBuffer values;
    int64_t iteration = kNoIteration;
    bool zero = true;
  };
  static constexpr int64_t kNoIteration = -1;
  /// The newest of an iteration before this one; null where there is none.
  const Displacement* displacement_before(int64_t iteration) const;
  /// Where the displacement of this iteration begins: at the remembered share, or 0.
  Displacement& begin_displacement(const ForgetOptions& options);
  /// On a GPU the key-value cache gets the room of activations and empty gradients while responses are drawn:
  /// libtorch's allocator passes memory on without asking the driver. On a CPU giving pages back and touching new ones
  /// costs more.
  void lend_training_memory();

  Ops& ops_;
  Decoder decoder_;
  DType dtype_;
  bool trainable_;
  std::shared_ptr<const AdapterLayout> adapter_;
  FloatBuffer master_, gradient_, moment1_, moment2_;  // flat, of what is trained
  WeightCopy working_, rollout_;
  Displacement displacements_[2];
  FloatBuffer adapter_rollout_, ignored_;  // theta' of an adapter; gradients of its base's vectors, which nobody reads
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
