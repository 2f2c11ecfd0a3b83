// complementaryLoss and ascend for lib/kernels.ts: the two halves of the unlearning step on a user's own tensors.
#include "node/unlearning_binding.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "device/ops.h"
#include "node/arguments.h"
#include "node/async.h"
#include "node/tensor.h"

namespace eepo::node {
namespace {

float epsilon_argument(Napi::Value value, const char* name) {
  const double number = number_argument(value, name);
  check(number >= 0 && number < 1, ErrorCode::InvalidArgument, name, " must be in [0, 1), got ", number);
  return static_cast<float>(number);
}

}  // namespace

ComplementaryOptions loss_options(Napi::Object options) {
  ComplementaryOptions result;
  const double alpha = number_argument(options.Get("alpha"), "alpha");
  result.alpha = static_cast<float>(alpha);
  result.window = static_cast<int>(integer_argument(options.Get("window"), "window", 1, 1 << 30));
  result.eps_low = epsilon_argument(options.Get("epsLow"), "epsLow");
  result.eps_high = epsilon_argument(options.Get("epsHigh"), "epsHigh");
  check(double{result.eps_low} + double{result.eps_high} < 1, ErrorCode::InvalidArgument,
        "epsLow + epsHigh must be less than 1: nothing lies between epsLow and 1 - epsHigh");
  const Napi::Value clamp = options.Get("clampGrad");
  const std::string name = clamp.IsString() ? clamp.As<Napi::String>().Utf8Value() : std::string();
  check(name == "zero" || name == "saturate", ErrorCode::InvalidArgument,
        "clampGrad must be 'zero' or 'saturate', got '", name, "'");
  result.clamp_grad = name == "zero" ? ClampGrad::Zero : ClampGrad::Saturate;
  return result;
}

void check_offsets(const at::Tensor& offsets, int64_t tokens) {
  const int64_t* offset = offsets.const_data_ptr<int64_t>();
  const int64_t sequences = offsets.numel() - 1;
  check(offset[0] == 0, ErrorCode::InvalidArgument, "offsets[0] must be 0, got ", offset[0]);
  for (int64_t k = 1; k <= sequences; ++k) {
    check(offset[k] >= offset[k - 1], ErrorCode::InvalidArgument, "offsets must not decrease: offsets[", k, "] is ",
          offset[k], " after ", offset[k - 1]);
  }
  check(offset[sequences] == tokens, ErrorCode::InvalidArgument, "offsets must end with the number of tokens, ", tokens,
        ", got ", offset[sequences]);
}

at::Tensor carry_argument(Napi::Object options, int64_t sequences, const ComplementaryOptions& parsed) {
  at::Tensor carry = unwrap_optional_tensor(options.Get("carry"), "carry");
  if (!carry.defined()) return carry;
  require_dtype(carry, "carry", DType::Float32);
  const int64_t history = parsed.window - 1;
  check(carry.dim() == 2 && carry.size(0) == sequences && carry.size(1) == history, ErrorCode::InvalidArgument,
        "carry must have shape [sequences, window - 1] = [", sequences, ", ", history, "], got ",
        shape_string(carry.sizes()));
  check(carry.is_contiguous(), ErrorCode::InvalidArgument, "carry is written and must be contiguous");
  return carry;
}

Napi::Object loss_numbers(Napi::Env env, const ComplementaryResult& result, const std::vector<uint8_t>& gate) {
  Napi::Object report = Napi::Object::New(env);
  const auto set = [&](const char* name, auto value) { report.Set(name, static_cast<double>(value)); };
  set("loss", result.loss);
  Napi::Uint8Array flags = Napi::Uint8Array::New(env, gate.size());
  if (!gate.empty()) std::memcpy(flags.Data(), gate.data(), gate.size());
  report.Set("gate", flags);
  set("tokens", result.tokens);
  set("openTokens", result.open_tokens);
  set("clampedLow", result.clamped_low);
  set("clampedHigh", result.clamped_high);
  set("activeTokens", result.active_tokens);
  return report;
}

namespace {

// ---- complementaryLoss
// -----------------------------------------------------------------------------------------------

struct LossInput {
  at::Tensor logprob, entropy, one_minus_p, offsets, weight, carry;
  ComplementaryOptions options;
};

struct LossOutput {
  ComplementaryResult result;
  at::Tensor a;
  std::vector<uint8_t> gate;
};

at::Tensor float_vector(Napi::Value value, const char* name, int64_t length, const char* rows_of) {
  at::Tensor tensor = unwrap_optional_tensor(value, name);
  if (!tensor.defined()) return tensor;
  require_dtype(tensor, name, DType::Float32);
  require_length(tensor, name, length, rows_of);
  return tensor;
}

LossInput loss_input(Napi::Object options) {
  LossInput input;
  input.options = loss_options(options);
  input.logprob = unwrap_tensor(options.Get("logprob"), "logprob");
  require_rank(input.logprob, "logprob", 1, "[tokens]");
  require_dtype(input.logprob, "logprob", DType::Float32);
  const int64_t tokens = input.logprob.numel();
  unwrap_tensor(options.Get("entropy"), "entropy");
  input.entropy = float_vector(options.Get("entropy"), "entropy", tokens, "token");
  input.one_minus_p = float_vector(options.Get("oneMinusP"), "oneMinusP", tokens, "token");
  input.offsets = unwrap_tensor(options.Get("offsets"), "offsets");
  require_dtype(input.offsets, "offsets", DType::Int64);
  check(input.offsets.dim() == 1 && input.offsets.numel() >= 1, ErrorCode::InvalidArgument,
        "offsets must have shape [sequences + 1], got ", shape_string(input.offsets.sizes()));
  const int64_t sequences = input.offsets.numel() - 1;
  input.weight = float_vector(options.Get("weight"), "weight", sequences, "sequence");
  input.carry = carry_argument(options, sequences, input.options);
  if (input.carry.defined()) require_same_device(input.carry, "carry", input.logprob, "logprob");
  return input;
}

const float* pointer(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }

LossOutput loss_of(const LossInput& input) {
  Ops& ops = ops_of(tensor_device(input.logprob));
  const auto here = [&](const at::Tensor& tensor) {
    return tensor.defined() ? bring_to(ops.device(), tensor) : tensor;
  };
  const int64_t tokens = input.logprob.numel();
  const at::Tensor host_offsets = bring_to(Device::Cpu, input.offsets);
  check_offsets(host_offsets, tokens);
  const at::Tensor logprob = here(input.logprob), entropy = here(input.entropy);
  const at::Tensor one_minus_p = here(input.one_minus_p), weight = here(input.weight), offsets = here(host_offsets);
  LossOutput out;
  out.a = new_tensor_on(ops.device(), {tokens}, DType::Float32);
  out.gate.resize(static_cast<size_t>(tokens));
  const bool host = ops.device() == Device::Cpu;
  const at::Tensor gate = host ? at::Tensor() : ops.empty({(tokens + 7) / 8}, DType::Int64);
  auto* flags = host ? out.gate.data() : static_cast<uint8_t*>(gate.data_ptr());
  out.result = ops.complementary_loss(pointer(logprob), pointer(entropy), pointer(one_minus_p),
                                      offsets.const_data_ptr<int64_t>(), offsets.numel() - 1, tokens, pointer(weight),
                                      input.carry.defined() ? input.carry.data_ptr<float>() : nullptr, input.options,
                                      out.a.data_ptr<float>(), flags);
  if (!host && tokens > 0) ops.download(out.gate.data(), flags, tokens);
  return out;
}

Napi::Value loss_report(Napi::Env env, LossOutput out) {
  Napi::Object report = loss_numbers(env, out.result, out.gate);
  report.Set("a", wrap_tensor(env, std::move(out.a)));
  return report;
}

/// complementaryLoss(options, signal): tensors and numbers by their names in lib/kernels.ts.
Napi::Value complementary_loss_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    check(info[0].IsObject(), ErrorCode::InvalidArgument, "complementaryLoss needs an options object");
    LossInput input = loss_input(info[0].As<Napi::Object>());
    const Device device = tensor_device(input.logprob);  // before the job takes the input along
    return run(
        info.Env(), device, info[1], [input = std::move(input)](const CancelToken&) { return loss_of(input); },
        loss_report);
  });
}

