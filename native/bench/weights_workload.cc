// The kernels that walk over all parameters: ascend, its restore (eta = 0) and AdamW.
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "bench/accuracy.h"
#include "bench/floors.h"
#include "bench/workload.h"

namespace eepo::bench {
namespace {

constexpr double eta = 3e-3;
constexpr AdamW adamw_options{1e-4f, 0.9f, 0.999f, 1e-8f, 0.01f};

/// A model's tensors: an embedding of a quarter of all, then matrices, each followed by a small vector.
std::vector<int64_t> tensor_sizes(int64_t elements) {
  std::vector<int64_t> sizes;
  int64_t left = elements;
  const auto take = [&](int64_t size) {
    const int64_t taken = std::min(left, std::max<int64_t>(16, size / 16 * 16));
    if (taken > 0) sizes.push_back(taken);
    left -= taken;
  };
  take(elements / 4);
  while (left > 0) {
    take(elements / 96);
    take(std::min<int64_t>(2048, elements / 1024));
  }
  return sizes;
}

class WeightsWorkload final : public Workload {
 public:
  WeightsWorkload(Ops& ops, int64_t elements) : Workload(ops), elements_(elements) {
    make_data();
    add({"copy", {}, bytes(8), "B", [this] { copy(stepped_, param_); }});
    if (ops.device() == Device::Cpu)
      add({"read+write", {}, bytes(8), "B", [this] { read_write_all(stepped_.data_ptr(), stepped_.nbytes()); }});
    add_ascend("ascend float32", into_float_, DType::Float32, Rounding::Nearest, 12);
    add_ascend("ascend bfloat16", into_half_, DType::BFloat16, Rounding::Nearest, 10);
    add_ascend("ascend bfloat16 stochastic", into_half_, DType::BFloat16, Rounding::Stochastic, 10);
    add_restore("restore float32", into_float_, DType::Float32, 8);
    add_restore("restore bfloat16", into_half_, DType::BFloat16, 6);
    add_adamw();
  }

 private:
  double bytes(int64_t per_element) const { return static_cast<double>(per_element * elements_); }

  void make_data() {
    for (at::Tensor* tensor : {&param_, &grad_, &square_, &stepped_, &first_moment_, &second_moment_, &into_float_})
      *tensor = ops().empty({elements_}, DType::Float32);
    into_half_ = ops().empty({elements_}, DType::BFloat16);
    param_.normal_(0, 0.02);
    grad_.normal_(0, 0.1);
    square_.copy_(grad_).square_();
    for (const at::Tensor& tensor : {into_float_, into_half_, stepped_}) tensor.zero_();
    reset_adamw();
  }

  void copy(const at::Tensor& to, const at::Tensor& from) {
    if (ops().device() == Device::Cpu)
      copy_all(to.data_ptr(), from.data_ptr(), from.nbytes());
    else
      ops().copy(to.data_ptr(), from.data_ptr(), static_cast<int64_t>(from.nbytes()));
  }

  std::vector<AscendTensor> tensors(const at::Tensor& into, DType dtype, bool with_gradient) const {
    std::vector<AscendTensor> out;
    int64_t at = 0;
    for (const int64_t size : tensor_sizes(elements_)) {
      out.push_back({param_.const_data_ptr<float>() + at, DType::Float32,
                     with_gradient ? grad_.const_data_ptr<float>() + at : nullptr, DType::Float32,
                     static_cast<char*>(into.data_ptr()) + at * static_cast<int64_t>(size_of(dtype)), dtype, size});
      at += size;
    }
    return out;
  }

  /// The largest error of the first and the last elements, relative to max(|exact|, least).
  template <class Exact>
  double error_of(const at::Tensor& got, double least, Exact exact) const {
    const int64_t window = std::min<int64_t>(elements_, int64_t{1} << 22);
    double worst = 0;
    for (const int64_t first : {int64_t{0}, elements_ - window}) {
      const auto of = [&](const at::Tensor& x) { return x.narrow(0, first, window).to(at::kDouble); };
      worst = std::max(worst, elementwise_error(of(got), exact(of), least));
    }
    return worst;
  }

  void add_ascend(const char* name, const at::Tensor& into, DType dtype, Rounding rounding, int64_t per_element) {
    add({name,
         {"copy"},
         bytes(per_element),
         "B",
         [this, rounding, list = tensors(into, dtype, true)] { ops().ascend(list, eta, rounding, 1); },
         nullptr,
         [this, into] {
           return Errors{{"into", error_of(into, 1e-6, [&](auto of) { return of(param_) + of(grad_) * eta; })}};
         }});
  }

  void add_restore(const char* name, const at::Tensor& into, DType dtype, int64_t per_element) {
    add({name,
         {"copy"},
         bytes(per_element),
         "B",
         [this, list = tensors(into, dtype, false)] { ops().ascend(list, 0, Rounding::Nearest, 1); },
         nullptr,
         [this, into] { return Errors{{"into", error_of(into, 1e-6, [&](auto of) { return of(param_); })}}; }});
  }

  void reset_adamw() {
    copy(stepped_, param_);
    copy(first_moment_, grad_);
    copy(second_moment_, square_);
  }

  void add_adamw() {
    add({"adamw",
         {ops().device() == Device::Cpu ? "read+write" : "copy"},
         bytes(28),
         "B",
         [this] {
           ops().adamw(stepped_.data_ptr<float>(), grad_.const_data_ptr<float>(), first_moment_.data_ptr<float>(),
                       second_moment_.data_ptr<float>(), elements_, adamw_options, 10, 0.5f);
         },
         [this] { reset_adamw(); },
         [this] {
           return Errors{{"param", error_of(stepped_, 1e-3, [&](auto of) {
                            const double b1 = adamw_options.beta1, b2 = adamw_options.beta2, lr = adamw_options.lr;
                            const at::Tensor g = of(grad_) * 0.5;
                            const at::Tensor m = (of(grad_) * b1 + g * (1 - b1)) / (1 - std::pow(b1, 10));
                            const at::Tensor v = (of(square_) * b2 + g * g * (1 - b2)) / (1 - std::pow(b2, 10));
                            return of(param_) * (1 - lr * adamw_options.weight_decay) -
                                   m / (v.sqrt() + adamw_options.eps) * lr;
                          })}};
         }});
  }

  int64_t elements_;
  at::Tensor param_, grad_, square_;                   // read only
  at::Tensor stepped_, first_moment_, second_moment_;  // AdamW's
  at::Tensor into_float_, into_half_;                  // ascend's
};

}  // namespace

std::unique_ptr<Workload> weights_workload(Ops& ops, int64_t elements) {
  return std::make_unique<WeightsWorkload>(ops, elements);
}

}  // namespace eepo::bench
