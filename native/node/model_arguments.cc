#include "node/model_arguments.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "model/rope_frequencies.h"
#include "node/arguments.h"
#include "node/tensor.h"

namespace eepo::node {
namespace {

Napi::Object object_argument(Napi::Value value, const char* name) {
  check(value.IsObject(), ErrorCode::InvalidArgument, name, " must be an object");
  return value.As<Napi::Object>();
}

template <class Array>
auto typed_array(Napi::Value value, const char* name, napi_typedarray_type type) {
  using T = std::remove_pointer_t<decltype(std::declval<Array>().Data())>;
  check(value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == type, ErrorCode::InvalidArgument, name,
        " has the wrong type of typed array");
  const Array array = value.As<Array>();
  return std::vector<T>(array.Data(), array.Data() + array.ElementLength());
}
bool bool_field(const Napi::Object& o, const char* name) { return o.Get(name).ToBoolean(); }

Napi::Value to_float_array(Napi::Env env, const std::vector<float>& values) {
  auto array = Napi::Float32Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(float));
  return array;
}

RopeConfig rope_argument(Napi::Value value) {
  RopeConfig rope;
  if (!value.IsObject()) return rope;
  const auto o = value.As<Napi::Object>();
  const auto number = [&](const char* key) {
    return number_argument(o.Get(key), (std::string("ropeScaling.") + key).c_str());
  };
  const std::string type = o.Get("type").ToString().Utf8Value();
  rope.factor = number("factor");
  if (type == "linear") {
    rope.type = RopeType::Linear;
    return rope;
  }
  rope.original_positions =
      integer_argument(o.Get("originalMaxPositionEmbeddings"), "ropeScaling.originalMaxPositionEmbeddings", 1);
  if (type == "dynamic") {
    rope.type = RopeType::Dynamic;
  } else if (type == "yarn") {
    rope.type = RopeType::Yarn;
    rope.attention_factor = number("attentionFactor");
    rope.beta_fast = number("betaFast");
    rope.beta_slow = number("betaSlow");
    rope.truncate = bool_field(o, "truncate");
  } else {
    check(type == "llama3", ErrorCode::Unsupported, "rope type ", type, " is not supported");
    rope.type = RopeType::Llama3;
    rope.low_freq = number("lowFreqFactor");
    rope.high_freq = number("highFreqFactor");
  }
  return rope;
}

}  // namespace

std::vector<int32_t> int_array(Napi::Value v, const char* name) {
  return typed_array<Napi::Int32Array>(v, name, napi_int32_array);
}
std::vector<float> float_array(Napi::Value v, const char* name) {
  return typed_array<Napi::Float32Array>(v, name, napi_float32_array);
}

std::vector<std::string> string_list(Napi::Value value, const char* name) {
  check(value.IsArray(), ErrorCode::InvalidArgument, name, " must be an array of strings");
  const auto list = value.As<Napi::Array>();
  std::vector<std::string> strings;
  strings.reserve(list.Length());
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value entry = list.Get(i);
    check(entry.IsString(), ErrorCode::InvalidArgument, name, "[", i, "] must be a string");
    strings.push_back(entry.As<Napi::String>().Utf8Value());
  }
  return strings;
}

ModelConfig config_argument(Napi::Value value) {
  const Napi::Object o = object_argument(value, "config");
  ModelConfig c;
  c.vocab_size = integer_argument(o.Get("vocabSize"), "vocabSize", 1);
  c.hidden_size = integer_argument(o.Get("hiddenSize"), "hiddenSize", 1);
  c.intermediate_size = integer_argument(o.Get("intermediateSize"), "intermediateSize", 1);
  c.layers = integer_argument(o.Get("numLayers"), "numLayers", 1);
  c.heads = integer_argument(o.Get("numHeads"), "numHeads", 1);
  c.kv_heads = integer_argument(o.Get("numKeyValueHeads"), "numKeyValueHeads", 1);
  c.head_dim = integer_argument(o.Get("headDim"), "headDim", 1);
  c.max_positions = integer_argument(o.Get("maxPositionEmbeddings"), "maxPositionEmbeddings", 1);
  c.norm_eps = static_cast<float>(number_argument(o.Get("rmsNormEps"), "rmsNormEps"));
  c.tied = bool_field(o, "tieWordEmbeddings");
  c.qkv_bias = bool_field(o, "attentionBias");
  c.o_bias = bool_field(o, "attentionOutputBias");
  c.qk_norm = bool_field(o, "qkNorm");
  c.rope = rope_argument(o.Get("ropeScaling"));
  c.rope.theta = number_argument(o.Get("ropeTheta"), "ropeTheta");
  c.validate();
  check_rope(c);
  return c;
}

