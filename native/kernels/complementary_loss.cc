// CPU form of complementary_loss: sequences over the threads, their partial sums added in order.
//
// Floor: 8 bytes read (12 with one_minus_p) and 4 written (5 with gate) per token.
#include "kernels/complementary_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/error.h"
#include "kernels/complementary_rule.h"

namespace eepo {
namespace {

void check_options(const ComplementaryOptions& options) {
  check(!std::isnan(options.alpha), ErrorCode::InvalidArgument, "alpha must be a number (Infinity opens every token)");
  check(options.window >= 1, ErrorCode::InvalidArgument, "window must be at least 1, got ", options.window);
  check(options.eps_low >= 0 && options.eps_low < 1, ErrorCode::InvalidArgument, "epsLow must be in [0, 1), got ",
        options.eps_low);
  check(options.eps_high > 0 && options.eps_high < 1, ErrorCode::InvalidArgument, "epsHigh must be in (0, 1), got ",
        options.eps_high);
  check(options.eps_low < 1 - options.eps_high, ErrorCode::InvalidArgument,
        "epsLow must be below 1 - epsHigh: nothing is left between ", options.eps_low, " and 1 - ", options.eps_high);
}

// The tokens of one sequence in this call, and the entropies that precede them.
struct Sequence {
  const float* logprob;
  const float* entropy;
  const float* one_minus_p;  // may be null
  int64_t tokens;
  double weight;
  float* carry;  // [window - 1], newest first; may be null
};

// Eq. 5, summed from token t backwards: a carried entropy stands where it stood in the sequence, so chunks do not show.
double window_mean(const float* entropies, const float* carry, int64_t t, int window) {
  double sum = 0;
  int count = 0;
  for (int back = 0; back < window; ++back) {
    float entropy = std::numeric_limits<float>::quiet_NaN();
    if (back <= t) {
      entropy = entropies[t - back];
    } else if (carry) {
      entropy = carry[back - t - 1];
    }
    if (std::isnan(entropy)) break;  // the response's start
    sum += static_cast<double>(entropy);
    ++count;
  }
  return sum / count;
}

void update_carry(const Sequence& seq, int window) {
  // From the oldest slot down, so that a slot is read before it is overwritten.
  for (int64_t slot = window - 2; slot >= 0; --slot) {
    seq.carry[slot] = slot < seq.tokens ? seq.entropy[seq.tokens - 1 - slot] : seq.carry[slot - seq.tokens];
  }
}

// p and 1 - p from l, by one exponential where one is enough.
std::pair<double, double> probability(double l, const float* one_minus_p) {
  if (one_minus_p) return {std::exp(l), static_cast<double>(*one_minus_p)};
  const double e = std::expm1(l);
  return {l > -10 ? 1 + e : std::exp(l), -e};  // 1 + e keeps 11 digits of p there
}

ComplementaryResult run_sequence(const Sequence& seq, const ComplementaryOptions& options, float* a, uint8_t* gate) {
  ComplementaryResult result;
  result.tokens = seq.tokens;
  for (int64_t t = 0; t < seq.tokens; ++t) {
    const bool open = window_mean(seq.entropy, seq.carry, t, options.window) < static_cast<double>(options.alpha);
    if (gate) gate[t] = open;
    a[t] = 0;
    if (!open) continue;
    const auto [p, q] = probability(seq.logprob[t], seq.one_minus_p ? seq.one_minus_p + t : nullptr);
    const ComplementaryTerm term = complementary_term(seq.logprob[t], p, q, options);
    result.loss += seq.weight * term.value;
    result.open_tokens += 1;
    result.clamped_low += term.low;
    result.clamped_high += term.high;
    if (seq.weight != 0 && term.slope != 0) a[t] = static_cast<float>(seq.weight * term.slope);
    result.active_tokens += a[t] != 0;
  }
  if (seq.carry) update_carry(seq, options.window);
  return result;
}

// NaN would close the gate in silence, and in `carry` it means "no token".
void check_numbers(const float* logprob, const float* entropy, const float* one_minus_p, int64_t tokens) {
  const auto bad = [&](int64_t t) {
    return std::isnan(logprob[t]) || logprob[t] == std::numeric_limits<float>::infinity() ||
           !std::isfinite(entropy[t]) || (one_minus_p && !std::isfinite(one_minus_p[t]));
  };
  int64_t first = tokens;
#pragma omp parallel for schedule(static) reduction(min : first) if (tokens >= 65536)
  for (int64_t t = 0; t < tokens; ++t)
    if (bad(t)) first = std::min(first, t);
  if (first == tokens) return;
  check(!std::isnan(logprob[first]) && logprob[first] != std::numeric_limits<float>::infinity(), ErrorCode::NonFinite,
        "logprob[", first, "] is ", logprob[first]);
  check(std::isfinite(entropy[first]), ErrorCode::NonFinite, "entropy[", first, "] is ", entropy[first]);
  fail(ErrorCode::NonFinite, "oneMinusP[", first, "] is not a number");
}

}  // namespace

void entropy_gate(const float* entropy, const int64_t* offsets, int64_t sequences, const float* carry,
                  const ComplementaryOptions& options, uint8_t* gate) {
  check_options(options);
  for (int64_t k = 0; k < sequences; ++k) {
    const int64_t begin = offsets[k], count = offsets[k + 1] - begin;
    const float* before = carry ? carry + k * (options.window - 1) : nullptr;
    for (int64_t t = 0; t < count; ++t) {
      check(std::isfinite(entropy[begin + t]), ErrorCode::NonFinite, "entropy[", begin + t, "] is ",
            entropy[begin + t]);
      gate[begin + t] = window_mean(entropy + begin, before, t, options.window) < static_cast<double>(options.alpha);
    }
  }
}

ComplementaryResult complementary_loss(const float* logprob, const float* entropy, const float* one_minus_p,
                                       const int64_t* offsets, int64_t sequences, const float* weight, float* carry,
                                       const ComplementaryOptions& options, float* a, uint8_t* gate) {
  check_options(options);
  ComplementaryResult result;
  if (sequences <= 0) return result;
  check(offsets[0] == 0, ErrorCode::InvalidArgument, "offsets[0] must be 0, got ", offsets[0]);
  for (int64_t k = 0; k < sequences; ++k) {
    check(offsets[k] <= offsets[k + 1], ErrorCode::InvalidArgument, "offsets must not fall: offsets[", k + 1, "] is ",
          offsets[k + 1], " after ", offsets[k]);
  }
  const int64_t tokens = offsets[sequences];
  check_numbers(logprob, entropy, one_minus_p, tokens);

  std::vector<ComplementaryResult> parts(static_cast<size_t>(sequences));
#pragma omp parallel for schedule(static) if (tokens >= 4096)
  for (int64_t k = 0; k < sequences; ++k) {
    const int64_t begin = offsets[k], count = offsets[k + 1] - begin;
    const double w =
        weight ? static_cast<double>(weight[k]) : 1.0 / (static_cast<double>(sequences) * static_cast<double>(count));
    const Sequence seq{logprob + begin,
                       entropy + begin,
                       one_minus_p ? one_minus_p + begin : nullptr,
                       count,
                       w,
                       carry ? carry + k * (options.window - 1) : nullptr};
    parts[static_cast<size_t>(k)] = run_sequence(seq, options, a + begin, gate ? gate + begin : nullptr);
  }
  for (const ComplementaryResult& part : parts) {
    result.loss += part.loss;
    result.tokens += part.tokens;
    result.open_tokens += part.open_tokens;
    result.clamped_low += part.clamped_low;
    result.clamped_high += part.clamped_high;
    result.active_tokens += part.active_tokens;
  }
  return result;
}

}  // namespace eepo
