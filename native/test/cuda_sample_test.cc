// Tests of the CUDA sample.
#include <algorithm>
#include <cmath>

#include "kernels/sample.h"
#include "test/cuda_kernels_test.h"

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
  int64_t bad_row;
};

Drawn run(const LogitsView& view, const SampleOptions& options, const std::vector<PhiloxCounter>& c,
          int multiprocessors = kUnsplit) {
  TestDevice device(multiprocessors);
  DeviceArray<PhiloxCounter> counter(c);
  DeviceArray<int64_t> token(view.rows), bad(std::vector<int64_t>{kNoRow});
  DeviceArray<float> logprob(view.rows), entropy(view.rows);
  cuda::sample(device.context(), view, options, counter.data(), token.data(), logprob.data(), entropy.data(),
               bad.data());
  return {token.host(), logprob.host(), entropy.host(), bad.host()[0]};
}

bool same(const Drawn& a, const Drawn& b) {
  return a.token == b.token && same_bits(a.logprob, b.logprob) && same_bits(a.entropy, b.entropy);
}

// One row seen `rows` times: a view whose stride is 0.
LogitsView repeated(const DeviceLogits& one, int64_t rows) {
  LogitsView view = one.view();
  view.rows = rows;
  view.stride = 0;
  return view;
}

// Pearson's statistic over cells with an expectation of 10 or more, as standard deviations from its mean.
double chi_square(const std::vector<double>& p, const std::vector<int64_t>& tokens, int64_t* impossible) {
  const double n = static_cast<double>(tokens.size());
  std::vector<int64_t> seen(p.size());
  for (const int64_t token : tokens) ++seen[static_cast<size_t>(token)];
  double statistic = 0, rest_expected = 0, rest_seen = 0;
  int64_t cells = 0;
  const auto add = [&](double observed, double expected) {
    statistic += (observed - expected) * (observed - expected) / expected;
    ++cells;
  };
  for (size_t j = 0; j < p.size(); ++j) {
    if (p[j] == 0) *impossible += seen[j];
    if (n * p[j] >= 10) {
      add(static_cast<double>(seen[j]), n * p[j]);
    } else {
      rest_expected += n * p[j];
      rest_seen += static_cast<double>(seen[j]);
    }
  }
  if (rest_expected >= 10) add(rest_seen, rest_expected);
  const double freedom = static_cast<double>(cells - 1);
  return (statistic - freedom) / std::sqrt(2 * freedom);
}

std::vector<double> probabilities(const Logits& one, double tau) {
  std::vector<double> p(static_cast<size_t>(one.cols));
  double max = -INFINITY, total = 0;
  for (int64_t j = 0; j < one.cols; ++j) max = std::fmax(max, static_cast<double>(one.get(0, j)) / tau);
  for (int64_t j = 0; j < one.cols; ++j) {
    total += p[static_cast<size_t>(j)] = std::exp(static_cast<double>(one.get(0, j)) / tau - max);
  }
  for (double& x : p) x /= total;
  return p;
}

void test_distribution() {
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    for (const int64_t cols : {5, 700, 2600}) {
      Logits one = random_logits(dtype, 1, cols, 91, 0, 0, 1.5f);
      one.set(0, 0, -kInf);
      one.set(0, 3, -kInf);
      const int64_t draws = 4000;
      const DeviceLogits device(one, 1);
      const Drawn d = run(repeated(device, draws), {.temperature = 0.6f, .seed = 4}, counters(draws));
      int64_t impossible = 0;
      const double sigma = chi_square(probabilities(one, static_cast<double>(0.6f)), d.token, &impossible);
      check_at_most(text("cuda sample %s V=%d: chi-square, sigmas", dtype_name(dtype), static_cast<int>(cols)),
                    std::fabs(sigma), 4);
      check_true("cuda sample: never a token of probability 0", impossible == 0);
    }
  }
}

// Mass strictly between two tokens of a row, in index order.
double mass_between(const std::vector<double>& p, int64_t i, int64_t j) {
  double mass = 0;
  for (int64_t k = std::min(i, j) + 1; k < std::max(i, j); ++k) mass += p[static_cast<size_t>(k)];
  return mass;
}

