// Tests of the CUDA token_stats.
#include <algorithm>
#include <cmath>

#include "test/cuda_kernels_test.h"

namespace eepo::test {
namespace {

struct StatsError {
  double logprob = 0, entropy = 0, q = 0;  // q: relative
};

StatsError error_against_reference(const Stats& got, const LogitsView& view, const std::vector<int64_t>& targets,
                                   float temperature) {
  const size_t n = static_cast<size_t>(view.rows);
  std::vector<double> l(n), h(n), q(n);
  token_stats_reference(view, targets.data(), static_cast<double>(temperature), l.data(), h.data(), q.data());
  StatsError error;
  for (size_t i = 0; i < n; ++i) {
    error.logprob = worse(error.logprob, unit_difference(static_cast<double>(got.logprob[i]), l[i]));
    error.entropy = worse(error.entropy, unit_difference(static_cast<double>(got.entropy[i]), h[i]));
    error.q = worse(error.q, difference(static_cast<double>(got.q[i]), q[i]) / (q[i] > 0 ? q[i] : 1));
  }
  return error;
}

// One block per row and several, aligned and not: the same bits; and within 1e-6 of the reference.
void check_stats(const std::string& name, const Logits& logits, const std::vector<int64_t>& targets,
                 float temperature = 1) {
  const DeviceLogits device(logits), skewed(logits, 1);
  const Stats got = device_stats(device.view(), targets, temperature, kUnsplit);
  const StatsError error = error_against_reference(got, logits.view(), targets, temperature);
  check_at_most(name + " log-prob", error.logprob, 1e-6);
  check_at_most(name + " entropy", error.entropy, 1e-6);
  check_at_most(name + " q relative", error.q, 1e-5);
  const Stats cpu = run_stats(logits.view(), targets, temperature);
  double off = 0;
  for (size_t i = 0; i < cpu.logprob.size(); ++i) {
    off = worse(off, unit_difference(static_cast<double>(got.logprob[i]), static_cast<double>(cpu.logprob[i])));
    off = worse(off, unit_difference(static_cast<double>(got.entropy[i]), static_cast<double>(cpu.entropy[i])));
  }
  check_at_most(name + " against the CPU", off, 2e-6);
  check_true(name + ": the same bits by one block per row, by several, and from unaligned memory",
             same_stats(got, device_stats(device.view(), targets, temperature, kSplit)) &&
                 same_stats(got, device_stats(skewed.view(), targets, temperature, kUnsplit)) &&
                 same_stats(got, device_stats(skewed.view(), targets, temperature, kSplit)));
}

void test_sizes() {
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    for (const int64_t cols : {1, 2, 31, 1000, 1024, 2049, 5003, 151936}) {
      const int64_t rows = cols > 10000 ? 2 : 7;
      check_stats(text("cuda stats %s V=%d", dtype_name(dtype), static_cast<int>(cols)),
                  random_logits(dtype, rows, cols, 11, cols % 2 == 0 ? 0 : 3), random_targets(rows, cols, 5));
    }
  }
}

void test_ranges() {
  for (const float shift : {-300.0f, 300.0f, -40.0f}) {
    for (const float tau : {1.0f, 0.7f, 1.3f}) {
      check_stats(text("cuda stats shifted by %g, tau %g", static_cast<double>(shift), static_cast<double>(tau)),
                  random_logits(DType::Float32, 4, 5003, 23, 0, shift), random_targets(4, 5003, 3), tau);
    }
  }
  check_stats("cuda stats of wide logits (sigma 40)", random_logits(DType::Float32, 4, 5003, 29, 0, 0, 40),
              random_targets(4, 5003, 3));
  check_stats("cuda stats of flat logits", random_logits(DType::Float32, 2, 151936, 31, 0, 0, 0),
              random_targets(2, 151936, 3));
}

// One logit above all others, so that p_y runs over [1e-6, 1 - 1e-9] for the maximum and for another token.
void test_probabilities() {
  for (const double p : {1e-6, 1e-3, 0.5, 0.99, 1 - 1e-4, 1 - 1e-6, 1 - 1e-7, 1 - 1e-9}) {
    for (const int64_t cols : {37, 4099}) {
      Logits logits = random_logits(DType::Float32, 4, cols, 41, 0, 0, 0.5f);
      for (int64_t r = 0; r < 4; ++r) {
        double others = 0;
        for (int64_t j = 1; j < cols; ++j) others += std::exp(static_cast<double>(logits.get(r, j)));
        logits.set(r, 0, static_cast<float>(std::log(p / (1 - p) * others)));
      }
      const std::string name = text("cuda stats p=%g V=%d", p, static_cast<int>(cols));
      check_stats(name + " of the token", logits, std::vector<int64_t>(4, 0));
      check_stats(name + " of another", logits, std::vector<int64_t>(4, cols - 1));
    }
  }
}

void test_infinities() {
  const int64_t cols = 6000;
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    Logits logits = random_logits(dtype, 6, cols, 43);
    for (int64_t j = 0; j < cols; j += 2) logits.set(0, j, -kInf);
    for (int64_t j = 0; j < 4096; ++j) logits.set(1, j, -kInf);  // whole segments
    for (int64_t j = 0; j < cols; ++j)
      if (j != 7) logits.set(2, j, -kInf);  // one token left
    const std::vector<int64_t> targets{1, 5000, 7, 3, 3, 3};
    check_stats(text("cuda stats %s with -inf", dtype_name(dtype)), logits, targets);
    const Stats before = device_stats(DeviceLogits(logits).view(), targets);
    check_true(text("cuda stats %s, one finite logit: l = H = q = 0", dtype_name(dtype)),
               before.logprob[2] == 0 && before.entropy[2] == 0 && before.q[2] == 0);
    const Stats masked = device_stats(DeviceLogits(logits).view(), {2, 100, 7, 3, 3, 3});
    check_true(text("cuda stats %s, target at -inf: l = -inf, q = 1", dtype_name(dtype)),
               masked.logprob[0] == -kInf && masked.q[0] == 1 && masked.logprob[1] == -kInf && masked.q[1] == 1);

    Logits broken = logits;
    broken.set(0, 5999, kNan);
    broken.set(2, 10, kInf);
    for (int64_t j = 0; j < cols; ++j) broken.set(4, j, -kInf);
    broken.set(5, 3, kNan);  // the target itself
    for (const int multiprocessors : {kUnsplit, kSplit}) {
      int64_t bad_row = 0;
      const Stats after = device_stats(DeviceLogits(broken).view(), targets, 1, multiprocessors, &bad_row);
      bool nan = true, kept = true;
      for (const size_t r : {0, 2, 4, 5}) {
        nan = nan && std::isnan(after.logprob[r]) && std::isnan(after.entropy[r]) && std::isnan(after.q[r]);
      }
      for (const size_t r : {1, 3}) {
        kept = kept && after.logprob[r] == before.logprob[r] && after.entropy[r] == before.entropy[r];
      }
      check_true(text("cuda stats %s: NaN, +inf or no finite logit makes that row NaN", dtype_name(dtype)), nan);
      check_true(text("cuda stats %s: and leaves the other rows alone", dtype_name(dtype)), kept && bad_row == kNoRow);
    }
  }
}

