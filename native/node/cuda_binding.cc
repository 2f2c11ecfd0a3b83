// loadCuda, and what JavaScript may ask of the GPU. TypeScript (lib/cuda.ts) decides whether the CUDA half can be used
// at all, in a child process first; here it is only loaded.
#include "node/cuda_binding.h"

#include <dlfcn.h>

#include <cmath>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/factory.h"
#include "device/ops.h"
#include "node/arguments.h"
#include "node/async.h"

namespace eepo::node {
namespace {

/// Loads the binary and makes its operations the process's. A second call (another worker thread) finds it done.
void load(const std::string& path) {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  if (has_cuda_ops()) return;
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  const char* reason = library ? nullptr : dlerror();
  check(library != nullptr, ErrorCode::Unsupported, "the CUDA half could not be loaded: ", reason ? reason : path);
  auto* factory = reinterpret_cast<cuda::OpsFactory*>(dlsym(library, cuda::kFactoryName));
  check(factory != nullptr, ErrorCode::Unsupported, path, " is not the CUDA half of eepo: it has no ",
        cuda::kFactoryName);
  std::string error;
  Ops* ops = factory(EEPO_VERSION, &error);
  check(ops != nullptr, ErrorCode::Unsupported, error);
  install_cuda_ops(ops);  // the library stays loaded for good
}

void self_test(Ops& ops) {
  constexpr int64_t rows = 3, cols = 1001;
  std::vector<float> logits(rows * cols);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>((i * 7919) % 97) * 0.25f - 12.0f;
  const std::vector<int64_t> targets = {0, 500, 1000};
  std::vector<float> expected(2 * rows), seen(2 * rows);
  token_stats({logits.data(), DType::Float32, rows, cols, cols}, targets.data(), 1, expected.data(),
              expected.data() + rows, nullptr);
  at::Tensor logits_memory, targets_memory;
  const at::Tensor out = ops.empty({2 * rows}, DType::Float32);
  auto* stats = static_cast<float*>(out.data_ptr());
  ops.token_stats({ops.stage(logits, logits_memory), DType::Float32, rows, cols, cols},
                  ops.stage(targets, targets_memory), 1, stats, stats + rows, nullptr, nullptr);
  ops.download(seen.data(), stats, 2 * rows * static_cast<int64_t>(sizeof(float)));
  for (size_t i = 0; i < seen.size(); ++i)
    check(std::abs(seen[i] - expected[i]) <= 1e-4f, ErrorCode::Unsupported, "the GPU computed ", seen[i],
          " where the CPU has ", expected[i], ": this GPU or its driver does not work with this build");
}

/// loadCuda(path)
Napi::Value load_cuda(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    check(info[0].IsString(), ErrorCode::InvalidArgument, "path must be a string");
    load(info[0].As<Napi::String>().Utf8Value());
    return info.Env().Undefined();
  });
}

/// deviceInfo(device) -> Promise<{ name, totalBytes, freeBytes, capability, multiprocessors, allocated, peak,
/// synchronizations }>
Napi::Value device_info(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Device device = device_argument(info[0]);
    struct Report {
      DeviceInfo info;
      MemoryStats memory;
      int64_t synchronizations = 0;
    };
    return run(
        info.Env(), device, info.Env().Undefined(),
        [device](const CancelToken&) {
          Ops& ops = ops_of(device);
          return Report{ops.info(), ops.memory(), ops.synchronizations()};
        },
        [](Napi::Env env, const Report& report) -> Napi::Value {
          Napi::Object o = Napi::Object::New(env);
          const auto set = [&](const char* name, int64_t value) { o.Set(name, static_cast<double>(value)); };
          o.Set("name", report.info.name);
          set("totalBytes", report.info.total_bytes);
          set("freeBytes", report.info.free_bytes);
          o.Set("capability", std::to_string(report.info.major) + "." + std::to_string(report.info.minor));
          set("multiprocessors", report.info.multiprocessors);
          set("allocatedBytes", report.memory.allocated);
          set("peakBytes", report.memory.peak);
          set("synchronizations", report.synchronizations);
          return o;
        });
  });
}

/// cudaSelfTest(): one small kernel on the GPU; rejects when its numbers are not the CPU's. What the probe runs before
/// anything of value is at stake.
Napi::Value cuda_self_test(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return run(info.Env(), Device::Cuda, info.Env().Undefined(),
               Job{[](const CancelToken&) { self_test(ops_of(Device::Cuda)); },
                   [](Napi::Env env) -> Napi::Value { return env.Undefined(); }});
  });
}

/// emptyCache(device): gives memory that libtorch's allocator keeps back to the system; the peak starts anew.
Napi::Value empty_cache(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Device device = device_argument(info[0]);
    return run(info.Env(), device, info.Env().Undefined(),
               Job{[device](const CancelToken&) {
                     ops_of(device).empty_cache();
                     ops_of(device).reset_peak();
                   },
                   [](Napi::Env env) -> Napi::Value { return env.Undefined(); }});
  });
}

}  // namespace

void register_cuda(Napi::Env env, Napi::Object exports) {
  exports.Set("loadCuda", Napi::Function::New(env, load_cuda, "loadCuda"));
  exports.Set("cudaSelfTest", Napi::Function::New(env, cuda_self_test, "cudaSelfTest"));
  exports.Set("deviceInfo", Napi::Function::New(env, device_info, "deviceInfo"));
  exports.Set("emptyCache", Napi::Function::New(env, empty_cache, "emptyCache"));
}

}  // namespace eepo::node
