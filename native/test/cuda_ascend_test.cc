// Tests of the CUDA ascend: the bits of the CPU's, which has its own tests.
#include <algorithm>
#include <cmath>

#include "kernels/ascend.h"
#include "test/cuda_kernels_test.h"

namespace eepo::test {
namespace {

using Bytes = std::vector<unsigned char>;

constexpr DType kDtypes[] = {DType::Float32, DType::BFloat16, DType::Float16};

Bytes encode(DType dtype, const std::vector<float>& values) {
  Logits row(dtype, 1, static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) row.set(0, static_cast<int64_t>(i), values[i]);
  return row.bytes;
}

// One tensor, on the host; skew: how many elements its arrays begin off alignment on the device.
struct Tensor {
  DType param_dtype, grad_dtype, into_dtype;
  Bytes param, grad;  // grad empty: null
  int64_t size, skew = 0;
};

Tensor random_tensor(DType param, DType grad, DType into, int64_t size, uint32_t seed, float scale = 0.02f) {
  return {param,
          grad,
          into,
          encode(param, random_floats(size, seed, scale)),
          encode(grad, random_floats(size, seed + 1, 0.1f)),
          size};
}

struct Stepped {
  std::vector<Bytes> into;
  unsigned long long changed;
};

Bytes padded(const Bytes& bytes, int64_t skew, DType dtype) {
  Bytes all(static_cast<size_t>(skew) * size_of(dtype));
  all.insert(all.end(), bytes.begin(), bytes.end());
  return all;
}

Stepped on_device(const std::vector<Tensor>& tensors, double eta, Rounding rounding, uint64_t seed) {
  TestDevice device;
  std::list<DeviceArray<unsigned char>> arrays;
  std::vector<AscendTensor> table;
  std::vector<DeviceArray<unsigned char>*> outputs;
  for (const Tensor& t : tensors) {
    const auto upload = [&](const Bytes& bytes, DType dtype) -> unsigned char* {
      arrays.emplace_back(padded(bytes, t.skew, dtype));
      return arrays.back().data() + t.skew * static_cast<int64_t>(size_of(dtype));
    };
    unsigned char* const param = upload(t.param, t.param_dtype);
    unsigned char* const grad = t.grad.empty() ? nullptr : upload(t.grad, t.grad_dtype);
    unsigned char* const into = upload(Bytes(static_cast<size_t>(t.size) * size_of(t.into_dtype), 0x7b), t.into_dtype);
    outputs.push_back(&arrays.back());
    table.push_back({param, t.param_dtype, grad, t.grad_dtype, into, t.into_dtype, t.size});
  }
  DeviceArray<unsigned long long> changed(1);
  cuda::ascend(device.context(), table, eta, rounding, seed, changed.data());
  Stepped result{{}, changed.host()[0]};
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Bytes all = outputs[i]->host();
    result.into.emplace_back(all.begin() + tensors[i].skew * static_cast<int64_t>(size_of(tensors[i].into_dtype)),
                             all.end());
  }
  return result;
}

Stepped on_cpu(const std::vector<Tensor>& tensors, double eta, Rounding rounding, uint64_t seed) {
  Stepped result{{}, 0};
  std::vector<AscendTensor> table;
  for (const Tensor& t : tensors) result.into.emplace_back(static_cast<size_t>(t.size) * size_of(t.into_dtype));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Tensor& t = tensors[i];
    table.push_back({t.param.data(), t.param_dtype, t.grad.empty() ? nullptr : t.grad.data(), t.grad_dtype,
                     result.into[i].data(), t.into_dtype, t.size});
  }
  result.changed = static_cast<unsigned long long>(ascend(table, eta, rounding, seed).changed);
  return result;
}

void check_same(const std::string& name, const std::vector<Tensor>& tensors, double eta, uint64_t seed) {
  for (const Rounding rounding : {Rounding::Nearest, Rounding::Stochastic}) {
    const Stepped got = on_device(tensors, eta, rounding, seed), want = on_cpu(tensors, eta, rounding, seed);
    check_true(text("cuda ascend %s, %s: the CPU's bits", name.c_str(),
                    rounding == Rounding::Nearest ? "nearest" : "stochastic"),
               got.into == want.into && got.changed == want.changed,
               text("%llu changed, %llu on the CPU", got.changed, want.changed));
  }
}

