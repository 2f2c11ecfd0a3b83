// Tests of linear_head.
#include "kernels/linear_head.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "core/cancel.h"
#include "kernels/gemm.h"
#include "kernels/token_stats.h"
#include "test/fixtures.h"
#include "test/kernels_test.h"

namespace eepo::test {
namespace {

struct HeadProblem {
  int64_t rows, dim, vocab;
  std::vector<float> hidden, head, a, b;
  std::vector<int64_t> targets;

  HeadProblem(int64_t n, int64_t d, int64_t v)
      : rows(n),
        dim(d),
        vocab(v),
        hidden(random_floats(n * d, 1, 1)),
        head(random_floats(v * d, 2, 0.3f)),
        a(random_floats(n, 3, 1)),
        b(random_floats(n, 4, 1)),
        targets(random_targets(n, v, 5)) {}
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
  linear_token_grad(p.hidden.data(), p.head.data(), p.rows, p.dim, p.vocab, p.targets.data(), p.a.data(), p.b.data(),
                    tau, dh.data(), dw.data());
  check_at_most("head d_hidden", relative_error(dh, dh_want), 1e-6);
  check_at_most("head d_head", relative_error(dw, dw_want), 1e-6);
  bool zero = true;
  for (int64_t k = 0; k < p.dim; ++k) zero = zero && dh[k] == 0 && dh[50 * p.dim + k] == 0;
  check_true("head: dropped rows get zeros", zero);
  linear_token_grad(p.hidden.data(), p.head.data(), p.rows, p.dim, p.vocab, p.targets.data(), p.a.data(), p.b.data(),
                    tau, dh.data(), dw.data());
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

}  // namespace

void test_linear_head() {
  test_head();
  test_head_chunks();
}

}  // namespace eepo::test
