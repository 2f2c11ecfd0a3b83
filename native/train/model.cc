#include "train/model.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace eepo {
namespace {

// Its square still fits into float32: a larger gradient would make the second moment infinite, for good.
constexpr double kLargestGradient = 1e18;

}  // namespace

Weights Model::base_weights() const {
  if (!trainable_) return working_.view();
  const void* matrices = dtype_ == DType::Float32 ? static_cast<const void*>(master_.data()) : working_.view().matrices;
  return {matrices, dtype_, master_.data() + layout().matrix_size()};
}

Weights Model::weights() const {
  Weights weights = base_weights();
  if (adapter_) weights.adapter = {adapter_.get(), master_.data()};
  return weights;
}

Weights Model::rollout_weights() const {
  if (!adapter_) return rollout_.view();
  Weights weights = base_weights();
  weights.adapter = {adapter_.get(), adapter_rollout_.data()};
  return weights;
}

Weights Model::weights_of(WeightSet set) const {
  return set == WeightSet::Rollout && rollout_active_ ? rollout_weights() : weights();
}

int64_t Model::trained_count() const {
  if (adapter_) return adapter_->parameter_count();
  return trainable_ ? layout().parameter_count() : 0;
}

void Model::require_trainable(const char* call) const {
  check(trainable(), ErrorCode::Unsupported, call,
        " needs a policy that can be trained; this one is frozen (loaded with trainable: false, or a clone in "
        "bfloat16) and holds neither master weights nor gradients");
}

MemoryUse Model::memory() const {
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  MemoryUse use;
  use.master = master_.size() * kFloat;
  use.working = working_.bytes();
  use.gradient = gradient_.size() * kFloat;
  use.moments = (moment1_.size() + moment2_.size()) * kFloat;
  use.rollout = rollout_.bytes() + adapter_rollout_.size() * kFloat;
  for (const Displacement& displacement : displacements_) use.rollout += displacement.values.size() * kFloat;
  return use;
}

TokenStats Model::score(const Packed& batch, int64_t micro_batch_tokens, const CancelToken& cancel) {
  const int64_t dim = config().hidden_size;
  const size_t sequences = batch.offsets.size() - 1;
  TokenStats out;
  for (size_t first = 0; first < sequences;) {
    size_t end = first;
    while (end < sequences && (end == first || batch.offsets[end + 1] - batch.offsets[first] <= micro_batch_tokens))
      ++end;
    Packed chunk;
    const int64_t base = batch.offsets[first];
    chunk.ids.assign(batch.ids.begin() + base, batch.ids.begin() + batch.offsets[end]);
    for (size_t s = first; s <= end; ++s) chunk.offsets.push_back(batch.offsets[s] - base);
    std::vector<int32_t> rows(chunk.tokens());
    std::vector<int64_t> targets(chunk.tokens());
    std::iota(rows.begin(), rows.end(), 0);
    // A sequence's last row has no target and its log-prob is dropped below. It gets the same one in every batch, for
    // an entropy's last bit may depend on the target, which is summed apart.
    for (size_t s = 0; s + 1 < chunk.offsets.size(); ++s)
      for (int64_t t = chunk.offsets[s]; t + 1 < chunk.offsets[s + 1]; ++t) targets[t] = chunk.ids[t + 1];
    float* hidden = scratch_hidden_.reserve(ops_, chunk.tokens() * dim);
    decoder_.forward(weights(), chunk, rows, scratch_, Keep::Nothing, hidden, cancel);
    const TokenStats seen = head_stats(weights(), hidden, targets, 1, cancel);
    out.entropy.insert(out.entropy.end(), seen.entropy.begin(), seen.entropy.end());
    for (size_t s = 0; s + 1 < chunk.offsets.size(); ++s)
      out.logprob.insert(out.logprob.end(), seen.logprob.begin() + chunk.offsets[s],
                         seen.logprob.begin() + chunk.offsets[s + 1] - 1);
    first = end;
  }
  return out;
}