void test_dtypes() {
  for (const DType p : kDtypes)
    for (const DType g : kDtypes)
      for (const DType o : kDtypes) {
        Tensor even = random_tensor(p, g, o, 20000, 21), odd = random_tensor(p, g, o, 5003, 31);
        odd.skew = 1;
        check_same(text("%s + %s -> %s", dtype_name(p), dtype_name(g), dtype_name(o)), {even, odd}, 3e-3, 5);
      }
  for (const DType o : kDtypes) {
    // steps that are subnormal in float16, and beyond its largest number
    check_same(text("tiny -> %s", dtype_name(o)), {random_tensor(o, DType::Float32, o, 30000, 41, 2e-5f)}, 1e-6, 6);
    check_same(text("huge -> %s", dtype_name(o)), {random_tensor(DType::Float32, DType::Float32, o, 30000, 43, 4e4f)},
               1e3, 7);
  }
}

void test_edges() {
  const std::vector<float> odd{1, 1, 1, 70000, -0.0f, 0.0f, kInf, -kInf, kNan, 1e-40f, 1};
  const std::vector<float> steps{0, kInf, -kInf, 1, 0, -0.0f, 1, kInf, 1, 1e-40f, 1e-30f};
  for (const DType o : kDtypes) {
    const Tensor t{DType::Float32, DType::Float32, o, encode(DType::Float32, odd), encode(DType::Float32, steps), 11};
    const Stepped got = on_device({t}, 1, Rounding::Stochastic, 2), want = on_cpu({t}, 1, Rounding::Stochastic, 2);
    bool same = got.changed == want.changed;
    for (int64_t i = 0; i < 11; ++i) {  // -inf + inf: a NaN of any payload
      const float x = element(got.into[0].data(), o, i), y = element(want.into[0].data(), o, i);
      same = same && ((std::isnan(x) && std::isnan(y)) || (x == y && std::signbit(x) == std::signbit(y)));
    }
    check_true(text("cuda ascend -> %s: NaN, infinities, overflow, -0, subnormals", dtype_name(o)), same);

    Tensor copy = random_tensor(DType::Float32, DType::Float32, o, 3000, 51);
    const Stepped undone = on_device({copy}, 0, Rounding::Stochastic, 1);
    copy.grad.clear();
    check_same(text("without gradient -> %s", dtype_name(o)), {copy}, 1, 1);
    const Stepped cast = on_device({copy}, 1, Rounding::Stochastic, 1);
    check_true(text("cuda ascend -> %s: eta = 0 is the plain cast, nothing changed", dtype_name(o)),
               undone.into == cast.into && undone.changed == 0 && cast.changed == 0);
  }
  std::vector<Tensor> many;
  for (uint32_t i = 0; i < 600; ++i) {
    many.push_back(random_tensor(DType::Float32, DType::BFloat16, DType::BFloat16, i % 7, i));
    many.back().skew = i % 3;
  }
  check_same("600 tensors of 0 to 6 elements", many, 0.3, 11);
  const Stepped none = on_device({}, 1, Rounding::Nearest, 0);
  check_true("cuda ascend: nothing to do", none.changed == 0);

  const Tensor t = random_tensor(DType::Float32, DType::Float32, DType::Float32, 40000, 61);
  TestDevice device;
  DeviceArray<unsigned char> param(t.param), grad(t.grad);
  DeviceArray<unsigned long long> changed(1);
  cuda::ascend(device.context(),
               {{param.data(), DType::Float32, grad.data(), DType::Float32, param.data(), DType::Float32, t.size}}, 0.1,
               Rounding::Nearest, 0, changed.data());
  check_true("cuda ascend in place", param.host() == on_cpu({t}, 0.1, Rounding::Nearest, 0).into[0]);
}

}  // namespace

void test_cuda_ascend() {
  test_dtypes();
  test_edges();
}

}  // namespace eepo::test
