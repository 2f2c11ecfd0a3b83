// complementaryGrad for lib/kernels.ts: the fused unlearning gradient on a user's own tensors.
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "node/arguments.h"
#include "node/async.h"
#include "node/row_input.h"
#include "node/unlearning_binding.h"

namespace eepo::node {
namespace {

/// What complementaryGrad gives back: numbers, and tensors [a, logprob] or [a, logprob, dHidden, dHead].
struct ComplementaryGradient {
  ComplementaryResult result;
  std::vector<uint8_t> gate;
  Tensors tensors;
};

struct ComplementaryInput {
  Input input;
  at::Tensor targets, entropy, offsets, weight, carry;
  ComplementaryOptions options;
  float temperature;
};

/// w_t I_t of every token, and the gate. Vectors of the host.
std::vector<float> row_weights(const at::Tensor& entropy, const at::Tensor& offsets, const at::Tensor& weight,
                               const float* carry, const ComplementaryOptions& options, std::vector<uint8_t>& gate) {
  const int64_t* offset = offsets.const_data_ptr<int64_t>();
  const int64_t sequences = offsets.numel() - 1;
  std::vector<float> rows(static_cast<size_t>(entropy.numel()));
  gate.resize(rows.size());
  entropy_gate(entropy.const_data_ptr<float>(), offset, sequences, carry, options, gate.data());
  for (int64_t k = 0; k < sequences; ++k) {
    const double tokens = static_cast<double>(offset[k + 1] - offset[k]);
    const float w = weight.defined() ? weight.const_data_ptr<float>()[k]
                                     : static_cast<float>(1.0 / (static_cast<double>(sequences) * tokens));
    for (int64_t t = offset[k]; t < offset[k + 1]; ++t) rows[t] = gate[t] ? w : 0.0f;
  }
  return rows;
}

ComplementaryGradient complementary_gradient(const ComplementaryInput& call, const CancelToken& cancel) {
  const Input& input = call.input;
  Ops& ops = ops_of(input.device());
  const at::Tensor entropy = bring_to(Device::Cpu, call.entropy), offsets = bring_to(Device::Cpu, call.offsets);
  const at::Tensor weight = call.weight.defined() ? bring_to(Device::Cpu, call.weight) : call.weight;
  check_offsets(offsets, input.rows);
  // Looked at on the host, before anything is written.
  Targets targets(ops, bring_to(Device::Cpu, call.targets), input.cols);
  ComplementaryGradient out;
  const at::Tensor host_carry = call.carry.defined() ? bring_to(Device::Cpu, call.carry) : call.carry;
  float* carry = host_carry.defined() ? host_carry.data_ptr<float>() : nullptr;
  const std::vector<float> rows = row_weights(entropy, offsets, weight, carry, call.options, out.gate);
  const auto count = static_cast<size_t>(input.rows);
  std::vector<float> logprob(count), one_minus_p(count);
  if (input.fused()) {
    const Head head(ops, input);
    out.tensors = {new_tensor_on(ops.device(), {input.rows, head.view.dim}, DType::Float32),
                   new_tensor_on(ops.device(), {input.cols, head.view.dim}, DType::Float32)};
    ops.zero(out.tensors[1].data_ptr(), static_cast<int64_t>(out.tensors[1].nbytes()));
    ops.linear_complementary_grad(head.view, targets.data(), rows.data(), call.options, call.temperature,
                                  logprob.data(), one_minus_p.data(), out.tensors[0].data_ptr<float>(),
                                  out.tensors[1].data_ptr<float>(), &cancel);
  } else {
    const at::Tensor logits = with_dense_rows(input.logits);
    at::Tensor memory;
    const float* weights = ops.stage(rows, memory);
    const at::Tensor stats = new_tensor_on(ops.device(), {2 * input.rows}, DType::Float32);
    auto* seen = stats.data_ptr<float>();
    in_pieces(ops, input.rows, input.cols, cancel, [&](int64_t row, int64_t n) {
      ops.complementary_grad({row_pointer(logits, row), dtype_of(logits, "logits"), n, input.cols, row_stride(logits)},
                             targets.data() + row, {weights + row, call.options, seen + row, seen + input.rows + row},
                             call.temperature, nullptr);
    });
    if (!logits.is_same(input.logits)) input.logits.copy_(logits);
    const int64_t bytes = input.rows * static_cast<int64_t>(sizeof(float));
    ops.download(logprob.data(), seen, bytes);
    ops.download(one_minus_p.data(), seen + input.rows, bytes);
  }
  // The report: a token behind a closed gate has no loss whatever its probability is.
  const at::Tensor host_logprob = new_tensor({input.rows}, DType::Float32),
                   a = new_tensor({input.rows}, DType::Float32);
  std::copy(logprob.begin(), logprob.end(), host_logprob.data_ptr<float>());
  for (size_t t = 0; t < count; ++t)
    if (rows[t] == 0) {
      logprob[t] = std::log(0.5f);
      one_minus_p[t] = 0.5f;
    }
  out.result = complementary_loss(logprob.data(), entropy.const_data_ptr<float>(), one_minus_p.data(),
                                  offsets.const_data_ptr<int64_t>(), offsets.numel() - 1,
                                  weight.defined() ? weight.const_data_ptr<float>() : nullptr, carry, call.options,
                                  a.data_ptr<float>(), nullptr);
  if (carry && !host_carry.is_same(call.carry))
    ops.upload(call.carry.data_ptr(), carry, static_cast<int64_t>(host_carry.nbytes()));
  out.tensors.insert(out.tensors.begin(), {bring_to(ops.device(), a), bring_to(ops.device(), host_logprob)});
  return out;
}

/// complementaryGrad(logits?, hidden?, head?, targets, options, signal): the gradient in place of the logits, or in
/// `tensors`.
Napi::Value complementary_grad_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    ComplementaryInput call;
    call.input = input_argument(info[0], info[1], info[2]);
    call.targets = targets_argument(info[3], call.input.rows);
    check(info[4].IsObject(), ErrorCode::InvalidArgument, "complementaryGrad needs an options object");
    const Napi::Object options = info[4].As<Napi::Object>();
    call.options = loss_options(options);
    call.temperature = temperature_argument(options.Get("temperature"));
    call.entropy = coefficients_argument(options.Get("entropy"), "entropy", call.input.rows);
    check(call.entropy.defined(), ErrorCode::InvalidArgument, "entropy must be given: recorded when tokens were drawn");
    call.offsets = unwrap_tensor(options.Get("offsets"), "offsets");
    require_dtype(call.offsets, "offsets", DType::Int64);
    check(call.offsets.dim() == 1 && call.offsets.numel() >= 1, ErrorCode::InvalidArgument,
          "offsets must have shape [sequences + 1], got ", shape_string(call.offsets.sizes()));
    call.weight = unwrap_optional_tensor(options.Get("weight"), "weight");
    if (call.weight.defined()) {
      require_dtype(call.weight, "weight", DType::Float32);
      require_length(call.weight, "weight", call.offsets.numel() - 1, "sequence");
    }
    call.carry = carry_argument(options, call.offsets.numel() - 1, call.options);
    return run(
        info.Env(), call.input.device(), info[5],
        [call](const CancelToken& cancel) { return complementary_gradient(call, cancel); },
        [](Napi::Env env, ComplementaryGradient out) -> Napi::Value {
          Napi::Object report = loss_numbers(env, out.result, out.gate);
          report.Set("tensors", wrap_tensors(env, std::move(out.tensors)));
          return report;
        });
  });
}

}  // namespace

void register_complementary_grad(Napi::Env env, Napi::Object exports) {
  exports.Set("complementaryGrad", Napi::Function::New(env, complementary_grad_js, "complementaryGrad"));
}

}  // namespace eepo::node
