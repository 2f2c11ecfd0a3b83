// complementaryLoss alone, on more tokens than fit into the caches.
#include <algorithm>
#include <cmath>
#include <memory>

#include "bench/accuracy.h"
#include "bench/floors.h"
#include "bench/rows.h"
#include "bench/workload.h"

namespace eepo::bench {
namespace {

constexpr int64_t tokens_per_sequence = 512;

class LossWorkload final : public Workload {
 public:
  LossWorkload(Ops& ops, int64_t tokens) : Workload(ops), tokens_(tokens) {
    make_data();
    const double bytes = static_cast<double>(tokens) * 12;  // l and H read, a written
    add({"copy", {}, bytes, "B", [this] { copy(); }});
    add({"complementaryLoss", {"copy"}, bytes, "B", [this] { loss(); }, nullptr, [this] { return errors_of_loss(); }});
  }

 private:
  void make_data() {
    for (int64_t t = 0; t < tokens_; ++t) {  // entropies from 0.1 to 6 nats that last for 8 tokens: a quarter is open
      entropy_.push_back(static_cast<float>(0.1 * std::pow(60.0, spread(t / 8))));
      logprob_.push_back(static_cast<float>(std::log1p(-spread(7 * t + 3)) * entropy_.back() - 1e-4));
      if (t % tokens_per_sequence == 0) offsets_.push_back(t);
    }
    offsets_.push_back(tokens_);
    for (at::Tensor* tensor : {&logprob_device_, &entropy_device_, &a_})
      *tensor = ops().empty({tokens_}, DType::Float32);
    offsets_device_ = ops().empty({static_cast<int64_t>(offsets_.size())}, DType::Int64);
    const auto upload = [this](const at::Tensor& to, const void* host) {
      ops().upload(to.data_ptr(), host, static_cast<int64_t>(to.nbytes()));
    };
    upload(logprob_device_, logprob_.data());
    upload(entropy_device_, entropy_.data());
    upload(offsets_device_, offsets_.data());
    copied_ = ops().empty({tokens_ * 3 / 2}, DType::Float32);
    copied_.zero_();
    loss();
  }

  /// Moves as many bytes as the loss does.
  void copy() {
    const size_t half = static_cast<size_t>(tokens_) * 6 / 2;
    char* data = static_cast<char*>(copied_.data_ptr());
    for (int i = 0; i < 2; ++i) {
      if (ops().device() == Device::Cpu)
        copy_all(data + half, data, half);
      else
        ops().copy(data + half, data, static_cast<int64_t>(half));
    }
  }

  void loss() {
    result_ = ops().complementary_loss(logprob_device_.const_data_ptr<float>(), entropy_device_.const_data_ptr<float>(),
                                       nullptr, offsets_device_.const_data_ptr<int64_t>(),
                                       static_cast<int64_t>(offsets_.size()) - 1, tokens_, nullptr, nullptr, options_,
                                       a_.data_ptr<float>(), nullptr);
  }

  /// The equations in double, straight from kernels/complementary_loss.h.
  Errors errors_of_loss() {
    const at::Tensor a = a_.cpu();
    const float* got = a.const_data_ptr<float>();
    const int64_t sequences = static_cast<int64_t>(offsets_.size()) - 1;
    double total = 0, worst = 0;
    for (int64_t k = 0; k < sequences; ++k) {
      const int64_t begin = offsets_[static_cast<size_t>(k)], end = offsets_[static_cast<size_t>(k) + 1];
      const double weight = 1.0 / (static_cast<double>(sequences) * static_cast<double>(end - begin));
      for (int64_t t = begin; t < end; ++t) {
        const int64_t from = std::max(begin, t - options_.window + 1);
        double mean = 0;
        for (int64_t i = from; i <= t; ++i) mean += entropy_[static_cast<size_t>(i)];
        mean /= static_cast<double>(t - from + 1);
        const double p = std::exp(static_cast<double>(logprob_[static_cast<size_t>(t)]));
        const double low = options_.eps_low, high = 1 - static_cast<double>(options_.eps_high);
        const bool open = mean < options_.alpha;
        if (open) total += weight * std::log1p(-std::clamp(p, low, high));
        const double exact = open && p >= low && p <= high ? weight * p / std::expm1(std::log(p)) : 0;
        if (exact != 0) worst = std::max(worst, relative_error(got[t], exact));
      }
    }
    return {{"loss", relative_error(result_.loss, total)}, {"a", worst}};
  }

  int64_t tokens_;
  ComplementaryOptions options_;
  ComplementaryResult result_;
  std::vector<float> logprob_, entropy_;
  std::vector<int64_t> offsets_;
  at::Tensor logprob_device_, entropy_device_, offsets_device_, a_, copied_;
};

}  // namespace

std::unique_ptr<Workload> loss_workload(Ops& ops, int64_t tokens) {
  return std::make_unique<LossWorkload>(ops, tokens);
}

}  // namespace eepo::bench
