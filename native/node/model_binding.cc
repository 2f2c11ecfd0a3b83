// The model behind lib/policy.ts: arguments are copied on the JavaScript thread, everything else runs on the device's.
// TypeScript checks meaning (empty prompts, context length) with better words; here only what memory safety needs is
// checked again.
#include "node/model_binding.h"

#include <cstring>
#include <memory>
#include <utility>

#include "node/arguments.h"
#include "node/async.h"
#include "node/edge.h"
#include "node/tensor.h"
#include "train/model.h"

namespace eepo::node {
namespace {

constexpr const char* class_name = "Model";
constexpr napi_type_tag model_tag = {0x6565706f2d6d6f64, 0x656c2d68616e646c};
using ModelPtr = std::shared_ptr<Model>;

Napi::Value wrap_model(Napi::Env env, ModelPtr model);

// ---- arguments
// -------------------------------------------------------------------------------------------------------

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
std::vector<int32_t> int_array(Napi::Value v, const char* name) {
  return typed_array<Napi::Int32Array>(v, name, napi_int32_array);
}
std::vector<float> float_array(Napi::Value v, const char* name) {
  return typed_array<Napi::Float32Array>(v, name, napi_float32_array);
}

bool bool_field(const Napi::Object& o, const char* name) { return o.Get(name).ToBoolean(); }

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
  return c;
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

// ---- results
// ---------------------------------------------------------------------------------------------------------

Napi::Value to_float_array(Napi::Env env, const std::vector<float>& values) {
  auto array = Napi::Float32Array::New(env, values.size());
  if (!values.empty()) std::memcpy(array.Data(), values.data(), values.size() * sizeof(float));
  return array;
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
  return o;
}

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Copies every parameter's part of a flat buffer, on the model's device; null gives zeros.
NamedTensors copy_parameters(const Model& model, const float* flat) {
  NamedTensors tensors;
  for (const Parameter& p : model.layout().parameters()) {
    at::Tensor tensor = model.ops().empty(p.shape, DType::Float32);
    const int64_t bytes = p.size() * static_cast<int64_t>(sizeof(float));
    if (flat)
      model.ops().copy(tensor.data_ptr(), flat + model.layout().flat_offset(p), bytes);
    else
      model.ops().zero(tensor.data_ptr(), bytes);
    tensors.emplace_back(p.name, std::move(tensor));
  }
  return tensors;
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

// ---- the handle
// ------------------------------------------------------------------------------------------------------

class ModelHandle : public Napi::ObjectWrap<ModelHandle> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, class_name,
        {InstanceAccessor<&ModelHandle::num_parameters>("numParameters"), InstanceMethod<&ModelHandle::score>("score"),
         InstanceMethod<&ModelHandle::logits>("logits"), InstanceMethod<&ModelHandle::generate>("generate"),
         InstanceMethod<&ModelHandle::forward>("forward"), InstanceMethod<&ModelHandle::backward>("backward"),
         InstanceMethod<&ModelHandle::step>("step"), InstanceMethod<&ModelHandle::zero_grad>("zeroGrad"),
         InstanceMethod<&ModelHandle::forget>("forget"), InstanceMethod<&ModelHandle::sync_rollout>("syncRollout"),
         InstanceMethod<&ModelHandle::gradients>("gradients"), InstanceMethod<&ModelHandle::parameters>("parameters"),
         InstanceMethod<&ModelHandle::clone>("clone"), InstanceMethod<&ModelHandle::save>("save"),
         InstanceMethod<&ModelHandle::dispose>("dispose")});
  }

  explicit ModelHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ModelHandle>(info) {
    napi_type_tag_object(info.Env(), info.This(), &model_tag);
  }

  void fill(Napi::Env env, ModelPtr model) {
    model_ = std::move(model);
    // memory of the CPU that V8 cannot see; a GPU's is not its concern
    external_ =
        model_->device() == Device::Cpu ? model_->layout().flat_size() * static_cast<int64_t>(sizeof(float)) : 0;
    Napi::MemoryManagement::AdjustExternalMemory(env, external_);
  }

