// Tests of token_stats.
#include "kernels/token_stats.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "test/fixtures.h"
#include "test/kernels_test.h"

namespace eepo::test {
namespace {

struct StatsError {
  double logprob = 0, entropy = 0, q_relative = 0;
};

StatsError stats_error(const LogitsView& view, const std::vector<int64_t>& targets, float temperature) {
  const Stats got = run_stats(view, targets, temperature);
  const size_t n = static_cast<size_t>(view.rows);
  std::vector<double> l(n), h(n), q(n);
  token_stats_reference(view, targets.data(), temperature, l.data(), h.data(), q.data());
  StatsError error;
  for (size_t i = 0; i < n; ++i) {
    error.logprob = worse(error.logprob, unit_difference(got.logprob[i], l[i]));
    error.entropy = worse(error.entropy, unit_difference(got.entropy[i], h[i]));
    error.q_relative = worse(error.q_relative, difference(got.q[i], q[i]) / (q[i] > 0 ? q[i] : 1));
  }
  return error;
}

void check_stats(const std::string& name, const LogitsView& view, const std::vector<int64_t>& targets,
                 float temperature = 1) {
  const StatsError error = stats_error(view, targets, temperature);
  check_at_most(name + " log-prob", error.logprob, 1e-6);
  check_at_most(name + " entropy", error.entropy, 1e-6);
  check_at_most(name + " q relative", error.q_relative, 1e-5);
}

void test_stats_sizes() {
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    for (const int64_t cols : {int64_t{1}, int64_t{2}, int64_t{37}, int64_t{1000}, int64_t{2048}, int64_t{2049},
                               int64_t{4099}, int64_t{151936}}) {
      const int64_t rows = cols > 10000 ? 5 : 17;
      const Logits logits = random_logits(dtype, rows, cols, 11, 3);
      check_stats(text("stats %s V=%d", dtype_name(dtype), static_cast<int>(cols)), logits.view(),
                  random_targets(rows, cols, 5));
    }
  }
}

void test_stats_ranges() {
  for (const float shift : {-300.0f, 300.0f, -40.0f}) {
    for (const float tau : {1.0f, 0.7f, 1.3f}) {
      const Logits logits = random_logits(DType::Float32, 8, 5003, 23, 0, shift);
      check_stats(text("stats shifted by %g, tau %g", shift, tau), logits.view(), random_targets(8, 5003, 3), tau);
    }
  }
  const Logits wide = random_logits(DType::Float32, 8, 5003, 29, 0, 0, 40);
  check_stats("stats of wide logits (sigma 40)", wide.view(), random_targets(8, 5003, 3));
  const Logits flat = random_logits(DType::Float32, 3, 151936, 31, 0, 0, 0);
  check_stats("stats of flat logits", flat.view(), random_targets(3, 151936, 3));
}

// One logit above all others, so that p_y runs over [1e-6, 1 - 1e-7] for the maximum and for another token.
void test_stats_probabilities() {
  for (const double p : {1e-6, 1e-3, 0.5, 0.99, 1 - 1e-4, 1 - 1e-6, 1 - 1e-7, 1 - 1e-9}) {
    for (const int64_t cols : {int64_t{37}, int64_t{4099}}) {
      Logits logits = random_logits(DType::Float32, 4, cols, 41, 0, 0, 0.5f);
      for (int64_t r = 0; r < 4; ++r) {
        double others = 0;
        for (int64_t j = 1; j < cols; ++j) others += std::exp(static_cast<double>(logits.get(r, j)));
        logits.set(r, 0, static_cast<float>(std::log(p / (1 - p) * others)));
      }
      const std::string name = text("stats p=%g V=%d", p, static_cast<int>(cols));
      check_stats(name + " of the token", logits.view(), std::vector<int64_t>(4, 0));
      check_stats(name + " of another", logits.view(), std::vector<int64_t>(4, cols - 1));
    }
  }
}

void test_stats_infinities() {
  const int64_t cols = 6000;
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    Logits logits = random_logits(dtype, 6, cols, 43);
    for (int64_t j = 0; j < cols; j += 2) logits.set(0, j, -kInf);
    for (int64_t j = 0; j < 4096; ++j) logits.set(1, j, -kInf);  // two whole blocks
    for (int64_t j = 0; j < cols; ++j)
      if (j != 7) logits.set(2, j, -kInf);  // one token left
    const std::vector<int64_t> targets{1, 5000, 7, 3, 3, 3};
    check_stats(text("stats %s with -inf", dtype_name(dtype)), logits.view(), targets);
    const Stats one = run_stats(logits.view(), targets);
    check_true(text("stats %s, one finite logit: l = H = q = 0", dtype_name(dtype)),
               one.logprob[2] == 0 && one.entropy[2] == 0 && one.q[2] == 0);
    std::vector<int64_t> masked = targets;
    masked[0] = 2;
    masked[1] = 100;
    const Stats s = run_stats(logits.view(), masked);
    check_true(text("stats %s, target at -inf: l = -inf, q = 1", dtype_name(dtype)),
               s.logprob[0] == -kInf && s.q[0] == 1 && s.logprob[1] == -kInf && s.q[1] == 1);

    const Stats before = run_stats(logits.view(), targets);
    Logits broken = logits;
    broken.set(0, 5999, kNan);
    broken.set(2, 10, kInf);
    for (int64_t j = 0; j < cols; ++j) broken.set(4, j, -kInf);
    broken.set(5, 3, kNan);  // the target itself
    const Stats after = run_stats(broken.view(), targets);
    bool nan = true, kept = true;
    for (const size_t r : {0, 2, 4, 5}) {
      nan = nan && std::isnan(after.logprob[r]) && std::isnan(after.entropy[r]) && std::isnan(after.q[r]);
    }
    for (const size_t r : {1, 3}) {
      kept = kept && after.logprob[r] == before.logprob[r] && after.entropy[r] == before.entropy[r];
    }
    check_true(text("stats %s: NaN, +inf or no finite logit makes that row NaN", dtype_name(dtype)), nan);
    check_true(text("stats %s: and leaves the other rows alone", dtype_name(dtype)), kept);
    check_at_most(text("stats %s: the reference agrees", dtype_name(dtype)),
                  stats_error(broken.view(), targets, 1).logprob, 1e-6);
  }
}

