#include "train/model.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_set>

#include "core/philox.h"
#include "model/safetensors.h"

namespace eepo {
namespace {

bool is_ignored_buffer(const std::string& name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".masked_bias");
}

}  // namespace

void Model::load(const std::vector<std::string>& paths, const CancelToken& cancel) {
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  std::vector<std::pair<const FileTensor*, int64_t>> copies;  // to which offset
  std::unordered_set<std::string> seen;
  for (const std::string& path : paths) {
    files.push_back(std::make_unique<SafetensorsFile>(path));
    for (const auto& [name, tensor] : files.back()->tensors()) {
      cancel.check();
      if (is_ignored_buffer(name)) continue;
      // a tied head that was saved as well is the embedding again
      const bool tied_head = config().tied && name == "lm_head.weight";
      const Parameter* parameter = layout().find(tied_head ? "model.embed_tokens.weight" : name);
      check(parameter != nullptr, ErrorCode::InvalidFile, path, ": tensor ", name,
            " does not belong to this architecture (config.json and weights disagree)");
      check(seen.insert(name).second, ErrorCode::InvalidFile, path, ": tensor ", name,
            " is in more than one file of the model");
      check(tensor.shape == parameter->shape, ErrorCode::InvalidFile, path, ": tensor ", name,
            " has a shape that config.json does not give it (", tensor.elements, " elements, expected ",
            parameter->size(), ")");
      check(is_float(tensor.dtype), ErrorCode::Unsupported, path, ": tensor ", name, " has dtype ", tensor.dtype_name,
            ", which is not supported; use float32, bfloat16 or float16");
      if (!tied_head) copies.emplace_back(&tensor, layout().flat_offset(*parameter));
    }
  }
  for (const Parameter& parameter : layout().parameters())
    check(seen.contains(parameter.name), ErrorCode::InvalidFile, paths.empty() ? std::string("model") : paths[0],
          ": tensor ", parameter.name, " is missing from the weights");
  master_ = FloatBuffer(ops_, layout().flat_size());
  std::vector<float> values;  // of one tensor at a time on the way to another device
  for (const auto& [tensor, offset] : copies) {
    cancel.check();
    if (device() == Device::Cpu) {
      convert_to_float(*tensor, master_.data() + offset);
      continue;
    }
    values.resize(tensor->elements);
    convert_to_float(*tensor, values.data());
    ops_.upload(master_.data() + offset, values.data(), tensor->elements * static_cast<int64_t>(sizeof(float)));
  }
}

void Model::initialize(uint64_t seed) {
  master_ = FloatBuffer(ops_, layout().flat_size());
  uint32_t index = 0;
  std::vector<float> values;
  for (const Parameter& p : layout().parameters()) {
    values.resize(p.size());
    initialize_parameter(p, ++index, seed, values.data());
    ops_.upload(master_.data() + layout().flat_offset(p), values.data(),
                p.size() * static_cast<int64_t>(sizeof(float)));
  }
}

void Model::initialize_parameter(const Parameter& p, uint32_t index, uint64_t seed, float* w) const {
  if (p.shape.size() == 1) {
    std::fill_n(w, p.size(), p.name.ends_with(".bias") ? 0.0f : 1.0f);
    return;
  }
  const bool residual = p.name.ends_with("o_proj.weight") || p.name.ends_with("down_proj.weight");
  const double deviation = residual ? 0.02 / std::sqrt(2.0 * static_cast<double>(config().layers)) : 0.02;
  for (int64_t i = 0; i < p.size(); ++i) {  // Box-Muller
    const auto bits = philox4x32({index, static_cast<uint32_t>(i), static_cast<uint32_t>(i >> 32), 0}, seed);
    const double u = (bits[0] + 0.5) * 0x1p-32, v = bits[1] * 0x1p-32;
    w[i] = static_cast<float>(deviation * std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v));
  }
}

void Model::save(const std::string& path, const CancelToken& cancel) const {
  std::vector<float> copy;  // of another device's weights
  const float* weights = master_.data();
  if (device() != Device::Cpu) {
    copy.resize(master_.size());
    ops_.download(copy.data(), weights, master_.size() * static_cast<int64_t>(sizeof(float)));
    weights = copy.data();
  }
  std::vector<NamedTensor> tensors;
  for (const Parameter& p : layout().parameters())
    tensors.push_back({p.name, p.shape, weights + layout().flat_offset(p)});
  write_safetensors(path, tensors, cancel);
}

std::shared_ptr<Model> Model::clone() const {
  auto copy = std::make_shared<Model>(config(), ops_);
  ops_.copy(copy->master_.reserve(ops_, master_.size()), master_.data(),
            master_.size() * static_cast<int64_t>(sizeof(float)));
  return copy;
}

