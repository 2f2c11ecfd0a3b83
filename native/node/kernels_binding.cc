// tokenStats, tokenGrad and sample for lib/kernels.ts: checks on the JavaScript thread, kernels on the device's.
// What depends on the elements (a target out of range) is checked in the job, in its turn.
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/error.h"
#include "device/ops.h"
#include "kernels/sample_options.h"
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
  Device device() const { return tensor_device(fused() ? hidden : logits); }
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
    require_same_device(input.hidden, "hidden", input.head, "head");
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

/// Calls body(first row, rows) for pieces of `rows`, looking at the token in between. On the GPU there is one piece: it
/// is queued in microseconds, and a bad target's row counts from the first.
template <class Body>
void in_pieces(const Ops& ops, int64_t rows, int64_t cols, const CancelToken& cancel, Body body) {
  if (ops.device() != Device::Cpu) return body(0, rows);
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

  Head(Ops& ops, const Input& input) : hidden(input.hidden.contiguous()), head(input.head.contiguous()), view{} {
    const bool as_is = ops.device() == Device::Cuda && hidden.scalar_type() == head.scalar_type();
    if (!as_is && hidden.scalar_type() != at::kFloat) hidden = ops.convert(hidden, DType::Float32);
    if (!as_is && head.scalar_type() != at::kFloat) head = ops.convert(head, DType::Float32);
    view = {hidden.const_data_ptr(), head.const_data_ptr(), dtype_of(hidden, "hidden"),
            hidden.size(0),          hidden.size(1),        head.size(0)};
  }
};

using Tensors = std::vector<at::Tensor>;

Napi::Value wrap_tensors(Napi::Env env, Tensors tensors) {
  Napi::Array result = Napi::Array::New(env, tensors.size());
  for (uint32_t i = 0; i < tensors.size(); ++i) result.Set(i, wrap_tensor(env, std::move(tensors[i])));
  return result;
}

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
  Targets targets(ops, raw_targets, input.cols);
  const Coefficients coefficients = given.on(ops.device());
  const at::Tensor logits = with_dense_rows(input.logits);
  const DType dtype = dtype_of(logits, "logits");
  in_pieces(ops, input.rows, input.cols, cancel, [&](int64_t row, int64_t rows) {
    const MutableLogitsView view{row_pointer(logits, row), dtype, rows, input.cols, row_stride(logits)};
    ops.token_grad(view, targets.data() + row, coefficients.a_at(row), coefficients.b_at(row), temperature,
                   targets.bad_row());
  });
  targets.check_after();
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
  exports.Set("complementaryGrad", Napi::Function::New(env, complementary_grad_js, "complementaryGrad"));
  exports.Set("sample", Napi::Function::New(env, sample_js, "sample"));
  register_unlearning(env, exports);
}

}  // namespace eepo::node
