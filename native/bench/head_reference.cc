#include "bench/head_reference.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace eepo::bench {
namespace {

/// Calls body(head rows in float64) for pieces of the vocabulary, so that [n, piece] stays near 256 MB.
template <class Body>
void in_pieces(const at::Tensor& head, int64_t n, Body body) {
  const int64_t vocab = head.size(0);
  const int64_t piece = std::clamp<int64_t>((int64_t{1} << 25) / std::max<int64_t>(1, n), 256, 8192);
  for (int64_t first = 0; first < vocab; first += piece)
    body(head.narrow(0, first, std::min(piece, vocab - first)).to(at::kDouble));
}

}  // namespace

HeadReference::HeadReference(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                             at::Tensor rows)
    : index(std::move(rows)),
      hidden_(hidden.index_select(0, index).to(at::kDouble)),
      head_(head),
      targets_(targets.index_select(0, index)) {
  const auto options = hidden_.options();
  at::Tensor max = at::full({index.size(0)}, -std::numeric_limits<double>::infinity(), options);
  at::Tensor sum = at::zeros({index.size(0)}, options), weighted = sum.clone();  // of e^(z - max) and z e^(z - max)
  in_pieces(head_, index.size(0), [&](const at::Tensor& head_rows) {
    const at::Tensor z = hidden_.mm(head_rows.t());
    const at::Tensor higher = at::maximum(max, z.amax(1));
    const at::Tensor old = (max - higher).exp(), e = (z - higher.unsqueeze(1)).exp();
    sum = sum * old + e.sum(1);
    weighted = weighted * old + (z * e).sum(1);
    max = higher;
  });
  log_sum_ = max + sum.log();
  entropy = log_sum_ - weighted / sum;
  logprob = (hidden_ * head_.index_select(0, targets_).to(at::kDouble)).sum(1) - log_sum_;
  one_minus_p = logprob.expm1().neg();
}

at::Tensor HeadReference::common_gradient(const at::Tensor& head_rows, const at::Tensor& a, const at::Tensor& b) const {
  const at::Tensor log_p = hidden_.mm(head_rows.t()) - log_sum_.unsqueeze(1);
  return (log_p.exp() * (a.unsqueeze(1) + b.unsqueeze(1) * (log_p + entropy.unsqueeze(1)))).neg();
}

HeadReference::Gradients HeadReference::gradients(const at::Tensor& a, const at::Tensor& b,
                                                  const at::Tensor& columns) const {
  Gradients out;
  out.d_hidden = head_.index_select(0, targets_).to(at::kDouble) * a.unsqueeze(1);
  in_pieces(head_, index.size(0),
            [&](const at::Tensor& head_rows) { out.d_hidden.add_(common_gradient(head_rows, a, b).mm(head_rows)); });
  const at::Tensor hit = (targets_.unsqueeze(1) == columns.unsqueeze(0)).to(at::kDouble);
  const at::Tensor head_rows = head_.index_select(0, columns).to(at::kDouble);
  out.d_head = (common_gradient(head_rows, a, b) + hit * a.unsqueeze(1)).t().mm(hidden_);
  return out;
}

}  // namespace eepo::bench