// ---- ascend
// ----------------------------------------------------------------------------------------------------------

struct AscendInput {
  std::vector<at::Tensor> params, grads, into;
};

std::string element(const char* name, size_t index) { return std::string(name) + "[" + std::to_string(index) + "]"; }

struct Extent {
  const char* begin;
  const char* end;

  explicit Extent(const at::Tensor& tensor)
      : begin(static_cast<const char*>(tensor.const_data_ptr())), end(begin + tensor.nbytes()) {}
  bool same(const Extent& other) const { return begin == other.begin && end == other.end; }
  bool overlaps(const Extent& other) const { return begin < other.end && other.begin < end; }
};

void check_shapes(const AscendInput& input) {
  const size_t count = input.params.size();
  check(input.grads.size() == count, ErrorCode::InvalidArgument, "grads must have one entry per parameter, ", count,
        ", got ", input.grads.size());
  check(input.into.size() == count, ErrorCode::InvalidArgument, "into must have one entry per parameter, ", count,
        ", got ", input.into.size());
  for (size_t i = 0; i < count; ++i) {
    const at::Tensor& param = input.params[i];
    require_real(param, element("params", i).c_str());
    require_real(input.into[i], element("into", i).c_str());
    check(input.into[i].sizes() == param.sizes(), ErrorCode::InvalidArgument, element("into", i),
          " must have the shape of its parameter, ", shape_string(param.sizes()), ", got ",
          shape_string(input.into[i].sizes()));
    check(input.into[i].is_contiguous(), ErrorCode::InvalidArgument, element("into", i),
          " is written and must be contiguous");
    require_same_device(param, element("params", i).c_str(), input.params[0], "params[0]");
    require_same_device(input.into[i], element("into", i).c_str(), param, element("params", i).c_str());
    if (!input.grads[i].defined()) continue;
    require_real(input.grads[i], element("grads", i).c_str());
    require_same_device(input.grads[i], element("grads", i).c_str(), param, element("params", i).c_str());
    check(input.grads[i].sizes() == param.sizes(), ErrorCode::InvalidArgument, element("grads", i),
          " must have the shape of its parameter, ", shape_string(param.sizes()), ", got ",
          shape_string(input.grads[i].sizes()));
  }
}

