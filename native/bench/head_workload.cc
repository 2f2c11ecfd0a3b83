// The kernels that take hidden states and a head, against the bare matrix products.
//
// head [vocab, dim] and hidden [rows, dim] are noise but for their first dimensions: each holds the order of the tokens
// of one kind of row, and a row has its exponent in one of them, so that the products are rows as in rows.h, with some
// noise on every logit.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <memory>

#include "bench/accuracy.h"
#include "bench/head_reference.h"
#include "bench/rows.h"
#include "bench/workload.h"

namespace eepo::bench {
namespace {

constexpr int64_t planted_dims = 8;
constexpr int64_t most_rows_of_products = 4096;               // the bare products' [rows, vocab] must fit into memory
constexpr double most_flops_of_reference[] = {1e12, 1.1e13};  // of one float64 product on a CPU, on a GPU

class HeadWorkload final : public Workload {
 public:
  HeadWorkload(Ops& ops, const HeadOptions& options) : Workload(ops), options_(options) {
    check(options.dim > planted_dims, ErrorCode::InvalidArgument, "dim must be more than ", planted_dims, ", got ",
          options.dim);
    make_data();
    add_floors();
    add_stats();
    add_gradients();
    add_unlearning();
  }

 private:
  int64_t rows() const { return options_.rows; }
  int64_t dim() const { return options_.dim; }
  int64_t vocab() const { return options_.vocab; }
  bool ours() const { return options_.dtype == DType::Float32; }
  double flops(int64_t products, int64_t active) const {
    return 2.0 * static_cast<double>(products) * static_cast<double>(active) * static_cast<double>(vocab()) *
           static_cast<double>(dim());
  }
  LinearHead head() const { return {hidden_.data_ptr(), head_.data_ptr(), options_.dtype, rows(), dim(), vocab()}; }
  const int64_t* targets() const { return targets_.const_data_ptr<int64_t>(); }

  void make_data() {
    const ZipfRows zipf(vocab(), planted_dims);
    hidden_ = ops().empty({rows(), dim()}, options_.dtype);
    head_ = ops().empty({vocab(), dim()}, options_.dtype);
    // Standard deviation of the noise: 0.029 in the head, 0.3 in a logit.
    head_.uniform_(-0.05, 0.05);
    const double width = 0.3 / (std::sqrt(static_cast<double>(dim()) / 9) * 0.05);
    hidden_.uniform_(-width, width);
    const at::Tensor table = zipf.log_ranks().to(head_.device());
    for (int64_t k = 0; k < planted_dims; ++k) head_.select(1, k).copy_(table.narrow(0, zipf.turn(k), vocab()).neg());
    at::Tensor planted = at::zeros({rows(), planted_dims});
    for (int64_t r = 0; r < rows(); ++r) planted[r][r % planted_dims] = zipf.exponent(r);
    hidden_.narrow(1, 0, planted_dims).copy_(planted);

    targets_ = zipf.targets(rows()).to(head_.device());
    for (at::Tensor* out : {&logprob_, &entropy_, &one_minus_p_}) *out = ops().empty({rows()}, DType::Float32);
    const Coefficients all(rows());
    a_ = all.a;
    b_ = all.b;
    const int64_t period = std::max<int64_t>(1, std::llround(1 / options_.active));
    for (int64_t r = 0; r < rows(); ++r) {  // active rows lie between others, as open tokens do
      some_a_.push_back(r % period == 0 ? a_[static_cast<size_t>(r)] : 0.0f);
      active_ += r % period == 0;
    }
    host_logprob_.resize(static_cast<size_t>(rows()));
    host_one_minus_p_.resize(static_cast<size_t>(rows()));
    d_hidden_ = ops().empty({rows(), dim()}, DType::Float32);
    d_head_ = ops().empty({vocab(), dim()}, DType::Float32);
    clear();
  }

  void clear() { ops().zero(d_head_.data_ptr(), static_cast<int64_t>(d_head_.nbytes())); }

