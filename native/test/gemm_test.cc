// Tests of gemm: against the double-precision reference, its promise about batches, and B in bfloat16.
#include "kernels/gemm.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "test/fixtures.h"
#include "test/kernels_test.h"

namespace eepo::test {
namespace {

struct Problem {
  Op op_a, op_b;
  int64_t m, n, k;
  std::vector<float> a, b, wide, c;
  std::vector<uint16_t> narrow;  // b rounded; wide: that again in float32

  Problem(Op ta, Op tb, int64_t rows, int64_t cols, int64_t depth)
      : op_a(ta),
        op_b(tb),
        m(rows),
        n(cols),
        k(depth),
        a(random_floats(rows * depth, 1, 1)),
        b(random_floats(cols * depth, 2, 1)),
        wide(b.size()),
        c(random_floats(rows * cols, 3, 1)),
        narrow(b.size()) {
    for (size_t i = 0; i < b.size(); ++i) {
      narrow[i] = float_to_bf16(b[i]);
      wide[i] = bf16_to_float(narrow[i]);
    }
  }
  int64_t lda() const { return op_a == Op::Transpose ? m : k; }
  int64_t ldb() const { return op_b == Op::Transpose ? k : n; }
  std::vector<float> product(const GemmB& of, float beta) const {
    std::vector<float> out = c;
    gemm(op_a, op_b, m, n, k, 1, a.data(), lda(), of, ldb(), beta, out.data(), n);
    return out;
  }
};

void test_product(const Problem& p) {
  const std::string name =
      text("gemm %c%c %lld x %lld x %lld", p.op_a == Op::Transpose ? 'T' : 'N', p.op_b == Op::Transpose ? 'T' : 'N',
           static_cast<long long>(p.m), static_cast<long long>(p.n), static_cast<long long>(p.k));
  for (const float beta : {0.0f, 1.0f}) {
    const std::vector<float> got = p.product(p.b.data(), beta);
    std::vector<float> want = p.c;
    gemm_reference(p.op_a, p.op_b, p.m, p.n, p.k, 1, p.a.data(), p.lda(), p.b.data(), p.ldb(), beta, want.data(), p.n);
    double error = 0;
    for (size_t i = 0; i < got.size(); ++i) error = worse(error, difference(got[i], want[i]));
    check_at_most(name, error, 1e-5 * std::sqrt(static_cast<double>(p.k + 1)));
    const std::vector<float> wide = p.product(p.wide.data(), beta);
    const std::vector<float> narrow = p.product({p.narrow.data(), DType::BFloat16}, beta);
    check_true(name + ", B in bfloat16: the bits of B widened",
               std::memcmp(wide.data(), narrow.data(), wide.size() * sizeof(float)) == 0);
  }
}

// A row of C does not depend on the rows beside it.
void test_batches(bool bfloat16) {
  const Problem p(Op::None, Op::Transpose, 37, 70, 300);
  const GemmB b = bfloat16 ? GemmB(p.narrow.data(), DType::BFloat16) : GemmB(p.b.data());
  const std::vector<float> together = p.product(b, 0);
  bool same = true;
  for (int64_t row = 0; row < p.m; ++row) {
    std::vector<float> alone(p.n);
    gemm(p.op_a, p.op_b, 1, p.n, p.k, 1, p.a.data() + row * p.k, p.k, b, p.k, 0, alone.data(), p.n);
    same = same && std::memcmp(alone.data(), together.data() + row * p.n, p.n * sizeof(float)) == 0;
  }
  check_true(text("gemm: a row alone has the bits it has in a batch (%s)", bfloat16 ? "bfloat16" : "float32"), same);
}

}  // namespace

void test_gemm() {
  for (const Op op_a : {Op::None, Op::Transpose})
    for (const Op op_b : {Op::None, Op::Transpose}) {
      test_product(Problem(op_a, op_b, 1, 1, 1));
      test_product(Problem(op_a, op_b, 1, 33, 129));
      test_product(Problem(op_a, op_b, 5, 16, 32));
      test_product(Problem(op_a, op_b, 13, 47, 31));
      test_product(Problem(op_a, op_b, 3, 5, 0));
      test_product(Problem(op_a, op_b, 100, 130, 260));
    }
  test_batches(false);
  test_batches(true);
}

}  // namespace eepo::test
