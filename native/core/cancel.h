// Cooperative cancellation: an AbortSignal in JavaScript sets the flag, long native loops poll it
// between tokens, layers or micro-batches.
#pragma once

#include <atomic>
#include <memory>

#include "core/error.h"

namespace eepo {

class CancelToken {
 public:
  void cancel() noexcept { flag_.store(true, std::memory_order_relaxed); }
  bool cancelled() const noexcept { return flag_.load(std::memory_order_relaxed); }
  void check() const {
    if (cancelled()) fail(ErrorCode::Aborted, "The operation was aborted");
  }

 private:
  std::atomic<bool> flag_{false};
};

using CancelPtr = std::shared_ptr<CancelToken>;

}  // namespace eepo