  /// Calls body(hidden, logits, d_hidden) for pieces of rows, in the products' dtype.
  template <class Body>
  void in_pieces(Body body) {
    const int64_t piece = std::min(rows(), most_rows_of_products);
    if (!products_.defined()) {
      products_ = ops().empty({piece, vocab()}, options_.dtype);
      products_.uniform_(-1e-3, 1e-3);
      bare_d_hidden_ = ours() ? d_hidden_ : ops().empty({rows(), dim()}, options_.dtype);
      bare_d_head_ = ours() ? d_head_ : ops().empty({vocab(), dim()}, options_.dtype);
      bare_d_head_.zero_();
    }
    for (int64_t first = 0; first < rows(); first += piece) {
      const int64_t count = std::min(piece, rows() - first);
      body(hidden_.narrow(0, first, count), products_.narrow(0, 0, count), bare_d_hidden_.narrow(0, first, count));
    }
  }

  void vendor_products(bool gradients) {
    in_pieces([&](const at::Tensor& hidden, at::Tensor logits, at::Tensor d_hidden) {
      at::mm_out(logits, hidden, head_.t());
      if (!gradients) return;
      at::mm_out(d_hidden, logits, head_);
      bare_d_head_.addmm_(logits.t(), hidden);
    });
  }

  void own_products(bool gradients) {
    in_pieces([&](const at::Tensor& hidden, const at::Tensor& logits, const at::Tensor& d_hidden) {
      const int64_t n = hidden.size(0);
      const float *h = hidden.const_data_ptr<float>(), *w = head_.const_data_ptr<float>();
      float* z = logits.data_ptr<float>();
      ops().gemm(Op::None, Op::Transpose, n, vocab(), dim(), 1, h, dim(), w, dim(), 0, z, vocab());
      if (!gradients) return;
      ops().gemm(Op::None, Op::None, n, dim(), vocab(), 1, z, vocab(), w, dim(), 0, d_hidden.data_ptr<float>(), dim());
      ops().gemm(Op::Transpose, Op::None, vocab(), dim(), n, 1, z, vocab(), h, dim(), 1, bare_d_head_.data_ptr<float>(),
                 dim());
    });
  }

  void add_floors() {
    const auto warm = [this] { in_pieces([](const at::Tensor&, const at::Tensor&, const at::Tensor&) {}); };
    add({"mm forward", {}, flops(1, rows()), "FLOP", [this] { vendor_products(false); }, warm});
    add({"mm gradients", {}, flops(3, rows()), "FLOP", [this] { vendor_products(true); }, warm});
    if (!ours()) return;
    add({"own mm forward", {}, flops(1, rows()), "FLOP", [this] { own_products(false); }, warm});
    add({"own mm gradients", {}, flops(3, rows()), "FLOP", [this] { own_products(true); }, warm});
  }
  std::vector<std::string> floors(const std::string& what) const {
    return ours() ? std::vector{"mm " + what, "own mm " + what} : std::vector{"mm " + what};
  }

  void add_stats() {
    add({"tokenStats", floors("forward"), flops(1, rows()), "FLOP",
         [this] {
           ops().linear_token_stats(head(), targets(), 1, logprob_.data_ptr<float>(), entropy_.data_ptr<float>(),
                                    one_minus_p_.data_ptr<float>(), nullptr);
         },
         nullptr, [this] { return stats_errors(); }});
  }

  void add_gradients() {
    const auto add_with = [this](const char* name, const std::vector<float>& a, const float* b, int64_t active) {
      const float* host_a = a.data();
      add({name, floors("gradients"), flops(3, active), "FLOP",
           [this, host_a, b] {
             ops().linear_token_grad(head(), targets(), host_a, b, 1, d_hidden_.data_ptr<float>(),
                                     d_head_.data_ptr<float>(), nullptr);
           },
           [this] { clear(); }, [this, host_a, b] { return gradient_errors(host_a, b); }});
    };
    add_with("tokenGrad", a_, nullptr, rows());
    add_with("tokenGrad, b", a_, b_.data(), rows());
    add_with("tokenGrad, some active", some_a_, nullptr, active_);
  }

