#include "node/executor.h"

#include <c10/core/GradMode.h>
#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <system_error>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/threads.h"
#include "device/ops.h"
#include "node/channel.h"

namespace eepo::node {
namespace {

// A job polls its CancelToken between kernels; the longest of those takes about this long on a slow machine.
constexpr auto exit_patience = std::chrono::seconds(5);

}  // namespace

Executor& Executor::of(Device device) {
  // Leaked on purpose: their threads outlive every static destructor.
  if (device == Device::Cpu) {
    static Executor* cpu = new Executor(Device::Cpu);
    return *cpu;
  }
  ops_of(device);  // throws where there is none
  static Executor* cuda = new Executor(Device::Cuda);
  return *cuda;
}

Executor::Executor(Device device) : device_(device) {
  try {
    std::thread(&Executor::loop, this).detach();
  } catch (const std::system_error& error) {
    fail(ErrorCode::OutOfMemory, "the thread that computes could not be started: ", error.what());
  }
#ifdef __GLIBC__
  ::on_exit(&Executor::on_process_exit, this);
#endif
}

void Executor::submit(Task task) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(task));
  }
  queued_.notify_one();
}

bool Executor::remove(const Channel* channel, uint64_t id) {
  Task removed;  // destroyed after the lock is released: a work closure may free tensors
  std::lock_guard lock(mutex_);
  for (auto task = queue_.begin(); task != queue_.end(); ++task) {
    if (task->channel.get() != channel || task->id != id) continue;
    removed = std::move(*task);
    queue_.erase(task);
    return true;
  }
  return false;
}

void Executor::forget(const Channel* channel) {
  std::deque<Task> removed, kept;
  std::lock_guard lock(mutex_);
  for (Task& task : queue_) (task.channel.get() == channel ? removed : kept).push_back(std::move(task));
  queue_.swap(kept);
  if (running_channel_ == channel && running_) running_->cancel();
}

void Executor::loop() {
  pthread_setname_np(pthread_self(), device_ == Device::Cpu ? "eepo-cpu" : "eepo-cuda");
  c10::NoGradGuard no_grad;  // thread-local, as gradients are computed by our own backward
  for (;;) {
    Task task;
    {
      std::unique_lock lock(mutex_);
      running_ = nullptr;
      running_channel_ = nullptr;
      idle_.notify_all();
      queued_.wait(lock, [this] { return !exiting_ && !queue_.empty(); });
      task = std::move(queue_.front());
      queue_.pop_front();
      running_ = task.cancel;
      running_channel_ = task.channel.get();
    }
    std::exception_ptr error;
    try {
      task.cancel->check();
      apply_num_threads();
      ops_of(device_).begin_job();
      task.work(*task.cancel);
    } catch (...) {
      error = std::current_exception();
    }
    task.work = nullptr;  // frees the inputs it held before the promise settles
    {
      std::lock_guard lock(mutex_);
      if (exiting_) continue;
    }
    task.channel->post([id = task.id, error](Napi::Env env, Channel& channel) { channel.settle(env, id, error); });
  }
}

void Executor::on_process_exit(int status, void* self) {
  auto* executor = static_cast<Executor*>(self);
  std::unique_lock lock(executor->mutex_);
  executor->exiting_ = true;
  if (executor->running_ == nullptr) return;
  executor->running_->cancel();
  if (executor->idle_.wait_for(lock, exit_patience, [&] { return executor->running_ == nullptr; })) return;
  // Still computing: the rest of exit() would destroy libtorch's globals under it.
  std::fflush(nullptr);
  ::_exit(status);
}

}  // namespace eepo::node
