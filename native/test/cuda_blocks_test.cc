// The elementwise kernels, norms and embeddings of the CUDA half against plain double references and the CPU's.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "cuda/kernels.h"
#include "test/device_memory.h"
#include "test/fixtures.h"

namespace eepo::test {
namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

// The largest error, in units of the largest value wanted.
template <class Got, class Want>
double relative_error(const Got& got, const Want& want) {
  double error = got.size() == want.size() ? 0 : NAN, scale = 1e-30;
  for (size_t i = 0; i < want.size() && i < got.size(); ++i) {
    error = worse(error, difference(static_cast<double>(got[i]), static_cast<double>(want[i])));
    scale = std::fmax(scale, std::fabs(static_cast<double>(want[i])));
  }
  return error / scale;
}

// A device array that starts `skew` floats into its memory: 1 takes away the alignment of vectors.
struct Skewed {
  int64_t skew;
  DeviceArray<float> memory;

  Skewed(const Floats& values, int64_t offset) : skew(offset), memory(padded(values, offset)) {}
  float* data() { return memory.data() + skew; }
  Floats host() const {
    const Floats all = memory.host();
    return {all.begin() + skew, all.end()};
  }
  static Floats padded(const Floats& values, int64_t offset) {
    Floats all(static_cast<size_t>(offset), 0.0f);
    all.insert(all.end(), values.begin(), values.end());
    return all;
  }
};

Floats junk(int64_t count) { return Floats(static_cast<size_t>(count), 3e30f); }

// ---- RMSNorm
// ------------------------------------------------------------------------------------------------------------

struct NormCase {
  int64_t tokens, groups, dim, ld_in, ld_out, skew;
  bool accumulate;