Weights Model::view(const FloatBuffer& flat) const {
  return {flat.data(), DType::Float32, flat.data() + layout().matrix_size()};
}

Weights Model::weights_of(WeightSet set) const {
  return view(set == WeightSet::Rollout && rollout_active_ ? rollout_ : master_);
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
    std::vector<int64_t> rows(chunk.tokens()), targets(chunk.tokens());
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
  const LinearHead head{hidden, matrix.data, matrix.dtype, n, config().hidden_size, config().vocab_size};
  ops_.linear_token_stats(head, ops_.stage(targets, scratch_targets_memory_), temperature, stats, stats + n, nullptr,
                          &cancel);
  ops_.download(both.data(), stats, 2 * n * static_cast<int64_t>(sizeof(float)));
  return {{both.begin(), both.begin() + n}, {both.begin() + n, both.end()}};
}

void Model::logits(const Packed& batch, float* device_out, const CancelToken& cancel) {
  const int64_t n = batch.tokens(), dim = config().hidden_size;
  std::vector<int64_t> rows(n);
  std::iota(rows.begin(), rows.end(), 0);
  float* hidden = scratch_hidden_.reserve(ops_, n * dim);
  decoder_.forward(weights(), batch, rows, scratch_, Keep::Nothing, hidden, cancel);
  decoder_.logits(weights(), hidden, n, device_out);
}

std::vector<Sample> Model::generate(const Packed& prompts, const GenerateOptions& options, WeightSet weights,
                                    const CancelToken& cancel, const GenerateProgress& progress) {
  return eepo::generate(decoder_, weights_of(weights), prompts, options, cancel, progress);
}

TokenStats Model::forward(const TrainBatch& batch, float temperature, bool keep, const CancelToken& cancel) {
  const SharedBatch shared = share_prompts(batch, decoder_.sharing_limit());
  if (!keep) return inspect(shared, weights(), temperature, cancel);
  run_kept(shared, temperature, cancel);
  return head_stats(weights(), hidden_.data(), targets_, temperature, cancel);
}

void Model::run_kept(const SharedBatch& shared, float temperature, const CancelToken& cancel) {
  kept_.valid = false;  // whatever stops this forward, no backward may mix the last one's activations with its targets
  targets_ = shared.targets;
  temperature_ = temperature;
  float* hidden = hidden_.reserve(ops_, static_cast<int64_t>(shared.rows.size()) * config().hidden_size);
  decoder_.forward(weights(), shared.packed, shared.rows, kept_, keep_, hidden, cancel);
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
  if (gradient_.empty()) gradient_ = FloatBuffer(ops_, layout().flat_size());
  kept_.valid = false;  // consumed, whatever happens
  has_gradient_ = true;
  try {
    float* d_hidden = d_hidden_.reserve(ops_, n * dim);
    const WeightMatrix matrix = weights.matrix(layout().head_matrix());
    const LinearHead head{hidden_.data(), matrix.data, matrix.dtype, n, dim, config().vocab_size};
    const Gradients grad{gradient_.data(), gradient_.data() + layout().matrix_size()};
    head_grad(head, ops_.stage(targets_, targets_memory_), d_hidden, grad.matrix(layout().head));
    decoder_.backward(weights, kept_, d_hidden, grad, cancel);
  } catch (...) {
    zero_grad();
    throw;
  }
}

void Model::backward(const std::vector<float>& a, const std::vector<float>& b, const CancelToken& cancel) {
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

void Model::zero_grad() {
  if (!gradient_.empty()) ops_.zero(gradient_.data(), gradient_.size() * static_cast<int64_t>(sizeof(float)));
  has_gradient_ = false;
}

StepReport Model::step(const StepOptions& options) {
  check(has_gradient_, ErrorCode::Busy, "step needs gradients: call forward and backward first");
  const int64_t n = layout().flat_size();
  StepReport report;
  report.grad_norm = std::sqrt(ops_.square_sum(gradient_.data(), n));
  if (!std::isfinite(report.grad_norm)) {
    zero_grad();
    return report;
  }
  if (moment1_.empty()) {
    moment1_ = FloatBuffer(ops_, n);
    moment2_ = FloatBuffer(ops_, n);
  }
  const double limit = options.max_grad_norm;
  const double scale = limit > 0 ? std::min(1.0, limit / (report.grad_norm + 1e-6)) : 1.0;
  ops_.adamw(master_.data(), gradient_.data(), moment1_.data(), moment2_.data(), n, options.adamw, ++steps_,
             static_cast<float>(scale));
  kept_.valid = false;  // of the old weights
  zero_grad();
  report.applied = true;
  return report;
}

}  // namespace eepo
