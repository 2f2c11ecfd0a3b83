// tokenStats, tokenGrad and sample for lib/kernels.ts: checks on the JavaScript thread, kernels on the device's.
// What depends on the elements (a target out of range) is checked in the job, in its turn.
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "kernels/linear_head.h"
#include "kernels/sample.h"
#include "kernels/token_grad.h"
#include "kernels/token_stats.h"
#include "node/arguments.h"
#include "node/async.h"
#include "node/edge.h"
#include "node/tensor.h"
#include "node/unlearning_binding.h"

namespace eepo::node {
namespace {

// A kernel call between two looks at the CancelToken reads about this many logits (some milliseconds).
constexpr int64_t logits_per_check = int64_t{1} << 24;

/// What the statistics are of: logits [rows, cols], or hidden [rows, dim] and head [cols, dim].
struct Input {
  at::Tensor logits, hidden, head;
  int64_t rows = 0, cols = 0;

  bool fused() const { return !logits.defined(); }
};

Input input_argument(Napi::Value logits, Napi::Value hidden, Napi::Value head) {
  Input input;
  if (!logits.IsUndefined() && !logits.IsNull()) {
    input.logits = unwrap_tensor(logits, "logits");
    require_rank(input.logits, "logits", 2, "[rows, vocab]");
    require_real(input.logits, "logits");
    input.rows = input.logits.size(0);
    input.cols = input.logits.size(1);
  } else {
    input.hidden = unwrap_tensor(hidden, "hidden");
    input.head = unwrap_tensor(head, "head");
    require_rank(input.hidden, "hidden", 2, "[rows, dim]");
    require_rank(input.head, "head", 2, "[vocab, dim]");
    require_real(input.hidden, "hidden");
    require_real(input.head, "head");
    check(input.hidden.size(1) == input.head.size(1), ErrorCode::InvalidArgument, "hidden ",
          shape_string(input.hidden.sizes()), " and head ", shape_string(input.head.sizes()),
          " must have the same second size");
    input.rows = input.hidden.size(0);
    input.cols = input.head.size(0);
  }
  check(input.rows == 0 || input.cols > 0, ErrorCode::InvalidArgument, input.fused() ? "head" : "logits",
        " must have at least one vocabulary entry");
  return input;
}

at::Tensor targets_argument(Napi::Value value, int64_t rows) {
  at::Tensor targets = unwrap_tensor(value, "targets");
  require_dtype(targets, "targets", DType::Int64);
  require_length(targets, "targets", rows, "row");
  return targets;
}

/// Dense targets, all in range.
at::Tensor checked_targets(const at::Tensor& targets, int64_t cols) {
  at::Tensor dense = targets.contiguous();
  const int64_t* target = dense.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < dense.numel(); ++row) {
    check(target[row] >= 0 && target[row] < cols, ErrorCode::InvalidArgument, "targets[", row, "] is ", target[row],
          ", outside the vocabulary 0..", cols - 1);
  }
  return dense;
}

at::Tensor coefficients_argument(Napi::Value value, const char* name, int64_t rows) {
  at::Tensor coefficients = unwrap_optional_tensor(value, name);
  if (!coefficients.defined()) return coefficients;
  require_dtype(coefficients, name, DType::Float32);
  require_length(coefficients, name, rows, "row");
  return coefficients;
}

/// A tensor whose rows are dense; itself if they are.
at::Tensor with_dense_rows(const at::Tensor& matrix) {
  const bool dense = matrix.size(1) <= 1 || matrix.stride(1) == 1;
  const bool forward = matrix.size(0) <= 1 || matrix.stride(0) >= matrix.size(1);
  return dense && forward ? matrix : matrix.contiguous();
}

int64_t row_stride(const at::Tensor& matrix) { return matrix.size(0) <= 1 ? matrix.size(1) : matrix.stride(0); }

void* row_pointer(const at::Tensor& matrix, int64_t row) {
  return static_cast<char*>(matrix.data_ptr()) + row * row_stride(matrix) * matrix.element_size();
}

/// Calls body(first row, rows) for pieces of `rows`, looking at the token in between.
template <class Body>
void in_pieces(int64_t rows, int64_t cols, const CancelToken& cancel, Body body) {
  const int64_t step = std::max<int64_t>(1, logits_per_check / std::max<int64_t>(1, cols));
  for (int64_t row = 0; row < rows; row += step) {
    cancel.check();
    body(row, std::min(step, rows - row));
  }
}

at::Tensor dense_float(const at::Tensor& tensor) { return tensor.to(at::kFloat).contiguous(); }

using Tensors = std::vector<at::Tensor>;

Napi::Value wrap_tensors(Napi::Env env, Tensors tensors) {
  Napi::Array result = Napi::Array::New(env, tensors.size());
  for (uint32_t i = 0; i < tensors.size(); ++i) result.Set(i, wrap_tensor(env, std::move(tensors[i])));
  return result;
}

Tensors stats_of(const Input& input, const at::Tensor& raw_targets, float temperature, const CancelToken& cancel) {
  const at::Tensor targets = checked_targets(raw_targets, input.cols);
  Tensors out;
  for (int i = 0; i < 3; ++i) out.push_back(new_tensor({input.rows}, DType::Float32));
  if (input.rows == 0) return out;
  const int64_t* target = targets.const_data_ptr<int64_t>();
  float* logprob = out[0].data_ptr<float>();
  float* entropy = out[1].data_ptr<float>();
  float* one_minus_p = out[2].data_ptr<float>();
  if (input.fused()) {
    const at::Tensor hidden = dense_float(input.hidden), head = dense_float(input.head);
    linear_token_stats(hidden.const_data_ptr<float>(), head.const_data_ptr<float>(), input.rows, hidden.size(1),
                       input.cols, target, temperature, logprob, entropy, one_minus_p, &cancel);
    return out;
  }
  const at::Tensor logits = with_dense_rows(input.logits);
  const DType dtype = dtype_of(logits, "logits");
  in_pieces(input.rows, input.cols, cancel, [&](int64_t row, int64_t rows) {
    const LogitsView view{row_pointer(logits, row), dtype, rows, input.cols, row_stride(logits)};
    token_stats(view, target + row, temperature, logprob + row, entropy + row, one_minus_p + row);
  });
  return out;
}

/// tokenStats(logits?, hidden?, head?, targets, temperature, signal) -> [logprob, entropy, oneMinusP]
Napi::Value token_stats_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Input input = input_argument(info[0], info[1], info[2]);
    const at::Tensor targets = targets_argument(info[3], input.rows);
    const float temperature = temperature_argument(info[4]);
    return run(
        info.Env(), Device::Cpu, info[5],
        [=](const CancelToken& cancel) { return stats_of(input, targets, temperature, cancel); }, wrap_tensors);
  });
}

