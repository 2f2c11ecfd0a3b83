// One native thread per device with a FIFO. Work runs there and never on the event loop; its result comes
// back as a promise. The interface other files use; async.cc holds the thread.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <type_traits>

#include "core/cancel.h"
#include "core/device.h"

namespace eepo::node {

/// A job in two halves: `work` runs on the device's thread and may throw; `finish` runs on the JavaScript
/// thread of the environment that asked and turns the result into a value. Neither may touch the other's world:
/// `work` must hold copies (or tensor handles, which count references) of all it reads.
struct Job {
  std::function<void(const CancelToken&)> work;
  std::function<Napi::Value(Napi::Env)> finish;
};

/// Queues the job and returns its promise. `signal` may be undefined or an AbortSignal: already aborted rejects
/// at once; aborted later, a queued job is dropped and a running one sees its CancelToken. The rejection is an
/// AbortError (EEPO_ABORTED).
Napi::Value run(Napi::Env env, Device device, Napi::Value signal, Job job);

/// run() for a `work` that returns a value: `finish(env, value)`.
template <class Work, class Finish>
Napi::Value run(Napi::Env env, Device device, Napi::Value signal, Work work, Finish finish) {
  using Result = std::invoke_result_t<Work, const CancelToken&>;
  auto result = std::make_shared<std::unique_ptr<Result>>();
  return run(env, device, signal,
             Job{[result, work = std::move(work)](const CancelToken& cancel) mutable {
                   *result = std::make_unique<Result>(work(cancel));
                 },
                 [result, finish = std::move(finish)](Napi::Env e) mutable -> Napi::Value {
                   return finish(e, std::move(**result));
                 }});
}

/// Calls `call` on the JavaScript thread from the device's thread (progress reports). Cheap; never blocks;
/// dropped once the environment is going away. Made on the JavaScript thread, shared into a job.
class Notifier {
 public:
  virtual ~Notifier() = default;
  virtual void notify(std::function<void(Napi::Env, Napi::Function)> call) = 0;
};
std::shared_ptr<Notifier> make_notifier(Napi::Env env, Napi::Function callback);

/// Translates an exception into a JavaScript Error with `code` (and `nativeBacktrace`). TypeScript's wrap() turns
/// it into the EepoError subclass.
Napi::Value to_js_error(Napi::Env env, std::exception_ptr exception);

/// For synchronous entry points: calls `body`, rethrowing C++ exceptions as JavaScript errors.
Napi::Value guarded(Napi::Env env, const std::function<Napi::Value()>& body);

}  // namespace eepo::node
