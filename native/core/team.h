// Exceptions in a parallel region. One that leaves an OpenMP region ends the process, so what can throw in there (an
// allocation) is run through a TeamErrors and thrown again by the thread that opened the region.
#pragma once

#include <exception>
#include <mutex>

namespace eepo {

class TeamErrors {
 public:
  /// Any thread of the team: calls body(), keeping the first exception.
  template <class Body>
  void run(Body&& body) noexcept {
    try {
      body();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!first_) first_ = std::current_exception();
    }
  }

  /// After the region: throws what was kept.
  void rethrow() const {
    if (first_) std::rethrow_exception(first_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr first_;
};

}  // namespace eepo