struct Coefficients {
  at::Tensor a, b;

  const float* a_at(int64_t row) const { return a.const_data_ptr<float>() + row; }
  const float* b_at(int64_t row) const { return b.defined() ? b.const_data_ptr<float>() + row : nullptr; }
};

void logits_gradient(const Input& input, const at::Tensor& targets, const Coefficients& coefficients, float temperature,
                     const CancelToken& cancel) {
  const at::Tensor logits = with_dense_rows(input.logits);
  const DType dtype = dtype_of(logits, "logits");
  const int64_t* target = targets.const_data_ptr<int64_t>();
  in_pieces(input.rows, input.cols, cancel, [&](int64_t row, int64_t rows) {
    const MutableLogitsView view{row_pointer(logits, row), dtype, rows, input.cols, row_stride(logits)};
    token_grad(view, target + row, coefficients.a_at(row), coefficients.b_at(row), temperature);
  });
  if (!logits.is_same(input.logits)) input.logits.copy_(logits);
}

Tensors head_gradients(const Input& input, const at::Tensor& targets, const Coefficients& coefficients,
                       float temperature, const CancelToken& cancel) {
  const at::Tensor hidden = dense_float(input.hidden), head = dense_float(input.head);
  const int64_t dim = hidden.size(1);
  Tensors out{new_tensor({input.rows, dim}, DType::Float32), new_tensor({input.cols, dim}, DType::Float32)};
  if (out[1].nbytes() > 0) std::memset(out[1].data_ptr(), 0, out[1].nbytes());
  if (input.rows > 0) {
    linear_token_grad(hidden.const_data_ptr<float>(), head.const_data_ptr<float>(), input.rows, dim, input.cols,
                      targets.const_data_ptr<int64_t>(), coefficients.a_at(0), coefficients.b_at(0), temperature,
                      out[0].data_ptr<float>(), out[1].data_ptr<float>(), &cancel);
  }
  return out;
}