  // The backstop: JavaScript lost the handle without dispose().
  void Finalize(Napi::BasicEnv env) override { release(env); }

 private:
  void release(Napi::BasicEnv env) {
    if (!model_) return;
    model_.reset();  // a running job holds its own reference
    Napi::MemoryManagement::AdjustExternalMemory(env, -external_);
  }

  ModelPtr get() const {
    check(model_ != nullptr, ErrorCode::Disposed, "the policy was disposed; do not use it after dispose()");
    return model_;
  }

  // A method that queues `make(model)`'s job.
  template <class Body>
  Napi::Value with_model(const Napi::CallbackInfo& info, Body body) {
    return guarded(info.Env(), [&]() -> Napi::Value { return body(get()); });
  }

  // A job without a result.
  template <class Work>
  static Napi::Value run_void(Napi::Env env, Device device, Napi::Value signal, Work work) {
    return run(env, device, signal,
               Job{[work = std::move(work)](const CancelToken& cancel) mutable { work(cancel); },
                   [](Napi::Env e) -> Napi::Value { return e.Undefined(); }});
  }

  Napi::Value num_parameters(const Napi::CallbackInfo& info) {
    return with_model(info, [&](const ModelPtr& model) {
      return Napi::Number::New(info.Env(), static_cast<double>(model->layout().parameter_count()));
    });
  }

