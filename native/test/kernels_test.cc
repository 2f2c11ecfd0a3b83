// Tests of the CPU kernels against their double-precision references. Built and run by scripts/test-kernels.sh.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/isa.h"
#include "core/philox.h"
#include "kernels/ascend.h"
#include "kernels/complementary_loss.h"
#include "kernels/gemm.h"
#include "kernels/linear_head.h"
#include "kernels/sample.h"
#include "kernels/token_grad.h"
#include "kernels/token_stats.h"
#include "kernels/token_stats_blocks.h"
#include "test/check.h"

namespace eepo::test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::string text(const char* format, auto... values) {
  char buffer[128];
  std::snprintf(buffer, sizeof buffer, format, values...);
  return buffer;
}

const char* dtype_name(DType dtype) {
  return dtype == DType::Float32 ? "float32" : dtype == DType::BFloat16 ? "bfloat16" : "float16";
}

bool throws(ErrorCode code, const std::string& part, const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.code() == code && std::string(error.what()).find(part) != std::string::npos;
  }
  return false;
}

// Logits in any dtype, with room behind every row that the kernels must leave alone.
struct Logits {
  DType dtype;
  int64_t rows, cols, stride;
  std::vector<unsigned char> bytes;

  Logits(DType type, int64_t r, int64_t c, int64_t gap = 0)
      : dtype(type), rows(r), cols(c), stride(c + gap), bytes(static_cast<size_t>(r * (c + gap)) * size_of(type), 0x7b) {}

  void set(int64_t row, int64_t col, float value) {
    void* p = bytes.data() + static_cast<size_t>(row * stride + col) * size_of(dtype);
    if (dtype == DType::Float32) {
      std::memcpy(p, &value, sizeof value);
      return;
    }
    const uint16_t half = dtype == DType::BFloat16 ? float_to_bf16(value) : float_to_f16(value);
    std::memcpy(p, &half, sizeof half);
  }
  float get(int64_t row, int64_t col) const { return element(bytes.data(), dtype, row * stride + col); }
  LogitsView view() const { return {bytes.data(), dtype, rows, cols, stride}; }
  MutableLogitsView mutable_view() { return {bytes.data(), dtype, rows, cols, stride}; }
};

Logits random_logits(DType dtype, int64_t rows, int64_t cols, uint32_t seed, int64_t gap = 0, float shift = 0,
                     float scale = 3) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  Logits logits(dtype, rows, cols, gap);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < cols; ++j) logits.set(r, j, normal(random) + shift);
  return logits;
}

std::vector<int64_t> random_targets(int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int64_t> targets(static_cast<size_t>(rows));
  for (int64_t& y : targets) y = static_cast<int64_t>(random() % static_cast<uint32_t>(cols));
  return targets;
}

struct Stats {
  std::vector<float> logprob, entropy, q;
  explicit Stats(int64_t rows) : logprob(rows), entropy(rows), q(rows) {}
};

Stats run_stats(const LogitsView& view, const std::vector<int64_t>& targets, float temperature = 1) {
  Stats s(view.rows);
  token_stats(view, targets.data(), temperature, s.logprob.data(), s.entropy.data(), s.q.data());
  return s;
}

// 1e-6, or one unit in the last place of a float32 where that is more (from 8.4 on), counts as 1e-6.
double unit_difference(double got, double want) {
  const double unit = std::isfinite(want) ? std::fabs(want) * 0x1p-23 : 0;
  return difference(got, want) / std::fmax(1, unit / 1e-6);
}

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

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// ---- token_stats ----------------------------------------------------------------------------------------------------

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
    for (int64_t j = 0; j < 4096; ++j) logits.set(1, j, -kInf);           // two whole blocks
    for (int64_t j = 0; j < cols; ++j) if (j != 7) logits.set(2, j, -kInf);  // one token left
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

// ---- token_grad -----------------------------------------------------------------------------------------------------

struct GradError {
  double of_row = 0;      // |error| / largest |dz| of its row
  double elementwise = 0;  // |error| / |dz_j| where |dz_j| > 1e-9 of the row's largest
};

GradError grad_error(const Logits& logits, const std::vector<int64_t>& targets, const std::vector<float>& a,
                     const std::vector<float>* b, float temperature) {
  const size_t n = static_cast<size_t>(logits.rows);
  std::vector<double> a64(a.begin(), a.end()), b64(n), want(n * static_cast<size_t>(logits.cols));
  if (b) b64.assign(b->begin(), b->end());
  Logits got = logits;
  token_grad_reference(got.mutable_view(), targets.data(), a64.data(), b ? b64.data() : nullptr, temperature,
                       want.data());
  token_grad(got.mutable_view(), targets.data(), a.data(), b ? b->data() : nullptr, temperature);
  GradError error;
  for (int64_t r = 0; r < logits.rows; ++r) {
    const double* w = want.data() + r * logits.cols;
    double top = 0;
    for (int64_t j = 0; j < logits.cols; ++j) top = std::fmax(top, std::fabs(w[j]));
    for (int64_t j = 0; j < logits.cols; ++j) {
      const double off = difference(got.get(r, j), w[j]);
      error.of_row = worse(error.of_row, off == 0 ? 0 : off / top);
      if (std::fabs(w[j]) > 1e-9 * top) error.elementwise = worse(error.elementwise, off / std::fabs(w[j]));
    }
  }
  return error;
}

