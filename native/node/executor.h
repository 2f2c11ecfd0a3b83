// The thread of one device and its FIFO. Process-wide and shared by every environment. Internal to native/node.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "node/async.h"

namespace eepo::node {

class Channel;

struct Task {
  std::shared_ptr<Channel> channel;  // where the result goes
  uint64_t id;
  std::function<void(const CancelToken&)> work;
  CancelPtr cancel;
};

class Executor {
 public:
  /// The one executor of `device`, started at its first use and never destroyed.
  static Executor& of(Device device);

  void submit(Task task);
  /// True when the task was still queued and is now gone; false when it is running or done.
  bool remove(const Channel* channel, uint64_t id);
  /// Drops the queued tasks of an environment that is going away and cancels its running one.
  void forget(const Channel* channel);

 private:
  explicit Executor(Device device);
  void loop();
  /// At process exit: static destructors must not run under a running job.
  static void on_process_exit(int status, void* self);

  const Device device_;
  std::mutex mutex_;
  std::condition_variable queued_, idle_;
  std::deque<Task> queue_;
  const Channel* running_channel_ = nullptr;  // for comparison only
  CancelPtr running_;                         // null while idle
  bool exiting_ = false;
};

}  // namespace eepo::node
