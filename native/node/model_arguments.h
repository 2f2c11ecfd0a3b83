// What model_binding.cc is given by JavaScript, checked as far as memory safety needs it (TypeScript checks meaning
// with better words), and what it gives back.
#pragma once

#include <napi.h>

#include <string>
#include <utility>
#include <vector>

#include "train/model.h"

namespace eepo::node {

std::vector<int32_t> int_array(Napi::Value value, const char* name);
std::vector<float> float_array(Napi::Value value, const char* name);
std::vector<std::string> string_list(Napi::Value value, const char* name);

ModelConfig config_argument(Napi::Value value);
/// "float32" or "bfloat16".
DType weight_dtype_argument(Napi::Value value, const char* name);
/// { dtype, trainable }
ModelOptions model_options_argument(Napi::Value value);
/// { adapter: { rank, scale, targets: string[], seed, path: string or null } }; rank 0 if there is none.
struct AdapterArgument {
  AdapterConfig config;
  uint64_t seed = 0;
  std::string path;  // empty: a new one
};
AdapterArgument adapter_argument(Napi::Value options);
/// Token ids in the vocabulary, and the lengths of the sequences they make up.
Packed packed_argument(Napi::Value ids, Napi::Value lengths, int64_t vocab);
TrainBatch batch_argument(Napi::Value ids, Napi::Value lengths, Napi::Value prompt_lengths, int64_t vocab);
GenerateOptions generate_options_argument(Napi::Value value, size_t prompts);
WeightSet weight_set_argument(Napi::Value options);
StepOptions step_options_argument(Napi::Value value);
ForgetOptions forget_options_argument(Napi::Value value);

Napi::Value to_stats(Napi::Env env, const TokenStats& stats);
Napi::Value to_samples(Napi::Env env, const std::vector<Sample>& samples);
Napi::Value to_report(Napi::Env env, const ForgetReport& report);
Napi::Value to_step_report(Napi::Env env, const StepReport& report);
/// null, or { kind, name, index, value, layer, sequence, position, text }
Napi::Value to_non_finite(Napi::Env env, const std::optional<NonFinite>& found);
Napi::Value to_memory(Napi::Env env, const MemoryUse& use);
/// [{ name, shape }], in the order of a checkpoint.
Napi::Value to_layout(Napi::Env env, const Layout& layout);

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
/// [[name, tensor]]
Napi::Value to_named_tensors(Napi::Env env, NamedTensors tensors);

}  // namespace eepo::node
