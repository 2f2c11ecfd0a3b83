// tokenStats, tokenGrad and sample for lib/kernels.ts: checks on the JavaScript thread, kernels on the device's.
// What depends on the elements (a target out of range) is checked in the job, in its turn.
#include <ATen/core/Tensor.h>

#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "core/error.h"
#include "device/ops.h"
#include "kernels/sample_options.h"
#include "node/arguments.h"
#include "node/async.h"
#include "node/edge.h"
#include "node/row_input.h"
#include "node/tensor.h"
#include "node/unlearning_binding.h"

namespace eepo::node {
namespace {
Tensors stats_of(const Input& input, const at::Tensor& raw_targets, float temperature, const CancelToken& cancel) {
  Ops& ops = ops_of(input.device());
  // With a head, rows come in chunks, and a bad one could not be named: looked at on the host.
  Targets targets(ops, input.fused() ? bring_to(Device::Cpu, raw_targets) : raw_targets, input.cols);
  Tensors out;
  for (int i = 0; i < 3; ++i) out.push_back(new_tensor_on(ops.device(), {input.rows}, DType::Float32));
  if (input.rows == 0) return out;
  const int64_t* target = targets.data();
  float* logprob = out[0].data_ptr<float>();
  float* entropy = out[1].data_ptr<float>();
  float* one_minus_p = out[2].data_ptr<float>();
  if (input.fused()) {
    const Head head(ops, input);
    ops.linear_token_stats(head.view, target, temperature, logprob, entropy, one_minus_p, &cancel);
  } else {
    const at::Tensor logits = with_dense_rows(input.logits);
    const DType dtype = dtype_of(logits, "logits");
    in_pieces(ops, input.rows, input.cols, cancel, [&](int64_t row, int64_t rows) {
      const LogitsView view{row_pointer(logits, row), dtype, rows, input.cols, row_stride(logits)};
      ops.token_stats(view, target + row, temperature, logprob + row, entropy + row, one_minus_p + row,
                      targets.bad_row());
    });
  }
  targets.check_after();
  return out;
}

/// tokenStats(logits?, hidden?, head?, targets, temperature, signal) -> [logprob, entropy, oneMinusP]
Napi::Value token_stats_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Input input = input_argument(info[0], info[1], info[2]);
    const at::Tensor targets = targets_argument(info[3], input.rows);
    const float temperature = temperature_argument(info[4]);
    return run(
        info.Env(), input.device(), info[5],
        [=](const CancelToken& cancel) { return stats_of(input, targets, temperature, cancel); }, wrap_tensors);
  });
}

struct Coefficients {
  at::Tensor a, b;

  Coefficients on(Device device) const { return {bring_to(device, a), b.defined() ? bring_to(device, b) : b}; }
  const float* a_at(int64_t row) const { return a.const_data_ptr<float>() + row; }
  const float* b_at(int64_t row) const { return b.defined() ? b.const_data_ptr<float>() + row : nullptr; }
};

void logits_gradient(const Input& input, const at::Tensor& raw_targets, const Coefficients& given, float temperature,
                     const CancelToken& cancel) {
  Ops& ops = ops_of(input.device());
  // Looked at on the host before anything is written in place.
  Targets targets(ops, bring_to(Device::Cpu, raw_targets), input.cols);
  const Coefficients coefficients = given.on(ops.device());
  const at::Tensor logits = with_dense_rows(input.logits);
  const DType dtype = dtype_of(logits, "logits");
  in_pieces(ops, input.rows, input.cols, cancel, [&](int64_t row, int64_t rows) {
    const MutableLogitsView view{row_pointer(logits, row), dtype, rows, input.cols, row_stride(logits)};
    ops.token_grad(view, targets.data() + row, coefficients.a_at(row), coefficients.b_at(row), temperature, nullptr);
  });
  if (!logits.is_same(input.logits)) input.logits.copy_(logits);
}

Tensors head_gradients(const Input& input, const at::Tensor& raw_targets, const Coefficients& given, float temperature,
                       const CancelToken& cancel) {
  Ops& ops = ops_of(input.device());
  // Looked at on the host: rows that matter are picked there, so their targets and coefficients must be known there.
  Targets targets(ops, bring_to(Device::Cpu, raw_targets), input.cols);
  const Coefficients coefficients = given.on(Device::Cpu);
  const Head head(ops, input);
  Tensors out{new_tensor_on(ops.device(), {input.rows, head.view.dim}, DType::Float32),
              new_tensor_on(ops.device(), {input.cols, head.view.dim}, DType::Float32)};
  if (out[1].nbytes() > 0) ops.zero(out[1].data_ptr(), static_cast<int64_t>(out[1].nbytes()));
  if (input.rows > 0)
    ops.linear_token_grad(head.view, targets.data(), coefficients.a_at(0), coefficients.b_at(0), temperature,
                          out[0].data_ptr<float>(), out[1].data_ptr<float>(), &cancel);
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
        info.Env(), input.device(), info[7],
        [=](const CancelToken& cancel) {
          const Coefficients coefficients{a, b};
          if (input.fused()) return head_gradients(input, targets, coefficients, temperature, cancel);
          logits_gradient(input, targets, coefficients, temperature, cancel);
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

/// Throws for the first row that the GPU could not draw from. Waits.
void check_drawn(const at::Tensor& tokens) {
  const at::Tensor host = bring_to(Device::Cpu, tokens);
  const int64_t* token = host.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < host.numel(); ++row)
    if (token[row] < 0) fail_sample_row(row);
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
        info.Env(), input.device(), info[6],
        [input, options, counters = std::move(counters)](const CancelToken&) {
          Ops& ops = ops_of(input.device());
          Tensors out{new_tensor_on(ops.device(), {input.rows}, DType::Int64),
                      new_tensor_on(ops.device(), {input.rows}, DType::Float32),
                      new_tensor_on(ops.device(), {input.rows}, DType::Float32)};
          if (input.rows == 0) return out;
          const at::Tensor logits = with_dense_rows(input.logits);
          // Not in pieces: an error names the row.
          const LogitsView view{logits.data_ptr(), dtype_of(logits, "logits"), input.rows, input.cols,
                                row_stride(logits)};
          ops.sample(view, options, counters.data(), out[0].data_ptr<int64_t>(), out[1].data_ptr<float>(),
                     out[2].data_ptr<float>());
          if (ops.device() != Device::Cpu) check_drawn(out[0]);
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
  register_complementary_grad(env, exports);
}

}  // namespace eepo::node
