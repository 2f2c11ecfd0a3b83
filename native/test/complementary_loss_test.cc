// Tests of complementary_loss.
#include "kernels/complementary_loss.h"

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
  check_true(
      "loss: no sequences",
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

}  // namespace

void test_complementary_loss() {
  test_loss_values();
  test_loss_options();
  test_loss_chunks();
}

}  // namespace eepo::test