void test_grad_values() {
  struct Case { DType dtype; double limit; };
  for (const Case c : {Case{DType::Float32, 1e-6}, Case{DType::BFloat16, 4e-3}, Case{DType::Float16, 1e-3}}) {
    for (const int64_t cols : {int64_t{1}, int64_t{37}, int64_t{1000}, int64_t{4099}, int64_t{151936}}) {
      const int64_t rows = cols > 10000 ? 3 : 12;
      Logits logits = random_logits(c.dtype, rows, cols, 61, 2);
      if (cols > 10) logits.set(0, 5, -kInf);
      const std::vector<int64_t> targets = random_targets(rows, cols, 9);
      std::vector<float> a(rows), b(rows);
      std::mt19937 random(3);
      std::normal_distribution<float> normal;
      for (float& x : a) x = normal(random);
      for (float& x : b) x = normal(random);
      const std::string name = text("grad %s V=%d", dtype_name(c.dtype), static_cast<int>(cols));
      const GradError only_a = grad_error(logits, targets, a, nullptr, 1);
      check_at_most(name + " of l", only_a.of_row, c.limit);
      check_at_most(name + " of l and H, tau 0.7", grad_error(logits, targets, a, &b, 0.7f).of_row, c.limit);
      if (c.dtype == DType::Float32) check_at_most(name + " of l, elementwise", only_a.elementwise, 3e-6);
    }
  }
  Logits shifted = random_logits(DType::Float32, 6, 3000, 67, 0, 300);
  const std::vector<float> a(6, -0.5f), b(6, 0.25f);
  check_at_most("grad, rows shifted by 300", grad_error(shifted, random_targets(6, 3000, 1), a, &b, 1).of_row, 1e-6);
}

void test_grad_probabilities() {
  for (const double p : {1e-6, 1e-3, 0.5, 0.99, 1 - 1e-5, 1 - 1e-7}) {
    Logits logits = random_logits(DType::Float32, 2, 3000, 71, 0, 0, 0.5f);
    for (int64_t r = 0; r < 2; ++r) {
      double others = 0;
      for (int64_t j = 1; j < 3000; ++j) others += std::exp(static_cast<double>(logits.get(r, j)));
      logits.set(r, 0, static_cast<float>(std::log(p / (1 - p) * others)));
    }
    const std::vector<float> a{-1, 1}, b{0, 0.5f};
    const GradError error = grad_error(logits, {0, 0}, a, &b, 1);
    check_at_most(text("grad p_y=%.8g", p), error.of_row, 1e-6);
  }
}

// dL/dz by central differences of L = a l + b H, through the reference statistics in double.
void test_grad_finite_differences() {
  const int64_t cols = 23;
  Logits logits = random_logits(DType::Float32, 1, cols, 73, 0, 0, 1);
  const int64_t y = 4;
  const float a = 0.8f, b = -0.6f, tau = 1.2f;
  const auto loss = [&](const Logits& at) {
    double l = 0, h = 0;
    token_stats_reference(at.view(), &y, tau, &l, &h, nullptr);
    return a * l + b * h;
  };
  Logits gradient = logits;
  token_grad(gradient.mutable_view(), &y, &a, &b, tau);
  double error = 0;
  for (int64_t j = 0; j < cols; ++j) {
    Logits up = logits, down = logits;
    up.set(0, j, logits.get(0, j) + 0x1p-9f);
    down.set(0, j, logits.get(0, j) - 0x1p-9f);
    const double step = static_cast<double>(up.get(0, j)) - down.get(0, j);
    error = worse(error, difference(gradient.get(0, j), (loss(up) - loss(down)) / step));
  }
  check_at_most("grad against finite differences", error, 2e-6);
}

