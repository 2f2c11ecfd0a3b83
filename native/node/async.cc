#include "node/async.h"

#include <optional>
#include <string>
#include <utility>

#include "node/channel.h"
#include "node/edge.h"
#include "node/executor.h"

namespace eepo::node {

// ---- Channel
// ---------------------------------------------------------------------------------------------------------

std::shared_ptr<Channel> Channel::open(Napi::Env env) {
  auto channel = std::make_shared<Channel>();
  // The thread-safe function owns a reference to the channel and gives it back in its finalizer.
  auto* context = new std::shared_ptr<Channel>(channel);
  const napi_status status = napi_create_threadsafe_function(
      env, nullptr, nullptr, Napi::String::New(env, "eepo"), 0, 1, context,
      [](napi_env, void*, void* hint) { delete static_cast<std::shared_ptr<Channel>*>(hint); }, context, on_wake,
      &channel->wake_);
  if (status != napi_ok) {
    delete context;
    throw Napi::Error::New(env, "eepo could not create its thread-safe function");
  }
  napi_unref_threadsafe_function(env, channel->wake_);  // an idle executor does not keep the process alive
  // Cleanup hooks run last-in first-out, so ours comes before the thread-safe function's own.
  napi_add_env_cleanup_hook(env, on_env_exit, new std::shared_ptr<Channel>(channel));
  return channel;
}

void Channel::post(Call call) {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  inbox_.push_back(std::move(call));
  napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
}

void Channel::on_wake(napi_env raw_env, napi_value, void* context, void*) {
  if (raw_env == nullptr) return;
  const std::shared_ptr<Channel> channel = *static_cast<std::shared_ptr<Channel>*>(context);
  Call call;
  {
    std::lock_guard lock(channel->mutex_);
    if (channel->closed_ || channel->inbox_.empty()) return;
    call = std::move(channel->inbox_.front());
    channel->inbox_.pop_front();
  }
  Napi::Env env(raw_env);
  Napi::HandleScope scope(env);
  try {
    try {
      call(env, *channel);
    } catch (...) {
      // A user's callback threw: an uncaught exception, as in any other callback of Node.
      napi_fatal_exception(env, to_js_error(env, std::current_exception()));
    }
  } catch (...) {
    // Not even the error could be made: this worker thread is being terminated, and nobody is left to be told.
  }
}

void Channel::on_env_exit(void* self) {
  auto* channel = static_cast<std::shared_ptr<Channel>*>(self);
  (*channel)->close();
  delete channel;
}

void Channel::close() {
  std::deque<Call> dropped;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    dropped.swap(inbox_);
  }
  for (auto& [id, job] : pending_) {
    job.cancel->cancel();
    Executor::of(job.device).forget(this);  // which there is: it took the job
  }
  pending_.clear();  // references die here, on the JavaScript thread
  callbacks_.clear();
}

uint64_t Channel::add(Napi::Env env, PendingJob job) {
  if (pending_.empty()) napi_ref_threadsafe_function(env, wake_);
  const uint64_t id = next_id_++;
  pending_.emplace(id, std::move(job));
  return id;
}

void Channel::settle(Napi::Env env, uint64_t id, std::exception_ptr error) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;
  PendingJob job = std::move(found->second);
  pending_.erase(found);
  if (pending_.empty()) napi_unref_threadsafe_function(env, wake_);

  std::optional<Napi::Value> reason;
  try {  // a signal may be anybody's object, and the promise is settled whatever it does
    if (!job.signal.IsEmpty()) {
      Napi::Object signal = job.signal.Value();
      if (job.cancel->cancelled()) reason = signal.Get("reason");
      signal.Get("removeEventListener")
          .As<Napi::Function>()
          .Call(signal, {Napi::String::New(env, "abort"), job.listener.Value()});
    }
  } catch (...) {
    if (error == nullptr) error = std::current_exception();
  }
  Napi::Value result;
  if (error == nullptr) {
    try {
      result = job.finish(env);
    } catch (...) {
      error = std::current_exception();
    }
  }
  // Once, whatever comes of it: a promise that was concluded is gone.
  if (error == nullptr) {
    job.deferred.Resolve(result);
    return;
  }
  Napi::Value rejection = to_js_error(env, error);
  if (reason && rejection.IsObject()) rejection.As<Napi::Object>().Set("cause", *reason);
  job.deferred.Reject(rejection);
}

