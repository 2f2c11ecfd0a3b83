// The way back into one JavaScript environment from the device's thread: an inbox of calls that run on the
// environment's thread, and the table of promises that wait for one. Internal to native/node.
#pragma once

#include <napi.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "node/async.h"

namespace eepo::node {

/// A promise whose job is queued or running. Holds JavaScript references, so it lives on the JavaScript thread only.
struct PendingJob {
  Napi::Promise::Deferred deferred;
  std::function<Napi::Value(Napi::Env)> finish;
  CancelPtr cancel;
  Device device;
  Napi::ObjectReference signal;      // empty without an AbortSignal
  Napi::FunctionReference listener;  // its "abort" listener
};

class Channel : public std::enable_shared_from_this<Channel> {
 public:
  using Call = std::function<void(Napi::Env, Channel&)>;

  static std::shared_ptr<Channel> open(Napi::Env env);

  /// Any thread: runs `call` on the JavaScript thread. Dropped once the environment is going away; `call` may then
  /// be destroyed on the calling thread, so it must hold no JavaScript references.
  void post(Call call);

  // The rest is for the JavaScript thread alone.

  /// Keeps the process alive until settled.
  uint64_t add(Napi::Env env, PendingJob job);
  /// Resolves with the job's finish(), or rejects with `error`. Does nothing if it was settled before.
  void settle(Napi::Env env, uint64_t id, std::exception_ptr error);
  /// The AbortSignal of a pending job fired.
  void abort(Napi::Env env, uint64_t id);

  uint64_t add_callback(Napi::Function callback);
  void remove_callback(uint64_t id) { callbacks_.erase(id); }
  Napi::FunctionReference* callback(uint64_t id);

 private:
  static void on_wake(napi_env env, napi_value, void* context, void*);
  static void on_env_exit(void* self);
  void close();

  napi_threadsafe_function wake_ = nullptr;
  std::mutex mutex_;  // guards closed_, inbox_ and every use of wake_ by another thread
  bool closed_ = false;
  std::deque<Call> inbox_;

  uint64_t next_id_ = 1;
  std::unordered_map<uint64_t, PendingJob> pending_;
  std::unordered_map<uint64_t, Napi::FunctionReference> callbacks_;
};

}  // namespace eepo::node