void test_grad_rows() {
  const int64_t cols = 5000;
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    Logits logits = random_logits(dtype, 4, cols, 79, 7);
    for (int64_t j = 0; j < cols; ++j) logits.set(0, j, kNan);  // a = b = 0: not read, not even these
    logits.set(1, 17, kNan);
    logits.set(3, 4000, -kInf);
    const Logits before = logits;
    const std::vector<int64_t> targets{-12345, 1, 2, 4000};
    const std::vector<float> a{0, 1, 1, 1};
    token_grad(logits.mutable_view(), targets.data(), a.data(), nullptr, 1);
    bool zero = true, nan = true, finite = true, gap = true;
    for (int64_t j = 0; j < cols; ++j) {
      zero = zero && logits.get(0, j) == 0 && !std::signbit(logits.get(0, j));
      nan = nan && std::isnan(logits.get(1, j));
      finite = finite && std::isfinite(logits.get(2, j)) && std::isfinite(logits.get(3, j));
    }
    for (int64_t r = 0; r < 4; ++r) {
      const size_t at = static_cast<size_t>(r * logits.stride + cols) * size_of(dtype);
      gap = gap && std::memcmp(&logits.bytes[at], &before.bytes[at], 7 * size_of(dtype)) == 0;
    }
    check_true(text("grad %s: a = b = 0 writes zeros without reading", dtype_name(dtype)), zero);
    check_true(text("grad %s: a row with NaN becomes NaN, the others do not", dtype_name(dtype)), nan && finite);
    check_true(text("grad %s: a target at -inf gets a", dtype_name(dtype)), logits.get(3, 4000) == 1);
    check_true(text("grad %s: nothing behind a row is written", dtype_name(dtype)), gap);
  }
  token_grad({nullptr, DType::Float32, 0, 10, 10}, nullptr, nullptr, nullptr, 1);

  const Logits logits = random_logits(DType::Float32, 5, 50000, 83);
  const std::vector<int64_t> targets = random_targets(5, 50000, 4);
  const std::vector<float> a{1, -1, 2, 0.5f, 1}, b{0, 1, 2, -1, 1};
  std::vector<unsigned char> want;
  bool same = true;
  for (const int threads : {1, 2, 16}) {
    omp_set_num_threads(threads);
    Logits got = logits;
    token_grad(got.mutable_view(), targets.data(), a.data(), b.data(), 1);
    if (want.empty()) want = got.bytes;
    same = same && want == got.bytes;
  }
  omp_set_num_threads(2);
  check_true("grad: same bits on 1, 2 and 16 threads", same);
}

// ---- linear_head ----------------------------------------------------------------------------------------------------

std::vector<float> random_floats(int64_t count, uint32_t seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& x : values) x = normal(random);
  return values;
}

struct HeadProblem {
  int64_t rows, dim, vocab;
  std::vector<float> hidden, head, a, b;
  std::vector<int64_t> targets;

  HeadProblem(int64_t n, int64_t d, int64_t v)
      : rows(n), dim(d), vocab(v), hidden(random_floats(n * d, 1, 1)), head(random_floats(v * d, 2, 0.3f)),
        a(random_floats(n, 3, 1)), b(random_floats(n, 4, 1)), targets(random_targets(n, v, 5)) {}
};

// dz by the reference on logits made in double, then the two products in double.
void head_reference(const HeadProblem& p, float tau, std::vector<double>& dh, std::vector<double>& dw) {
  Logits logits(DType::Float32, 1, p.vocab);
  std::vector<double> dz(static_cast<size_t>(p.vocab));
  dh.assign(p.hidden.size(), 0);
  dw.assign(p.head.size(), 0);
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t j = 0; j < p.vocab; ++j) {
      double z = 0;
      for (int64_t k = 0; k < p.dim; ++k) z += static_cast<double>(p.hidden[r * p.dim + k]) * p.head[j * p.dim + k];
      logits.set(0, j, static_cast<float>(z));
    }
    const double a = p.a[r], b = p.b[r];
    token_grad_reference(logits.mutable_view(), &p.targets[r], &a, &b, tau, dz.data());
    for (int64_t j = 0; j < p.vocab; ++j)
      for (int64_t k = 0; k < p.dim; ++k) {
        dh[r * p.dim + k] += dz[j] * p.head[j * p.dim + k];
        dw[j * p.dim + k] += dz[j] * p.hidden[r * p.dim + k];
      }
  }
}

template <class A, class B>
double relative_error(const A& got, const B& want) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(error / norm);
}

void test_head() {
  HeadProblem p(103, 24, 331);
  for (int64_t r = 0; r < p.rows; ++r) {
    if (r % 3 == 0 || (r > 40 && r < 60)) p.a[r] = p.b[r] = 0;  // scattered and in a run
  }
  const float tau = 0.9f;
  Stats got(p.rows), want(p.rows);
  std::vector<float> logits(static_cast<size_t>(p.rows * p.vocab));
  gemm_reference(Op::None, Op::Transpose, p.rows, p.vocab, p.dim, 1, p.hidden.data(), p.dim, p.head.data(), p.dim, 0,
                 logits.data(), p.vocab);
  token_stats({logits.data(), DType::Float32, p.rows, p.vocab, p.vocab}, p.targets.data(), tau, want.logprob.data(),
              want.entropy.data(), want.q.data());
  linear_token_stats(p.hidden.data(), p.head.data(), p.rows, p.dim, p.vocab, p.targets.data(), tau, got.logprob.data(),
                     got.entropy.data(), got.q.data());
  double error = 0;
  for (int64_t r = 0; r < p.rows; ++r) {
    error = worse(error, difference(got.logprob[r], want.logprob[r]));
    error = worse(error, difference(got.entropy[r], want.entropy[r]));
  }
  check_at_most("head forward", error, 5e-6);

  std::vector<double> dh_want, dw_want;
  head_reference(p, tau, dh_want, dw_want);
  std::vector<float> dh(p.hidden.size(), kNan), dw(p.head.size(), 0.0f);
  linear_token_grad(p.hidden.data(), p.head.data(), p.rows, p.dim, p.vocab, p.targets.data(), p.a.data(), p.b.data(), tau,
                    dh.data(), dw.data());
  check_at_most("head d_hidden", relative_error(dh, dh_want), 1e-6);
  check_at_most("head d_head", relative_error(dw, dw_want), 1e-6);
  bool zero = true;
  for (int64_t k = 0; k < p.dim; ++k) zero = zero && dh[k] == 0 && dh[50 * p.dim + k] == 0;
  check_true("head: dropped rows get zeros", zero);
  linear_token_grad(p.hidden.data(), p.head.data(), p.rows, p.dim, p.vocab, p.targets.data(), p.a.data(), p.b.data(), tau,
                    dh.data(), dw.data());
  for (double& x : dw_want) x *= 2;
  check_at_most("head: d_head accumulates", relative_error(dw, dw_want), 1e-6);

  std::fill(p.a.begin(), p.a.end(), 0.0f);
  const std::vector<float> dw_before = dw;
  linear_token_grad(p.hidden.data(), p.head.data(), p.rows, p.dim, p.vocab, p.targets.data(), p.a.data(), nullptr, tau,
                    dh.data(), dw.data());
  check_true("head: no active row leaves d_head and clears d_hidden",
             same_bits(dw, dw_before) && std::all_of(dh.begin(), dh.end(), [](float x) { return x == 0; }));
  linear_token_grad(nullptr, p.head.data(), 0, p.dim, p.vocab, nullptr, nullptr, nullptr, tau, nullptr, dw.data());
  linear_token_stats(nullptr, p.head.data(), 0, p.dim, p.vocab, nullptr, tau, nullptr, nullptr, nullptr);
  CancelToken cancel;
  cancel.cancel();
  check_true("head: cancelled", throws(ErrorCode::Aborted, "aborted", [&] {
               linear_token_stats(p.hidden.data(), p.head.data(), p.rows, p.dim, p.vocab, p.targets.data(), tau,
                                  got.logprob.data(), nullptr, nullptr, &cancel);
             }));
}

