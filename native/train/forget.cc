// The temporary unlearning step of EEPO: theta' = theta + eta grad L(O1), written out of place into the rollout
// copy, and its variants: another loss or length of the step, several steps, a random direction, a share of the last
// iteration's theta' - theta. What is open is known from the entropies recorded at sampling, so the head sees only open
// tokens, and sees them once: statistics, coefficients and gradient come from one product. The policy's weights are
// read, never written; nothing is subtracted afterwards, the copy is dropped.
#include <algorithm>
#include <cmath>

#include "core/normal.h"
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

TokenComplements Model::accumulate_complements(const Weights& weights, const TrainBatch& batch, const float* entropy,
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
  run_kept(weights, share_prompts(batch, decoder_.sharing_limit()), options.temperature, cancel);
  accumulate(weights, cancel, [&](const LinearHead& head, const int64_t* targets, float* d_hidden, float* d_head) {
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

Model::UnlearningGradient Model::accumulate_unlearning(const Weights& weights, const TrainBatch& batch,
                                                       const std::vector<float>& entropy, size_t probed,
                                                       const ForgetOptions& options, const CancelToken& cancel) {
  UnlearningGradient total;
  const size_t sequences = batch.sequences();
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
    const TokenComplements seen = accumulate_complements(weights, slice(batch, first, end), entropy.data() + done,
                                                         offsets, weight, options, cancel);
    std::vector<float> a(offsets.back());
    const ComplementaryResult loss =
        complementary_loss(seen.logprob.data(), entropy.data() + done, seen.one_minus_p.data(), offsets.data(), count,
                           weight.data(), nullptr, options.loss, a.data(), nullptr);
    total.loss.loss += loss.loss;
    total.loss.tokens += loss.tokens;
    total.loss.open_tokens += loss.open_tokens;
    total.loss.clamped_low += loss.clamped_low;
    total.loss.clamped_high += loss.clamped_high;
    total.loss.active_tokens += loss.active_tokens;
    for (size_t s = first; s < std::min(end, probed); ++s)
      for (int64_t t = offsets[s - first]; t < offsets[s - first + 1]; ++t) {
        total.logprob.push_back(seen.logprob[t]);
        total.a.push_back(a[t]);
      }
    done += offsets.back();
    first = end;
  }
  return total;
}

// The host draws, so that every device has the same bits. The seed is one of its own: responses are sampled with
// counters of the other.
double Model::randomize_gradient(const ForgetOptions& options, int64_t step) {
  const PhiloxCounter key = philox4x32({options.iteration, static_cast<uint32_t>(step), 0, 1}, options.seed);
  const uint64_t seed = uint64_t{key[1]} << 32 | key[0];
  std::vector<float> values;
  for (uint32_t index = 0; index < trained().size(); ++index) {
    const Parameter& p = trained()[index];
    const int64_t size = p.size();
    values.resize(static_cast<size_t>(size));
#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < (size + 3) / 4; ++block) {
      const auto four =
          philox_normal({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), index, 0}, seed);
      std::copy_n(four.begin(), std::min<int64_t>(4, size - 4 * block), values.begin() + 4 * block);
    }
    ops_.upload(gradient_.data() + trained_offset(p), values.data(), size * static_cast<int64_t>(sizeof(float)));
  }
  return std::sqrt(ops_.square_sum(gradient_.data(), trained_size()));
}