DType weight_dtype_argument(Napi::Value value, const char* name) {
  check(value.IsString(), ErrorCode::InvalidArgument, name, " must be \"float32\" or \"bfloat16\"");
  const std::string dtype = value.As<Napi::String>().Utf8Value();
  if (dtype == "float32") return DType::Float32;
  check(dtype == "bfloat16", ErrorCode::InvalidArgument, name, " must be \"float32\" or \"bfloat16\", got \"", dtype,
        "\"");
  return DType::BFloat16;
}

ModelOptions model_options_argument(Napi::Value value) {
  if (!value.IsObject()) return {};
  const auto o = value.As<Napi::Object>();
  return {weight_dtype_argument(o.Get("dtype"), "dtype"), bool_field(o, "trainable")};
}

AdapterArgument adapter_argument(Napi::Value options) {
  AdapterArgument adapter;
  if (!options.IsObject()) return adapter;
  const Napi::Value value = options.As<Napi::Object>().Get("adapter");
  if (!value.IsObject()) return adapter;
  const auto o = value.As<Napi::Object>();
  adapter.config.rank = integer_argument(o.Get("rank"), "adapter.rank", 1, 65536);
  adapter.config.scale = static_cast<float>(number_argument(o.Get("scale"), "adapter.scale"));
  for (const std::string& target : string_list(o.Get("targets"), "adapter.targets")) {
    const auto it = std::ranges::find(kAdapterTargets, target);
    check(it != kAdapterTargets.end(), ErrorCode::InvalidArgument, "adapter.targets: ", target, " is no linear layer");
    adapter.config.targets[it - kAdapterTargets.begin()] = true;
  }
  adapter.seed = seed_argument(o.Get("seed"));
  if (o.Get("path").IsString()) adapter.path = o.Get("path").As<Napi::String>().Utf8Value();
  return adapter;
}

Packed packed_argument(Napi::Value ids, Napi::Value lengths, int64_t vocab) {
  Packed packed;
  packed.ids = int_array(ids, "ids");
  packed.offsets.push_back(0);
  for (const int32_t length : int_array(lengths, "lengths")) {
    check(length > 0, ErrorCode::InvalidArgument, "lengths must be positive");
    packed.offsets.push_back(packed.offsets.back() + length);
  }
  check(packed.offsets.back() == packed.tokens(), ErrorCode::InvalidArgument, "lengths do not add up to the ids");
  for (const int32_t id : packed.ids)
    check(id >= 0 && id < vocab, ErrorCode::InvalidArgument, "token id ", id, " lies outside the vocabulary 0..",
          vocab - 1);
  return packed;
}

TrainBatch batch_argument(Napi::Value ids, Napi::Value lengths, Napi::Value prompt_lengths, int64_t vocab) {
  Packed packed = packed_argument(ids, lengths, vocab);
  TrainBatch batch{std::move(packed.ids), std::move(packed.offsets), {}};
  const std::vector<int32_t> starts = int_array(prompt_lengths, "promptLengths");
  check(starts.size() + 1 == batch.offsets.size(), ErrorCode::InvalidArgument,
        "promptLengths needs one entry per sequence");
  for (size_t s = 0; s < starts.size(); ++s) {
    check(starts[s] >= 1 && starts[s] <= batch.offsets[s + 1] - batch.offsets[s], ErrorCode::InvalidArgument,
          "promptLengths[", s, "] must be from 1 to the sequence's length");
    batch.response_starts.push_back(starts[s]);
  }
  return batch;
}

GenerateOptions generate_options_argument(Napi::Value value, size_t prompts) {
  const Napi::Object o = object_argument(value, "options");
  GenerateOptions options;
  options.max_new_tokens = integer_argument(o.Get("maxNewTokens"), "maxNewTokens", 1, INT32_MAX);
  options.samples_per_prompt = integer_argument(o.Get("samplesPerPrompt"), "samplesPerPrompt", 1, INT32_MAX);
  options.temperature = temperature_argument(o.Get("temperature"), true);
  options.top_k = integer_argument(o.Get("topK"), "topK", 0);
  options.top_p = static_cast<float>(number_argument(o.Get("topP"), "topP"));
  options.seed = seed_argument(o.Get("seed"));
  options.iteration = static_cast<uint32_t>(integer_argument(o.Get("iteration"), "iteration", 0, UINT32_MAX));
  options.sample_offset = static_cast<uint32_t>(integer_argument(o.Get("sampleOffset"), "sampleOffset", 0, UINT32_MAX));
  for (const int32_t id : int_array(o.Get("promptIds"), "promptIds"))
    options.prompt_ids.push_back(static_cast<uint32_t>(id));
  check(options.prompt_ids.size() + 1 == prompts + 1, ErrorCode::InvalidArgument,
        "promptIds needs one entry per prompt");
  options.stop_tokens = int_array(o.Get("stopTokens"), "stopTokens");
  options.max_rows = integer_argument(o.Get("maxRows"), "maxRows", 0);
  options.cache_tokens = integer_argument(o.Get("cacheTokens"), "cacheTokens", 0);
  return options;
}