// The same uniforms as on the CPU. Where the tokens differ the uniform must have been at the border between them.
void test_against_cpu() {
  struct Case {
    const char* name;
    DType dtype;
    int64_t cols, rows;
    SampleOptions options;
  };
  const Case cases[] = {
      {"full", DType::Float32, 1000, 700, {}},
      {"full, bfloat16", DType::BFloat16, 5003, 200, {}},
      {"full, V=151936", DType::Float32, 151936, 6, {}},
      {"tau 0.8", DType::Float16, 4099, 200, {.temperature = 0.8f}},
      {"top_k 1", DType::Float32, 1000, 100, {.top_k = 1}},
      {"top_k 50", DType::Float32, 4099, 100, {.top_k = 50}},
      {"top_k 50, bfloat16 (ties)", DType::BFloat16, 4099, 200, {.top_k = 50}},
      {"top_k above V", DType::Float32, 37, 200, {.top_k = 1000}},
      {"top_p 0.9", DType::Float32, 1000, 150, {.top_p = 0.9f}},
      {"top_p 0.9, float16", DType::Float16, 3001, 100, {.top_p = 0.9f}},
      {"top_p 0.9, V=151936", DType::Float32, 151936, 2, {.top_p = 0.9f}},
      {"top_p 0.0001", DType::Float32, 1000, 100, {.top_p = 0.0001f}},
      {"top_k 100 and top_p 0.7, tau 1.3",
       DType::Float32,
       4099,
       100,
       {.temperature = 1.3f, .top_k = 100, .top_p = 0.7f}},
      {"top_k 20 and top_p 0.999, bfloat16", DType::BFloat16, 2500, 150, {.top_k = 20, .top_p = 0.999f}},
      {"greedy", DType::Float32, 4099, 100, {.temperature = 0}},
      {"greedy, bfloat16 (ties)", DType::BFloat16, 4099, 100, {.temperature = 0}},
  };
  for (const Case& c : cases) {
    SampleOptions options = c.options;
    options.seed = 99;
    const Logits logits = random_logits(c.dtype, c.rows, c.cols, 97, 1);
    const DeviceLogits device(logits);
    const Drawn got = run(device.view(), options, counters(c.rows));
    const size_t n = static_cast<size_t>(c.rows);
    std::vector<int64_t> token(n);
    std::vector<float> logprob(n), entropy(n);
    sample(logits.view(), options, counters(c.rows).data(), token.data(), logprob.data(), entropy.data());
    int64_t different = 0, wrong = 0;
    double error = 0;
    for (size_t i = 0; i < n; ++i) {
      error = worse(error, unit_difference(static_cast<double>(got.entropy[i]), static_cast<double>(entropy[i])));
      if (got.token[i] == token[i]) {
        error = worse(error, unit_difference(static_cast<double>(got.logprob[i]), static_cast<double>(logprob[i])));
        continue;
      }
      ++different;
      Logits row(c.dtype, 1, c.cols);
      for (int64_t j = 0; j < c.cols; ++j) row.set(0, j, logits.get(static_cast<int64_t>(i), j));
      wrong += options.temperature == 0 || mass_between(probabilities(row, static_cast<double>(options.temperature)),
                                                        got.token[i], token[i]) > 1e-6;
    }
    check_true(text("cuda sample %s: the CPU's draws", c.name), wrong == 0 && different <= 1 + c.rows / 100,
               text("%d of %d on the other side of a border", static_cast<int>(different), static_cast<int>(c.rows)));
    check_at_most(text("cuda sample %s: log-prob and entropy", c.name), error, 2e-6);
    check_true(text("cuda sample %s: the same by several blocks per row and from unaligned memory", c.name),
               same(got, run(device.view(), options, counters(c.rows), 2 * static_cast<int>(c.rows))) &&
                   same(got, run(DeviceLogits(logits, 1).view(), options, counters(c.rows))));
    const Stats stats = device_stats(device.view(), got.token, options.temperature == 0 ? 1 : options.temperature);
    check_true(text("cuda sample %s: the bits of token_stats", c.name),
               same_bits(stats.logprob, got.logprob) && same_bits(stats.entropy, got.entropy) && got.bad_row == kNoRow);
  }
}

