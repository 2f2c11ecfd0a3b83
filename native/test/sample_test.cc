// Tests of sample.
#include "kernels/sample.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "test/fixtures.h"
#include "test/kernels_test.h"

namespace eepo::test {
namespace {

std::vector<PhiloxCounter> counters(int64_t rows, uint32_t first = 0) {
  std::vector<PhiloxCounter> c(static_cast<size_t>(rows));
  for (size_t i = 0; i < c.size(); ++i) c[i] = {first + static_cast<uint32_t>(i), 7, 8, 9};
  return c;
}

struct Drawn {
  std::vector<int64_t> token;
  std::vector<float> logprob, entropy;
  explicit Drawn(int64_t rows) : token(rows), logprob(rows), entropy(rows) {}
};

Drawn run_sample(const LogitsView& view, const SampleOptions& options, const std::vector<PhiloxCounter>& c) {
  Drawn d(view.rows);
  sample(view, options, c.data(), d.token.data(), d.logprob.data(), d.entropy.data());
  return d;
}

// One row seen `rows` times: a view whose stride is 0.
LogitsView repeated(const Logits& one, int64_t rows) { return {one.bytes.data(), one.dtype, rows, one.cols, 0}; }

// Pearson's statistic over cells with an expectation of 10 or more, as standard deviations from its mean.
double chi_square(const std::vector<double>& p, const std::vector<int64_t>& tokens, int64_t* impossible) {
  const double n = static_cast<double>(tokens.size());
  std::vector<int64_t> seen(p.size());
  for (const int64_t token : tokens) ++seen[static_cast<size_t>(token)];
  double statistic = 0, rest_expected = 0, rest_seen = 0;
  int64_t cells = 0;
  for (size_t j = 0; j < p.size(); ++j) {
    if (p[j] == 0) *impossible += seen[j];
    const double expected = n * p[j], observed = static_cast<double>(seen[j]);
    if (expected < 10) {
      rest_expected += expected;
      rest_seen += observed;
      continue;
    }
    statistic += (observed - expected) * (observed - expected) / expected;
    ++cells;
  }
  if (rest_expected >= 10) {
    statistic += (rest_seen - rest_expected) * (rest_seen - rest_expected) / rest_expected;
    ++cells;
  }
  const double freedom = static_cast<double>(cells - 1);
  return (statistic - freedom) / std::sqrt(2 * freedom);
}

std::vector<double> probabilities(const Logits& one, float tau) {
  std::vector<double> p(static_cast<size_t>(one.cols));
  double max = -kInf, total = 0;
  for (int64_t j = 0; j < one.cols; ++j) max = std::fmax(max, one.get(0, j) / static_cast<double>(tau));
  for (int64_t j = 0; j < one.cols; ++j) total += p[j] = std::exp(one.get(0, j) / static_cast<double>(tau) - max);
  for (double& x : p) x /= total;
  return p;
}

void test_sample_distribution() {
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    for (const int64_t cols : {int64_t{5}, int64_t{700}, int64_t{5003}}) {
      for (const float tau : {1.0f, 0.6f}) {
        Logits one = random_logits(dtype, 1, cols, 91, 0, 0, 1.5f);
        one.set(0, 0, -kInf);
        one.set(0, 3, -kInf);
        const int64_t draws = cols > 1000 ? 100000 : 200000;
        const Drawn d = run_sample(repeated(one, draws), {.temperature = tau, .seed = 4}, counters(draws));
        int64_t impossible = 0;
        const double sigma = chi_square(probabilities(one, tau), d.token, &impossible);
        check_at_most(text("sample %s V=%d tau %g: chi-square, sigmas", dtype_name(dtype), static_cast<int>(cols), tau),
                      std::fabs(sigma), 4);
        check_true("sample: never a token of probability 0", impossible == 0);
      }
    }
  }
}

// The same uniform through both; where they disagree the CDF between the two tokens must be closer than 1e-6.
void test_sample_reference() {
  struct Case {
    const char* name;
    int64_t cols, rows;
    SampleOptions options;
  };
  const Case cases[] = {
      {"full", 1000, 4000, {}},
      {"full, V=151936", 151936, 60, {}},
      {"tau 0.8", 4099, 1000, {.temperature = 0.8f}},
      {"top_k 1", 1000, 500, {.top_k = 1}},
      {"top_k 50", 4099, 500, {.top_k = 50}},
      {"top_k above V", 37, 500, {.top_k = 1000}},
      {"top_p 0.9", 1000, 500, {.top_p = 0.9f}},
      {"top_p 0.9, V=151936", 151936, 6, {.top_p = 0.9f}},
      {"top_p 0.0001", 1000, 200, {.top_p = 0.0001f}},
      {"top_k 100 and top_p 0.7, tau 1.3", 4099, 300, {.temperature = 1.3f, .top_k = 100, .top_p = 0.7f}},
      {"greedy", 4099, 300, {.temperature = 0}},
  };
  for (const Case& c : cases) {
    SampleOptions options = c.options;
    options.seed = 99;
    const Logits logits = random_logits(DType::Float32, c.rows, c.cols, 97);
    const Drawn got = run_sample(logits.view(), options, counters(c.rows));
    const size_t n = static_cast<size_t>(c.rows);
    std::vector<int64_t> token(n);
    std::vector<double> logprob(n), entropy(n);
    sample_reference(logits.view(), options, counters(c.rows).data(), token.data(), logprob.data(), entropy.data());
    int64_t different = 0, wrong = 0;
    double error = 0;
    for (size_t i = 0; i < n; ++i) {
      error = worse(error, unit_difference(got.entropy[i], entropy[i]));
      if (got.token[i] == token[i]) {
        error = worse(error, unit_difference(got.logprob[i], logprob[i]));
        continue;
      }
      ++different;
      // mass from just behind the first of the two to just before the second
      const int64_t lo = std::min(got.token[i], token[i]), hi = std::max(got.token[i], token[i]);
      double between = 0;
      std::vector<float> l(1);
      for (int64_t j = lo + 1; j < hi; ++j) {
        const LogitsView row{row_at(logits.view(), static_cast<int64_t>(i)), logits.dtype, 1, c.cols, c.cols};
        token_stats(row, &j, options.temperature, l.data(), nullptr, nullptr);
        between += std::exp(static_cast<double>(l[0]));
      }
      wrong += between > 1e-6 || options.temperature == 0;
    }
    check_true(text("sample %s: the reference's draws", c.name), wrong == 0 && different <= 1 + c.rows / 1000,
               text("%d of %d on the other side of a boundary", static_cast<int>(different), static_cast<int>(c.rows)));
    check_at_most(text("sample %s: log-prob and entropy", c.name), error, 1e-6);
  }
}

void test_sample_invariance() {
  const int64_t cols = 30000, rows = 40;
  const Logits logits = random_logits(DType::Float32, rows, cols, 101, 9);
  const std::vector<PhiloxCounter> c = counters(rows, 1000);
  for (const SampleOptions options : {SampleOptions{.seed = 7}, SampleOptions{.top_k = 40, .top_p = 0.8f, .seed = 7}}) {
    const Drawn all = run_sample(logits.view(), options, c);
    bool same = true, stats = true;
    for (const int threads : {1, 2, 16, 64}) {
      omp_set_num_threads(threads);
      const Drawn again = run_sample(logits.view(), options, c);
      same = same && again.token == all.token && same_bits(again.logprob, all.logprob) &&
             same_bits(again.entropy, all.entropy);
      for (int64_t r = 0; r < rows; ++r) {
        const Drawn alone = run_sample({row_at(logits.view(), r), logits.dtype, 1, cols, cols}, options, {c[r]});
        same = same && alone.token[0] == all.token[r] && alone.logprob[0] == all.logprob[r] &&
               alone.entropy[0] == all.entropy[r];
      }
    }
    omp_set_num_threads(2);
    const Stats s = run_stats(logits.view(), all.token);
    stats = same_bits(s.logprob, all.logprob) && same_bits(s.entropy, all.entropy);
    check_true("sample: a draw depends on neither batch nor threads", same);
    check_true("sample: log-prob and entropy are the bits of token_stats", stats);
    SampleOptions other = options;
    other.seed = 8;
    check_true("sample: another seed draws other tokens", run_sample(logits.view(), other, c).token != all.token);
  }
}

void test_sample_edges() {
  Logits ties(DType::Float32, 1, 5000);
  for (int64_t j = 0; j < 5000; ++j) ties.set(0, j, -5);
  for (const int64_t j : {4990, 3000, 2500}) ties.set(0, j, 2);
  check_true("sample greedy: first index of the maximum",
             run_sample(ties.view(), {.temperature = 0}, counters(1)).token[0] == 2500);
  const Drawn top = run_sample(repeated(ties, 2000), {.top_k = 2}, counters(2000));
  check_true("sample top_k: ties go to the lower index",
             std::all_of(top.token.begin(), top.token.end(), [](int64_t t) { return t == 2500 || t == 3000; }) &&
                 std::count(top.token.begin(), top.token.end(), 2500) > 800);
  check_at_most("sample top_k: log-prob is that of the full distribution",
                std::fabs(top.logprob[0] - (2 - std::log(3 * std::exp(2.0) + 4997 * std::exp(-5.0)))), 1e-6);

  // top_p restricted: the distribution inside is the full one, renormalized
  const Logits one = random_logits(DType::Float32, 1, 300, 103, 0, 0, 1);
  std::vector<double> p = probabilities(one, 1);
  std::vector<size_t> order(300);
  for (size_t i = 0; i < 300; ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](size_t i, size_t j) { return p[i] > p[j]; });
  double mass = 0;
  for (const size_t j : order) {
    const bool keep = mass < 0.6;
    mass += keep ? p[j] : 0;
    if (!keep) p[j] = 0;
  }
  for (double& x : p) x /= mass;
  const Drawn nucleus = run_sample(repeated(one, 100000), {.top_p = 0.6f}, counters(100000));
  int64_t outside = 0;
  check_at_most("sample top_p: chi-square, sigmas", std::fabs(chi_square(p, nucleus.token, &outside)), 4);
  check_true("sample top_p: nothing from outside", outside == 0);

