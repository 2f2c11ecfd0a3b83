// The kernels that take logits.
#include <cmath>
#include <limits>
#include <memory>

#include "bench/accuracy.h"
#include "bench/floors.h"
#include "bench/rows.h"
#include "bench/workload.h"
#include "core/threads.h"
#include "kernels/complementary_rule.h"

namespace eepo::bench {
namespace {

constexpr int64_t tokens_per_sequence = 256;
volatile uint64_t sink;

class LogitsWorkload final : public Workload {
 public:
  LogitsWorkload(Ops& ops, const RowOptions& options) : Workload(ops), options_(options) {
    make_data();
    add_floors();
    add_stats();
    add_gradients();
    add_unlearning();
    add_sampling();
  }

 private:
  int64_t rows() const { return options_.rows; }
  int64_t vocab() const { return options_.vocab; }
  bool on_cpu() const { return ops().device() == Device::Cpu; }
  double bytes() const { return static_cast<double>(source_.nbytes()); }
  const char* read_floor() const { return on_cpu() ? "read" : "copy"; }
  const char* write_floor() const { return on_cpu() ? "read+write" : "copy"; }

  at::Tensor floats(int64_t count) { return ops().empty({count}, DType::Float32); }
  at::Tensor on_device(const at::Tensor& host) { return host.to(source_.device()); }

  LogitsView view() const { return {source_.data_ptr(), options_.dtype, rows(), vocab(), vocab()}; }
  /// Rows of the copy that gradients are written over.
  MutableLogitsView scratch(int64_t first, int64_t count) const {
    char* data =
        static_cast<char*>(scratch_.data_ptr()) + first * vocab() * static_cast<int64_t>(size_of(options_.dtype));
    return {data, options_.dtype, count, vocab(), vocab()};
  }
  const int64_t* targets(int64_t first = 0) const { return targets_.const_data_ptr<int64_t>() + first; }

  void make_data() {
    source_ = ops().empty({rows(), vocab()}, options_.dtype);
    scratch_ = ops().empty({rows(), vocab()}, options_.dtype);
    const ZipfRows zipf(vocab());
    zipf.fill(source_);
    host_targets_ = zipf.targets(rows());
    targets_ = on_device(host_targets_);
    for (at::Tensor* out : {&logprob_, &entropy_, &one_minus_p_, &drawn_logprob_, &drawn_entropy_, &a_, &b_, &loss_a_,
                            &loss_logprob_, &loss_one_minus_p_})
      *out = floats(rows());
    tokens_ = ops().empty({rows()}, DType::Int64);
    const Coefficients coefficients(rows());
    ops().upload(a_.data_ptr(), coefficients.a.data(), static_cast<int64_t>(a_.nbytes()));
    ops().upload(b_.data_ptr(), coefficients.b.data(), static_cast<int64_t>(b_.nbytes()));
    while (host_offsets_.back() < rows())
      host_offsets_.push_back(std::min(rows(), host_offsets_.back() + tokens_per_sequence));
    sequences_ = static_cast<int64_t>(host_offsets_.size()) - 1;
    offsets_ = ops().empty({sequences_ + 1}, DType::Int64);
    ops().upload(offsets_.data_ptr(), host_offsets_.data(), static_cast<int64_t>(offsets_.nbytes()));
    for (uint32_t r = 0; r < static_cast<uint32_t>(rows()); ++r) counters_.push_back({r, 0, 0, 0});
    restore();
  }

  void restore() {
    if (on_cpu())
      copy_all(scratch_.data_ptr(), source_.data_ptr(), source_.nbytes());
    else
      ops().copy(scratch_.data_ptr(), source_.data_ptr(), static_cast<int64_t>(source_.nbytes()));
  }

  void add_floors() {
    if (on_cpu()) {
      add({"read", {}, bytes(), "B", [this] { sink = read_all(source_.data_ptr(), source_.nbytes()); }});
      add({"read+write",
           {},
           2 * bytes(),
           "B",
           [this] { read_write_all(scratch_.data_ptr(), scratch_.nbytes()); },
           [this] { restore(); }});
    }
    add({"copy", {}, 2 * bytes(), "B", [this] { restore(); }});
  }

  void stats() {
    ops().token_stats(view(), targets(), 1, logprob_.data_ptr<float>(), entropy_.data_ptr<float>(),
                      one_minus_p_.data_ptr<float>(), nullptr);
  }

