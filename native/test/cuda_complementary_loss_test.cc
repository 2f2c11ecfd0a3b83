// Tests of the CUDA complementary_loss, against the CPU's, which has its own tests.
#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/complementary_loss.h"
#include "test/cuda_kernels_test.h"

namespace eepo::test {
namespace {

using Floats = std::vector<float>;

struct Tokens {
  std::vector<int64_t> offsets{0};
  Floats logprob, entropy;
  int64_t sequences() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t count() const { return offsets.back(); }
};

Tokens random_tokens(const std::vector<int64_t>& lengths, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  Tokens tokens;
  for (const int64_t length : lengths) {
    for (int64_t t = 0; t < length; ++t) {
      // from almost certain to hopeless, both clamps included
      const double tiny = std::pow(10.0, -8.0 * uniform(random));
      tokens.logprob.push_back(static_cast<float>(std::log(uniform(random) < 0.3 ? 1 - tiny : tiny)));
      tokens.entropy.push_back(static_cast<float>(uniform(random) * 0.6));
    }
    tokens.offsets.push_back(static_cast<int64_t>(tokens.logprob.size()));
  }
  return tokens;
}

struct Unlearned {
  cuda::ComplementaryDeviceResult result;
  Floats a, carry;
  std::vector<uint8_t> gate;
};

Unlearned run(const Tokens& t, const ComplementaryOptions& options, const Floats& q = {}, const Floats& weight = {},
              const Floats& carry = {}) {
  TestDevice device;
  DeviceArray<float> logprob(t.logprob), entropy(t.entropy), one_minus_p(q), w(weight), before(carry), a(t.count());
  DeviceArray<int64_t> offsets(t.offsets);
  DeviceArray<uint8_t> gate(t.count());
  DeviceArray<cuda::ComplementaryDeviceResult> result(1);
  cuda::complementary_loss(device.context(), logprob.data(), entropy.data(), one_minus_p.data(), offsets.data(),
                           t.sequences(), t.count(), w.data(), before.data(), options, a.data(), gate.data(),
                           result.data());
  return {result.host()[0], a.host(), before.host(), gate.host()};
}

void check_against_cpu(const std::string& name, const Tokens& t, const ComplementaryOptions& options,
                       const Floats& q = {}, const Floats& weight = {}) {
  const Unlearned got = run(t, options, q, weight);
  Floats a(static_cast<size_t>(t.count()));
  std::vector<uint8_t> gate(a.size());
  const ComplementaryResult want = complementary_loss(
      t.logprob.data(), t.entropy.data(), q.empty() ? nullptr : q.data(), t.offsets.data(), t.sequences(),
      weight.empty() ? nullptr : weight.data(), nullptr, options, a.data(), gate.data());
  double error = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double off = difference(static_cast<double>(got.a[i]), static_cast<double>(a[i]));
    error = worse(error, off == 0 ? 0 : off / std::fabs(static_cast<double>(a[i])));
  }
  check_at_most("cuda loss " + name + ": a", error, 1e-7);
  check_at_most("cuda loss " + name + ": loss", std::fabs(got.result.loss - want.loss), 1e-13 * std::fabs(want.loss));
  check_true("cuda loss " + name + ": gates and counts",
             got.gate == gate && got.result.tokens == want.tokens && got.result.open_tokens == want.open_tokens &&
                 got.result.clamped_low == want.clamped_low && got.result.clamped_high == want.clamped_high &&
                 got.result.active_tokens == want.active_tokens && got.result.bad_token == -1,
             text("%d of %d open, %d active", static_cast<int>(want.open_tokens), static_cast<int>(want.tokens),
                  static_cast<int>(want.active_tokens)));
  const Unlearned again = run(t, options, q, weight);
  check_true("cuda loss " + name + ": the same bits again",
             again.result.loss == got.result.loss && same_bits(again.a, got.a));
}

void test_values() {
  const Tokens tokens = random_tokens({5, 1, 0, 40, 400, 129}, 7);
  Floats q, weight{0.1f, 0.2f, 0.3f, 0, 0.5f, 1};
  for (const float l : tokens.logprob) q.push_back(static_cast<float>(-std::expm1(static_cast<double>(l))));
  for (const ClampGrad mode : {ClampGrad::Zero, ClampGrad::Saturate}) {
    ComplementaryOptions options;
    options.clamp_grad = mode;
    const std::string name = mode == ClampGrad::Zero ? "(zero)" : "(saturate)";
    check_against_cpu(name, tokens, options);
    check_against_cpu(name + " with one_minus_p and weights", tokens, options, q, weight);
  }
  for (const int window : {1, 2, 9, 200}) {
    ComplementaryOptions options;
    options.window = window;
    check_against_cpu(text("window %d", window), tokens, options);
  }
  ComplementaryOptions open;
  open.alpha = kInf;
  check_against_cpu("with every token open", tokens, open);
  open.alpha = 0;
  check_against_cpu("with every token closed", tokens, open);
  check_against_cpu("of 5,000 sequences", random_tokens(std::vector<int64_t>(5000, 3), 5), {});
}

// Every token of every sequence passes through chunks of the given sizes; the carry joins them.
void test_chunks() {
  const std::vector<int64_t> lengths{17, 3, 1, 29};
  const Tokens tokens = random_tokens(lengths, 13);
  Floats weight;
  for (const int64_t length : lengths) weight.push_back(1.0f / static_cast<float>(4 * length));
  for (const int window : {1, 2, 3, 9, 150}) {
    ComplementaryOptions options;
    options.window = window;
    const Unlearned whole = run(tokens, options, {}, weight);
    for (const int64_t chunk : {1, 2, 4, 7, 100}) {
      Floats carry(static_cast<size_t>(4 * (window - 1)), kNan), a(tokens.logprob.size(), kNan);
      std::vector<uint8_t> gate(tokens.logprob.size(), 9);
      long long open = 0;
      for (int64_t from = 0; from < 29; from += chunk) {
        Tokens part;
        std::vector<size_t> at;
        for (size_t k = 0; k < 4; ++k) {
          for (int64_t t = from; t < std::min(lengths[k], from + chunk); ++t) {
            at.push_back(static_cast<size_t>(tokens.offsets[k] + t));
            part.logprob.push_back(tokens.logprob[at.back()]);
            part.entropy.push_back(tokens.entropy[at.back()]);
          }
          part.offsets.push_back(static_cast<int64_t>(part.logprob.size()));
        }
        const Unlearned u = run(part, options, {}, weight, carry);
        for (size_t i = 0; i < at.size(); ++i) {
          a[at[i]] = u.a[i];
          gate[at[i]] = u.gate[i];
        }
        carry = u.carry;
        open += u.result.open_tokens;
      }
      check_true(text("cuda loss: window %d in chunks of %d", window, static_cast<int>(chunk)),
                 gate == whole.gate && same_bits(a, whole.a) && open == whole.result.open_tokens);
    }
  }
}

void test_bad_tokens() {
  Tokens tokens = random_tokens({30, 20}, 9);
  tokens.entropy[33] = kNan;
  tokens.logprob[31] = kNan;
  tokens.entropy[40] = kInf;
  check_true("cuda loss: the first NaN is named", run(tokens, {}).result.bad_token == 31);
  tokens.logprob[31] = -kInf;  // a token of probability 0 is none
  check_true("cuda loss: an infinite entropy is named", run(tokens, {}).result.bad_token == 33);
  const Unlearned none = run(Tokens{}, {});
  check_true("cuda loss: no sequences",
             none.result.tokens == 0 && none.result.loss == 0 && none.result.bad_token == -1);
}

}  // namespace

void test_cuda_complementary_loss() {
  test_values();
  test_chunks();
  test_bad_tokens();
}

}  // namespace eepo::test