/// tokenGrad(logits?, hidden?, head?, targets, a, b?, temperature, signal) -> [] (in place) or [dHidden, dHead]
Napi::Value token_grad_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Input input = input_argument(info[0], info[1], info[2]);
    const at::Tensor targets = targets_argument(info[3], input.rows);
    const at::Tensor a = coefficients_argument(info[4], "a", input.rows);
    check(a.defined(), ErrorCode::InvalidArgument, "a must be given: dL/dl of every row");
    const at::Tensor b = coefficients_argument(info[5], "b", input.rows);
    const float temperature = temperature_argument(info[6]);
    return run(
        info.Env(), Device::Cpu, info[7],
        [=](const CancelToken& cancel) {
          const at::Tensor checked = checked_targets(targets, input.cols);
          const Coefficients coefficients{a.contiguous(), b.defined() ? b.contiguous() : b};
          if (input.fused()) return head_gradients(input, checked, coefficients, temperature, cancel);
          logits_gradient(input, checked, coefficients, temperature, cancel);
          return Tensors{};
        },
        wrap_tensors);
  });
}

/// One counter per row: 4 words each from a Uint32Array, or (row, 0, 0, 0).
std::vector<PhiloxCounter> counters_argument(Napi::Value value, int64_t rows) {
  std::vector<PhiloxCounter> counters(static_cast<size_t>(rows));
  if (value.IsUndefined() || value.IsNull()) {
    for (int64_t row = 0; row < rows; ++row) counters[row] = {static_cast<uint32_t>(row), 0, 0, 0};
    return counters;
  }
  check(value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == napi_uint32_array,
        ErrorCode::InvalidArgument, "counters must be four 32-bit numbers per row");
  const Napi::Uint32Array words = value.As<Napi::Uint32Array>();
  check(words.ElementLength() == counters.size() * 4, ErrorCode::InvalidArgument, "counters must have ", rows,
        " entries, one per row of logits, got ", words.ElementLength() / 4);
  if (rows > 0) std::memcpy(counters.data(), words.Data(), words.ByteLength());
  return counters;
}

/// sample(logits, temperature, topK, topP, seed, counters?, signal) -> [tokens, logprob, entropy]
Napi::Value sample_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Napi::Value none = info.Env().Undefined();
    check(!info[0].IsUndefined() && !info[0].IsNull(), ErrorCode::InvalidArgument, "logits must be a Tensor");
    const Input input = input_argument(info[0], none, none);
    SampleOptions options;
    options.temperature = temperature_argument(info[1], true);
    options.top_k = integer_argument(info[2], "topK", 0);
    const double top_p = number_argument(info[3], "topP");
    check(top_p > 0 && top_p <= 1, ErrorCode::InvalidArgument, "topP must be in (0, 1], got ", top_p);
    options.top_p = static_cast<float>(top_p);
    options.seed = seed_argument(info[4]);
    std::vector<PhiloxCounter> counters = counters_argument(info[5], input.rows);
    return run(
        info.Env(), Device::Cpu, info[6],
        [input, options, counters = std::move(counters)](const CancelToken&) {
          Tensors out{new_tensor({input.rows}, DType::Int64), new_tensor({input.rows}, DType::Float32),
                      new_tensor({input.rows}, DType::Float32)};
          if (input.rows == 0) return out;
          const at::Tensor logits = with_dense_rows(input.logits);
          // Not in pieces: an error names the row.
          const LogitsView view{logits.data_ptr(), dtype_of(logits, "logits"), input.rows, input.cols,
                                row_stride(logits)};
          sample(view, options, counters.data(), out[0].data_ptr<int64_t>(), out[1].data_ptr<float>(),
                 out[2].data_ptr<float>());
          return out;
        },
        wrap_tensors);
  });
}

}  // namespace

void register_kernels(Napi::Env env, Napi::Object exports) {
  exports.Set("tokenStats", Napi::Function::New(env, token_stats_js, "tokenStats"));
  exports.Set("tokenGrad", Napi::Function::New(env, token_grad_js, "tokenGrad"));
  exports.Set("sample", Napi::Function::New(env, sample_js, "sample"));
  register_unlearning(env, exports);
}

}  // namespace eepo::node
