// The one place where C++ exceptions become JavaScript errors.
#include <c10/util/Exception.h>

#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

#include "node/async.h"
#include "node/edge.h"

namespace eepo::node {
namespace {

const char* code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::InvalidArgument: return "EEPO_INVALID_ARGUMENT";
    case ErrorCode::Disposed: return "EEPO_DISPOSED";
    case ErrorCode::InvalidFile: return "EEPO_INVALID_FILE";
    case ErrorCode::Unsupported: return "EEPO_UNSUPPORTED";
    case ErrorCode::OutOfMemory: return "EEPO_OUT_OF_MEMORY";
    case ErrorCode::Aborted: return "EEPO_ABORTED";
    case ErrorCode::NonFinite: return "EEPO_NON_FINITE";
    case ErrorCode::Busy: return "EEPO_BUSY";
    case ErrorCode::Native: return "EEPO_NATIVE";
  }
  return "EEPO_NATIVE";
}

Napi::Object make_error(Napi::Env env, ErrorCode code, const std::string& message) {
  Napi::Object error = Napi::Error::New(env, message).Value();
  error.Set("code", code_name(code));
  return error;
}

/// libtorch's message and its backtrace come in one string; they are two things to a reader.
Napi::Object torch_error(Napi::Env env, ErrorCode code, const c10::Error& error) {
  std::string message = error.what_without_backtrace();
  // The CPU allocator reports a failed allocation as a plain c10::Error.
  if (message.find("can't allocate memory") != std::string::npos) code = ErrorCode::OutOfMemory;
  Napi::Object result = make_error(env, code, message);
  const std::string full = error.what();
  const std::string_view backtrace = full.size() > message.size() && full.compare(0, message.size(), message) == 0
                                         ? std::string_view(full).substr(message.size())
                                         : std::string_view(full);
  if (!backtrace.empty()) result.Set("nativeBacktrace", Napi::String::New(env, std::string(backtrace)));
  return result;
}

}  // namespace

Napi::Value to_js_error(Napi::Env env, std::exception_ptr exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const Napi::Error& error) {
    return error.Value();
  } catch (const Error& error) {
    return make_error(env, error.code(), error.what());
  } catch (const c10::OutOfMemoryError& error) {
    return torch_error(env, ErrorCode::OutOfMemory, error);
  } catch (const c10::IndexError& error) {
    return torch_error(env, ErrorCode::InvalidArgument, error);
  } catch (const c10::ValueError& error) {
    return torch_error(env, ErrorCode::InvalidArgument, error);
  } catch (const c10::TypeError& error) {
    return torch_error(env, ErrorCode::InvalidArgument, error);
  } catch (const c10::NotImplementedError& error) {
    return torch_error(env, ErrorCode::Unsupported, error);
  } catch (const c10::Error& error) {
    return torch_error(env, ErrorCode::Native, error);
  } catch (const std::bad_alloc&) {
    return make_error(env, ErrorCode::OutOfMemory, "Memory ran out");
  } catch (const std::exception& error) {
    return make_error(env, ErrorCode::Native, error.what());
  } catch (...) {
    return make_error(env, ErrorCode::Native, "An unknown native exception");
  }
}

Napi::Value guarded(Napi::Env env, const std::function<Napi::Value()>& body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw Napi::Error(env, to_js_error(env, std::current_exception()));
  }
}

namespace {

void raise(const std::string& kind) {
  if (kind == "eepo") fail(ErrorCode::Busy, "on purpose");
  if (kind == "c10") TORCH_CHECK(false, "on purpose");
  if (kind == "c10 index") TORCH_CHECK_INDEX(false, "on purpose");
  if (kind == "c10 value") TORCH_CHECK_VALUE(false, "on purpose");
  if (kind == "c10 type") TORCH_CHECK_TYPE(false, "on purpose");
  if (kind == "c10 not implemented") TORCH_CHECK_NOT_IMPLEMENTED(false, "on purpose");
  if (kind == "c10 memory") TORCH_CHECK_WITH(OutOfMemoryError, false, "on purpose");
  if (kind == "memory") throw std::bad_alloc();
  if (kind == "std") throw std::runtime_error("on purpose");
  throw 7;
}

/// raise(kind, asynchronous): throws that kind of C++ exception, here or in a job. What throws in earnest is hard to
/// come by, and none of it may end the process: for the tests.
Napi::Value raise_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string kind = info[0].ToString();
    if (!info[1].ToBoolean()) raise(kind);
    const Job job{[kind](const CancelToken&) { raise(kind); }, [](Napi::Env env) { return env.Undefined(); }};
    return run(info.Env(), Device::Cpu, info.Env().Undefined(), job);
  });
}

}  // namespace

void register_errors(Napi::Env env, Napi::Object exports) {
  exports.Set("raise", Napi::Function::New(env, raise_js, "raise"));
}

}  // namespace eepo::node