/// A tied storage is named once per use but has one gradient.
void check_ties(const AscendInput& input, size_t first, size_t i) {
  const at::Tensor& grad = input.grads[i];
  check(!grad.defined() || (input.grads[first].defined() && Extent(grad).same(Extent(input.grads[first]))),
        ErrorCode::InvalidArgument, element("params", i), " and ", element("params", first),
        " are one storage (tied): give their summed gradient as ", element("grads", first), " and null as ",
        element("grads", i));
}

/// What is written must not be read elsewhere: only into[i] = params[i] itself may alias.
void check_aliases(const AscendInput& input) {
  const size_t count = input.params.size();
  for (size_t i = 0; i < count; ++i) {
    const Extent target(input.into[i]);
    for (size_t j = 0; j < count; ++j) {
      const Extent param(input.params[j]);
      const bool in_place = target.same(param) && input.into[i].scalar_type() == input.params[j].scalar_type() &&
                            Extent(input.params[i]).same(param);
      check(in_place || !target.overlaps(param), ErrorCode::InvalidArgument, element("into", i), " shares memory with ",
            element("params", j), "; it may only be its own parameter");
      check(!input.grads[j].defined() || !target.overlaps(Extent(input.grads[j])), ErrorCode::InvalidArgument,
            element("into", i), " shares memory with ", element("grads", j));
      const Extent other(input.into[j]);
      const bool tied = target.same(other) && Extent(input.params[i]).same(param);
      check(i == j || tied || !target.overlaps(other), ErrorCode::InvalidArgument, element("into", i),
            " shares memory with ", element("into", j), " although their parameters do not");
    }
  }
}