TokenStats Model::head_stats(const Weights& weights, const float* hidden, const std::vector<int64_t>& targets,
                             float temperature, const CancelToken& cancel) {
  const auto n = static_cast<int64_t>(targets.size());
  std::vector<float> both(2 * n);
  float* stats = stats_.reserve(ops_, 2 * n);
  const WeightMatrix matrix = weights.matrix(layout().head_matrix());
  const LinearHead head{hidden, matrix.data, matrix.dtype, n, matrix.in, matrix.out, DType::Float32};
  ops_.linear_token_stats(head, ops_.stage(targets, scratch_targets_memory_), temperature, stats, stats + n, nullptr,
                          &cancel);
  ops_.download(both.data(), stats, 2 * n * static_cast<int64_t>(sizeof(float)));
  return {{both.begin(), both.begin() + n}, {both.begin() + n, both.end()}};
}

void Model::logits(const Packed& batch, float* device_out, const CancelToken& cancel) {
  const int64_t n = batch.tokens(), dim = config().hidden_size;
  std::vector<int32_t> rows(n);
  std::iota(rows.begin(), rows.end(), 0);
  float* hidden = scratch_hidden_.reserve(ops_, n * dim);
  decoder_.forward(weights(), batch, rows, scratch_, Keep::Nothing, hidden, cancel);
  decoder_.logits(weights(), hidden, n, device_out);
}

std::vector<Sample> Model::generate(const Packed& prompts, const GenerateOptions& options, WeightSet weights,
                                    const CancelToken& cancel, const GenerateProgress& progress) {
  lend_training_memory();
  return eepo::generate(decoder_, weights_of(weights), prompts, options, cancel, progress);
}

void Model::lend_training_memory() {
  if (device() == Device::Cpu || kept_.valid) return;  // a forward that is still to be gone back through is kept
  kept_ = {};
  scratch_ = {};
  for (FloatBuffer* buffer : {&hidden_, &scratch_hidden_, &d_hidden_, &stats_}) *buffer = {};
  if (!has_gradient_) gradient_ = {};
  decoder_.release_scratch();
}

TokenStats Model::forward(const TrainBatch& batch, float temperature, bool keep, bool adapter,
                          const CancelToken& cancel) {
  if (keep) require_trainable("forward with keepActivations");
  const SharedBatch shared = share_prompts(batch, decoder_.sharing_limit());
  if (!keep) return inspect(shared, adapter ? weights() : base_weights(), temperature, cancel);
  run_kept(weights(), shared, temperature, cancel);
  return head_stats(weights(), hidden_.data(), targets_, temperature, cancel);
}

void Model::run_kept(const Weights& weights, const SharedBatch& shared, float temperature, const CancelToken& cancel) {
  kept_.valid = false;  // whatever stops this forward, no backward may mix the last one's activations with its targets
  targets_ = shared.targets;
  temperature_ = temperature;
  float* hidden = hidden_.reserve(ops_, static_cast<int64_t>(shared.rows.size()) * config().hidden_size);
  decoder_.forward(weights, shared.packed, shared.rows, kept_, keep_, hidden, cancel);
}

TokenStats Model::inspect(const SharedBatch& shared, const Weights& weights, float temperature,
                          const CancelToken& cancel) {
  float* hidden = scratch_hidden_.reserve(ops_, static_cast<int64_t>(shared.rows.size()) * config().hidden_size);
  decoder_.forward(weights, shared.packed, shared.rows, scratch_, Keep::Nothing, hidden, cancel);
  return head_stats(weights, hidden, shared.targets, temperature, cancel);
}

void Model::accumulate(const Weights& weights, const CancelToken& cancel, const HeadGrad& head_grad) {
  const int64_t dim = config().hidden_size;
  const auto n = static_cast<int64_t>(targets_.size());
  if (gradient_.empty()) gradient_ = FloatBuffer(ops_, trained_size());
  kept_.valid = false;  // consumed, whatever happens
  has_gradient_ = true;
  try {
    float* d_hidden = d_hidden_.reserve(ops_, n * dim);
    const WeightMatrix matrix = weights.matrix(layout().head_matrix());
    const LinearHead head{hidden_.data(), matrix.data, matrix.dtype, n, matrix.in, matrix.out, DType::Float32};
    Gradients grad{gradient_.data(), gradient_.data() + layout().matrix_size()};
    if (adapter_) grad = {nullptr, ignored_.reserve(ops_, layout().vector_size()), gradient_.data()};
    head_grad(head, ops_.stage(targets_, targets_memory_), d_hidden,
              grad.base() ? grad.matrix(layout().head) : nullptr);
    decoder_.backward(weights, kept_, d_hidden, grad, cancel);
  } catch (...) {
    zero_grad();
    throw;
  }
}

