// What a call on rows of logits gets from JavaScript, shared by the bindings of those kernels: the input (logits, or
// hidden states and a head), targets, coefficients. Internal to native/node.
#pragma once

#include <ATen/core/Tensor.h>
#include <napi.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/cancel.h"
#include "core/error.h"
#include "device/ops.h"
#include "node/tensor.h"

namespace eepo::node {

/// What the statistics are of: logits [rows, cols], or hidden [rows, dim] and head [cols, dim].
struct Input {
  at::Tensor logits, hidden, head;
  int64_t rows = 0, cols = 0;

  bool fused() const { return !logits.defined(); }
  Device device() const { return tensor_device(fused() ? hidden : logits); }
};

Input input_argument(Napi::Value logits, Napi::Value hidden, Napi::Value head);

/// int64, one per row.
at::Tensor targets_argument(Napi::Value value, int64_t rows);

/// Targets where the kernels want them. On the host they are checked before anything starts; those that already are on
/// the GPU are checked by the kernel, which costs a wait: `check_after` throws for the first bad one.
class Targets {
 public:
  Targets(Ops& ops, const at::Tensor& raw, int64_t cols) : ops_(ops), cols_(cols) {
    if (tensor_device(raw) == Device::Cpu) {
      const at::Tensor dense = raw.contiguous();
      const int64_t* target = dense.const_data_ptr<int64_t>();
      for (int64_t row = 0; row < dense.numel(); ++row) require(row, target[row]);
      targets_ = bring_to(ops.device(), dense);
      return;
    }
    targets_ = bring_to(ops.device(), raw);
    if (ops.device() == Device::Cpu) return;
    bad_row_ = ops.empty({1}, DType::Int64);
    ops.upload(bad_row_.data_ptr(), &none_, sizeof(none_));
  }

  const int64_t* data() const { return targets_.const_data_ptr<int64_t>(); }
  int64_t* bad_row() { return bad_row_.defined() ? bad_row_.data_ptr<int64_t>() : nullptr; }

  void check_after() {
    if (!bad_row_.defined()) return;
    int64_t row = none_, target = 0;
    ops_.download(&row, bad_row_.data_ptr(), sizeof(row));
    if (row == none_) return;
    ops_.download(&target, data() + row, sizeof(target));
    require(row, target);
  }

 private:
  void require(int64_t row, int64_t target) const {
    check(target >= 0 && target < cols_, ErrorCode::InvalidArgument, "targets[", row, "] is ", target,
          ", outside the vocabulary 0..", cols_ - 1);
  }

  static constexpr int64_t none_ = std::numeric_limits<int64_t>::max();
  Ops& ops_;
  int64_t cols_;
  at::Tensor targets_, bad_row_;
};

/// float32, one per row; undefined where it is not given.
at::Tensor coefficients_argument(Napi::Value value, const char* name, int64_t rows);

/// A tensor whose rows are dense; itself if they are.
at::Tensor with_dense_rows(const at::Tensor& matrix);

/// Elements between its rows, and where a row begins.
int64_t row_stride(const at::Tensor& matrix);
void* row_pointer(const at::Tensor& matrix, int64_t row);

/// Calls body(first row, rows) for pieces of `rows`, looking at the token in between. On the GPU there is one piece: it
/// is queued in microseconds, and a bad target's row counts from the first.
template <class Body>
void in_pieces(const Ops& ops, int64_t rows, int64_t cols, const CancelToken& cancel, Body body) {
  if (ops.device() != Device::Cpu) return body(0, rows);
  // A kernel call between two looks reads about this many logits (some milliseconds).
  constexpr int64_t logits_per_check = int64_t{1} << 24;
  const int64_t step = std::max<int64_t>(1, logits_per_check / std::max<int64_t>(1, cols));
  for (int64_t row = 0; row < rows; row += step) {
    cancel.check();
    body(row, std::min(step, rows - row));
  }
}

/// hidden and head as the device's products want them: float32 on the CPU; on the GPU one dtype, theirs if they agree.
struct Head {
  at::Tensor hidden, head;
  LinearHead view;

  Head(Ops& ops, const Input& input);
};

using Tensors = std::vector<at::Tensor>;

/// An array of handles.
Napi::Value wrap_tensors(Napi::Env env, Tensors tensors);

}  // namespace eepo::node
