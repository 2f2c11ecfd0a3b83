// Tests of token_grad.
#include "kernels/token_grad.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "test/fixtures.h"
#include "test/kernels_test.h"

namespace eepo::test {
namespace {

struct GradError {
  double of_row = 0;       // |error| / largest |dz| of its row
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
  struct Case {
    DType dtype;
    double limit;
  };
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

// Logits too far below the maximum for an exponential, whole blocks of them and a few: gradient 0, the others exact.
void test_grad_masks() {
  for (const float mask : {-75.0f, -1e9f, -kInf}) {
    Logits logits = random_logits(DType::Float32, 2, 9001, 63);
    for (int64_t j = 2; j < 9001; j += 5) logits.set(0, j, mask);
    for (int64_t j = 100; j < 7000; ++j) logits.set(1, j, mask);
    const std::vector<float> a{-1, 1}, b{0.5f, -0.5f};
    check_at_most(text("grad masked by %g", mask), grad_error(logits, {1, 8000}, a, &b, 1).of_row, 1e-6);
    Logits got = logits;
    const std::vector<int64_t> targets{1, 8000};
    token_grad(got.mutable_view(), targets.data(), a.data(), nullptr, 1);
    const GradError only_a = grad_error(logits, targets, a, nullptr, 1);
    check_at_most(text("grad masked by %g, of l", mask), only_a.of_row, 1e-6);
    check_at_most(text("grad masked by %g, of l, elementwise", mask), only_a.elementwise, 3e-6);
    if (mask < -100) check_true(text("grad masked by %g: 0 there", mask), got.get(0, 7) == 0 && got.get(1, 5000) == 0);
  }
}

// Without an entropy term a row's exponentials are taken against the maximum of its first block: rows whose maximum is
// elsewhere and far above, whose first block is far above the others or masked altogether, and leaps inside a block.
void test_grad_references() {
  const int64_t cols = 9001;
  for (const float tau : {1.0f, 0.3f}) {
    for (const float leap : {-200.0f, -70.0f, -30.0f, -15.0f, 15.0f, 26.0f, 30.0f, 70.0f, 200.0f, kInf}) {
      Logits logits = random_logits(DType::Float32, 5, cols, 91);
      const auto raise = [&](int64_t row, int64_t first, int64_t end) {
        const float by = leap * tau;
        for (int64_t j = first; j < end; ++j) logits.set(row, j, by == kInf ? -kInf : logits.get(row, j) + by);
      };
      raise(0, 2048, cols);                 // all behind the first block
      raise(1, 5000, 5100);                 // inside a block
      raise(2, 8990, cols);                 // the last few
      raise(3, 0, 2048);                    // the first block
      if (leap < 80) raise(4, 1000, 1001);  // one logit, the target: above it 1 - p is no float any more
      const std::vector<float> a{1, -1, 0.5f, 2, -3};
      for (const std::vector<int64_t>& targets :
           {std::vector<int64_t>{3, 3, 3, 3, 1000}, {8999, 5050, 8999, 4000, 1000}}) {
        const GradError error = grad_error(logits, targets, a, nullptr, tau);
        const std::string name = text("grad, leap of %g at temperature %g", leap, tau);
        check_at_most(name, error.of_row, 1e-6);
        check_at_most(name + ", elementwise", error.elementwise, 3e-6);
      }
    }
  }
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
  for (const bool entropy : {true, false}) {
    want.clear();
    for (const int threads : {1, 2, 16}) {
      omp_set_num_threads(threads);
      Logits got = logits;
      token_grad(got.mutable_view(), targets.data(), a.data(), entropy ? b.data() : nullptr, 1);
      if (want.empty()) want = got.bytes;
      same = same && want == got.bytes;
      Logits alone = logits;  // row by row; b[r] = 0 is the same as no b
      for (int64_t r = 0; r < 5; ++r) {
        const bool given = entropy && b[static_cast<size_t>(r)] != 0;
        MutableLogitsView view = alone.mutable_view();
        view.data = static_cast<float*>(view.data) + r * view.stride;
        view.rows = 1;
        token_grad(view, &targets[static_cast<size_t>(r)], &a[static_cast<size_t>(r)],
                   given ? &b[static_cast<size_t>(r)] : nullptr, 1);
      }
      same = same && want == alone.bytes;
    }
  }
  omp_set_num_threads(2);
  check_true("grad: same bits on 1, 2 and 16 threads, and row by row", same);
}

}  // namespace

void test_token_grad() {
  test_grad_values();
  test_grad_masks();
  test_grad_references();
  test_grad_probabilities();
  test_grad_finite_differences();
  test_grad_rows();
}

}  // namespace eepo::test
