// Errors that cross into JavaScript. Every failure below the N-API edge is thrown as an eepo::Error
// (or is a c10::Error / std::bad_alloc, which the edge translates); `code` is stable and becomes
// `error.code` of an EepoError subclass in TypeScript (lib/errors.ts).
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace eepo {

enum class ErrorCode {
  InvalidArgument,  // EEPO_INVALID_ARGUMENT  a value, shape or dtype the caller passed
  Disposed,         // EEPO_DISPOSED          use after dispose()
  InvalidFile,      // EEPO_INVALID_FILE      a model, config or weights file is missing or broken
  Unsupported,      // EEPO_UNSUPPORTED       an architecture, dtype or device this build does not have
  OutOfMemory,      // EEPO_OUT_OF_MEMORY     an allocation failed; the message says how much was asked for
  Aborted,          // EEPO_ABORTED           an AbortSignal fired
  NonFinite,        // EEPO_NON_FINITE        NaN or Inf where a number was needed
  Busy,             // EEPO_BUSY              two operations on one object that must not overlap
  Native,           // EEPO_NATIVE            anything else (a c10::Error, a bug)
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

namespace detail {
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}
}  // namespace detail

template <class... Parts>
[[noreturn]] void fail(ErrorCode code, const Parts&... parts) {
  throw Error(code, detail::concat(parts...));
}

// check(n >= 0, ErrorCode::InvalidArgument, "rows must not be negative, got ", n)
template <class... Parts>
inline void check(bool condition, ErrorCode code, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail(code, parts...);
}

}  // namespace eepo