  int64_t rows() const { return tokens * groups; }
  NormShape shape() const { return {groups, dim, ld_in, ld_out}; }
  std::string name() const {
    return text("%lld x %lld x %lld, ld %lld, %lld%s", static_cast<long long>(tokens), static_cast<long long>(groups),
                static_cast<long long>(dim), static_cast<long long>(ld_in), static_cast<long long>(ld_out),
                skew ? ", unaligned" : "");
  }
};

// Every element of the case: body(row, i, place in x, place in y).
template <class Body>
void each_element(const NormCase& c, Body body) {
  for (int64_t t = 0; t < c.tokens; ++t)
    for (int64_t g = 0; g < c.groups; ++g)
      for (int64_t i = 0; i < c.dim; ++i)
        body(t * c.groups + g, i, t * c.ld_in + g * c.dim + i, t * c.ld_out + g * c.dim + i);
}

constexpr double kEps = 1e-5;

Doubles inverse_norms(const NormCase& c, const Floats& x) {
  Doubles inv(c.rows(), 0.0);
  each_element(c, [&](int64_t row, int64_t, int64_t in, int64_t) { inv[row] += double{x[in]} * x[in]; });
  for (double& r : inv) r = 1 / std::sqrt(r / static_cast<double>(c.dim) + kEps);
  return inv;
}

void test_norm(const TestDevice& device, const NormCase& c) {
  const Floats x = random_floats(c.tokens * c.ld_in, 1, 2), weight = random_floats(c.dim, 2, 1);
  const Doubles inv = inverse_norms(c, x);
  const Floats before = junk(c.tokens * c.ld_out);
  Doubles want(before.begin(), before.end());
  each_element(c, [&](int64_t row, int64_t i, int64_t in, int64_t out) { want[out] = inv[row] * x[in] * weight[i]; });
  Skewed d_x(x, c.skew), d_w(weight, c.skew), d_y(before, c.skew);
  DeviceArray<float> d_inv(c.rows());
  cuda::rms_norm(device.context(), d_x.data(), d_w.data(), kEps, c.shape(), c.tokens, d_y.data(), d_inv.data());
  const Floats y = d_y.host();
  double error = relative_error(d_inv.host(), inv), untouched = 0;
  std::vector<bool> written(y.size());
  each_element(c, [&](int64_t, int64_t, int64_t, int64_t out) {
    written[out] = true;
    error = worse(error, difference(y[out], want[out]) / std::fmax(1, std::fabs(want[out])));
  });
  for (size_t i = 0; i < y.size(); ++i)
    if (!written[i]) untouched = worse(untouched, difference(y[i], before[i]));
  check_at_most("rms_norm " + c.name(), error, 2e-6);
  check_at_most("rms_norm " + c.name() + " leaves the rest alone", untouched, 0);
  if (c.ld_in != c.ld_out) return;
  cuda::rms_norm(device.context(), d_x.data(), d_w.data(), kEps, c.shape(), c.tokens, d_x.data(), nullptr);
  const Floats in_place = d_x.host();
  bool same = true;
  each_element(c, [&](int64_t, int64_t, int64_t in, int64_t out) { same = same && in_place[in] == y[out]; });
  check_true("rms_norm " + c.name() + " in place", same);
}

void test_norm_backward(const TestDevice& device, const NormCase& c) {
  const Floats x = random_floats(c.tokens * c.ld_in, 3, 2), weight = random_floats(c.dim, 4, 1);
  const Floats dy = random_floats(c.tokens * c.ld_out, 5, 1), dx_before = random_floats(c.tokens * c.ld_out, 6, 1);
  const Floats dw_before = random_floats(c.dim, 7, 1);
  const Doubles inv = inverse_norms(c, x);
  double scale = 0;  // of the terms of dx: for rows of one element they cancel
  Doubles product(c.rows(), 0.0), dx(dx_before.begin(), dx_before.end()), dw(dw_before.begin(), dw_before.end());
  each_element(c, [&](int64_t row, int64_t i, int64_t in, int64_t out) {
    product[row] += double{dy[out]} * weight[i] * x[in];
    dw[i] += dy[out] * x[in] * inv[row];
  });
  each_element(c, [&](int64_t row, int64_t i, int64_t in, int64_t out) {
    const double r = inv[row];
    scale = std::fmax(scale, std::fabs(r * weight[i] * dy[out]));
    dx[out] = (c.accumulate ? dx[out] : 0) + r * weight[i] * dy[out] -
              x[in] * r * r * r / static_cast<double>(c.dim) * product[row];
  });
  Skewed d_x(x, c.skew), d_w(weight, c.skew), d_dy(dy, c.skew), d_dx(dx_before, c.skew);
  const DeviceArray<float> d_inv(Floats(inv.begin(), inv.end()));
  DeviceArray<float> d_dw(dw_before), d_dw2(dw_before);
  cuda::rms_norm_backward(device.context(), d_dy.data(), d_x.data(), d_w.data(), d_inv.data(), c.shape(), c.tokens,
                          c.accumulate, d_dx.data(), d_dw.data());
  const std::string name = "rms_norm_backward " + c.name() + (c.accumulate ? ", accumulating" : "");
  const Floats got_dx = d_dx.host();
  double error = 0;
  for (size_t i = 0; i < dx.size(); ++i) error = worse(error, difference(got_dx[i], dx[i]) / scale);
  check_at_most(name + " dx", error, 2e-6);
  check_at_most(name + " dweight", relative_error(d_dw.host(), dw), 4e-6);
  if (c.accumulate) return;
  // dx in the place of dy, as the decoder does
  cuda::rms_norm_backward(device.context(), d_dy.data(), d_x.data(), d_w.data(), d_inv.data(), c.shape(), c.tokens,
                          false, d_dy.data(), d_dw2.data());
  const Floats in_place = d_dy.host();
  bool same = same_bits(d_dw.host(), d_dw2.host());
  each_element(c, [&](int64_t, int64_t, int64_t, int64_t out) { same = same && in_place[out] == got_dx[out]; });
  check_true(name + " in place, the same bits", same);
}

void test_norms(const TestDevice& device) {
  const NormCase cases[] = {
      {3, 1, 1, 1, 1, 0, false},           {5, 1, 7, 9, 11, 0, false},        {70, 1, 64, 64, 64, 0, true},
      {37, 3, 8, 40, 40, 0, false},        {33, 7, 64, 512, 640, 0, false},   {9, 2, 128, 256, 256, 1, true},
      {11, 4, 80, 480, 480, 0, false},     {6, 2, 256, 512, 512, 0, false},   {2, 1, 512, 512, 512, 0, true},
      {3, 1, 513, 513, 513, 0, false},     {4, 1, 1000, 1000, 1000, 0, true}, {2, 1, 2560, 2560, 2560, 0, false},
      {6, 1, 4099, 4099, 4100, 0, false},  {1, 1, 5000, 5000, 5000, 0, true}, {5, 1, 8196, 8196, 8196, 0, false},
      {1, 1, 16384, 16384, 16384, 0, true}};
  for (const NormCase& c : cases) {
    test_norm(device, c);
    test_norm_backward(device, c);
  }
  // more rows than one team can hold partial sums for: chunks get longer
  test_norm_backward(device, {2100, 9, 8, 72, 72, 0, false});
  cuda::rms_norm(device.context(), nullptr, nullptr, 1e-5f, {1, 8, 8, 8}, 0, nullptr, nullptr);
}

// ---- elementwise
// --------------------------------------------------------------------------------------------------------

void test_swiglu(const TestDevice& device, int64_t tokens, int64_t width, int64_t skew) {
  Floats gate_up = random_floats(tokens * 2 * width, 11, 4), d_out = random_floats(tokens * width, 12, 1);
  gate_up[0] = -120;  // exp() overflows there
  Doubles out(tokens * width), d_gate_up(tokens * 2 * width);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < width; ++i) {
      const double g = gate_up[t * 2 * width + i], u = gate_up[(t * 2 + 1) * width + i], d = d_out[t * width + i];
      const double s = 1 / (1 + std::exp(-g));
      out[t * width + i] = g * s * u;
      d_gate_up[t * 2 * width + i] = d * u * s * (1 + g * (1 - s));
      d_gate_up[(t * 2 + 1) * width + i] = d * g * s;
    }
  Skewed d_gu(gate_up, skew), d_o(junk(tokens * width), skew), d_do(d_out, skew), d_dgu(junk(tokens * 2 * width), skew);
  cuda::swiglu(device.context(), d_gu.data(), width, tokens, d_o.data());
  cuda::swiglu_backward(device.context(), d_gu.data(), d_do.data(), width, tokens, d_dgu.data());
  const std::string name = text("swiglu %lld x %lld", static_cast<long long>(tokens), static_cast<long long>(width));
  check_at_most(name, relative_error(d_o.host(), out), 1e-6);
  check_at_most(name + " backward", relative_error(d_dgu.host(), d_gate_up), 1e-6);
}