/// The work with every storage once; `keep` holds what the pointers need.
std::vector<AscendTensor> ascend_work(const AscendInput& input, std::vector<at::Tensor>& keep) {
  std::vector<AscendTensor> work;
  for (size_t i = 0; i < input.params.size(); ++i) {
    size_t first = i;  // the earlier parameter with this storage
    bool written = false;
    for (size_t j = 0; j < i; ++j) {
      if (!Extent(input.params[i]).same(Extent(input.params[j])) || input.params[i].numel() == 0) continue;
      first = std::min(first, j);
      written = written || Extent(input.into[i]).same(Extent(input.into[j]));
    }
    if (written) continue;
    const at::Tensor param = input.params[i].contiguous();
    const at::Tensor grad = input.grads[first].defined() ? input.grads[first].contiguous() : at::Tensor();
    keep.push_back(param);
    keep.push_back(grad);
    work.push_back({param.const_data_ptr(), dtype_of(param, "params"), grad.defined() ? grad.const_data_ptr() : nullptr,
                    grad.defined() ? dtype_of(grad, "grads") : DType::Float32, input.into[i].data_ptr(),
                    dtype_of(input.into[i], "into"), param.numel()});
  }
  return work;
}

/// ascend(params, grads, into, eta, rounding, seed, signal) -> { elements, changed }
Napi::Value ascend_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    AscendInput input{unwrap_tensors(info[0], "params"), unwrap_tensors(info[1], "grads", true),
                      unwrap_tensors(info[2], "into")};
    check_shapes(input);
    for (size_t i = 0; i < input.params.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (input.params[i].numel() > 0 && Extent(input.params[i]).same(Extent(input.params[j]))) {
          check_ties(input, j, i);
          break;
        }
      }
    }
    check_aliases(input);
    const double eta = number_argument(info[3], "eta");
    check(std::isfinite(eta), ErrorCode::InvalidArgument, "eta must be finite, got ", eta);
    const std::string name = info[4].IsString() ? info[4].As<Napi::String>().Utf8Value() : std::string();
    check(name == "nearest" || name == "stochastic", ErrorCode::InvalidArgument,
          "rounding must be 'nearest' or 'stochastic', got '", name, "'");
    const Rounding rounding = name == "nearest" ? Rounding::Nearest : Rounding::Stochastic;
    const uint64_t seed = seed_argument(info[5]);
    const Device device = input.params.empty() ? Device::Cpu : tensor_device(input.params[0]);
    return run(
        info.Env(), device, info[6],
        [input = std::move(input), device, eta, rounding, seed](const CancelToken&) {
          std::vector<at::Tensor> keep;
          return ops_of(device).ascend(ascend_work(input, keep), eta, rounding, seed);
        },
        [](Napi::Env env, AscendReport report) -> Napi::Value {
          Napi::Object result = Napi::Object::New(env);
          result.Set("elements", static_cast<double>(report.elements));
          result.Set("changed", static_cast<double>(report.changed));
          return result;
        });
  });
}

}  // namespace

void register_unlearning(Napi::Env env, Napi::Object exports) {
  exports.Set("complementaryLoss", Napi::Function::New(env, complementary_loss_js, "complementaryLoss"));
  exports.Set("ascend", Napi::Function::New(env, ascend_js, "ascend"));
}

}  // namespace eepo::node