// Several chunks: the same rows alone must give the same bits.
void test_head_chunks() {
  HeadProblem p(150, 8, 70000);  // 32 rows a chunk
  for (int64_t r = 1; r < p.rows; r += 2) p.a[r] = 0;
  Stats all(p.rows), alone(p.rows);
  linear_token_stats(p.hidden.data(), p.head.data(), p.rows, p.dim, p.vocab, p.targets.data(), 1, all.logprob.data(),
                     all.entropy.data(), all.q.data());
  std::vector<float> dh(p.hidden.size()), dh_alone(p.hidden.size()), dw(p.head.size()), dw_alone(p.head.size());
  linear_token_grad(p.hidden.data(), p.head.data(), p.rows, p.dim, p.vocab, p.targets.data(), p.a.data(), nullptr, 1,
                    dh.data(), dw.data());
  for (int64_t r = 0; r < p.rows; ++r) {
    const float* h = p.hidden.data() + r * p.dim;
    linear_token_stats(h, p.head.data(), 1, p.dim, p.vocab, &p.targets[r], 1, &alone.logprob[r], &alone.entropy[r],
                       &alone.q[r]);
    linear_token_grad(h, p.head.data(), 1, p.dim, p.vocab, &p.targets[r], &p.a[r], nullptr, 1, &dh_alone[r * p.dim],
                      dw_alone.data());
  }
  check_true("head: a row's statistics do not depend on its chunk",
             same_bits(all.logprob, alone.logprob) && same_bits(all.entropy, alone.entropy));
  check_true("head: nor does its d_hidden", same_bits(dh, dh_alone));
  check_at_most("head: d_head of chunks and of rows", relative_error(dw, dw_alone), 1e-6);
}

// ---- complementary_loss ---------------------------------------------------------------------------------------------

struct Tokens {
  std::vector<int64_t> offsets{0};
  std::vector<float> logprob, entropy;
  int64_t sequences() const { return static_cast<int64_t>(offsets.size()) - 1; }
};

Tokens random_tokens(const std::vector<int64_t>& lengths, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(0, 1);
  Tokens tokens;
  for (const int64_t length : lengths) {
    for (int64_t t = 0; t < length; ++t) {
      const float u = uniform(random);
      // from almost certain to hopeless, both clamps included
      const double p = u < 0.3f ? 1 - std::pow(10.0, -8.0 * uniform(random)) : std::pow(10.0, -8.0 * uniform(random));
      tokens.logprob.push_back(static_cast<float>(std::log(p)));
      tokens.entropy.push_back(uniform(random) * 0.6f);
    }
    tokens.offsets.push_back(static_cast<int64_t>(tokens.logprob.size()));
  }
  return tokens;
}

struct Unlearned {
  ComplementaryResult result;
  std::vector<float> a;
  std::vector<uint8_t> gate;
};

Unlearned run_loss(const Tokens& t, const ComplementaryOptions& options, const float* q = nullptr,
                   const float* weight = nullptr, float* carry = nullptr) {
  Unlearned u;
  u.a.resize(t.logprob.size());
  u.gate.resize(t.logprob.size());
  u.result = complementary_loss(t.logprob.data(), t.entropy.data(), q, t.offsets.data(), t.sequences(), weight, carry,
                                options, u.a.data(), u.gate.data());
  return u;
}