void Channel::abort(Napi::Env env, uint64_t id) {
  const auto found = pending_.find(id);
  if (found == pending_.end()) return;
  found->second.cancel->cancel();
  // A running job sees its token and rejects when it stops; a queued one is dropped now.
  if (!Executor::of(found->second.device).remove(this, id)) return;
  settle(env, id, std::make_exception_ptr(Error(ErrorCode::Aborted, "The operation was aborted")));
}

uint64_t Channel::add_callback(Napi::Function callback) {
  const uint64_t id = next_id_++;
  callbacks_.emplace(id, Napi::Persistent(callback));
  return id;
}

Napi::FunctionReference* Channel::callback(uint64_t id) {
  const auto found = callbacks_.find(id);
  return found == callbacks_.end() ? nullptr : &found->second;
}

// ---- run()
// -----------------------------------------------------------------------------------------------------------

namespace {

/// The signal as an object, or nothing when there is none.
std::optional<Napi::Object> abort_signal(Napi::Value value) {
  if (value.IsEmpty() || value.IsUndefined() || value.IsNull()) return std::nullopt;
  if (value.IsObject()) {
    Napi::Object signal = value.As<Napi::Object>();
    if (signal.Get("aborted").IsBoolean() && signal.Get("addEventListener").IsFunction() &&
        signal.Get("removeEventListener").IsFunction()) {
      return signal;
    }
  }
  fail(ErrorCode::InvalidArgument, "signal must be an AbortSignal");
}

void start(Napi::Env env, Device device, Napi::Value signal_value, Job job, Napi::Promise::Deferred deferred) {
  const std::optional<Napi::Object> signal = abort_signal(signal_value);
  Executor& executor = Executor::of(device);
  if (signal && signal->Get("aborted").ToBoolean()) {
    Napi::Value rejection =
        to_js_error(env, std::make_exception_ptr(Error(ErrorCode::Aborted, "The operation was aborted")));
    rejection.As<Napi::Object>().Set("cause", signal->Get("reason"));
    deferred.Reject(rejection);
    return;
  }
  const std::shared_ptr<Channel> channel = edge_data(env).channel;
  CancelPtr cancel = std::make_shared<CancelToken>();
  PendingJob pending{deferred, std::move(job.finish), cancel, device, {}, {}};
  // The listener needs the id, which add() gives: it reads it through this cell.
  auto id_cell = std::make_shared<uint64_t>(0);
  if (signal) {
    std::weak_ptr<Channel> weak = channel;
    Napi::Function listener = Napi::Function::New(env, [weak, id_cell](const Napi::CallbackInfo& info) {
      if (const auto strong = weak.lock()) strong->abort(info.Env(), *id_cell);
    });
    signal->Get("addEventListener").As<Napi::Function>().Call(*signal, {Napi::String::New(env, "abort"), listener});
    pending.signal = Napi::Persistent(*signal);
    pending.listener = Napi::Persistent(listener);
  }
  *id_cell = channel->add(env, std::move(pending));
  executor.submit(Task{channel, *id_cell, std::move(job.work), std::move(cancel)});
}

class ChannelNotifier final : public Notifier {
 public:
  ChannelNotifier(std::shared_ptr<Channel> channel, uint64_t id) : channel_(std::move(channel)), id_(id) {}

  ~ChannelNotifier() override {
    channel_->post([id = id_](Napi::Env, Channel& channel) { channel.remove_callback(id); });
  }

  void notify(std::function<void(Napi::Env, Napi::Function)> call) override {
    channel_->post([id = id_, call = std::move(call)](Napi::Env env, Channel& channel) {
      if (Napi::FunctionReference* callback = channel.callback(id)) call(env, callback->Value());
    });
  }

 private:
  std::shared_ptr<Channel> channel_;
  uint64_t id_;
};

}  // namespace

Napi::Value run(Napi::Env env, Device device, Napi::Value signal, Job job) {
  Napi::Promise::Deferred deferred = Napi::Promise::Deferred::New(env);
  try {
    start(env, device, signal, std::move(job), deferred);
  } catch (...) {
    deferred.Reject(to_js_error(env, std::current_exception()));
  }
  return deferred.Promise();
}

std::shared_ptr<Notifier> make_notifier(Napi::Env env, Napi::Function callback) {
  const std::shared_ptr<Channel> channel = edge_data(env).channel;
  return std::make_shared<ChannelNotifier>(channel, channel->add_callback(callback));
}

}  // namespace eepo::node
