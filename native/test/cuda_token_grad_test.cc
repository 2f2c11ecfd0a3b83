// Tests of the CUDA token_grad.
#include <algorithm>
#include <cmath>
#include <random>

#include "test/cuda_kernels_test.h"

namespace eepo::test {
namespace {

struct Coefficients {
  std::vector<float> a, b;  // b empty: not given
};

Coefficients random_coefficients(int64_t rows, bool with_b) {
  return {random_floats(rows, 3, 1), with_b ? random_floats(rows, 4, 1) : std::vector<float>{}};
}

int64_t launch(const LogitsView& view, const std::vector<int64_t>& targets, const Coefficients& c, float temperature,
               const MutableLogitsView& out, int multiprocessors) {
  TestDevice device(multiprocessors);
  DeviceArray<int64_t> y(targets), bad(std::vector<int64_t>{kNoRow});
  DeviceArray<float> a(c.a), b(c.b);
  cuda::token_grad(device.context(), view, y.data(), a.data(), b.data(), temperature, out, bad.data());
  return bad.host()[0];
}

Logits in_place(const Logits& logits, const std::vector<int64_t>& targets, const Coefficients& c, float temperature,
                int multiprocessors, int64_t skew = 0) {
  DeviceLogits device(logits, skew);
  launch(device.view(), targets, c, temperature, device.mutable_view(), multiprocessors);
  return device.host();
}

// Into memory of its own, of any dtype, whose rows begin `skew` elements off and lie `gap` apart.
Logits elsewhere(const Logits& logits, DType dtype, const std::vector<int64_t>& targets, const Coefficients& c,
                 float temperature, int multiprocessors, int64_t skew, int64_t gap) {
  const DeviceLogits device(logits, skew);
  const Logits empty(dtype, logits.rows, logits.cols, gap);
  DeviceLogits out(empty, skew);
  launch(device.view(), targets, c, temperature, out.mutable_view(), multiprocessors);
  return out.host();
}

// Float logits become 16-bit gradients in the front half of their own rows.
Logits narrowed(const Logits& logits, DType dtype, const std::vector<int64_t>& targets, const Coefficients& c,
                float temperature, int64_t skew) {
  DeviceLogits device(logits, skew);
  const LogitsView view = device.view();
  const MutableLogitsView out{device.mutable_view().data, dtype, view.rows, view.cols, 2 * view.stride};
  launch(view, targets, c, temperature, out, kUnsplit);
  const Logits all = device.host();
  Logits result(dtype, logits.rows, logits.cols);
  for (int64_t r = 0; r < logits.rows; ++r) {
    for (int64_t j = 0; j < logits.cols; ++j) {
      result.set(r, j, element(all.bytes.data(), dtype, 2 * r * all.stride + j));
    }
  }
  return result;
}

double limit_of(DType dtype) { return dtype == DType::Float32 ? 1e-6 : dtype == DType::BFloat16 ? 4e-3 : 1e-3; }

std::vector<double> reference(const Logits& logits, const std::vector<int64_t>& targets, const Coefficients& c,
                              float temperature) {
  Logits copy = logits;
  const std::vector<double> a(c.a.begin(), c.a.end()), b(c.b.begin(), c.b.end());
  std::vector<double> want(static_cast<size_t>(logits.rows * logits.cols));
  token_grad_reference(copy.mutable_view(), targets.data(), a.data(), b.empty() ? nullptr : b.data(),
                       static_cast<double>(temperature), want.data());
  return want;
}

// The largest error, in units of the largest gradient of its row.
double error_of(const Logits& got, const std::vector<double>& want) {
  double error = 0;
  for (int64_t r = 0; r < got.rows; ++r) {
    const double* w = want.data() + r * got.cols;
    double top = 0;
    for (int64_t j = 0; j < got.cols; ++j) top = std::fmax(top, std::fabs(w[j]));
    for (int64_t j = 0; j < got.cols; ++j) {
      const double off = difference(static_cast<double>(got.get(r, j)), w[j]);
      error = worse(error, off == 0 ? 0 : off / top);
    }
  }
  return error;
}

bool gaps_untouched(const Logits& now, const Logits& before) {
  bool same = true;
  const size_t width = size_of(now.dtype);
  for (int64_t r = 0; r < now.rows; ++r) {
    const size_t from = static_cast<size_t>(r * now.stride + now.cols) * width;
    const size_t count = static_cast<size_t>(now.stride - now.cols) * width;
    same = same && std::equal(now.bytes.begin() + from, now.bytes.begin() + from + count, before.bytes.begin() + from);
  }
  return same;
}

void check_grad(const std::string& name, const Logits& logits, const std::vector<int64_t>& targets,
                const Coefficients& c, float temperature = 1) {
  const Logits got = in_place(logits, targets, c, temperature, kUnsplit);
  check_at_most(name, error_of(got, reference(logits, targets, c, temperature)), limit_of(logits.dtype));
  check_true(name + ": nothing behind a row is written", gaps_untouched(got, logits));
  check_true(name + ": the same bits by one block per row, by several, and in unaligned memory",
             got.bytes == in_place(logits, targets, c, temperature, kSplit).bytes &&
                 got.bytes == in_place(logits, targets, c, temperature, kUnsplit, 1).bytes &&
                 got.bytes == in_place(logits, targets, c, temperature, kSplit, 1).bytes);
}

void test_sizes() {
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    for (const int64_t cols : {1, 2, 31, 1000, 2048, 2049, 5003, 9001, 151936}) {
      const int64_t rows = cols > 10000 ? 2 : 5;
      Logits logits = random_logits(dtype, rows, cols, 61, cols % 2 == 0 ? 0 : 2);
      if (cols > 10) logits.set(0, 5, -kInf);
      const std::vector<int64_t> targets = random_targets(rows, cols, 9);
      const std::string name = text("cuda grad %s V=%d", dtype_name(dtype), static_cast<int>(cols));
      check_grad(name + " of l", logits, targets, random_coefficients(rows, false));
      check_grad(name + " of l and H, tau 0.7", logits, targets, random_coefficients(rows, true), 0.7f);
    }
  }
}

void test_ranges() {
  for (const float shift : {-300.0f, 300.0f, -40.0f}) {
    check_grad(text("cuda grad, rows shifted by %g", static_cast<double>(shift)),
               random_logits(DType::Float32, 4, 3000, 67, 0, shift), random_targets(4, 3000, 1),
               random_coefficients(4, true));
  }
  for (const double p : {1e-6, 1e-3, 0.5, 0.99, 1 - 1e-5, 1 - 1e-7}) {
    Logits logits = random_logits(DType::Float32, 2, 3000, 71, 0, 0, 0.5f);
    for (int64_t r = 0; r < 2; ++r) {
      double others = 0;
      for (int64_t j = 1; j < 3000; ++j) others += std::exp(static_cast<double>(logits.get(r, j)));
      logits.set(r, 0, static_cast<float>(std::log(p / (1 - p) * others)));
    }
    check_grad(text("cuda grad p_y=%.8g", p), logits, {0, 0}, {{-1, 1}, {0, 0.5f}});
  }
}

// Every pair of dtypes, in memory of its own.
void test_dtypes() {
  const DType dtypes[] = {DType::Float32, DType::BFloat16, DType::Float16};
  for (const DType in : dtypes) {
    for (const DType out : dtypes) {
      for (const int64_t cols : {31, 5000, 5003}) {
        const Logits logits = random_logits(in, 3, cols, 73, 1);
        const std::vector<int64_t> targets = random_targets(3, cols, 9);
        const Coefficients c = random_coefficients(3, true);
        const std::vector<double> want = reference(logits, targets, c, 1);
        const Logits got = elsewhere(logits, out, targets, c, 1, kUnsplit, 0, 0);
        const std::string name =
            text("cuda grad %s -> %s V=%d", dtype_name(in), dtype_name(out), static_cast<int>(cols));
        check_at_most(name, error_of(got, want), limit_of(out));
        bool same = true, gaps = true;
        for (const int64_t skew : {0, 1, 2}) {
          for (const int multiprocessors : {kUnsplit, kSplit}) {
            const Logits other = elsewhere(logits, out, targets, c, 1, multiprocessors, skew, 3);
            gaps = gaps && gaps_untouched(other, Logits(out, 3, cols, 3));
            for (int64_t r = 0; r < 3; ++r)
              for (int64_t j = 0; j < cols; ++j) same = same && other.get(r, j) == got.get(r, j);
          }
        }
        check_true(name + ": the same bits wherever it goes", same);
        check_true(name + ": nothing behind a row is written", gaps);
      }
    }
  }
}

// More segments than warps and than fit into shared memory: rounds must not overwrite what is still to be read.
void test_narrowing() {
  for (const DType dtype : {DType::BFloat16, DType::Float16}) {
    for (const int64_t cols : {1, 31, 1024, 5003, 151936, 151937}) {
      for (const int64_t skew : {0, 1}) {
        const Logits logits = random_logits(DType::Float32, 3, cols, 79);
        const std::vector<int64_t> targets = random_targets(3, cols, 9);
        Coefficients c = random_coefficients(3, true);
        c.a[1] = c.b[1] = 0;
        const Logits got = narrowed(logits, dtype, targets, c, 1, skew);
        const Logits want = elsewhere(logits, dtype, targets, c, 1, kUnsplit, 0, 0);
        const std::string name = text("cuda grad: float32 becomes %s in place, V=%d, %d off", dtype_name(dtype),
                                      static_cast<int>(cols), static_cast<int>(skew));
        check_true(name, got.bytes == want.bytes);
        check_at_most(name + ", error", error_of(got, reference(logits, targets, c, 1)), limit_of(dtype));
      }
    }
  }
}

void test_rows() {
  const int64_t cols = 5000;
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    for (const int multiprocessors : {kUnsplit, kSplit}) {
      Logits logits = random_logits(dtype, 6, cols, 79, 7);
      for (int64_t j = 0; j < cols; ++j) logits.set(0, j, kNan);  // a = b = 0: not read, not even these
      logits.set(1, 17, kNan);
      logits.set(3, 4000, -kInf);
      logits.set(4, 4999, kInf);
      DeviceLogits device(logits, 1);
      const int64_t bad = launch(device.view(), {-12345, 1, 2, 4000, 5, cols}, {{0, 1, 1, 1, 1, 1}, {}}, 1,
                                 device.mutable_view(), multiprocessors);
      const Logits got = device.host();
      bool zero = true, nan = true, finite = true;
      for (int64_t j = 0; j < cols; ++j) {
        zero = zero && got.get(0, j) == 0 && !std::signbit(got.get(0, j));
        nan = nan && std::isnan(got.get(1, j)) && std::isnan(got.get(4, j)) && std::isnan(got.get(5, j));
        finite = finite && std::isfinite(got.get(2, j)) && std::isfinite(got.get(3, j));
      }
      check_true(text("cuda grad %s: a = b = 0 writes zeros without reading", dtype_name(dtype)), zero);
      check_true(text("cuda grad %s: a row with NaN or a bad target becomes NaN, the others do not", dtype_name(dtype)),
                 nan && finite && bad == 5);
      check_true(text("cuda grad %s: a target at -inf gets a", dtype_name(dtype)), got.get(3, 4000) == 1);
      check_true(text("cuda grad %s: nothing behind a row is written", dtype_name(dtype)), gaps_untouched(got, logits));
    }
  }
  LogitsView none{nullptr, DType::Float32, 0, 10, 10};
  launch(none, {}, {}, 1, {nullptr, DType::Float32, 0, 10, 10}, kUnsplit);

