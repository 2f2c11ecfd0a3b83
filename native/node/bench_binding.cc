// The kernels' bench for lib/bench: times are taken on the device's executor thread, without JavaScript in between.
#include "node/bench_binding.h"

#include <memory>
#include <string>
#include <utility>

#include "bench/rows.h"
#include "bench/workload.h"
#include "core/error.h"
#include "node/arguments.h"
#include "node/async.h"
#include "node/edge.h"
#include "node/tensor.h"
#include "node/tensor_data.h"

namespace eepo::node {
namespace {

constexpr napi_type_tag workload_tag = {0x6565706f2d626e63, 0x776f726b6c6f6164};

struct Held {
  Device device;
  std::shared_ptr<bench::Workload> workload;
};

Held& held_argument(Napi::Value value) {
  bool tagged = false;
  check(
      value.IsExternal() && napi_check_object_type_tag(value.Env(), value, &workload_tag, &tagged) == napi_ok && tagged,
      ErrorCode::InvalidArgument, "workload must come from benchOpen");
  Held& held = *value.As<Napi::External<Held>>().Data();
  check(held.workload != nullptr, ErrorCode::Disposed, "workload was closed");
  return held;
}

std::string string_argument(Napi::Value value, const char* name) {
  check(value.IsString(), ErrorCode::InvalidArgument, name, " must be a string");
  return value.As<Napi::String>().Utf8Value();
}

Device device_argument(Napi::Value value) {
  const std::string name = string_argument(value, "device");
  check(name == "cpu" || name == "cuda", ErrorCode::InvalidArgument, "device must be 'cpu' or 'cuda', got '", name,
        "'");
  return name == "cpu" ? Device::Cpu : Device::Cuda;
}

using Make = std::function<std::unique_ptr<bench::Workload>(Ops&)>;

/// What to make, read on the JavaScript thread.
Make workload_argument(const Napi::Object& options) {
  const std::string kind = string_argument(options.Get("kind"), "kind");
  const auto size = [&](const char* name) { return integer_argument(options.Get(name), name, 1); };
  if (kind == "logits") {
    const bench::RowOptions shape{size("rows"), size("vocab"), parse_dtype(options.Get("dtype"))};
    return [shape](Ops& ops) { return bench::logits_workload(ops, shape); };
  }
  if (kind == "head") {
    const bench::HeadOptions shape{size("rows"), size("dim"), size("vocab"), parse_dtype(options.Get("dtype"))};
    return [shape](Ops& ops) { return bench::head_workload(ops, shape); };
  }
  if (kind == "loss") {
    const int64_t tokens = size("tokens");
    return [tokens](Ops& ops) { return bench::loss_workload(ops, tokens); };
  }
  check(kind == "weights", ErrorCode::InvalidArgument, "kind must be 'logits', 'head', 'loss' or 'weights', got '",
        kind, "'");
  const int64_t elements = size("elements");
  return [elements](Ops& ops) { return bench::weights_workload(ops, elements); };
}

/// benchOpen({ device, kind, rows, ... }) -> workload. Allocates and fills its data.
Napi::Value open_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    check(info[0].IsObject(), ErrorCode::InvalidArgument, "options must be an object");
    const auto options = info[0].As<Napi::Object>();
    const Device device = device_argument(options.Get("device"));
    const Make make = workload_argument(options);
    return run(
        info.Env(), device, info.Env().Undefined(),
        [device, make](const CancelToken&) { return std::shared_ptr<bench::Workload>(make(ops_of(device))); },
        [device](Napi::Env env, std::shared_ptr<bench::Workload> workload) -> Napi::Value {
          auto external = Napi::External<Held>::New(env, new Held{device, std::move(workload)},
                                                    [](Napi::Env, Held* held) { delete held; });
          tag_object(external.As<Napi::Object>(), workload_tag);
          return external;
        });
  });
}