void test_alone() {
  const int64_t cols = 6000, rows = 12;
  const Logits logits = random_logits(DType::Float32, rows, cols, 101, 9);
  const DeviceLogits device(logits);
  const std::vector<PhiloxCounter> c = counters(rows, 1000);
  for (const SampleOptions options : {SampleOptions{.seed = 7}, SampleOptions{.top_k = 40, .top_p = 0.8f, .seed = 7}}) {
    const Drawn all = run(device.view(), options, c);
    bool same_draws = true;
    for (int64_t r = 0; r < rows; ++r) {
      LogitsView one = device.view();
      one.data = static_cast<const float*>(one.data) + r * one.stride;
      one.rows = 1;
      const size_t i = static_cast<size_t>(r);
      const Drawn alone = run(one, options, {c[i]}, r % 2 == 0 ? kSplit : kUnsplit);
      same_draws = same_draws && alone.token[0] == all.token[i] && alone.logprob[0] == all.logprob[i] &&
                   alone.entropy[0] == all.entropy[i];
    }
    check_true("cuda sample: a draw does not depend on the batch", same_draws);
    SampleOptions other = options;
    other.seed = 8;
    check_true("cuda sample: another seed draws other tokens", run(device.view(), other, c).token != all.token);
  }
}

// A nucleus is the distribution it was cut from, renormalized.
void test_nucleus() {
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
  const DeviceLogits device(one);
  int64_t outside = 0;
  const Drawn d = run(repeated(device, 2000), {.top_p = 0.6f}, counters(2000));
  check_at_most("cuda sample top_p: chi-square, sigmas", std::fabs(chi_square(p, d.token, &outside)), 4);
  check_true("cuda sample top_p: nothing from outside", outside == 0);
}

void test_edges() {
  Logits ties(DType::Float32, 1, 5000);
  for (int64_t j = 0; j < 5000; ++j) ties.set(0, j, -5);
  for (const int64_t j : {4990, 3000, 2500}) ties.set(0, j, 2);
  const DeviceLogits tied(ties);
  check_true("cuda sample greedy: first index of the maximum",
             run(tied.view(), {.temperature = 0}, counters(1)).token[0] == 2500);
  const Drawn top = run(repeated(tied, 500), {.top_k = 2}, counters(500));
  check_true("cuda sample top_k: ties go to the lower index",
             std::all_of(top.token.begin(), top.token.end(), [](int64_t t) { return t == 2500 || t == 3000; }) &&
                 std::count(top.token.begin(), top.token.end(), 2500) > 180 &&
                 std::count(top.token.begin(), top.token.end(), 3000) > 180);
  check_at_most(
      "cuda sample top_k: log-prob is that of the full distribution",
      std::fabs(static_cast<double>(top.logprob[0]) - (2 - std::log(3 * std::exp(2.0) + 4997 * std::exp(-5.0)))), 1e-6);

  Logits zeros(DType::BFloat16, 1, 40);
  for (int64_t j = 0; j < 40; ++j) zeros.set(0, j, j % 2 == 0 ? 0.0f : -0.0f);
  const DeviceLogits zero(zeros);
  const Drawn first = run(repeated(zero, 200), {.top_k = 2}, counters(200));
  check_true("cuda sample top_k: 0 and -0 are tied",
             std::all_of(first.token.begin(), first.token.end(), [](int64_t t) { return t < 2; }) &&
                 std::count(first.token.begin(), first.token.end(), 1) > 60);

  Logits broken = random_logits(DType::Float32, 7, 3000, 107);
  const Drawn whole = run(DeviceLogits(broken).view(), {}, counters(7));
  broken.set(5, 2999, kNan);
  broken.set(4, 0, kInf);
  for (int64_t j = 0; j < 3000; ++j) broken.set(6, j, -kInf);
  for (const int multiprocessors : {kUnsplit, kSplit}) {
    const Drawn full = run(DeviceLogits(broken).view(), {}, counters(7), multiprocessors);
    const Drawn cut = run(DeviceLogits(broken).view(), {.top_k = 3}, counters(7), multiprocessors);
    check_true("cuda sample: broken rows get -1 and NaN, the first is reported, the others are drawn",
               full.bad_row == 4 && cut.bad_row == 4 && full.token[4] == -1 && cut.token[5] == -1 &&
                   full.token[6] == -1 && std::isnan(full.logprob[5]) && std::isnan(cut.entropy[6]) &&
                   full.token[3] == whole.token[3] && cut.token[0] >= 0);
  }
  Logits single(DType::Float32, 1, 1);
  single.set(0, 0, -700);
  const Drawn only = run(DeviceLogits(single).view(), {.top_p = 0.5f}, counters(1));
  check_true("cuda sample: V = 1", only.token[0] == 0 && only.logprob[0] == 0 && only.entropy[0] == 0);
  run({nullptr, DType::Float32, 0, 10, 10}, {}, {});
}

}  // namespace

void test_cuda_sample() {
  test_distribution();
  test_against_cpu();
  test_alone();
  test_nucleus();
  test_edges();
}

}  // namespace eepo::test
