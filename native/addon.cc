// The one table of what JavaScript can call. Each room registers its own functions.
#include <napi.h>
#include <omp.h>
#include <torch/version.h>

#include "core/error.h"
#include "core/isa.h"
#include "core/threads.h"
#include "node/bench_binding.h"
#include "node/cuda_binding.h"
#include "node/edge.h"
#include "node/model_binding.h"

namespace eepo {

/// Read by lib/native.ts out of the file, before it is loaded: libtorch's C++ interface changes between minor
/// versions, so loading against another one would fail with an unreadable symbol error, or not fail and crash.
extern "C" __attribute__((visibility("default"), used)) const char eepo_built_against[] =
    "eepo built against libtorch " TORCH_VERSION ";";

namespace {

/// info() -> { isa, threads, openmp }: what the CPU side runs on. `openmp` is measured, not declared: whether a
/// parallel region really got more than one thread (true on a one-thread machine).
Napi::Value info(const Napi::CallbackInfo& call) {
  Napi::Env env = call.Env();
  const int threads = num_threads();
  int seen = 1;
#pragma omp parallel num_threads(threads)
  {
#pragma omp single
    seen = omp_get_num_threads();
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("isa", isa_name(isa()));
  result.Set("threads", threads);
  result.Set("openmp", threads == 1 || seen > 1);
  return result;
}

/// setThreads(n): the number of threads later jobs use.
Napi::Value set_threads(const Napi::CallbackInfo& call) {
  Napi::Env env = call.Env();
  const double wanted = call.Length() > 0 && call[0].IsNumber() ? call[0].As<Napi::Number>().DoubleValue() : 0;
  if (!(wanted >= 1 && wanted <= 4096 && wanted == static_cast<int>(wanted))) {
    Napi::Error error = Napi::TypeError::New(env, "threads must be an integer from 1 to 4096");
    error.Set("code", Napi::String::New(env, "EEPO_INVALID_ARGUMENT"));
    throw error;
  }
  set_num_threads(static_cast<int>(wanted));
  return env.Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("version", EEPO_VERSION);
  exports.Set("libtorchVersion", TORCH_VERSION);
  exports.Set("info", Napi::Function::New(env, info, "info"));
  exports.Set("setThreads", Napi::Function::New(env, set_threads, "setThreads"));
  // One line per room: register_<room>(env, exports).
  node::register_edge(env, exports);
  node::register_kernels(env, exports);
  node::register_model(env, exports);
  node::register_bench(env, exports);
  node::register_cuda(env, exports);
  return exports;
}

}  // namespace
}  // namespace eepo

static Napi::Object init(Napi::Env env, Napi::Object exports) { return eepo::init(env, exports); }
NODE_API_MODULE(eepo, init)