/// benchEntries(workload) -> [{ name, floors, amount, unit }]
Napi::Value entries_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    const auto& entries = held_argument(info[0]).workload->entries();
    Napi::Array result = Napi::Array::New(env, entries.size());
    for (uint32_t i = 0; i < entries.size(); ++i) {
      Napi::Object entry = Napi::Object::New(env);
      entry.Set("name", entries[i].name);
      Napi::Array floors = Napi::Array::New(env, entries[i].floors.size());
      for (uint32_t k = 0; k < entries[i].floors.size(); ++k) floors.Set(k, entries[i].floors[k]);
      entry.Set("floors", floors);
      entry.Set("amount", entries[i].amount);
      entry.Set("unit", entries[i].unit);
      result.Set(i, entry);
    }
    return result;
  });
}

/// Runs `measure(workload, name)` on the device's thread and gives its number.
Napi::Value measure(const Napi::CallbackInfo& info, double (bench::Workload::*method)(const std::string&)) {
  return guarded(info.Env(), [&] {
    const Held held = held_argument(info[0]);
    const std::string name = string_argument(info[1], "name");
    return run(
        info.Env(), held.device, info.Env().Undefined(),
        [held, name, method](const CancelToken&) { return (*held.workload.*method)(name); },
        [](Napi::Env env, double value) -> Napi::Value { return Napi::Number::New(env, value); });
  });
}

/// benchRun(workload, name) -> milliseconds
Napi::Value run_js(const Napi::CallbackInfo& info) { return measure(info, &bench::Workload::run); }

/// benchMemory(workload, name) -> bytes
Napi::Value memory_js(const Napi::CallbackInfo& info) { return measure(info, &bench::Workload::extra_memory); }

/// benchErrors(workload, name) -> { [what]: error }
Napi::Value errors_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Held held = held_argument(info[0]);
    const std::string name = string_argument(info[1], "name");
    return run(
        info.Env(), held.device, info.Env().Undefined(),
        [held, name](const CancelToken&) { return held.workload->errors(name); },
        [](Napi::Env env, const bench::Errors& errors) -> Napi::Value {
          Napi::Object result = Napi::Object::New(env);
          for (const auto& [what, error] : errors) result.Set(what, error);
          return result;
        });
  });
}

/// benchClose(workload): frees its data.
Napi::Value close_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    Held& held = held_argument(info[0]);
    return run(
        info.Env(), held.device, info.Env().Undefined(),
        [workload = std::exchange(held.workload, nullptr)](const CancelToken&) mutable {
          workload.reset();
          return true;
        },
        [](Napi::Env env, bool) -> Napi::Value { return env.Undefined(); });
  });
}

/// benchRows(rows, vocab) -> { logits, targets, entropy }: the rows that are measured, for the test of their entropies.
Napi::Value rows_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const int64_t rows = integer_argument(info[0], "rows", 1), vocab = integer_argument(info[1], "vocab", 2);
    const bench::ZipfRows zipf(vocab);
    at::Tensor logits = new_tensor({rows, vocab}, DType::Float32);
    zipf.fill(logits);
    Napi::Float64Array entropy = Napi::Float64Array::New(info.Env(), static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r) entropy[static_cast<size_t>(r)] = zipf.entropy(r);
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("logits", wrap_tensor(info.Env(), logits));
    result.Set("targets", wrap_tensor(info.Env(), zipf.targets(rows)));
    result.Set("entropy", entropy);
    return result;
  });
}

}  // namespace

void register_bench(Napi::Env env, Napi::Object exports) {
  exports.Set("benchOpen", Napi::Function::New(env, open_js, "benchOpen"));
  exports.Set("benchEntries", Napi::Function::New(env, entries_js, "benchEntries"));
  exports.Set("benchRun", Napi::Function::New(env, run_js, "benchRun"));
  exports.Set("benchMemory", Napi::Function::New(env, memory_js, "benchMemory"));
  exports.Set("benchErrors", Napi::Function::New(env, errors_js, "benchErrors"));
  exports.Set("benchClose", Napi::Function::New(env, close_js, "benchClose"));
  exports.Set("benchRows", Napi::Function::New(env, rows_js, "benchRows"));
}

}  // namespace eepo::node