// Eq. 4-5 and 8-10 written out.
void test_loss_values() {
  const Tokens tokens = random_tokens({5, 1, 0, 40, 400}, 7);
  for (const ClampGrad mode : {ClampGrad::Zero, ClampGrad::Saturate}) {
    ComplementaryOptions options;
    options.clamp_grad = mode;
    const Unlearned got = run_loss(tokens, options);
    double loss = 0, a_error = 0;
    int64_t open = 0, low = 0, high = 0, active = 0, gate_errors = 0;
    for (int64_t k = 0; k < tokens.sequences(); ++k) {
      const int64_t begin = tokens.offsets[k], length = tokens.offsets[k + 1] - begin;
      for (int64_t t = 0; t < length; ++t) {
        double mean = 0;
        const int64_t first = std::max<int64_t>(0, t - options.window + 1);
        for (int64_t i = first; i <= t; ++i) mean += tokens.entropy[begin + i];
        mean /= static_cast<double>(t - first + 1);
        const bool gate = mean < static_cast<double>(options.alpha);
        gate_errors += gate != (got.gate[begin + t] != 0);
        double want = 0;
        if (gate) {
          const double w = 1.0 / (static_cast<double>(tokens.sequences()) * static_cast<double>(length));
          const double p = std::exp(static_cast<double>(tokens.logprob[begin + t]));
          const double q = -std::expm1(static_cast<double>(tokens.logprob[begin + t]));
          const double eps_low = options.eps_low, eps_high = options.eps_high;
          const bool is_low = p < eps_low, is_high = q < eps_high;
          const double pc = is_low ? eps_low : is_high ? 1 - eps_high : p;
          const double qc = is_low ? 1 - eps_low : is_high ? eps_high : q;
          loss += w * std::log(qc);
          open += 1;
          low += is_low;
          high += is_high;
          if (mode == ClampGrad::Saturate || (!is_low && !is_high)) want = -w * pc / qc;
        }
        active += want != 0;
        a_error = worse(a_error, difference(got.a[begin + t], want) / (want == 0 ? 1 : std::fabs(want)));
      }
    }
    const std::string name = mode == ClampGrad::Zero ? "loss (zero)" : "loss (saturate)";
    check_at_most(name + " value", std::fabs(got.result.loss - loss) / std::fabs(loss), 1e-12);
    check_at_most(name + " a", a_error, 1e-7);
    check_true(name + " gate and counts",
               gate_errors == 0 && got.result.tokens == 446 && got.result.open_tokens == open &&
                   got.result.clamped_low == low && got.result.clamped_high == high &&
                   got.result.active_tokens == active && low > 0 && high > 0 && open < 446,
               text("%d open, %d low, %d high", static_cast<int>(open), static_cast<int>(low), static_cast<int>(high)));
  }
}

void test_loss_options() {
  const Tokens tokens = random_tokens({30, 20}, 9);
  ComplementaryOptions options;
  options.alpha = kInf;
  check_true("loss: alpha = +inf opens every token", run_loss(tokens, options).result.open_tokens == 50);
  options.alpha = 0;
  const Unlearned closed = run_loss(tokens, options);
  check_true("loss: alpha = 0 closes every token",
             closed.result.open_tokens == 0 && closed.result.loss == 0 &&
                 std::all_of(closed.a.begin(), closed.a.end(), [](float x) { return x == 0 && !std::signbit(x); }));

  options = {};
  std::vector<float> q;
  for (const float l : tokens.logprob) q.push_back(static_cast<float>(-std::expm1(static_cast<double>(l))));
  const Unlearned plain = run_loss(tokens, options), given = run_loss(tokens, options, q.data());
  double error = 0;
  for (size_t i = 0; i < q.size(); ++i) {
    error = worse(error, difference(given.a[i], plain.a[i]) / std::fmax(std::fabs(plain.a[i]), 1e-30f));
  }
  check_at_most("loss: with one_minus_p given", error, 1e-6);
  const float weight[2] = {1.0f / 60, 1.0f / 40};
  check_at_most("loss: with weights given",
                std::fabs(run_loss(tokens, options, nullptr, weight).result.loss / plain.result.loss - 1), 1e-7);
  // a is dL/dl: central differences of the loss in one open, unclamped log-prob
  for (size_t i = 0; i < tokens.logprob.size(); ++i) {
    if (plain.a[i] == 0 || tokens.logprob[i] > -1e-2f || tokens.logprob[i] < -8) continue;
    Tokens up = tokens, down = tokens;
    up.logprob[i] += 0x1p-10f;
    down.logprob[i] -= 0x1p-10f;
    const double step = static_cast<double>(up.logprob[i]) - down.logprob[i];
    const double slope = (run_loss(up, options).result.loss - run_loss(down, options).result.loss) / step;
    check_at_most("loss: a against finite differences", std::fabs(slope / plain.a[i] - 1), 1e-2);
    break;
  }

  ComplementaryOptions bad;
  bad.window = 0;
  check_true("loss: window 0", throws(ErrorCode::InvalidArgument, "window", [&] { run_loss(tokens, bad); }));
  bad = {};
  bad.eps_high = 0;
  check_true("loss: epsHigh 0", throws(ErrorCode::InvalidArgument, "epsHigh", [&] { run_loss(tokens, bad); }));
  bad = {};
  bad.alpha = kNan;
  check_true("loss: alpha NaN", throws(ErrorCode::InvalidArgument, "alpha", [&] { run_loss(tokens, bad); }));
  Tokens broken = tokens;
  broken.entropy[3] = kNan;
  check_true("loss: NaN entropy", throws(ErrorCode::NonFinite, "entropy[3]", [&] { run_loss(broken, {}); }));
  Tokens shuffled = tokens;
  shuffled.offsets = {0, 30, 20};
  check_true("loss: falling offsets", throws(ErrorCode::InvalidArgument, "offsets", [&] { run_loss(shuffled, {}); }));
  float unused = 0;
  check_true("loss: no sequences",
             complementary_loss(nullptr, nullptr, nullptr, nullptr, 0, nullptr, nullptr, {}, &unused, nullptr).tokens == 0);
}