  /// The unlearning loss and its gradient from one product; every row takes part, or some.
  void add_unlearning() {
    const float weight = 1.0f / static_cast<float>(rows());
    for (const float a : some_a_) some_weight_.push_back(a != 0 ? weight : 0.0f);
    weight_.assign(static_cast<size_t>(rows()), weight);
    const auto add_with = [this](const char* name, const std::vector<float>& weight, int64_t active) {
      add({name, floors("gradients"), flops(3, active), "FLOP",
           [this, &weight] {
             ops().linear_complementary_grad(head(), targets(), weight.data(), {}, 1, host_logprob_.data(),
                                             host_one_minus_p_.data(), d_hidden_.data_ptr<float>(),
                                             d_head_.data_ptr<float>(), nullptr);
           },
           [this] { clear(); }, [this, &weight] { return unlearning_errors(weight); }});
    };
    add_with("unlearn", weight_, rows());
    add_with("unlearn, some active", some_weight_, active_);
  }

  /// The rows that are compared: all, unless float64 products of all would take too long here.
  HeadReference reference() {
    const bool all = flops(1, rows()) <= most_flops_of_reference[ops().device() == Device::Cpu ? 0 : 1];
    return {hidden_, head_, targets_, all ? at::arange(rows(), targets_.options()) : index_of(sample_rows(rows(), 16))};
  }
  at::Tensor index_of(const std::vector<int64_t>& rows) {
    at::Tensor index = ops().empty({static_cast<int64_t>(rows.size())}, DType::Int64);
    ops().upload(index.data_ptr(), rows.data(), static_cast<int64_t>(index.nbytes()));
    return index;
  }

  Errors stats_errors() {
    const HeadReference exact = reference();
    const auto taken = [&](const at::Tensor& x) { return x.index_select(0, exact.index); };
    return {{"logprob", absolute_error(taken(logprob_), exact.logprob)},
            {"entropy", absolute_error(taken(entropy_), exact.entropy)},
            {"oneMinusP", elementwise_error(taken(one_minus_p_), exact.one_minus_p)}};
  }

  /// A vector of the host's for the rows that are compared, in float64.
  at::Tensor compared(const float* host, const HeadReference& exact) {
    at::Tensor all = ops().empty({rows()}, DType::Float32);
    ops().upload(all.data_ptr(), host, static_cast<int64_t>(all.nbytes()));
    return all.index_select(0, exact.index).to(at::kDouble);
  }

  Errors gradient_errors(const float* host_a, const float* host_b) {
    const HeadReference exact = reference();
    const at::Tensor a = compared(host_a, exact);
    return gradient_errors(exact, a, host_b ? compared(host_b, exact) : at::zeros_like(a));
  }

  Errors unlearning_errors(const std::vector<float>& weight) {
    const HeadReference exact = reference();
    const at::Tensor p = exact.logprob.exp(), q = exact.one_minus_p;
    const ComplementaryOptions options;
    const at::Tensor inside = (p >= options.eps_low).logical_and(q >= options.eps_high).to(at::kDouble);
    const at::Tensor a = compared(weight.data(), exact) * inside * p.neg() / q;
    return gradient_errors(exact, a, at::zeros_like(a));
  }

  Errors gradient_errors(const HeadReference& exact, const at::Tensor& a, const at::Tensor& b) {
    // Columns of d_head: some drawn tokens, and some that are nobody's target.
    const at::Tensor drawn = targets_.index_select(0, index_of(sample_rows(rows(), 32)));
    const at::Tensor columns = at::cat({drawn, index_of(sample_rows(vocab(), 32))});
    const auto gradients = exact.gradients(a, b, columns);
    Errors errors{{"dHidden", relative_error(d_hidden_.index_select(0, exact.index), gradients.d_hidden)}};
    if (exact.index.size(0) == rows())
      errors["dHead"] = relative_error(d_head_.index_select(0, columns), gradients.d_head);
    return errors;
  }

  HeadOptions options_;
  at::Tensor hidden_, head_, targets_, logprob_, entropy_, one_minus_p_;
  at::Tensor d_hidden_, d_head_;                       // float32
  at::Tensor products_, bare_d_hidden_, bare_d_head_;  // of the bare products
  std::vector<float> a_, b_, some_a_, weight_, some_weight_;
  std::vector<float> host_logprob_, host_one_minus_p_;  // what unlearn sees on the way
  int64_t active_ = 0;
};

}  // namespace

std::unique_ptr<Workload> head_workload(Ops& ops, const HeadOptions& options) {
  return std::make_unique<HeadWorkload>(ops, options);
}

}  // namespace eepo::bench