WeightSet weight_set_argument(Napi::Value options) {
  return bool_field(object_argument(options, "options"), "rollout") ? WeightSet::Rollout : WeightSet::Policy;
}

StepOptions step_options_argument(Napi::Value value) {
  const Napi::Object o = object_argument(value, "options");
  const auto number = [&](const char* name) { return static_cast<float>(number_argument(o.Get(name), name)); };
  return {{number("lr"), number("beta1"), number("beta2"), number("eps"), number("weightDecay")},
          number("maxGradNorm")};
}

ForgetOptions forget_options_argument(Napi::Value value) {
  const Napi::Object o = object_argument(value, "options");
  ForgetOptions options;
  options.loss.alpha = static_cast<float>(number_argument(o.Get("alpha"), "alpha"));
  options.loss.window = static_cast<int>(integer_argument(o.Get("window"), "window", 1, 1 << 20));
  options.loss.eps_low = static_cast<float>(number_argument(o.Get("epsLow"), "epsLow"));
  options.loss.eps_high = static_cast<float>(number_argument(o.Get("epsHigh"), "epsHigh"));
  options.loss.clamp_grad = bool_field(o, "saturate") ? ClampGrad::Saturate : ClampGrad::Zero;
  options.eta = number_argument(o.Get("eta"), "eta");
  const auto one_of = [&](const char* name, std::initializer_list<const char*> choices) {
    const Napi::Value value = o.Get(name);
    const std::string text = value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
    const auto at = std::ranges::find(choices, text);
    check(at != choices.end(), ErrorCode::InvalidArgument, name, " cannot be '", text, "'");
    return static_cast<int>(at - choices.begin());
  };
  constexpr TokenLoss kLosses[] = {TokenLoss::Complementary, TokenLoss::Nll};
  constexpr StepLength kLengths[] = {StepLength::Eta, StepLength::GradNorm, StepLength::Relative};
  options.loss.loss = kLosses[one_of("loss", {"complementary", "nll"})];
  options.length = kLengths[one_of("normalize", {"none", "gradNorm", "relative"})];
  options.random_direction = one_of("direction", {"gradient", "random"}) == 1;
  options.steps = integer_argument(o.Get("steps"), "steps", 1, 1 << 16);
  options.memory = number_argument(o.Get("memory"), "memory");
  check(options.memory >= 0 && options.memory <= 1, ErrorCode::InvalidArgument, "memory must be from 0 to 1, got ",
        options.memory);
  options.temperature = temperature_argument(o.Get("temperature"));
  options.probe_tokens = integer_argument(o.Get("probeTokens"), "probeTokens", 0);
  options.micro_batch_tokens = integer_argument(o.Get("microBatchTokens"), "microBatchTokens", 1);
  options.rollout_dtype = weight_dtype_argument(o.Get("rolloutDtype"), "rolloutDtype");
  options.seed = seed_argument(o.Get("seed"));
  options.iteration = static_cast<uint32_t>(integer_argument(o.Get("iteration"), "iteration", 0, UINT32_MAX));
  return options;
}

Napi::Value to_stats(Napi::Env env, const TokenStats& stats) {
  auto result = Napi::Object::New(env);
  result.Set("logprob", to_float_array(env, stats.logprob));
  result.Set("entropy", to_float_array(env, stats.entropy));
  return result;
}