  Logits broken = random_logits(DType::Float32, 7, 3000, 107);
  broken.set(5, 2999, kNan);
  broken.set(4, 0, kInf);
  check_true("sample: a broken row is named",
             throws(ErrorCode::NonFinite, "row 4 ", [&] { run_sample(broken.view(), {}, counters(7)); }));
  for (int64_t j = 0; j < 3000; ++j) broken.set(2, j, -kInf);
  check_true("sample: a row of -inf is named",
             throws(ErrorCode::NonFinite, "row 2 ", [&] { run_sample(broken.view(), {.top_k = 3}, counters(7)); }));
  const auto refuse = [&](const char* word, const SampleOptions& options) {
    return throws(ErrorCode::InvalidArgument, word, [&] { run_sample(ties.view(), options, counters(1)); });
  };
  check_true("sample: bad options", refuse("temperature", {.temperature = -1}) &&
                                        refuse("temperature", {.temperature = kNan}) && refuse("topK", {.top_k = -1}) &&
                                        refuse("topP", {.top_p = 0}) && refuse("topP", {.top_p = 1.5f}));
  Logits single(DType::Float32, 1, 1);
  single.set(0, 0, -700);
  const Drawn only = run_sample(single.view(), {}, counters(1));
  check_true("sample: V = 1", only.token[0] == 0 && only.logprob[0] == 0 && only.entropy[0] == 0);
  sample({nullptr, DType::Float32, 0, 10, 10}, {}, nullptr, nullptr, nullptr, nullptr);
}

}  // namespace

void test_sample() {
  test_sample_distribution();
  test_sample_reference();
  test_sample_invariance();
  test_sample_edges();
}

}  // namespace eepo::test