// Vocabularies masked by a large negative number rather than -inf, scattered or over whole blocks.
void test_stats_masks() {
  for (const float mask : {-100.0f, -1e9f, -std::numeric_limits<float>::max()}) {
    Logits logits = random_logits(DType::Float32, 3, 9001, 59);
    for (int64_t j = 0; j < 9001; j += 3) logits.set(0, j, mask);
    for (int64_t j = 100; j < 7000; ++j) logits.set(1, j, mask);
    for (int64_t j = 0; j < 9001; ++j)
      if (j != 4000) logits.set(2, j, mask);
    check_stats(text("stats masked by %g", mask), logits.view(), {1, 8000, 4000});
  }
}

void test_stats_invariance() {
  const int64_t cols = 50000;
  const Logits logits = random_logits(DType::Float32, 9, cols, 47, 5);
  const std::vector<int64_t> targets = random_targets(9, cols, 2);
  const Stats all = run_stats(logits.view(), targets);
  for (const int threads : {1, 2, 3, 16}) {
    omp_set_num_threads(threads);
    const Stats again = run_stats(logits.view(), targets);
    Stats single(9);
    for (int64_t r = 0; r < 9; ++r) {
      const LogitsView one{row_at(logits.view(), r), logits.dtype, 1, cols, cols};
      token_stats(one, &targets[r], 1, &single.logprob[r], &single.entropy[r], &single.q[r]);
    }
    check_true(text("stats: same bits on %d threads, in a batch and alone", threads),
               same_bits(all.logprob, again.logprob) && same_bits(all.entropy, again.entropy) &&
                   same_bits(all.q, again.q) && same_bits(all.logprob, single.logprob) &&
                   same_bits(all.entropy, single.entropy) && same_bits(all.q, single.q));
  }
  omp_set_num_threads(2);

  const LogitsView none{logits.bytes.data(), DType::Float32, 0, cols, cols};
  token_stats(none, nullptr, 1, nullptr, nullptr, nullptr);
  float entropy = -1;
  const LogitsView one{logits.bytes.data(), DType::Float32, 1, cols, cols};
  token_stats(one, nullptr, 1, nullptr, &entropy, nullptr);
  check_at_most("stats: no rows; entropy without targets", std::fabs(entropy - all.entropy[0]), 1e-6);

  const Logits many = random_logits(DType::Float32, 70001, 19, 53);
  check_stats("stats of 70,001 rows", many.view(), random_targets(70001, 19, 8));
}

}  // namespace

void test_token_stats() {
  test_stats_sizes();
  test_stats_ranges();
  test_stats_probabilities();
  test_stats_infinities();
  test_stats_masks();
  test_stats_invariance();
}

}  // namespace eepo::test