  // score(ids, lengths, microBatchTokens, signal)
  Napi::Value score(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      Packed packed = packed_argument(info[0], info[1], model->config().vocab_size);
      const int64_t micro = integer_argument(info[2], "microBatchTokens", 1);
      return run(
          info.Env(), model->device(), info[3],
          [model, packed = std::move(packed), micro](const CancelToken& c) { return model->score(packed, micro, c); },
          to_stats);
    });
  }

  // logits(ids, signal)
  Napi::Value logits(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      Packed packed;
      packed.ids = int_array(info[0], "ids");
      const int64_t vocab = model->config().vocab_size;
      check(packed.tokens() > 0, ErrorCode::InvalidArgument, "ids must not be empty");
      for (const int32_t id : packed.ids)
        check(id >= 0 && id < vocab, ErrorCode::InvalidArgument, "token id ", id, " lies outside the vocabulary");
      packed.offsets = {0, packed.tokens()};
      return run(
          info.Env(), model->device(), info[1],
          [model, packed = std::move(packed), vocab](const CancelToken& c) {
            at::Tensor out = model->ops().empty({packed.tokens(), vocab}, DType::Float32);
            model->logits(packed, static_cast<float*>(out.data_ptr()), c);
            return out;
          },
          wrap_tensor);
    });
  }

  // generate(ids, lengths, options, signal, onProgress)
  Napi::Value generate(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      const Napi::Env env = info.Env();
      Packed packed = packed_argument(info[0], info[1], model->config().vocab_size);
      const Napi::Object o = object_argument(info[2], "options");
      GenerateOptions options;
      options.max_new_tokens = integer_argument(o.Get("maxNewTokens"), "maxNewTokens", 1, INT32_MAX);
      options.samples_per_prompt = integer_argument(o.Get("samplesPerPrompt"), "samplesPerPrompt", 1, INT32_MAX);
      options.temperature = temperature_argument(o.Get("temperature"), true);
      options.top_k = integer_argument(o.Get("topK"), "topK", 0);
      options.top_p = static_cast<float>(number_argument(o.Get("topP"), "topP"));
      options.seed = seed_argument(o.Get("seed"));
      options.iteration = static_cast<uint32_t>(integer_argument(o.Get("iteration"), "iteration", 0, UINT32_MAX));
      options.sample_offset =
          static_cast<uint32_t>(integer_argument(o.Get("sampleOffset"), "sampleOffset", 0, UINT32_MAX));
      for (const int32_t id : int_array(o.Get("promptIds"), "promptIds"))
        options.prompt_ids.push_back(static_cast<uint32_t>(id));
      check(options.prompt_ids.size() + 1 == packed.offsets.size(), ErrorCode::InvalidArgument,
            "promptIds needs one entry per prompt");
      options.stop_tokens = int_array(o.Get("stopTokens"), "stopTokens");
      options.max_rows = integer_argument(o.Get("maxRows"), "maxRows", 0);
      options.cache_tokens = integer_argument(o.Get("cacheTokens"), "cacheTokens", 0);
      const WeightSet set = bool_field(o, "rollout") ? WeightSet::Rollout : WeightSet::Policy;
      GenerateProgress progress;
      if (info[4].IsFunction()) {
        auto notifier = make_notifier(env, info[4].As<Napi::Function>());
        progress = [notifier](int64_t tokens, int64_t running) {
          notifier->notify([tokens, running](Napi::Env e, Napi::Function callback) {
            callback.Call({Napi::Number::New(e, static_cast<double>(tokens)),
                           Napi::Number::New(e, static_cast<double>(running))});
          });
        };
      }
      return run(
          env, model->device(), info[3],
          [model, packed = std::move(packed), options = std::move(options), set, progress = std::move(progress)](
              const CancelToken& c) { return model->generate(packed, options, set, c, progress); },
          to_samples);
    });
  }

  // forward(ids, lengths, promptLengths, temperature, keep, signal)
  Napi::Value forward(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      TrainBatch batch = batch_argument(info[0], info[1], info[2], model->config().vocab_size);
      const float temperature = temperature_argument(info[3]);
      const bool keep = info[4].ToBoolean();
      return run(
          info.Env(), model->device(), info[5],
          [model, batch = std::move(batch), temperature, keep](const CancelToken& c) {
            return model->forward(batch, temperature, keep, c);
          },
          to_stats);
    });
  }

  // backward(a, b or null, signal)
  Napi::Value backward(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      std::vector<float> a = float_array(info[0], "a");
      std::vector<float> b =
          info[1].IsNull() || info[1].IsUndefined() ? std::vector<float>() : float_array(info[1], "b");
      return run_void(info.Env(), model->device(), info[2],
                      [model, a = std::move(a), b = std::move(b)](const CancelToken& c) { model->backward(a, b, c); });
    });
  }

  // step({ lr, beta1, beta2, eps, weightDecay, maxGradNorm })
  Napi::Value step(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      const Napi::Object o = object_argument(info[0], "options");
      const auto number = [&](const char* name) { return static_cast<float>(number_argument(o.Get(name), name)); };
      const StepOptions options{{number("lr"), number("beta1"), number("beta2"), number("eps"), number("weightDecay")},
                                number("maxGradNorm")};
      return run(
          info.Env(), model->device(), info.Env().Undefined(),
          [model, options](const CancelToken&) { return model->step(options); },
          [](Napi::Env e, const StepReport& report) -> Napi::Value {
            auto result = Napi::Object::New(e);
            result.Set("gradNorm", report.grad_norm);
            result.Set("applied", report.applied);
            return result;
          });
    });
  }

  Napi::Value zero_grad(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      return run_void(info.Env(), model->device(), info.Env().Undefined(),
                      [model](const CancelToken&) { model->zero_grad(); });
    });
  }

  // forget(ids, lengths, promptLengths, entropy, options, signal)
  Napi::Value forget(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      TrainBatch batch = batch_argument(info[0], info[1], info[2], model->config().vocab_size);
      std::vector<float> entropy = float_array(info[3], "entropy");
      auto responses = static_cast<int64_t>(batch.ids.size());
      for (const int64_t start : batch.response_starts) responses -= start;
      check(static_cast<int64_t>(entropy.size()) == responses, ErrorCode::InvalidArgument, "entropy has ",
            entropy.size(), " entries, expected one per response token (", responses, ")");
      const Napi::Object o = object_argument(info[4], "options");
      ForgetOptions options;
      options.loss.alpha = static_cast<float>(number_argument(o.Get("alpha"), "alpha"));
      options.loss.window = static_cast<int>(integer_argument(o.Get("window"), "window", 1, 1 << 20));
      options.loss.eps_low = static_cast<float>(number_argument(o.Get("epsLow"), "epsLow"));
      options.loss.eps_high = static_cast<float>(number_argument(o.Get("epsHigh"), "epsHigh"));
      options.loss.clamp_grad = bool_field(o, "saturate") ? ClampGrad::Saturate : ClampGrad::Zero;
      options.eta = number_argument(o.Get("eta"), "eta");
      options.normalize = bool_field(o, "normalize");
      options.temperature = temperature_argument(o.Get("temperature"));
      options.probe_tokens = integer_argument(o.Get("probeTokens"), "probeTokens", 0);
      options.micro_batch_tokens = integer_argument(o.Get("microBatchTokens"), "microBatchTokens", 1);
      return run(
          info.Env(), model->device(), info[5],
          [model, batch = std::move(batch), entropy = std::move(entropy), options](const CancelToken& c) {
            return model->forget(batch, entropy, options, c);
          },
          to_report);
    });
  }

  Napi::Value sync_rollout(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      return run_void(info.Env(), model->device(), info.Env().Undefined(),
                      [model](const CancelToken&) { model->sync_rollout(); });
    });
  }

  Napi::Value gradients(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      return run(
          info.Env(), model->device(), info.Env().Undefined(),
          [model](const CancelToken&) { return copy_parameters(*model, model->gradient()); }, to_named_tensors);
    });
  }

  Napi::Value parameters(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      return run(
          info.Env(), model->device(), info.Env().Undefined(),
          [model](const CancelToken&) { return copy_parameters(*model, model->master()); }, to_named_tensors);
    });
  }

  Napi::Value clone(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      return run(
          info.Env(), model->device(), info.Env().Undefined(), [model](const CancelToken&) { return model->clone(); },
          wrap_model);
    });
  }

  // save(path, signal)
  Napi::Value save(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      check(info[0].IsString(), ErrorCode::InvalidArgument, "path must be a string");
      return run_void(
          info.Env(), model->device(), info[1],
          [model, path = info[0].As<Napi::String>().Utf8Value()](const CancelToken& c) { model->save(path, c); });
    });
  }

  Napi::Value dispose(const Napi::CallbackInfo& info) {
    release(info.Env());
    return info.Env().Undefined();
  }

  ModelPtr model_;
  int64_t external_ = 0;
};

