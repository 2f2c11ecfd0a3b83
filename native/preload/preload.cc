// A tiny addon with no dependency on libtorch. It loads shared libraries by absolute path with their symbols
// global, so that a later require() of the real addon finds libtorch by its soname without any search path.
#include <dlfcn.h>
#include <napi.h>

#include <cstdlib>
#include <string>

namespace {

/// load(path): dlopen(path, RTLD_NOW | RTLD_GLOBAL). Throws an Error with the text of dlerror(). The library is
/// never closed: unloading libtorch at exit is a known way to crash.
Napi::Value load(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsString()) {
    throw Napi::TypeError::New(env, "load(path): path must be a string");
  }
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    const char* reason = dlerror();
    throw Napi::Error::New(env, reason != nullptr ? reason : "dlopen failed without a reason");
  }
  return env.Undefined();
}

// libgomp's idle threads spin for milliseconds before they sleep. Where anything else wants the cores, a spinning
// thread keeps its partner from running, and the many short parallel regions of a small model become ten times slower
// (measured: 11 s instead of 0.7 s an iteration beside one busy process). libgomp reads this when it is loaded, so it
// is set here, unless the user has an opinion.
void shorten_openmp_spinning() {
  if (std::getenv("OMP_WAIT_POLICY") == nullptr) setenv("GOMP_SPINCOUNT", "1000", /*overwrite=*/0);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  shorten_openmp_spinning();
  exports.Set("load", Napi::Function::New(env, load, "load"));
  return exports;
}

}  // namespace

NODE_API_MODULE(preload, init)