void test_targets() {
  const int64_t cols = 3000;
  const DeviceLogits logits(random_logits(DType::Float32, 5, cols, 45));
  const Stats good = device_stats(logits.view(), {0, 1, 2, 3, 4});
  for (const int multiprocessors : {kUnsplit, kSplit}) {
    int64_t bad_row = 0;
    const Stats bad = device_stats(logits.view(), {0, 1, cols, 3, -1}, 1, multiprocessors, &bad_row);
    check_true("cuda stats: a target out of range is reported, its row is NaN, the others are not",
               bad_row == 2 && std::isnan(bad.logprob[2]) && std::isnan(bad.q[4]) && !std::isnan(bad.entropy[2]) &&
                   bad.logprob[0] == good.logprob[0] && bad.logprob[3] == good.logprob[3]);
  }
  TestDevice device;
  DeviceArray<float> entropy(5);
  cuda::token_stats(device.context(), logits.view(), nullptr, 1, nullptr, entropy.data(), nullptr, nullptr);
  const std::vector<float> alone = entropy.host();
  double off = 0;
  for (size_t i = 0; i < 5; ++i) off = std::fmax(off, std::fabs(static_cast<double>(alone[i] - good.entropy[i])));
  check_at_most("cuda stats: the entropy alone, without targets", off, 1e-6);
  LogitsView none = logits.view();
  none.rows = 0;
  cuda::token_stats(device.context(), none, nullptr, 1, nullptr, nullptr, nullptr, nullptr);
}