void test_rope(const TestDevice& device, int64_t tokens, int64_t heads, int64_t head_dim, int64_t ld, int64_t skew) {
  const int64_t half = head_dim / 2, positions = 40;
  const Floats x = random_floats(tokens * ld, 13, 1);
  Floats cosine(positions * half), sine(positions * half);
  for (int64_t i = 0; i < positions * half; ++i) {
    cosine[i] = static_cast<float>(std::cos(0.1 * static_cast<double>(i)));
    sine[i] = static_cast<float>(std::sin(0.1 * static_cast<double>(i)));
  }
  std::vector<int32_t> at(tokens);
  for (int64_t t = 0; t < tokens; ++t) at[t] = static_cast<int32_t>((t * 7 + 3) % positions);
  Doubles want(x.begin(), x.end());
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < half; ++i) {
        const int64_t first = t * ld + h * head_dim + i, second = first + half;
        const double c = cosine[at[t] * half + i], s = sine[at[t] * half + i];
        want[first] = x[first] * c - x[second] * s;
        want[second] = x[second] * c + x[first] * s;
      }
  Skewed d_x(x, skew), d_c(cosine, skew), d_s(sine, skew);
  const DeviceArray<int32_t> d_at(at);
  const auto turn = [&](bool inverse) {
    cuda::rope(device.context(), d_x.data(), ld, heads, head_dim, d_at.data(), tokens, d_c.data(), d_s.data(), inverse);
  };
  const std::string name =
      text("rope %lld heads of %lld", static_cast<long long>(heads), static_cast<long long>(head_dim));
  turn(false);
  check_at_most(name, relative_error(d_x.host(), want), 1e-6);
  turn(true);
  check_at_most(name + " and back", relative_error(d_x.host(), x), 1e-6);
}