Napi::Value to_samples(Napi::Env env, const std::vector<Sample>& samples) {
  size_t total = 0;
  for (const Sample& s : samples) total += s.tokens.size();
  auto tokens = Napi::Int32Array::New(env, total);
  auto lengths = Napi::Int32Array::New(env, samples.size());
  auto logprob = Napi::Float32Array::New(env, total), entropy = Napi::Float32Array::New(env, total);
  auto stopped = Napi::Uint8Array::New(env, samples.size());
  size_t at = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    const Sample& s = samples[i];
    std::copy(s.tokens.begin(), s.tokens.end(), tokens.Data() + at);
    std::copy(s.logprob.begin(), s.logprob.end(), logprob.Data() + at);
    std::copy(s.entropy.begin(), s.entropy.end(), entropy.Data() + at);
    at += s.tokens.size();
    lengths[i] = static_cast<int32_t>(s.tokens.size());
    stopped[i] = s.stopped;
  }
  auto result = Napi::Object::New(env);
  result.Set("tokens", tokens);
  result.Set("lengths", lengths);
  result.Set("logprob", logprob);
  result.Set("entropy", entropy);
  result.Set("stopped", stopped);
  return result;
}

Napi::Value to_report(Napi::Env env, const ForgetReport& r) {
  auto o = Napi::Object::New(env);
  o.Set("loss", r.loss.loss);
  o.Set("steps", static_cast<double>(r.steps));
  o.Set("tokens", static_cast<double>(r.loss.tokens));
  o.Set("openTokens", static_cast<double>(r.loss.open_tokens));
  o.Set("clampedLow", static_cast<double>(r.loss.clamped_low));
  o.Set("clampedHigh", static_cast<double>(r.loss.clamped_high));
  o.Set("activeTokens", static_cast<double>(r.loss.active_tokens));
  o.Set("gradNorm", r.grad_norm);
  o.Set("relativeStep", r.relative_step);
  o.Set("paramChangedFrac", r.changed_frac);
  o.Set("stage1LogpDelta", r.stage1_logp_delta);
  switch (r.skipped) {
    case ForgetReport::Skipped::No: o.Set("skipped", env.Null()); break;
    case ForgetReport::Skipped::NoOpenToken: o.Set("skipped", "no-open-token"); break;
    case ForgetReport::Skipped::NonFinite: o.Set("skipped", "non-finite"); break;
  }
  o.Set("cause", to_non_finite(env, r.cause));
  return o;
}

Napi::Value to_non_finite(Napi::Env env, const std::optional<NonFinite>& found) {
  if (!found) return env.Null();
  constexpr std::array<const char*, 7> kKinds = {"weight",  "hidden",   "logits", "logprob",
                                                 "entropy", "gradient", "moment"};
  auto o = Napi::Object::New(env);
  const auto place = [&](const char* name, int64_t at) {
    o.Set(name, at < 0 ? env.Null() : Napi::Value(Napi::Number::New(env, static_cast<double>(at))));
  };
  o.Set("kind", kKinds[static_cast<size_t>(found->kind)]);
  o.Set("name", found->name);
  o.Set("index", static_cast<double>(found->index));
  o.Set("value", found->value);
  place("layer", found->layer);
  place("sequence", found->sequence);
  place("position", found->position);
  o.Set("text", describe(*found));
  return o;
}

Napi::Value to_step_report(Napi::Env env, const StepReport& report) {
  auto result = Napi::Object::New(env);
  result.Set("cause", to_non_finite(env, report.cause));
  result.Set("gradNorm", report.grad_norm);
  result.Set("applied", report.applied);
  return result;
}

Napi::Value to_memory(Napi::Env env, const MemoryUse& use) {
  auto result = Napi::Object::New(env);
  const auto set = [&](const char* name, int64_t bytes) { result.Set(name, static_cast<double>(bytes)); };
  set("master", use.master);
  set("working", use.working);
  set("gradients", use.gradient);
  set("moments", use.moments);
  set("rollout", use.rollout);
  return result;
}

Napi::Value to_layout(Napi::Env env, const Layout& layout) {
  const std::vector<Parameter>& parameters = layout.parameters();
  auto list = Napi::Array::New(env, parameters.size());
  for (uint32_t i = 0; i < parameters.size(); ++i) {
    auto shape = Napi::Array::New(env, parameters[i].shape.size());
    for (uint32_t d = 0; d < parameters[i].shape.size(); ++d) shape.Set(d, static_cast<double>(parameters[i].shape[d]));
    auto entry = Napi::Object::New(env);
    entry.Set("name", parameters[i].name);
    entry.Set("shape", shape);
    list.Set(i, entry);
  }
  return list;
}

Napi::Value to_named_tensors(Napi::Env env, NamedTensors tensors) {
  auto list = Napi::Array::New(env, tensors.size());
  for (uint32_t i = 0; i < tensors.size(); ++i) {
    auto entry = Napi::Array::New(env, 2);
    entry.Set(0u, tensors[i].first);
    entry.Set(1u, wrap_tensor(env, std::move(tensors[i].second)));
    list.Set(i, entry);
  }
  return list;
}

}  // namespace eepo::node
