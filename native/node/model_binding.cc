// The model behind lib/policy.ts: arguments are copied on the JavaScript thread, everything else runs on the device's.
#include "node/model_binding.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "node/arguments.h"
#include "node/async.h"
#include "node/edge.h"
#include "node/model_arguments.h"
#include "node/tensor.h"
#include "train/model.h"

namespace eepo::node {
namespace {

constexpr const char* class_name = "Model";
constexpr napi_type_tag model_tag = {0x6565706f2d6d6f64, 0x656c2d68616e646c};
using ModelPtr = std::shared_ptr<Model>;

Napi::Value wrap_model(Napi::Env env, ModelPtr model);

// A progress function that calls `callback` with its two numbers on the event loop.
std::function<void(int64_t, int64_t)> pair_notifier(Napi::Env env, Napi::Function callback) {
  return [notifier = make_notifier(env, callback)](int64_t first, int64_t second) {
    notifier->notify([first, second](Napi::Env e, Napi::Function call) {
      call.Call({Napi::Number::New(e, static_cast<double>(first)), Napi::Number::New(e, static_cast<double>(second))});
    });
  };
}

// Copies what is trained, out of a flat buffer; null gives zeros.
NamedTensors copy_trained(const Model& model, const float* flat) {
  NamedTensors tensors;
  for (const Parameter& p : model.trained()) {
    at::Tensor tensor = model.ops().empty(p.shape, DType::Float32);
    const int64_t bytes = p.size() * static_cast<int64_t>(sizeof(float));
    if (flat)
      model.ops().copy(tensor.data_ptr(), flat + model.trained_offset(p), bytes);
    else
      model.ops().zero(tensor.data_ptr(), bytes);
    tensors.emplace_back(p.name, std::move(tensor));
  }
  return tensors;
}

// Copies every parameter (of an adapter, if there is one), on the model's device, as float32.
NamedTensors copy_weights(const Model& model) {
  if (model.adapter()) return copy_trained(model, model.master());
  NamedTensors tensors;
  for (const Parameter& p : model.layout().parameters()) {
    at::Tensor tensor = model.ops().empty(p.shape, DType::Float32);
    model.read(p, 0, p.size(), static_cast<float*>(tensor.data_ptr()));
    tensors.emplace_back(p.name, std::move(tensor));
  }
  return tensors;
}

class ModelHandle : public Napi::ObjectWrap<ModelHandle> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, class_name,
                       {InstanceAccessor<&ModelHandle::num_parameters>("numParameters"),
                        InstanceAccessor<&ModelHandle::num_trainable>("numTrainable"),
                        InstanceMethod<&ModelHandle::save_adapter>("saveAdapter"),
                        InstanceMethod<&ModelHandle::restore>("restore"),
                        InstanceMethod<&ModelHandle::restore_adapter>("restoreAdapter"),
                        InstanceMethod<&ModelHandle::save_optimizer>("saveOptimizer"),
                        InstanceMethod<&ModelHandle::load_optimizer>("loadOptimizer"),
                        InstanceMethod<&ModelHandle::set_gradient_checkpointing>("setGradientCheckpointing"),
                        InstanceAccessor<&ModelHandle::layout>("layout"),
                        InstanceMethod<&ModelHandle::memory>("memory"),
                        InstanceMethod<&ModelHandle::score>("score"),
                        InstanceMethod<&ModelHandle::logits>("logits"),
                        InstanceMethod<&ModelHandle::generate>("generate"),
                        InstanceMethod<&ModelHandle::forward>("forward"),
                        InstanceMethod<&ModelHandle::find_non_finite>("findNonFinite"),
                        InstanceMethod<&ModelHandle::backward>("backward"),
                        InstanceMethod<&ModelHandle::step>("step"),
                        InstanceMethod<&ModelHandle::zero_grad>("zeroGrad"),
                        InstanceMethod<&ModelHandle::forget>("forget"),
                        InstanceMethod<&ModelHandle::sync_rollout>("syncRollout"),
                        InstanceMethod<&ModelHandle::drop_memory>("dropMemory"),
                        InstanceMethod<&ModelHandle::save_memory>("saveMemory"),
                        InstanceMethod<&ModelHandle::load_memory>("loadMemory"),
                        InstanceMethod<&ModelHandle::gradients>("gradients"),
                        InstanceMethod<&ModelHandle::parameters>("parameters"),
                        InstanceMethod<&ModelHandle::clone>("clone"),
                        InstanceMethod<&ModelHandle::save>("save"),
                        InstanceMethod<&ModelHandle::dispose>("dispose")});
  }

  explicit ModelHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ModelHandle>(info) {
    tag_object(info.This().As<Napi::Object>(), model_tag);
  }

  void fill(Napi::Env env, ModelPtr model) {
    model_ = std::move(model);
    // memory of the CPU that V8 cannot see; a GPU's is not its concern
    const MemoryUse use = model_->memory();
    external_ = model_->device() == Device::Cpu ? use.master + use.working : 0;
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

  Napi::Value num_trainable(const Napi::CallbackInfo& info) {
    return with_model(info, [&](const ModelPtr& model) {
      return Napi::Number::New(info.Env(), static_cast<double>(model->trained_count()));
    });
  }

  // setGradientCheckpointing(on)
  Napi::Value set_gradient_checkpointing(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      return run_void(
          info.Env(), model->device(), info.Env().Undefined(),
          [model, on = info[0].ToBoolean().Value()](const CancelToken&) { model->set_gradient_checkpointing(on); });
    });
  }

  // A job that reads or writes one file: method(path, signal).
  template <class Work>
  Napi::Value with_file(const Napi::CallbackInfo& info, Work work) {
    return with_model(info, [&](ModelPtr model) {
      check(info[0].IsString(), ErrorCode::InvalidArgument, "path must be a string");
      return run_void(info.Env(), model->device(), info[1],
                      [model, work, path = info[0].As<Napi::String>().Utf8Value()](const CancelToken& c) {
                        work(*model, path, c);
                      });
    });
  }

  // saveAdapter(path, signal)
  Napi::Value save_adapter(const Napi::CallbackInfo& info) {
    return with_file(info,
                     [](const Model& m, const std::string& path, const CancelToken& c) { m.save_adapter(path, c); });
  }

  // restoreAdapter(path, signal)
  Napi::Value restore_adapter(const Napi::CallbackInfo& info) {
    return with_file(info, [](Model& m, const std::string& path, const CancelToken& c) { m.restore_adapter(path, c); });
  }

  // saveOptimizer(path, signal)
  Napi::Value save_optimizer(const Napi::CallbackInfo& info) {
    return with_file(info,
                     [](const Model& m, const std::string& path, const CancelToken& c) { m.save_optimizer(path, c); });
  }

  // loadOptimizer(path, signal)
  Napi::Value load_optimizer(const Napi::CallbackInfo& info) {
    return with_file(info, [](Model& m, const std::string& path, const CancelToken& c) { m.load_optimizer(path, c); });
  }

  // restore(paths, signal)
  Napi::Value restore(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      std::vector<std::string> paths = string_list(info[0], "paths");
      check(model->trainable() && !model->adapter(), ErrorCode::Unsupported,
            "only a policy whose weights are trained can have them restored");
      return run_void(info.Env(), model->device(), info[1],
                      [model, paths = std::move(paths)](const CancelToken& c) { model->load(paths, c); });
    });
  }

  Napi::Value layout(const Napi::CallbackInfo& info) {
    return with_model(info, [&](const ModelPtr& model) { return to_layout(info.Env(), model->layout()); });
  }

  // What it holds when its turn comes.
  Napi::Value memory(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      return run(
          info.Env(), model->device(), info.Env().Undefined(), [model](const CancelToken&) { return model->memory(); },
          to_memory);
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
      GenerateOptions options = generate_options_argument(info[2], packed.offsets.size() - 1);
      const WeightSet set = weight_set_argument(info[2]);
      GenerateProgress progress;
      if (info[4].IsFunction()) progress = pair_notifier(env, info[4].As<Napi::Function>());
      return run(
          env, model->device(), info[3],
          [model, packed = std::move(packed), options = std::move(options), set, progress = std::move(progress)](
              const CancelToken& c) { return model->generate(packed, options, set, c, progress); },
          to_samples);
    });
  }

  // forward(ids, lengths, promptLengths, temperature, keep, signal, base): base = true, without the adapter
  Napi::Value forward(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      TrainBatch batch = batch_argument(info[0], info[1], info[2], model->config().vocab_size);
      const float temperature = temperature_argument(info[3]);
      const bool keep = info[4].ToBoolean(), base = info[6].ToBoolean();
      check(!base || !keep, ErrorCode::InvalidArgument, "without its adapter a policy keeps no activations");
      return run(
          info.Env(), model->device(), info[5],
          [model, batch = std::move(batch), temperature, keep, base](const CancelToken& c) {
            return model->forward(batch, temperature, keep, !base, c);
          },
          to_stats);
    });
  }

  // findNonFinite(ids, lengths, promptLengths, temperature, rollout, base, signal); no sequences: the weights alone
  Napi::Value find_non_finite(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      TrainBatch batch;
      if (!info[0].IsNull()) batch = batch_argument(info[0], info[1], info[2], model->config().vocab_size);
      const float temperature = temperature_argument(info[3]);
      const WeightSet set = info[4].ToBoolean() ? WeightSet::Rollout : WeightSet::Policy;
      const bool base = info[5].ToBoolean();
      return run(
          info.Env(), model->device(), info[6],
          [model, batch = std::move(batch), temperature, set, base](const CancelToken& c) {
            return model->find_non_finite(batch, set, !base, temperature, c);
          },
          to_non_finite);
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
      const StepOptions options = step_options_argument(info[0]);
      return run(
          info.Env(), model->device(), info.Env().Undefined(),
          [model, options](const CancelToken&) { return model->step(options); }, to_step_report);
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
      const ForgetOptions options = forget_options_argument(info[4]);
      return run(
          info.Env(), model->device(), info[5],
          [model, batch = std::move(batch), entropy = std::move(entropy), options](const CancelToken& c) {
            return model->forget(batch, entropy, options, c);
          },
          to_report);
    });
  }

  static uint32_t iteration_argument(Napi::Value value) {
    return static_cast<uint32_t>(integer_argument(value, "iteration", 0, UINT32_MAX));
  }

  // dropMemory(iteration)
  Napi::Value drop_memory(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      const uint32_t iteration = iteration_argument(info[0]);
      return run_void(info.Env(), model->device(), info.Env().Undefined(),
                      [model, iteration](const CancelToken&) { model->drop_memory(iteration); });
    });
  }

  // saveMemory(path, iteration)
  Napi::Value save_memory(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      check(info[0].IsString(), ErrorCode::InvalidArgument, "path must be a string");
      const std::string path = info[0].As<Napi::String>().Utf8Value();
      const uint32_t iteration = iteration_argument(info[1]);
      return run_void(info.Env(), model->device(), info.Env().Undefined(),
                      [model, path, iteration](const CancelToken& c) { model->save_memory(path, iteration, c); });
    });
  }

  // loadMemory(path, signal)
  Napi::Value load_memory(const Napi::CallbackInfo& info) {
    return with_file(info, [](Model& m, const std::string& path, const CancelToken& c) { m.load_memory(path, c); });
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
          [model](const CancelToken&) { return copy_trained(*model, model->gradient()); }, to_named_tensors);
    });
  }

  Napi::Value parameters(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      return run(
          info.Env(), model->device(), info.Env().Undefined(),
          [model](const CancelToken&) { return copy_weights(*model); }, to_named_tensors);
    });
  }

  Napi::Value clone(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      return run(
          info.Env(), model->device(), info.Env().Undefined(), [model](const CancelToken&) { return model->clone(); },
          wrap_model);
    });
  }

  // save([{ path, names }], dtype, signal)
  Napi::Value save(const Napi::CallbackInfo& info) {
    return with_model(info, [&](ModelPtr model) {
      std::vector<std::pair<std::string, std::vector<std::string>>> files;
      check(info[0].IsArray(), ErrorCode::InvalidArgument, "files must be an array of { path, names }");
      const auto list = info[0].As<Napi::Array>();
      for (uint32_t i = 0; i < list.Length(); ++i) {
        const Napi::Value entry = list.Get(i);
        check(entry.IsObject() && entry.As<Napi::Object>().Get("path").IsString(), ErrorCode::InvalidArgument, "files[",
              i, "] must be { path, names }");
        const auto file = entry.As<Napi::Object>();
        files.emplace_back(file.Get("path").As<Napi::String>().Utf8Value(), string_list(file.Get("names"), "names"));
      }
      const DType dtype = weight_dtype_argument(info[1], "dtype");
      return run_void(info.Env(), model->device(), info[2],
                      [model, files = std::move(files), dtype](const CancelToken& c) {
                        for (const auto& [path, names] : files) model->save(path, names, dtype, c);
                      });
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
  ModelHandle* handle = ModelHandle::Unwrap(object);
  check(handle != nullptr, ErrorCode::Native, "a policy's handle could not be made: the environment is going away");
  handle->fill(env, std::move(model));
  return object;
}

void attach(Model& model, const AdapterArgument& adapter, const CancelToken& cancel) {
  if (adapter.config.rank == 0) return;
  if (adapter.path.empty())
    model.attach(adapter.config, adapter.seed);
  else
    model.attach(adapter.config, adapter.path, cancel);
}

// loadModel(config, paths, signal, device, { dtype, trainable, adapter }, onProgress)
Napi::Value load_model(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const ModelConfig config = config_argument(info[0]);
    std::vector<std::string> paths = string_list(info[1], "paths");
    const Device device = device_argument(info[3]);
    const ModelOptions options = model_options_argument(info[4]);
    AdapterArgument adapter = adapter_argument(info[4]);
    LoadProgress progress;
    if (info[5].IsFunction()) progress = pair_notifier(info.Env(), info[5].As<Napi::Function>());
    return run(
        info.Env(), device, info[2],
        [config, device, options, adapter = std::move(adapter), paths = std::move(paths),
         progress = std::move(progress)](const CancelToken& cancel) {
          auto model = std::make_shared<Model>(config, ops_of(device), options);
          model->load(paths, cancel, progress);
          attach(*model, adapter, cancel);
          return model;
        },
        wrap_model);
  });
}

// createModel(config, seed, device, { dtype, trainable, adapter })
Napi::Value create_model(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const ModelConfig config = config_argument(info[0]);
    const uint64_t seed = seed_argument(info[1]);
    const Device device = device_argument(info[2]);
    const ModelOptions options = model_options_argument(info[3]);
    AdapterArgument adapter = adapter_argument(info[3]);
    return run(
        info.Env(), device, info.Env().Undefined(),
        [config, device, options, seed, adapter = std::move(adapter)](const CancelToken& cancel) {
          auto model = std::make_shared<Model>(config, ops_of(device), options);
          model->initialize(seed);
          attach(*model, adapter, cancel);
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
