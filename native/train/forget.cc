// The temporary unlearning step of EEPO: theta' = theta + eta grad L(O1), written out of place into the rollout
// copy. What is open is known from the entropies recorded at sampling, so the head sees only open tokens, and sees them
// once: statistics, coefficients and gradient come from one product. The policy's weights are read, never written;
// nothing is subtracted afterwards, the copy is dropped.
#include <algorithm>
#include <cmath>

#include "core/philox.h"
#include "train/model.h"

namespace eepo {
namespace {

double mean_change(const std::vector<float>& before, const std::vector<float>& after, const std::vector<float>& a) {
  double total = 0;
  int64_t active = 0;
  for (size_t i = 0; i < after.size(); ++i)
    if (a[i] != 0) {
      total += static_cast<double>(after[i]) - before[i];
      ++active;
    }
  return active ? total / static_cast<double>(active) : std::nan("");
}

}  // namespace

TokenComplements Model::accumulate_complements(const TrainBatch& batch, const float* entropy,
                                               const std::vector<int64_t>& offsets, const std::vector<float>& weight,
                                               const ForgetOptions& options, const CancelToken& cancel) {
  const auto n = static_cast<size_t>(offsets.back());
  std::vector<uint8_t> open(n);
  entropy_gate(entropy, offsets.data(), static_cast<int64_t>(weight.size()), nullptr, options.loss, open.data());
  // A token behind a closed gate has no loss whatever its probability is: any will do.
  TokenComplements seen{std::vector<float>(n, std::log(0.5f)), std::vector<float>(n, 0.5f)};
  if (std::ranges::find(open, uint8_t{1}) == open.end()) return seen;

  std::vector<float> row_weight(n);
  for (size_t s = 0; s < weight.size(); ++s)
    for (int64_t t = offsets[s]; t < offsets[s + 1]; ++t) row_weight[t] = open[t] ? weight[s] : 0.0f;
  std::vector<float> logprob(n), one_minus_p(n);
  run_kept(share_prompts(batch, decoder_.sharing_limit()), options.temperature, cancel);
  accumulate(weights(), cancel, [&](const LinearHead& head, const int64_t* targets, float* d_hidden, float* d_head) {
    ops_.linear_complementary_grad(head, targets, row_weight.data(), options.loss, options.temperature, logprob.data(),
                                   one_minus_p.data(), d_hidden, d_head, &cancel);
  });
  for (size_t t = 0; t < n; ++t)
    if (open[t]) {
      seen.logprob[t] = logprob[t];
      seen.one_minus_p[t] = one_minus_p[t];
    }
  return seen;
}

// theta' starts from the weights that drew stage 1, in bfloat16 the working copy: its expectation is then exactly one
// step away from them, and only weights that the step moves are at stake. (From the master, rounding would roll the
// dice for every weight anew, a far larger change than so small a step.) Rounding is stochastic: to nearest, nearly
// nothing of the step would be left.
AscendReport Model::ascend_into_rollout(double eta, const ForgetOptions& options) {
  if (adapter_) {
    float* to = adapter_rollout_.reserve(ops_, adapter_->size());
    return ops_.ascend(
        {{master_.data(), DType::Float32, gradient_.data(), DType::Float32, to, DType::Float32, adapter_->size()}}, eta,
        Rounding::Nearest, 0);
  }
  const int64_t matrices = layout().matrix_size();
  rollout_.reserve(ops_, layout(), options.rollout_dtype);
  const Weights theta = weights();
  const PhiloxCounter key = philox4x32({options.iteration, 0, 0, 0}, options.seed);
  return ops_.ascend({{theta.matrices, theta.dtype, gradient_.data(), DType::Float32, rollout_.matrices(),
                       options.rollout_dtype, matrices},
                      {theta.vectors, DType::Float32, gradient_.data() + matrices, DType::Float32, rollout_.vectors(),
                       DType::Float32, layout().vector_size()}},
                     eta, Rounding::Stochastic, uint64_t{key[1]} << 32 | key[0]);
}

std::optional<NonFinite> Model::find_under_rollout(const TrainBatch& batch, float temperature,
                                                   const CancelToken& cancel) {
  rollout_active_ = true;
  try {
    auto found = find_non_finite(batch, WeightSet::Rollout, true, temperature, cancel);
    rollout_active_ = false;
    return found;
  } catch (...) {
    rollout_active_ = false;
    throw;
  }
}

ForgetReport Model::forget(const TrainBatch& batch, const std::vector<float>& entropy, const ForgetOptions& options,
                           const CancelToken& cancel) {
  require_trainable("forget");
  check(!has_gradient_, ErrorCode::Busy,
        "forget needs empty gradient buffers: call step() or zeroGrad() after backward() first");
  const size_t sequences = batch.sequences();
  rollout_active_ = false;

  ForgetReport report;
  std::vector<float> probe_before, probe_a;
  size_t probe_end = 0;  // the first sequences, up to probe_tokens response tokens, are measured again under theta'
  for (int64_t tokens = 0; probe_end < sequences && tokens < options.probe_tokens; ++probe_end)
    tokens += batch.response_length(probe_end);

  struct ClearGradient {  // also when aborted half-way: the next forget or backward must find it empty
    Model& model;
    ~ClearGradient() {
      model.zero_grad();
      model.kept_.valid = false;
    }
  } clear{*this};

  int64_t done = 0;  // response tokens before this micro-batch
  for (size_t first = 0; first < sequences;) {
    const size_t end = micro_batch_end(batch, first, options.micro_batch_tokens);
    std::vector<int64_t> offsets{0};
    std::vector<float> weight;
    for (size_t s = first; s < end; ++s) {
      const int64_t length = batch.response_length(s);
      offsets.push_back(offsets.back() + length);
      // 1 / (|O1| T_k): known without the other micro-batches, so their size cannot matter
      weight.push_back(length ? 1.0f / (static_cast<float>(sequences) * static_cast<float>(length)) : 0.0f);
    }
    const auto count = static_cast<int64_t>(end - first);
    const TokenComplements seen =
        accumulate_complements(slice(batch, first, end), entropy.data() + done, offsets, weight, options, cancel);
    std::vector<float> a(offsets.back());
    const ComplementaryResult loss =
        complementary_loss(seen.logprob.data(), entropy.data() + done, seen.one_minus_p.data(), offsets.data(), count,
                           weight.data(), nullptr, options.loss, a.data(), nullptr);
    report.loss.loss += loss.loss;
    report.loss.tokens += loss.tokens;
    report.loss.open_tokens += loss.open_tokens;
    report.loss.clamped_low += loss.clamped_low;
    report.loss.clamped_high += loss.clamped_high;
    report.loss.active_tokens += loss.active_tokens;
    for (size_t s = first; s < std::min(end, probe_end); ++s)
      for (int64_t t = offsets[s - first]; t < offsets[s - first + 1]; ++t) {
        probe_before.push_back(seen.logprob[t]);
        probe_a.push_back(a[t]);
      }
    done += offsets.back();
    first = end;
  }

  report.stage1_logp_delta = std::nan("");
  if (report.loss.active_tokens == 0) {
    report.skipped = ForgetReport::Skipped::NoOpenToken;
    return report;
  }
  const int64_t n = trained_size();
  report.grad_norm = std::sqrt(ops_.square_sum(gradient_.data(), n));
  if (!std::isfinite(report.grad_norm) || !std::isfinite(report.loss.loss)) {
    report.skipped = ForgetReport::Skipped::NonFinite;
    report.cause = find_in_trained(gradient_.data());
    return report;
  }
  const double eta = options.normalize && report.grad_norm > 0 ? options.eta / report.grad_norm : options.eta;
  const AscendReport step = ascend_into_rollout(eta, options);
  report.relative_step = std::abs(eta) * report.grad_norm / std::sqrt(ops_.square_sum(master_.data(), n));
  report.changed_frac = static_cast<double>(step.changed) / static_cast<double>(trained_count());
  if (probe_end > 0) {
    const TokenStats after = inspect(share_prompts(slice(batch, 0, probe_end), decoder_.sharing_limit()),
                                     rollout_weights(), options.temperature, cancel);
    const int64_t bad =
        cpu_ops().first_non_finite(after.logprob.data(), DType::Float32, static_cast<int64_t>(after.logprob.size()));
    if (bad >= 0) {
      report.skipped = ForgetReport::Skipped::NonFinite;
      report.cause = find_under_rollout(slice(batch, 0, probe_end), options.temperature, cancel);
      return report;
    }
    report.stage1_logp_delta = mean_change(probe_before, after.logprob, probe_a);
  }
  rollout_active_ = true;  // last: of a forget that was aborted nothing remains
  return report;
}

}  // namespace eepo