// Every token of every sequence passes through chunks of the given sizes; the carry joins them.
void test_loss_chunks() {
  const std::vector<int64_t> lengths{17, 3, 1, 29};
  const Tokens tokens = random_tokens(lengths, 13);
  const int64_t count = tokens.sequences();
  std::vector<float> weight;
  for (const int64_t length : lengths) weight.push_back(1.0f / static_cast<float>(count * length));
  for (const int window : {1, 2, 3, 5, 9}) {
    ComplementaryOptions options;
    options.window = window;
    const Unlearned whole = run_loss(tokens, options, nullptr, weight.data());
    for (const int64_t chunk : {1, 2, 3, 4, 7, 100}) {
      std::vector<float> carry(static_cast<size_t>(count * (window - 1)), kNan), a(tokens.logprob.size(), kNan);
      std::vector<uint8_t> gate(tokens.logprob.size(), 9);
      double loss = 0;
      int64_t open = 0;
      for (int64_t from = 0; from < 29; from += chunk) {
        Tokens part;
        for (int64_t k = 0; k < count; ++k) {
          for (int64_t t = from; t < std::min(lengths[k], from + chunk); ++t) {
            part.logprob.push_back(tokens.logprob[tokens.offsets[k] + t]);
            part.entropy.push_back(tokens.entropy[tokens.offsets[k] + t]);
          }
          part.offsets.push_back(static_cast<int64_t>(part.logprob.size()));
        }
        const Unlearned u = run_loss(part, options, nullptr, weight.data(), carry.data());
        for (int64_t k = 0, i = 0; k < count; ++k) {
          for (int64_t t = from; t < std::min(lengths[k], from + chunk); ++t, ++i) {
            a[tokens.offsets[k] + t] = u.a[i];
            gate[tokens.offsets[k] + t] = u.gate[i];
          }
        }
        loss += u.result.loss;
        open += u.result.open_tokens;
      }
      check_true(text("loss: window %d in chunks of %d", window, static_cast<int>(chunk)),
                 gate == whole.gate && same_bits(a, whole.a) && open == whole.result.open_tokens &&
                     std::fabs(loss - whole.result.loss) <= 1e-14 * std::fabs(loss));
    }
  }
}

// ---- ascend ---------------------------------------------------------------------------------------------------------

struct Array {
  DType dtype;
  std::vector<unsigned char> bytes;
  Array(DType type, int64_t size) : dtype(type), bytes(static_cast<size_t>(size) * size_of(type)) {}
  Array(DType type, const std::vector<float>& values) : Array(type, static_cast<int64_t>(values.size())) {
    for (size_t i = 0; i < values.size(); ++i) set(i, values[i]);
  }
  void set(size_t i, float value) {
    if (dtype == DType::Float32) {
      std::memcpy(&bytes[i * 4], &value, 4);
      return;
    }
    const uint16_t half = dtype == DType::BFloat16 ? float_to_bf16(value) : float_to_f16(value);
    std::memcpy(&bytes[i * 2], &half, 2);
  }
  float get(size_t i) const { return element(bytes.data(), dtype, static_cast<int64_t>(i)); }
};

void test_ascend_dtypes() {
  const int64_t size = 5003;
  const std::vector<float> theta = random_floats(size, 21, 0.02f), g = random_floats(size, 22, 0.1f);
  const double eta = 3e-3;
  for (const DType p : {DType::Float32, DType::BFloat16, DType::Float16})
    for (const DType q : {DType::Float32, DType::BFloat16, DType::Float16})
      for (const DType o : {DType::Float32, DType::BFloat16, DType::Float16}) {
        const Array param(p, theta), grad(q, g);
        const auto param_before = param.bytes;
        Array into(o, size), cast(o, size), want(o, size);
        for (int64_t i = 0; i < size; ++i) {
          want.set(i, static_cast<float>(static_cast<double>(param.get(i)) + eta * static_cast<double>(grad.get(i))));
          cast.set(i, param.get(i));
        }
        const AscendReport report = ascend({{param.bytes.data(), p, grad.bytes.data(), q, into.bytes.data(), o, size}},
                                           eta, Rounding::Nearest, 0);
        int64_t changed = 0;
        const size_t width = size_of(o);
        for (int64_t i = 0; i < size; ++i) changed += std::memcmp(&want.bytes[i * width], &cast.bytes[i * width], width) != 0;
        Array undone(o, size), copied(o, size);
        ascend({{param.bytes.data(), p, grad.bytes.data(), q, undone.bytes.data(), o, size}}, 0, Rounding::Stochastic, 1);
        ascend({{param.bytes.data(), p, nullptr, q, copied.bytes.data(), o, size}}, eta, Rounding::Stochastic, 1);
        check_true(text("ascend %s + %s -> %s", dtype_name(p), dtype_name(q), dtype_name(o)),
                   into.bytes == want.bytes && report.elements == size && report.changed == changed && changed > 0 &&
                       undone.bytes == cast.bytes && copied.bytes == cast.bytes && param.bytes == param_before,
                   text("%d changed", static_cast<int>(changed)));
      }
}