Napi::Value wrap_model(Napi::Env env, ModelPtr model) {
  Napi::Object object = edge_data(env).constructors.at(class_name).New({});
  Napi::ObjectWrap<ModelHandle>::Unwrap(object)->fill(env, std::move(model));
  return object;
}

// loadModel(config, paths, signal, device)
Napi::Value load_model(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const ModelConfig config = config_argument(info[0]);
    check(info[1].IsArray(), ErrorCode::InvalidArgument, "paths must be an array");
    const auto list = info[1].As<Napi::Array>();
    std::vector<std::string> paths;
    paths.reserve(list.Length());
    for (uint32_t i = 0; i < list.Length(); ++i) paths.push_back(list.Get(i).ToString().Utf8Value());
    const Device device = device_argument(info[3]);
    return run(
        info.Env(), device, info[2],
        [config, device, paths = std::move(paths)](const CancelToken& cancel) {
          auto model = std::make_shared<Model>(config, ops_of(device));
          model->load(paths, cancel);
          return model;
        },
        wrap_model);
  });
}

// createModel(config, seed, device)
Napi::Value create_model(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const ModelConfig config = config_argument(info[0]);
    const uint64_t seed = seed_argument(info[1]);
    const Device device = device_argument(info[2]);
    return run(
        info.Env(), device, info.Env().Undefined(),
        [config, device, seed](const CancelToken&) {
          auto model = std::make_shared<Model>(config, ops_of(device));
          model->initialize(seed);
          return model;
        },
        wrap_model);
  });
}

}  // namespace

void register_model(Napi::Env env, Napi::Object exports) {
  edge_data(env).constructors[class_name] = Napi::Persistent(ModelHandle::define(env));
  exports.Set("loadModel", Napi::Function::New(env, load_model, "loadModel"));
  exports.Set("createModel", Napi::Function::New(env, create_model, "createModel"));
}

}  // namespace eepo::node
