// Tests of ascend.
#include "kernels/ascend.h"

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
        for (int64_t i = 0; i < size; ++i)
          changed += std::memcmp(&want.bytes[i * width], &cast.bytes[i * width], width) != 0;
        Array undone(o, size), copied(o, size);
        ascend({{param.bytes.data(), p, grad.bytes.data(), q, undone.bytes.data(), o, size}}, 0, Rounding::Stochastic,
               1);
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
    for (const float scale : {0.02f, 2e-5f}) {               // the second is subnormal in float16
      const Array param(o, random_floats(size, 31, scale));  // representable: remainders come from the step alone
      const double eta = scale * 0.01;
      const Array grad(DType::Float32, std::vector<float>(static_cast<size_t>(size), 0.05f));
      const auto run = [&](uint64_t seed, int threads, Rounding rounding) {
        omp_set_num_threads(threads);
        Array into(o, size);
        ascend({{param.bytes.data(), o, grad.bytes.data(), DType::Float32, into.bytes.data(), o, size}}, eta, rounding,
               seed);
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
      check_true(
          text("ascend stochastic %s (%g): same bits on 2 threads, others for another seed", dtype_name(o), scale),
          into.bytes == run(5, 2, Rounding::Stochastic).bytes && into.bytes != run(6, 2, Rounding::Stochastic).bytes);
    }
  }
  // Halfway between two neighbours: up half of the time, and no two tensors or elements alike.
  std::vector<float> half(1 << 16, 1.0f + 0x1p-8f), tiny(1 << 16, 1e-6f);
  const Array param(DType::Float32, std::vector<float>(1 << 16, 1.0f)),
      grad(DType::Float32, std::vector<float>(1 << 16, 0x1p-8f));
  Array first(DType::BFloat16, 1 << 16), second(DType::BFloat16, 1 << 16);
  ascend({{param.bytes.data(), DType::Float32, grad.bytes.data(), DType::Float32, first.bytes.data(), DType::BFloat16,
           1 << 16},
          {param.bytes.data(), DType::Float32, grad.bytes.data(), DType::Float32, second.bytes.data(), DType::BFloat16,
           1 << 16}},
         1, Rounding::Stochastic, 3);
  int64_t up = 0, runs = 0, both = 0;
  for (size_t i = 0; i < half.size(); ++i) {
    up += first.get(i) > 1;
    both += (first.get(i) > 1) == (second.get(i) > 1);
    if (i) runs += (first.get(i) > 1) != (first.get(i - 1) > 1);
  }
  const double spread = 4.5 * std::sqrt(65536.0) / 2;
  check_at_most("ascend stochastic: half go up", std::fabs(static_cast<double>(up) - 32768), spread);
  check_at_most("ascend stochastic: neighbouring elements are independent",
                std::fabs(static_cast<double>(runs) - 32768), spread);
  check_at_most("ascend stochastic: tensors are independent", std::fabs(static_cast<double>(both) - 32768), spread);
}

void test_ascend_edges() {
  Array param(DType::Float32, random_floats(3000, 41, 1));
  const Array grad(DType::Float32, random_floats(3000, 42, 1));
  Array out(DType::Float32, 3000);
  ascend(
      {{param.bytes.data(), DType::Float32, grad.bytes.data(), DType::Float32, out.bytes.data(), DType::Float32, 3000}},
      0.1, Rounding::Nearest, 0);
  ascend({{param.bytes.data(), DType::Float32, grad.bytes.data(), DType::Float32, param.bytes.data(), DType::Float32,
           3000}},
         0.1, Rounding::Nearest, 0);
  check_true("ascend in place", param.bytes == out.bytes);
  Array zero(DType::Float32, std::vector<float>(3000, 0.0f)), into(DType::BFloat16, 3000), cast(DType::BFloat16, 3000);
  const AscendReport still = ascend({{param.bytes.data(), DType::Float32, zero.bytes.data(), DType::Float32,
                                      into.bytes.data(), DType::BFloat16, 3000}},
                                    1, Rounding::Stochastic, 9);
  ascend({{param.bytes.data(), DType::Float32, nullptr, DType::Float32, cast.bytes.data(), DType::BFloat16, 3000}}, 1,
         Rounding::Nearest, 0);
  check_true("ascend: a zero gradient moves nothing, even rounding stochastically",
             still.changed == 0 && into.bytes == cast.bytes);
  check_true("ascend: nothing to do", ascend({}, 1, Rounding::Nearest, 0).elements == 0);
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16}) {
    const Array odd(DType::Float32, std::vector<float>{1, 1, 1, 70000, -0.0f});
    const Array steps(DType::Float32, std::vector<float>{kNan, kInf, -kInf, 1, 0});
    Array result(dtype, 5);
    ascend({{odd.bytes.data(), DType::Float32, steps.bytes.data(), DType::Float32, result.bytes.data(), dtype, 5}}, 1,
           Rounding::Stochastic, 2);
    check_true(text("ascend -> %s: NaN, infinities, overflow and -0", dtype_name(dtype)),
               std::isnan(result.get(0)) && result.get(1) == kInf && result.get(2) == -kInf &&
                   (dtype == DType::Float16 ? result.get(3) == kInf : std::isfinite(result.get(3))) &&
                   result.get(4) == 0 && std::signbit(result.get(4)));
  }
  std::vector<AscendTensor> many;
  for (int i = 0; i < 3000; ++i) {
    many.push_back({param.bytes.data() + i * 4, DType::Float32, grad.bytes.data() + i * 4, DType::Float32,
                    out.bytes.data() + i * 4, DType::Float32, 1});
  }
  Array joined(DType::Float32, 3000);
  ascend({{param.bytes.data(), DType::Float32, grad.bytes.data(), DType::Float32, joined.bytes.data(), DType::Float32,
           3000}},
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

}  // namespace

void test_ascend() {
  test_ascend_dtypes();
  test_ascend_stochastic();
  test_ascend_edges();
}

}  // namespace eepo::test