void test_rows(const TestDevice& device, int64_t dim) {
  const int64_t rows = 50, count = 70;
  const Floats table = random_floats(rows * dim, 14, 1), d_out = random_floats(count * dim, 15, 1);
  std::vector<int32_t> ids(count);
  for (int64_t t = 0; t < count; ++t) ids[t] = t % 3 == 0 ? 17 : static_cast<int32_t>((t * 31 + 5) % rows);
  Floats gathered(count * dim), summed = table;
  for (int64_t t = 0; t < count; ++t)
    for (int64_t i = 0; i < dim; ++i) {
      gathered[t * dim + i] = table[ids[t] * dim + i];
      summed[ids[t] * dim + i] += d_out[t * dim + i];
    }
  DeviceArray<float> d_table(table), d_gathered(count * dim), d_grad(table);
  const DeviceArray<float> d_d_out(d_out);
  const DeviceArray<int32_t> d_ids(ids);
  const std::string name = text(" of %lld", static_cast<long long>(dim));
  cuda::embed(device.context(), d_table.data(), DType::Float32, d_ids.data(), count, dim, d_gathered.data());
  check_true("embed" + name, same_bits(d_gathered.host(), gathered));
  std::vector<uint16_t> narrow(table.size());
  for (size_t i = 0; i < table.size(); ++i) narrow[i] = float_to_bf16(table[i]);
  Floats widened(gathered.size());
  for (size_t i = 0; i < widened.size(); ++i) widened[i] = bf16_to_float(float_to_bf16(gathered[i]));
  const DeviceArray<uint16_t> d_narrow(narrow);
  cuda::embed(device.context(), d_narrow.data(), DType::BFloat16, d_ids.data(), count, dim, d_gathered.data());
  check_true("embed of bfloat16" + name, same_bits(d_gathered.host(), widened));
  cuda::scatter_add_rows(device.context(), d_d_out.data(), ids.data(), count, dim, d_grad.data());
  check_true("scatter_add_rows" + name + ": repeated rows have the bits of a sum in order",
             same_bits(d_grad.host(), summed));
  cuda::gather_rows(device.context(), d_table.data(), d_ids.data(), count, dim, d_gathered.data());
  check_true("gather_rows" + name, same_bits(d_gathered.host(), gathered));
}

void test_bias(const TestDevice& device, int64_t rows, int64_t cols) {
  const Floats x = random_floats(rows * cols, 16, 1), bias = random_floats(cols, 17, 1);
  Floats added = x;
  Doubles sums(bias.begin(), bias.end());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < cols; ++j) {
      added[r * cols + j] += bias[j];
      sums[j] += x[r * cols + j];
    }
  DeviceArray<float> d_x(x), d_bias(bias), again(bias);
  cuda::bias_backward(device.context(), d_x.data(), rows, cols, again.data());
  const Floats once = again.host();
  again.set(bias);
  cuda::bias_backward(device.context(), d_x.data(), rows, cols, again.data());
  const std::string name = text(" %lld x %lld", static_cast<long long>(rows), static_cast<long long>(cols));
  check_at_most("bias_backward" + name, relative_error(once, sums), 2e-6);
  check_true("bias_backward" + name + ": the same bits twice", same_bits(once, again.host()));
  cuda::add_bias(device.context(), d_x.data(), d_bias.data(), rows, cols);
  check_true("add_bias" + name, same_bits(d_x.host(), added));
}

void test_add(const TestDevice& device, int64_t n, int64_t skew) {
  const Floats x = random_floats(n, 18, 1), y = random_floats(n, 19, 1);
  Floats want = y;
  for (int64_t i = 0; i < n; ++i) want[i] += x[i];
  Skewed d_x(x, skew), d_y(y, skew);
  cuda::add(device.context(), d_x.data(), n, d_y.data());
  check_true(text("add %lld", static_cast<long long>(n)), same_bits(d_y.host(), want));
}