  void add_stats() {
    add({"tokenStats",
         {read_floor()},
         bytes(),
         "B",
         [this] { stats(); },
         nullptr,
         [this] {
           const at::Tensor l = logprob_.cpu(), h = entropy_.cpu(), q = one_minus_p_.cpu();
           Errors errors;
           for (const int64_t r : sample_rows(rows())) {
             const ExactRow exact(source_[r], host_targets_[r].item<int64_t>());
             raise(errors, "logprob", absolute_error(l[r].item<double>(), exact.logprob));
             raise(errors, "entropy", absolute_error(h[r].item<double>(), exact.entropy));
             raise(errors, "oneMinusP", relative_error(q[r].item<double>(), exact.one_minus_p));
           }
           return errors;
         }});
  }

  /// `coefficient(row, exact)`: the a that a row's gradient should have.
  template <class Coefficient>
  Errors gradient_errors(Coefficient coefficient, bool with_entropy = false) {
    const at::Tensor b = b_.cpu();
    Errors errors;
    for (const int64_t r : sample_rows(rows())) {
      const int64_t target = host_targets_[r].item<int64_t>();
      const ExactRow exact(source_[r], target);
      const double b_r = with_entropy ? b[r].item<double>() : 0;
      raise(errors, "gradient", relative_error(scratch_[r], exact.gradient(coefficient(r, exact), b_r, target)));
    }
    return errors;
  }

  void add_gradient(const char* name, const float* b) {
    add({name,
         {write_floor()},
         2 * bytes(),
         "B",
         [this, b] { ops().token_grad(scratch(0, rows()), targets(), a_.const_data_ptr<float>(), b, 1, nullptr); },
         [this] { restore(); },
         [this, b] {
           const at::Tensor a = a_.cpu();
           return gradient_errors([&](int64_t r, const ExactRow&) { return a[r].item<double>(); }, b != nullptr);
         }});
  }
  void add_gradients() {
    add_gradient("tokenGrad", nullptr);
    add_gradient("tokenGrad, b", b_.const_data_ptr<float>());
  }

  /// The fused kernel, as `forget` calls it: the gate is known from the entropies recorded when the tokens were drawn,
  /// statistics, coefficients and gradient come out of one pass.
  void unlearn(const at::Tensor& weight) {
    const ComplementaryRows each{
        weight.const_data_ptr<float>(), {}, loss_logprob_.data_ptr<float>(), loss_one_minus_p_.data_ptr<float>()};
    ops().complementary_grad(scratch(0, rows()), targets(), each, 1, nullptr);
  }

  /// From recorded log-probabilities: the loss gives the coefficients before the pass over the logits.
  void unlearn_recorded(const ComplementaryOptions& options) {
    ops().complementary_loss(logprob_.const_data_ptr<float>(), entropy_.const_data_ptr<float>(),
                             one_minus_p_.const_data_ptr<float>(), offsets_.const_data_ptr<int64_t>(), sequences_,
                             rows(), nullptr, nullptr, options, loss_a_.data_ptr<float>(), nullptr);
    ops().token_grad(scratch(0, rows()), targets(), loss_a_.const_data_ptr<float>(), nullptr, 1, nullptr);
  }

  /// The three kernels one after the other, on logits that nothing is known of. On a CPU in pieces that stay in the
  /// caches from the statistics to the gradient; the gate's carry joins them.
  void unlearn_separately(const ComplementaryOptions& options) {
    if (!on_cpu()) {
      stats_of_scratch(0, rows());
      unlearn_recorded(options);
      return;
    }
    const int64_t row_bytes = vocab() * static_cast<int64_t>(size_of(options_.dtype));
    const int64_t piece = std::max<int64_t>(num_threads(), (int64_t{8} << 20) / row_bytes);
    for (int64_t begin = 0; begin < rows(); begin += tokens_per_sequence) {
      const int64_t end = std::min(rows(), begin + tokens_per_sequence);
      const float weight = 1.0f / static_cast<float>(sequences_ * (end - begin));
      std::vector<float> carry(static_cast<size_t>(options.window - 1), std::numeric_limits<float>::quiet_NaN());
      for (int64_t first = begin; first < end; first += piece) {
        const int64_t count = std::min(piece, end - first), offsets[] = {0, count};
        stats_of_scratch(first, count);
        ops().complementary_loss(logprob_.const_data_ptr<float>() + first, entropy_.const_data_ptr<float>() + first,
                                 one_minus_p_.const_data_ptr<float>() + first, offsets, 1, count, &weight, carry.data(),
                                 options, loss_a_.data_ptr<float>() + first, nullptr);
        ops().token_grad(scratch(first, count), targets(first), loss_a_.const_data_ptr<float>() + first, nullptr, 1,
                         nullptr);
      }
    }
  }
  void stats_of_scratch(int64_t first, int64_t count) {
    const MutableLogitsView at = scratch(first, count);
    ops().token_stats({at.data, at.dtype, count, vocab(), vocab()}, targets(first), 1,
                      logprob_.data_ptr<float>() + first, entropy_.data_ptr<float>() + first,
                      one_minus_p_.data_ptr<float>() + first, nullptr);
  }