// Each element lands on one of its two neighbours, and on average nothing of the step is lost.
void test_ascend_stochastic() {
  const int64_t size = 1 << 20;
  for (const DType o : {DType::BFloat16, DType::Float16}) {
    for (const float scale : {0.02f, 2e-5f}) {  // the second is subnormal in float16
      const Array param(o, random_floats(size, 31, scale));  // representable: remainders come from the step alone
      const double eta = scale * 0.01;
      const Array grad(DType::Float32, std::vector<float>(static_cast<size_t>(size), 0.05f));
      const auto run = [&](uint64_t seed, int threads, Rounding rounding) {
        omp_set_num_threads(threads);
        Array into(o, size);
        ascend({{param.bytes.data(), o, grad.bytes.data(), DType::Float32, into.bytes.data(), o, size}}, eta, rounding, seed);
        omp_set_num_threads(2);
        return into;
      };
      const Array into = run(5, 1, Rounding::Stochastic);
      double moved = 0, variance = 0;
      int64_t strangers = 0;
      for (int64_t i = 0; i < size; ++i) {
        const double exact = static_cast<double>(static_cast<float>(param.get(i) + eta * 0.05f));
        uint16_t nearest, got;
        Array one(o, std::vector<float>{static_cast<float>(exact)});
        std::memcpy(&nearest, one.bytes.data(), 2);
        std::memcpy(&got, &into.bytes[i * 2], 2);
        const int distance = std::abs(static_cast<int>(got & 0x7fff) - static_cast<int>(nearest & 0x7fff));
        strangers += distance > 1 && (got & 0x7fff) + (nearest & 0x7fff) > 1;
        moved += static_cast<double>(into.get(i)) - param.get(i);
        const double off = static_cast<double>(into.get(i)) - exact;
        variance += off * off;
      }
      const double expected = eta * 0.05 * static_cast<double>(size);
      check_true(text("ascend stochastic %s (%g): only neighbours", dtype_name(o), scale), strangers == 0);
      check_at_most(text("ascend stochastic %s (%g): mean step, in standard errors", dtype_name(o), scale),
                    std::fabs(moved - expected) / std::sqrt(variance), 4.5);
      check_true(text("ascend stochastic %s (%g): same bits on 2 threads, others for another seed", dtype_name(o), scale),
                 into.bytes == run(5, 2, Rounding::Stochastic).bytes && into.bytes != run(6, 2, Rounding::Stochastic).bytes);
    }
  }
  // Halfway between two neighbours: up half of the time, and no two tensors or elements alike.
  std::vector<float> half(1 << 16, 1.0f + 0x1p-8f), tiny(1 << 16, 1e-6f);
  const Array param(DType::Float32, std::vector<float>(1 << 16, 1.0f)), grad(DType::Float32, std::vector<float>(1 << 16, 0x1p-8f));
  Array first(DType::BFloat16, 1 << 16), second(DType::BFloat16, 1 << 16);
  ascend({{param.bytes.data(), DType::Float32, grad.bytes.data(), DType::Float32, first.bytes.data(), DType::BFloat16, 1 << 16},
          {param.bytes.data(), DType::Float32, grad.bytes.data(), DType::Float32, second.bytes.data(), DType::BFloat16, 1 << 16}},
         1, Rounding::Stochastic, 3);
  int64_t up = 0, runs = 0, both = 0;
  for (size_t i = 0; i < half.size(); ++i) {
    up += first.get(i) > 1;
    both += (first.get(i) > 1) == (second.get(i) > 1);
    if (i) runs += (first.get(i) > 1) != (first.get(i - 1) > 1);
  }
  const double spread = 4.5 * std::sqrt(65536.0) / 2;
  check_at_most("ascend stochastic: half go up", std::fabs(static_cast<double>(up) - 32768), spread);
  check_at_most("ascend stochastic: neighbouring elements are independent", std::fabs(static_cast<double>(runs) - 32768), spread);
  check_at_most("ascend stochastic: tensors are independent", std::fabs(static_cast<double>(both) - 32768), spread);
}