void Model::backward(const std::vector<float>& a, const std::vector<float>& b, const CancelToken& cancel) {
  require_trainable("backward");
  check(kept_.valid, ErrorCode::Busy,
        "backward needs the activations of a forward that has not been used yet: call forward first, with "
        "keepActivations not false");
  check(a.size() == targets_.size(), ErrorCode::InvalidArgument, "a has ", a.size(),
        " entries, but the last forward had ", targets_.size(), " response tokens");
  check(b.empty() || b.size() == a.size(), ErrorCode::InvalidArgument, "b has ", b.size(), " entries, expected ",
        a.size());
  accumulate(weights(), cancel, [&](const LinearHead& head, const int64_t* targets, float* d_hidden, float* d_head) {
    ops_.linear_token_grad(head, targets, a.data(), b.empty() ? nullptr : b.data(), temperature_, d_hidden, d_head,
                           &cancel);
  });
}

std::optional<NonFinite> Model::find_in_trained(const float* flat) const {
  const bool tied = !adapter_ && layout().head == layout().embed;
  return find_in_gradient(ops_, trained(), flat, [this](const Parameter& p) { return trained_offset(p); }, tied);
}

std::optional<NonFinite> Model::find_non_finite(const TrainBatch& batch, WeightSet set, bool adapter, float temperature,
                                                const CancelToken& cancel) {
  const Weights used = adapter ? weights_of(set) : base_weights();
  if (auto found = find_in_weights(ops_, layout(), used)) return found;
  for (size_t s = 0; s < batch.sequences(); ++s) {
    if (batch.response_length(s) == 0) continue;
    // A response's last token predicts nothing.
    const std::vector<int32_t> ids(batch.ids.begin() + batch.offsets[s], batch.ids.begin() + batch.offsets[s + 1] - 1);
    const int64_t first = batch.response_starts[s] - 1;
    const std::vector<int64_t> targets(batch.ids.begin() + batch.offsets[s] + first + 1,
                                       batch.ids.begin() + batch.offsets[s + 1]);
    auto found = find_in_sequence(decoder_, used, ids, first, targets, temperature, cancel);
    if (!found) continue;
    found->sequence = static_cast<int64_t>(s);
    return found;
  }
  if (!trainable()) return std::nullopt;
  if (has_gradient_)
    if (auto found = find_in_trained(gradient_.data())) return found;
  for (const FloatBuffer* moment : {&moment1_, &moment2_}) {
    if (moment->empty()) continue;
    if (auto found = find_in_trained(moment->data())) {
      found->kind = NonFinite::Kind::Moment;
      return found;
    }
  }
  return std::nullopt;
}

void Model::zero_grad() {
  if (!gradient_.empty()) ops_.zero(gradient_.data(), gradient_.size() * static_cast<int64_t>(sizeof(float)));
  has_gradient_ = false;
}

StepReport Model::step(const StepOptions& options) {
  require_trainable("step");
  check(has_gradient_, ErrorCode::Busy, "step needs gradients: call forward and backward first");
  const int64_t n = trained_size();
  StepReport report;
  report.grad_norm = std::sqrt(ops_.square_sum(gradient_.data(), n));
  const double limit = options.max_grad_norm;
  const double scale = limit > 0 ? std::min(1.0, limit / (report.grad_norm + 1e-6)) : 1.0;
  if (!(report.grad_norm * scale < kLargestGradient)) {  // NaN and Infinity too
    report.cause = find_in_trained(gradient_.data());
    zero_grad();
    return report;
  }
  if (moment1_.empty()) {
    moment1_ = FloatBuffer(ops_, n);
    moment2_ = FloatBuffer(ops_, n);
  }
  ops_.adamw(master_.data(), gradient_.data(), moment1_.data(), moment2_.data(), n, options.adamw, ++steps_,
             static_cast<float>(scale));
  refresh_working();
  kept_.valid = false;  // of the old weights
  zero_grad();
  report.applied = true;
  return report;
}

}  // namespace eepo