  const Logits many = random_logits(DType::Float32, 66001, 3, 83);
  const std::vector<int64_t> targets = random_targets(66001, 3, 4);
  const Coefficients c = random_coefficients(66001, false);
  check_at_most("cuda grad of 66,001 rows",
                error_of(in_place(many, targets, c, 1, kUnsplit), reference(many, targets, c, 1)), 1e-6);
}

// The CPU's gradient differs in the last bits alone.
void test_against_cpu() {
  const Logits logits = random_logits(DType::Float32, 6, 5003, 89);
  const std::vector<int64_t> targets = random_targets(6, 5003, 4);
  const Coefficients c = random_coefficients(6, true);
  const Logits got = in_place(logits, targets, c, 0.8f, kUnsplit);
  Logits cpu = logits;
  token_grad(cpu.mutable_view(), targets.data(), c.a.data(), c.b.data(), 0.8f);
  std::vector<double> want;
  for (int64_t r = 0; r < 6; ++r)
    for (int64_t j = 0; j < 5003; ++j) want.push_back(static_cast<double>(cpu.get(r, j)));
  check_at_most("cuda grad against the CPU", error_of(got, want), 1e-6);
}

}  // namespace

void test_cuda_token_grad() {
  test_sizes();
  test_ranges();
  test_dtypes();
  test_narrowing();
  test_rows();
  test_against_cpu();
}

}  // namespace eepo::test