void test_ascend_edges() {
  Array param(DType::Float32, random_floats(3000, 41, 1));
  const Array grad(DType::Float32, random_floats(3000, 42, 1));
  Array out(DType::Float32, 3000);
  ascend({{param.bytes.data(), DType::Float32, grad.bytes.data(), DType::Float32, out.bytes.data(), DType::Float32, 3000}}, 0.1,
         Rounding::Nearest, 0);
  ascend({{param.bytes.data(), DType::Float32, grad.bytes.data(), DType::Float32, param.bytes.data(), DType::Float32, 3000}},
         0.1, Rounding::Nearest, 0);
  check_true("ascend in place", param.bytes == out.bytes);
  Array zero(DType::Float32, std::vector<float>(3000, 0.0f)), into(DType::BFloat16, 3000), cast(DType::BFloat16, 3000);
  const AscendReport still = ascend({{param.bytes.data(), DType::Float32, zero.bytes.data(), DType::Float32,
                                      into.bytes.data(), DType::BFloat16, 3000}}, 1, Rounding::Stochastic, 9);
  ascend({{param.bytes.data(), DType::Float32, nullptr, DType::Float32, cast.bytes.data(), DType::BFloat16, 3000}}, 1,
         Rounding::Nearest, 0);
  check_true("ascend: a zero gradient moves nothing, even rounding stochastically",
             still.changed == 0 && into.bytes == cast.bytes);
  check_true("ascend: nothing to do", ascend({}, 1, Rounding::Nearest, 0).elements == 0);
  std::vector<AscendTensor> many;
  for (int i = 0; i < 3000; ++i) {
    many.push_back({param.bytes.data() + i * 4, DType::Float32, grad.bytes.data() + i * 4, DType::Float32,
                    out.bytes.data() + i * 4, DType::Float32, 1});
  }
  Array joined(DType::Float32, 3000);
  ascend({{param.bytes.data(), DType::Float32, grad.bytes.data(), DType::Float32, joined.bytes.data(), DType::Float32, 3000}},
         0.3, Rounding::Nearest, 0);
  ascend(many, 0.3, Rounding::Nearest, 0);
  check_true("ascend: 3,000 tensors of one element", joined.bytes == out.bytes);
  const auto bad = [&](DType dtype, double eta) {
    ascend({{param.bytes.data(), dtype, nullptr, DType::Float32, out.bytes.data(), DType::Float32, 10}}, eta,
           Rounding::Nearest, 0);
  };
  check_true("ascend: int64 refused", throws(ErrorCode::InvalidArgument, "tensor 0", [&] { bad(DType::Int64, 1); }));
  check_true("ascend: eta NaN refused", throws(ErrorCode::InvalidArgument, "eta", [&] { bad(DType::Float32, NAN); }));
}

// ---- sample ---------------------------------------------------------------------------------------------------------

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
  struct Case { const char* name; int64_t cols, rows; SampleOptions options; };
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
      same = same && again.token == all.token && same_bits(again.logprob, all.logprob) && same_bits(again.entropy, all.entropy);
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
  check_true("sample: a broken row is named", throws(ErrorCode::NonFinite, "row 4 ", [&] {
               run_sample(broken.view(), {}, counters(7));
             }));
  for (int64_t j = 0; j < 3000; ++j) broken.set(2, j, -kInf);
  check_true("sample: a row of -inf is named", throws(ErrorCode::NonFinite, "row 2 ", [&] {
               run_sample(broken.view(), {.top_k = 3}, counters(7));
             }));
  const auto refuse = [&](const char* word, const SampleOptions& options) {
    return throws(ErrorCode::InvalidArgument, word, [&] { run_sample(ties.view(), options, counters(1)); });
  };
  check_true("sample: bad options", refuse("temperature", {.temperature = -1}) && refuse("temperature", {.temperature = kNan}) &&
                                        refuse("topK", {.top_k = -1}) && refuse("topP", {.top_p = 0}) &&
                                        refuse("topP", {.top_p = 1.5f}));
  Logits single(DType::Float32, 1, 1);
  single.set(0, 0, -700);
  const Drawn only = run_sample(single.view(), {}, counters(1));
  check_true("sample: V = 1", only.token[0] == 0 && only.logprob[0] == 0 && only.entropy[0] == 0);
  sample({nullptr, DType::Float32, 0, 10, 10}, {}, nullptr, nullptr, nullptr, nullptr);
}

}  // namespace
}  // namespace eepo::test

int main() {
  using namespace eepo::test;
  std::printf("instruction set: %s, threads: %d\n", eepo::isa_name(eepo::isa()), omp_get_max_threads());
  test_stats_sizes();
  test_stats_ranges();
  test_stats_probabilities();
  test_stats_infinities();
  test_stats_invariance();
  test_grad_values();
  test_grad_probabilities();
  test_grad_finite_differences();
  test_grad_rows();
  test_head();
  test_head_chunks();
  test_loss_values();
  test_loss_options();
  test_loss_chunks();
  test_ascend_dtypes();
  test_ascend_stochastic();
  test_ascend_edges();
  test_sample_distribution();
  test_sample_reference();
  test_sample_invariance();
  test_sample_edges();
  std::printf("%d failed\n", failures);
  return failures == 0 ? 0 : 1;
}