void test_batches() {
  for (const DType dtype : {DType::Float32, DType::BFloat16}) {
    const int64_t cols = 7001, rows = 9;
    const Logits logits = random_logits(dtype, rows, cols, 47, 5);
    const std::vector<int64_t> targets = random_targets(rows, cols, 2);
    const DeviceLogits device(logits);
    const Stats all = device_stats(device.view(), targets, 1, kUnsplit);
    bool same = true;
    for (int64_t r = 0; r < rows; ++r) {
      LogitsView one = device.view();
      one.data = static_cast<const unsigned char*>(one.data) + r * one.stride * static_cast<int64_t>(size_of(dtype));
      one.rows = 1;
      const size_t i = static_cast<size_t>(r);
      const Stats alone = device_stats(one, {targets[i]}, 1, r % 2 == 0 ? kSplit : 2);
      same = same && alone.logprob[0] == all.logprob[i] && alone.entropy[0] == all.entropy[i] && alone.q[0] == all.q[i];
    }
    check_true(text("cuda stats %s: the same bits in a batch and alone", dtype_name(dtype)), same);
  }
  const Logits many = random_logits(DType::Float32, 70001, 3, 53);
  const std::vector<int64_t> targets = random_targets(70001, 3, 8);
  const Stats got = device_stats(DeviceLogits(many).view(), targets, 1, kUnsplit);
  check_at_most("cuda stats of 70,001 rows", error_against_reference(got, many.view(), targets, 1).logprob, 1e-6);
}

// More segments than shared memory is used for.
void test_huge_row() {
  const int64_t cols = 2049 * 1024 + 5;
  Logits logits(DType::Float32, 1, cols);
  for (int64_t j = 0; j < cols; ++j) logits.set(0, j, static_cast<float>(j % 977) * 0.01f);
  const std::vector<int64_t> targets{cols - 1};
  const DeviceLogits device(logits);
  std::vector<int64_t> both{cols - 1, 17};
  LogitsView twice = device.view();
  twice.rows = 2;  // two rows at one place: enough for one block each
  twice.stride = 0;
  const Stats got = device_stats(twice, both, 1, kUnsplit);
  const Stats split = device_stats(device.view(), targets, 1, kSplit);
  std::vector<double> l(1), h(1), q(1);
  token_stats_reference(logits.view(), targets.data(), 1, l.data(), h.data(), q.data());
  check_at_most("cuda stats of 2,098,181 columns",
                worse(unit_difference(static_cast<double>(got.logprob[0]), l[0]),
                      unit_difference(static_cast<double>(got.entropy[0]), h[0])),
                1e-6);
  check_true("cuda stats of 2,098,181 columns: the same bits by several blocks",
             split.logprob[0] == got.logprob[0] && split.entropy[0] == got.entropy[0] && split.q[0] == got.q[0]);
}

}  // namespace

void test_cuda_token_stats() {
  test_sizes();
  test_ranges();
  test_probabilities();
  test_infinities();
  test_targets();
  test_batches();
  test_huge_row();
}

}  // namespace eepo::test