// theta' starts from the weights that drew stage 1, in bfloat16 the working copy: its expectation is then exactly one
// step away from them, and only weights that the step moves are at stake. (From the master, rounding would roll the
// dice for every weight anew, a far larger change than so small a step.) Rounding is stochastic: to nearest, nearly
// nothing of the step would be left.
AscendReport Model::ascend_into_rollout(const float* direction, double eta, int64_t step,
                                        const ForgetOptions& options) {
  if (adapter_) {
    float* to = adapter_rollout_.reserve(ops_, adapter_->size());
    return ops_.ascend(
        {{master_.data(), DType::Float32, direction, DType::Float32, to, DType::Float32, adapter_->size()}}, eta,
        Rounding::Nearest, 0);
  }
  const int64_t matrices = layout().matrix_size();
  rollout_.reserve(ops_, layout(), options.rollout_dtype);
  const Weights theta = weights();
  const PhiloxCounter key = philox4x32({options.iteration, static_cast<uint32_t>(step), 0, 0}, options.seed);
  return ops_.ascend(
      {{theta.matrices, theta.dtype, direction, DType::Float32, rollout_.matrices(), options.rollout_dtype, matrices},
       {theta.vectors, DType::Float32, direction + matrices, DType::Float32, rollout_.vectors(), DType::Float32,
        layout().vector_size()}},
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

  size_t probed = 0;  // the first sequences, up to probe_tokens response tokens, are measured again under theta'
  for (int64_t tokens = 0; probed < sequences && tokens < options.probe_tokens; ++probed)
    tokens += batch.response_length(probed);

  struct ClearGradient {  // also when aborted half-way: the next forget or backward must find it empty
    Model& model;
    ~ClearGradient() {
      model.zero_grad();
      model.kept_.valid = false;
    }
  } clear{*this};

  // One step from theta needs no record of what was added to it.
  const bool sum = options.steps > 1 || options.memory > 0;
  if (options.memory == 0)
    for (Displacement& old : displacements_) old.iteration = kNoIteration;
  Displacement* const moved = sum ? &begin_displacement(options) : nullptr;

  const int64_t n = trained_size();
  ForgetReport report;
  report.stage1_logp_delta = std::nan("");
  double length = 0;  // ||theta||
  AscendReport change;
  UnlearningGradient before;  // of the step
  for (int64_t step = 0; step < options.steps; ++step) {
    UnlearningGradient here;
    try {
      here = accumulate_unlearning(step == 0 ? weights() : rollout_weights(), batch, entropy, probed, options, cancel);
    } catch (const Error& error) {
      if (step == 0 || error.code() != ErrorCode::NonFinite) throw;  // under theta it is no fault of the step
      report.skipped = ForgetReport::Skipped::NonFinite;
      report.cause = find_under_rollout(batch, options.temperature, cancel);
      return report;
    }
    if (step == 0) {
      report.loss = here.loss;
      before = std::move(here);
    }
    const ComplementaryResult& loss = step == 0 ? before.loss : here.loss;
    if (loss.active_tokens == 0) break;
    const double norm = std::sqrt(ops_.square_sum(gradient_.data(), n));
    if (step == 0) report.grad_norm = norm;
    if (!std::isfinite(norm) || !std::isfinite(loss.loss)) {
      report.skipped = ForgetReport::Skipped::NonFinite;
      report.cause = find_in_trained(gradient_.data());
      return report;
    }
    if (step == 0) length = std::sqrt(ops_.square_sum(master_.data(), n));
    double eta = options.eta;
    if (options.length == StepLength::Relative) eta *= length;
    if (options.length != StepLength::Eta && norm > 0) eta /= norm;
    if (!moved) report.relative_step = std::abs(eta) * norm / length;
    if (options.random_direction) eta *= norm / randomize_gradient(options, step);
    if (moved) {
      float* const delta = moved->values.data();
      ops_.ascend({{delta, DType::Float32, gradient_.data(), DType::Float32, delta, DType::Float32, n}}, eta,
                  Rounding::Nearest, 0);
      moved->zero = false;
      change = ascend_into_rollout(delta, 1, step, options);
    } else {
      change = ascend_into_rollout(gradient_.data(), eta, step, options);
    }
    ++report.steps;
    zero_grad();
  }
  if (report.steps == 0) {
    if (!moved || moved->zero) {
      if (moved && options.memory > 0) moved->iteration = options.iteration;
      report.skipped = ForgetReport::Skipped::NoOpenToken;
      return report;
    }
    length = std::sqrt(ops_.square_sum(master_.data(), n));
    change = ascend_into_rollout(moved->values.data(), 1, 0, options);  // only what is remembered
  }
  if (moved) report.relative_step = std::sqrt(ops_.square_sum(moved->values.data(), n)) / length;
  report.changed_frac = static_cast<double>(change.changed) / static_cast<double>(trained_count());
  if (probed > 0) {
    const TokenStats after = inspect(share_prompts(slice(batch, 0, probed), decoder_.sharing_limit()),
                                     rollout_weights(), options.temperature, cancel);
    const int64_t bad =
        cpu_ops().first_non_finite(after.logprob.data(), DType::Float32, static_cast<int64_t>(after.logprob.size()));
    if (bad >= 0) {
      report.skipped = ForgetReport::Skipped::NonFinite;
      report.cause = find_under_rollout(slice(batch, 0, probed), options.temperature, cancel);
      return report;
    }
    report.stage1_logp_delta = mean_change(before.logprob, after.logprob, before.a);
  }
  // last: of a forget that was aborted nothing remains
  if (moved && options.memory > 0) moved->iteration = options.iteration;
  rollout_active_ = true;
  return report;
}

}  // namespace eepo
