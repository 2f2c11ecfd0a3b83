// Tests of the CUDA adamw and square_sum.
#include <cmath>

#include "test/cuda_kernels_test.h"

namespace eepo::test {
namespace {

using Floats = std::vector<float>;

double largest_difference(const Floats& got, const Floats& want) {
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double size = std::fmax(0.1, std::fabs(static_cast<double>(want[i])));
    error = worse(error, difference(static_cast<double>(got[i]), static_cast<double>(want[i])) / size);
  }
  return error;
}

// PyTorch's AdamW in double.
void reference(Floats& param, const Floats& grad, Floats& m, Floats& v, const AdamW& o, int64_t step, float scale) {
  const double beta1 = static_cast<double>(o.beta1), beta2 = static_cast<double>(o.beta2);
  const double lr = static_cast<double>(o.lr), time = static_cast<double>(step);
  for (size_t i = 0; i < param.size(); ++i) {
    const double g = static_cast<double>(grad[i]) * static_cast<double>(scale);
    const double mi = beta1 * static_cast<double>(m[i]) + (1 - beta1) * g;
    const double vi = beta2 * static_cast<double>(v[i]) + (1 - beta2) * g * g;
    const double p = static_cast<double>(param[i]) * (1 - lr * static_cast<double>(o.weight_decay));
    m[i] = static_cast<float>(mi);
    v[i] = static_cast<float>(vi);
    param[i] = static_cast<float>(p - lr * (mi / (1 - std::pow(beta1, time))) /
                                          (std::sqrt(vi / (1 - std::pow(beta2, time))) + static_cast<double>(o.eps)));
  }
}

void test_adamw(int64_t n, int64_t skew) {
  const AdamW options{1e-2f, 0.9f, 0.999f, 1e-8f, 0.1f};
  const Floats grad = random_floats(n + skew, 2, 1);
  Floats param = random_floats(n + skew, 1, 1), m(grad.size()), v(grad.size());
  Floats cpu = param, cpu_m = m, cpu_v = v;
  TestDevice device;
  DeviceArray<float> p(param), g(grad), first(m), second(v);
  for (int64_t step = 1; step <= 3; ++step) {
    cuda::adamw(device.context(), p.data() + skew, g.data() + skew, first.data() + skew, second.data() + skew, n,
                options, step, 0.5f);
    adamw(cpu.data() + skew, grad.data() + skew, cpu_m.data() + skew, cpu_v.data() + skew, n, options, step, 0.5f);
    const Floats in_front(param.begin(), param.begin() + skew);
    reference(param, grad, m, v, options, step, 0.5f);
    for (size_t i = 0; i < in_front.size(); ++i) {
      param[i] = in_front[i];
      m[i] = v[i] = 0;
    }
  }
  const std::string name = text("cuda adamw n=%d, %d off", static_cast<int>(n), static_cast<int>(skew));
  check_at_most(name + ": parameters", largest_difference(p.host(), param), 2e-6);
  check_at_most(name + ": moments", worse(largest_difference(first.host(), m), largest_difference(second.host(), v)),
                1e-6);
  check_at_most(name + ": against the CPU", largest_difference(p.host(), cpu), 1e-6);
}

void test_square_sum(int64_t n, int64_t skew) {
  const Floats x = random_floats(n + skew, 7, 3);
  long double exact = 0;
  for (size_t i = static_cast<size_t>(skew); i < x.size(); ++i) {
    exact += static_cast<long double>(x[i]) * static_cast<long double>(x[i]);
  }
  const double want = static_cast<double>(exact);
  DeviceArray<float> on_device(x);
  DeviceArray<double> sum(1);
  TestDevice device;
  cuda::square_sum(device.context(), on_device.data() + skew, n, sum.data());
  const double got = sum.host()[0];
  check_at_most(text("cuda square_sum n=%d, %d off", static_cast<int>(n), static_cast<int>(skew)),
                std::fabs(got - want), 1e-13 * want);
  TestDevice other(1000);
  cuda::square_sum(other.context(), on_device.data() + skew, n, sum.data());
  check_true("cuda square_sum: the same bits on any device", sum.host()[0] == got);
}

}  // namespace

void test_cuda_adamw() {
  for (const int64_t n : {1, 3, 4, 255, 1027, 5000}) {
    test_adamw(n, 0);
    test_adamw(n, 1);
  }
  for (const int64_t n : {0, 1, 5, 65535, 65537, 300003}) {
    test_square_sum(n, 0);
    test_square_sum(n, 1);
  }
  TestDevice device;
  cuda::adamw(device.context(), nullptr, nullptr, nullptr, nullptr, 0, {}, 1, 1);
}

}  // namespace eepo::test