void test_cast(const TestDevice& device, int64_t n) {
  Floats x = random_floats(n, 23, 1);
  x[0] = kInf;
  x[n / 2] = kNan;
  x[n - 1] = 0x1.01p0f;  // halfway: to even, which is below
  std::vector<uint16_t> narrow(n);
  Floats wide(n);
  for (int64_t i = 0; i < n; ++i) {
    narrow[i] = float_to_bf16(x[i]);
    wide[i] = bf16_to_float(narrow[i]);
  }
  const DeviceArray<float> d_x(x);
  DeviceArray<uint16_t> d_narrow(n);
  DeviceArray<float> d_wide(n);
  cuda::cast(device.context(), d_x.data(), DType::Float32, d_narrow.data(), DType::BFloat16, n);
  cuda::cast(device.context(), d_narrow.data(), DType::BFloat16, d_wide.data(), DType::Float32, n);
  bool same = true;
  const std::vector<uint16_t> got = d_narrow.host();
  for (int64_t i = 0; i < n; ++i)
    same = same && (std::isnan(x[i]) ? bf16_to_float(got[i]) != x[i] : got[i] == narrow[i]);
  const std::string name = text(" of %lld", static_cast<long long>(n));
  check_true("cast to bfloat16" + name, same);
  const Floats back = d_wide.host();
  for (int64_t i = 0; i < n; ++i) same = same && difference(back[i], wide[i]) == 0;
  check_true("cast back to float32" + name, same);
}

// The CPU's kernels on the same inputs.
void test_against_cpu(const TestDevice& device) {
  const int64_t tokens = 40, dim = 96;
  const NormShape shape{1, dim, dim, dim};
  const Floats x = random_floats(tokens * dim, 20, 1), dy = random_floats(tokens * dim, 21, 1);
  const Floats weight = random_floats(dim, 22, 1);
  Floats y(x.size()), inv(tokens), dx(x.size()), dw(dim), product(x.size() / 2), d_gu(x.size());
  eepo::rms_norm(x.data(), weight.data(), 1e-6f, shape, tokens, y.data(), inv.data());
  eepo::rms_norm_backward(dy.data(), x.data(), weight.data(), inv.data(), shape, tokens, false, dx.data(), dw.data());
  eepo::swiglu(x.data(), dim / 2, tokens, product.data());
  eepo::swiglu_backward(x.data(), dy.data(), dim / 2, tokens, d_gu.data());
  const DeviceArray<float> d_x(x), d_dy(dy), d_w(weight);
  DeviceArray<float> d_y(tokens * dim), d_inv(tokens), d_dx(tokens * dim), d_dw(Floats(dim, 0.0f));
  DeviceArray<float> d_product(tokens * dim / 2), d_d_gu(tokens * dim);
  cuda::rms_norm(device.context(), d_x.data(), d_w.data(), 1e-6f, shape, tokens, d_y.data(), d_inv.data());
  cuda::rms_norm_backward(device.context(), d_dy.data(), d_x.data(), d_w.data(), d_inv.data(), shape, tokens, false,
                          d_dx.data(), d_dw.data());
  cuda::swiglu(device.context(), d_x.data(), dim / 2, tokens, d_product.data());
  cuda::swiglu_backward(device.context(), d_x.data(), d_dy.data(), dim / 2, tokens, d_d_gu.data());
  check_at_most("rms_norm like the CPU's", relative_error(d_y.host(), y), 1e-6);
  check_at_most("rms_norm_backward like the CPU's, dx", relative_error(d_dx.host(), dx), 2e-6);
  check_at_most("rms_norm_backward like the CPU's, dweight", relative_error(d_dw.host(), dw), 2e-6);
  check_at_most("swiglu like the CPU's", relative_error(d_product.host(), product), 1e-6);
  check_at_most("swiglu_backward like the CPU's", relative_error(d_d_gu.host(), d_gu), 1e-6);
}

}  // namespace

void test_cuda_blocks() {
  const TestDevice device;
  test_norms(device);
  test_swiglu(device, 1, 1, 0);
  test_swiglu(device, 5, 11, 0);
  test_swiglu(device, 3, 1100, 0);
  test_swiglu(device, 17, 64, 1);
  test_rope(device, 1, 1, 2, 2, 0);
  test_rope(device, 9, 3, 6, 20, 0);
  test_rope(device, 33, 5, 64, 448, 0);
  test_rope(device, 7, 9, 128, 1200, 1);
  test_rows(device, 1);
  test_rows(device, 7);
  test_rows(device, 64);
  test_rows(device, 2052);
  test_bias(device, 1, 5);
  test_bias(device, 70'000, 3);  // more rows than grid.y could count
  test_bias(device, 65, 33);
  test_bias(device, 1000, 100);
  for (const int64_t n : {1, 4, 1023, 4096}) test_add(device, n, n == 4096 ? 1 : 0);
  for (const int64_t n : {3, 1023, 4096}) test_cast(device, n);
  test_against_cpu(device);
}

}  // namespace eepo::test