  /// w_t I_t of every row for this gate threshold, on the device.
  at::Tensor weights(float alpha) {
    const ZipfRows zipf(vocab());
    std::vector<float> entropy, weight;
    for (int64_t r = 0; r < rows(); ++r) entropy.push_back(static_cast<float>(zipf.entropy(r)));
    std::vector<uint8_t> gate(static_cast<size_t>(rows()));
    ComplementaryOptions options;
    options.alpha = alpha;
    entropy_gate(entropy.data(), host_offsets_.data(), sequences_, nullptr, options, gate.data());
    for (const uint8_t open : gate) weight.push_back(open ? 1.0f / static_cast<float>(rows()) : 0.0f);
    at::Tensor out = floats(rows());
    ops().upload(out.data_ptr(), weight.data(), static_cast<int64_t>(out.nbytes()));
    return out;
  }

  /// `weight`: w_t I_t.
  Errors unlearning_errors(const at::Tensor& weight) {
    const at::Tensor host = weight.cpu();
    return gradient_errors([&](int64_t r, const ExactRow& exact) {
      const auto term = complementary_term(exact.logprob, std::exp(exact.logprob), exact.one_minus_p, {});
      return host[r].item<double>() * term.slope;
    });
  }

  void add_unlearning() {
    constexpr float open = std::numeric_limits<float>::infinity();  // every token takes part: the dearest case
    ComplementaryOptions options;
    options.alpha = open;
    const at::Tensor all = weights(open), gated = weights(0.3f);
    const auto add_with = [&](const char* name, const at::Tensor& weight, std::function<void()> work) {
      add({name,
           {write_floor()},
           2 * bytes(),
           "B",
           std::move(work),
           [this] { restore(); },
           [this, weight] { return unlearning_errors(weight); }});
    };
    stats();  // what was recorded
    add_with("unlearn", all, [this, all] { unlearn(all); });
    add_with("unlearn, alpha 0.3", gated, [this, gated] { unlearn(gated); });
    add_with("unlearn, recorded", all, [this, options] { unlearn_recorded(options); });
    add_with("unlearn, three kernels", all, [this, options] { unlearn_separately(options); });
  }

  void add_sampling() {
    const auto add_with = [this](const char* name, int64_t top_k, float top_p) {
      SampleOptions options;
      options.top_k = top_k;
      options.top_p = top_p;
      options.seed = 1;
      add({name,
           {read_floor()},
           bytes(),
           "B",
           [this, options] {
             ops().sample(view(), options, counters_.data(), tokens_.data_ptr<int64_t>(),
                          drawn_logprob_.data_ptr<float>(), drawn_entropy_.data_ptr<float>());
           },
           nullptr,
           [this] { return sample_errors(); }});
    };
    add_with("sample", 0, 1);
    add_with("sample, topK 50", 50, 1);
    add_with("sample, topP 0.95", 0, 0.95f);
  }
  Errors sample_errors() {
    const at::Tensor tokens = tokens_.cpu(), l = drawn_logprob_.cpu(), h = drawn_entropy_.cpu();
    Errors errors;
    for (const int64_t r : sample_rows(rows())) {
      const ExactRow exact(source_[r], tokens[r].item<int64_t>());
      raise(errors, "logprob", absolute_error(l[r].item<double>(), exact.logprob));
      raise(errors, "entropy", absolute_error(h[r].item<double>(), exact.entropy));
    }
    return errors;
  }

  RowOptions options_;
  at::Tensor source_, scratch_;  // the rows, and the copy that gradients overwrite
  at::Tensor host_targets_, targets_, tokens_, logprob_, entropy_, one_minus_p_, drawn_logprob_, drawn_entropy_;
  at::Tensor a_, b_, loss_a_, loss_logprob_, loss_one_minus_p_, offsets_;
  std::vector<int64_t> host_offsets_{0};
  int64_t sequences_ = 0;
  std::vector<PhiloxCounter> counters_;
};

}  // namespace

std::unique_ptr<Workload> logits_workload(Ops& ops, const RowOptions& options) {
  return std::make_unique<LogitsWorkload>(ops, options);
}

}  // namespace eepo::bench
