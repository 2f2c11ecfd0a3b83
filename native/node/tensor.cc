#include "node/tensor.h"

#include <ATen/ops/empty.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "device/ops.h"
#include "node/arguments.h"
#include "node/async.h"
#include "node/edge.h"
#include "node/tensor_data.h"

namespace eepo::node {

/// What V8 is told about memory it cannot see. Views share a storage, so bytes are counted once per storage and not
/// per handle. JavaScript thread only.
class StorageLedger {
 public:
  void attach(napi_env env, const at::Tensor& tensor) {
    Entry& entry = entries_[key(tensor)];
    if (entry.handles++ > 0) return;
    entry.bytes = static_cast<int64_t>(tensor.storage().nbytes());
    bytes_ += entry.bytes;
    adjust(env, entry.bytes);
  }

  void detach(napi_env env, const at::Tensor& tensor) {
    const auto found = entries_.find(key(tensor));
    if (found == entries_.end() || --found->second.handles > 0) return;
    bytes_ -= found->second.bytes;
    adjust(env, -found->second.bytes);
    entries_.erase(found);
  }

  int64_t bytes() const { return bytes_; }
  int64_t storages() const { return static_cast<int64_t>(entries_.size()); }

 private:
  struct Entry {
    int64_t handles = 0, bytes = 0;
  };
  static const void* key(const at::Tensor& tensor) { return tensor.storage().unsafeGetStorageImpl(); }
  static void adjust(napi_env env, int64_t bytes) {
    int64_t total = 0;
    napi_adjust_external_memory(env, bytes, &total);  // fails only in an environment that is going away
  }
  std::unordered_map<const void*, Entry> entries_;
  int64_t bytes_ = 0;
};

namespace {

constexpr napi_type_tag tensor_tag = {0x3d1f6a2e9b7c4e51, 0xa84c0f92d6e3b717};
constexpr const char* class_name = "TensorHandle";

class TensorHandle : public Napi::ObjectWrap<TensorHandle> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, class_name,
                       {
                           InstanceAccessor<&TensorHandle::shape>("shape"),
                           InstanceAccessor<&TensorHandle::dtype>("dtype"),
                           InstanceAccessor<&TensorHandle::device>("device"),
                           InstanceAccessor<&TensorHandle::size>("size"),
                           InstanceAccessor<&TensorHandle::byte_length>("byteLength"),
                           InstanceAccessor<&TensorHandle::disposed>("disposed"),
                           InstanceMethod<&TensorHandle::dispose>("dispose"),
                           InstanceMethod<&TensorHandle::data>("data"),
                           InstanceMethod<&TensorHandle::bits>("bits"),
                           InstanceMethod<&TensorHandle::to>("to"),
                           InstanceMethod<&TensorHandle::clone>("clone"),
                           InstanceMethod<&TensorHandle::reshape>("reshape"),
                       });
  }

  /// An empty handle, which counts as disposed until wrap_tensor() fills it.
  explicit TensorHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TensorHandle>(info) {
    tag_object(info.This().As<Napi::Object>(), tensor_tag);
  }

  void fill(Napi::Env env, at::Tensor tensor) {
    ledger_ = edge_data(env).ledger;
    tensor_ = std::move(tensor);
    ledger_->attach(env, tensor_);
  }

  at::Tensor& get(const char* name) {
    check(tensor_.defined(), ErrorCode::Disposed, name, " was disposed; do not use a tensor after dispose()");
    return tensor_;
  }

  // The backstop: JavaScript lost the handle without dispose().
  void Finalize(Napi::BasicEnv env) override { release(env); }

 private:
  void release(napi_env env) {
    if (!tensor_.defined()) return;
    ledger_->detach(env, tensor_);
    tensor_ = at::Tensor();
  }

  template <class Body>
  Napi::Value with_tensor(const Napi::CallbackInfo& info, Body body) {
    return guarded(info.Env(), [&]() -> Napi::Value { return body(get("tensor")); });
  }

  Napi::Value shape(const Napi::CallbackInfo& info) {
    return with_tensor(info, [&](const at::Tensor& tensor) {
      Napi::Array shape = Napi::Array::New(info.Env(), tensor.dim());
      for (int64_t i = 0; i < tensor.dim(); ++i) shape.Set(i, static_cast<double>(tensor.size(i)));
      return shape;
    });
  }

  Napi::Value dtype(const Napi::CallbackInfo& info) {
    return with_tensor(info, [&](const at::Tensor& tensor) {
      return Napi::String::New(info.Env(), dtype_name(dtype_of(tensor, "tensor")));
    });
  }

  Napi::Value device(const Napi::CallbackInfo& info) {
    return with_tensor(info, [&](const at::Tensor& tensor) {
      return Napi::String::New(info.Env(), device_name(tensor_device(tensor)));
    });
  }

  Napi::Value size(const Napi::CallbackInfo& info) {
    return with_tensor(info, [&](const at::Tensor& tensor) {
      return Napi::Number::New(info.Env(), static_cast<double>(tensor.numel()));
    });
  }

  Napi::Value byte_length(const Napi::CallbackInfo& info) {
    return with_tensor(info, [&](const at::Tensor& tensor) {
      return Napi::Number::New(info.Env(), static_cast<double>(tensor.nbytes()));
    });
  }

  Napi::Value disposed(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), !tensor_.defined()); }

  Napi::Value dispose(const Napi::CallbackInfo& info) {
    release(info.Env());
    return info.Env().Undefined();
  }

  Napi::Value host_copy(const Napi::CallbackInfo& info, bool bits) {
    return with_tensor(info, [&](const at::Tensor& tensor) {
      return run(
          info.Env(), tensor_device(tensor), info[0],
          [tensor, bits](const CancelToken&) { return copy_to_host(bring_to(Device::Cpu, tensor), bits); },
          [](Napi::Env env, HostCopy copy) { return typed_array(env, std::move(copy)); });
    });
  }

  Napi::Value data(const Napi::CallbackInfo& info) { return host_copy(info, false); }

  Napi::Value bits(const Napi::CallbackInfo& info) {
    return with_tensor(info, [&](const at::Tensor& tensor) {
      const DType dtype = dtype_of(tensor, "tensor");
      check(dtype == DType::BFloat16 || dtype == DType::Float16, ErrorCode::InvalidArgument,
            "bits() is for bfloat16 and float16 tensors, this one is ", dtype_name(dtype), "; use data()");
      return host_copy(info, true);
    });
  }

  Napi::Value copy_as(const Napi::CallbackInfo& info, DType dtype, Device to, Napi::Value signal) {
    return with_tensor(info, [&](const at::Tensor& tensor) {
      const Device from = tensor_device(tensor);
      return run(
          info.Env(), from == Device::Cpu ? to : from, signal,
          [tensor, dtype, from, to](const CancelToken&) {
            if (from == to) return ops_of(from).convert(tensor, dtype);
            if (dtype_of(tensor, "tensor") == dtype) return bring_to(to, tensor);
            // The narrower of the two travels.
            if (size_of(dtype) < static_cast<size_t>(tensor.element_size()))
              return bring_to(to, ops_of(from).convert(tensor, dtype));
            return ops_of(to).convert(bring_to(to, tensor), dtype);
          },
          [](Napi::Env env, at::Tensor copy) { return wrap_tensor(env, std::move(copy)); });
    });
  }

  /// to(dtype or undefined, device or undefined, signal)
  Napi::Value to(const Napi::CallbackInfo& info) {
    return with_tensor(info, [&](const at::Tensor& tensor) {
      const DType dtype = info[0].IsUndefined() ? dtype_of(tensor, "tensor") : parse_dtype(info[0]);
      return copy_as(info, dtype, info[1].IsUndefined() ? tensor_device(tensor) : device_argument(info[1]), info[2]);
    });
  }

  /// clone(signal)
  Napi::Value clone(const Napi::CallbackInfo& info) {
    return with_tensor(info, [&](const at::Tensor& tensor) {
      return copy_as(info, dtype_of(tensor, "tensor"), tensor_device(tensor), info[0]);
    });
  }

  /// reshape(shape): a view of the same storage, so nothing is read and it can be synchronous.
  Napi::Value reshape(const Napi::CallbackInfo& info) {
    return with_tensor(info, [&](const at::Tensor& tensor) {
      std::vector<int64_t> shape = parse_shape(info[0], true);
      int64_t known = 1, inferred = -1;
      for (size_t i = 0; i < shape.size(); ++i) {
        if (shape[i] == -1)
          inferred = static_cast<int64_t>(i);
        else if (__builtin_mul_overflow(known, shape[i], &known))
          known = -1;
      }
      if (inferred >= 0 && known > 0 && tensor.numel() % known == 0) {
        shape[inferred] = tensor.numel() / known;
        known *= shape[inferred];
      }
      check(known == tensor.numel() && (inferred < 0 || shape[inferred] >= 0), ErrorCode::InvalidArgument, "shape ",
            shape_string(shape), " does not fit the ", tensor.numel(), " elements of ", shape_string(tensor.sizes()));
      check(tensor.is_contiguous(), ErrorCode::InvalidArgument, "reshape needs a contiguous tensor; use clone() first");
      return wrap_tensor(info.Env(), tensor.view(shape));
    });
  }

  at::Tensor tensor_;
  std::shared_ptr<StorageLedger> ledger_;
};

/// The handle in `value`, or null.
TensorHandle* handle_of(Napi::Value value) {
  if (!value.IsObject()) return nullptr;
  bool tagged = false;
  if (napi_check_object_type_tag(value.Env(), value, &tensor_tag, &tagged) != napi_ok || !tagged) return nullptr;
  return TensorHandle::Unwrap(value.As<Napi::Object>());
}

/// Memory calls of a device may come from this thread too, once it is the thread's current one.
Ops& ops_here(Device device) {
  Ops& ops = ops_of(device);
  ops.begin_job();
  return ops;
}

/// tensorFrom(typedArray, shape, dtype, device)
Napi::Value tensor_from_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const DType dtype = parse_dtype(info[2]);
    const Device device = device_argument(info[3]);
    const at::Tensor tensor = tensor_from(info[0], parse_shape(info[1], false), dtype);
    ops_here(device);
    return wrap_tensor(info.Env(), bring_to(device, tensor));
  });
}

/// tensorZeros(shape, dtype, device)
Napi::Value tensor_zeros_js(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    Ops& ops = ops_here(device_argument(info[2]));
    at::Tensor tensor = new_tensor_on(ops.device(), parse_shape(info[0], false), parse_dtype(info[1]));
    if (tensor.nbytes() > 0) ops.zero(tensor.data_ptr(), static_cast<int64_t>(tensor.nbytes()));
    return wrap_tensor(info.Env(), std::move(tensor));
  });
}

/// tensorMemory() -> { storages, bytes, external }: what this environment's handles hold, and what V8 was told in all
/// (its own number, which process.memoryUsage().external leaves out).
Napi::Value tensor_memory_js(const Napi::CallbackInfo& info) {
  const StorageLedger& ledger = *edge_data(info.Env()).ledger;
  int64_t external = 0;
  napi_adjust_external_memory(info.Env(), 0, &external);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("storages", static_cast<double>(ledger.storages()));
  result.Set("bytes", static_cast<double>(ledger.bytes()));
  result.Set("external", static_cast<double>(external));
  return result;
}

int64_t physical_memory() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<int64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

at::Tensor& unwrap_tensor(Napi::Value value, const char* argument_name) {
  TensorHandle* handle = handle_of(value);
  check(handle != nullptr, ErrorCode::InvalidArgument, argument_name, " must be a Tensor");
  return handle->get(argument_name);
}

at::Tensor unwrap_optional_tensor(Napi::Value value, const char* argument_name) {
  if (value.IsUndefined() || value.IsNull()) return {};
  return unwrap_tensor(value, argument_name);
}

std::vector<at::Tensor> unwrap_tensors(Napi::Value value, const char* argument_name, bool optional) {
  check(value.IsArray(), ErrorCode::InvalidArgument, argument_name, " must be an array of Tensors");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<at::Tensor> tensors;
  tensors.reserve(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const std::string name = std::string(argument_name) + "[" + std::to_string(i) + "]";
    const Napi::Value element = array.Get(i);
    tensors.push_back(optional ? unwrap_optional_tensor(element, name.c_str()) : unwrap_tensor(element, name.c_str()));
  }
  return tensors;
}

Napi::Value wrap_tensor(Napi::Env env, at::Tensor tensor) {
  dtype_of(tensor, "tensor");  // only dtypes that JavaScript can read get out
  Napi::Object object = edge_data(env).constructors.at(class_name).New({});
  TensorHandle* handle = handle_of(object);
  check(handle != nullptr, ErrorCode::Native, "a tensor's handle could not be made: the environment is going away");
  handle->fill(env, std::move(tensor));
  return object;
}

DType dtype_of(const at::Tensor& tensor, const char* argument_name) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return DType::Float32;
    case at::kBFloat16: return DType::BFloat16;
    case at::kHalf: return DType::Float16;
    case at::kLong: return DType::Int64;
    default:
      fail(ErrorCode::Unsupported, argument_name, " has dtype ", c10::toString(tensor.scalar_type()),
           "; eepo knows float32, bfloat16, float16 and int64");
  }
}

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::Float32: return "float32";
    case DType::BFloat16: return "bfloat16";
    case DType::Float16: return "float16";
    case DType::Int64: return "int64";
  }
  return "";
}

std::string shape_string(at::IntArrayRef shape) {
  std::ostringstream out;
  out << '[';
  for (size_t i = 0; i < shape.size(); ++i) out << (i > 0 ? ", " : "") << shape[i];
  out << ']';
  return out.str();
}

at::Tensor new_tensor(const std::vector<int64_t>& shape, DType dtype) {
  const int64_t bytes = checked_size(shape, dtype) * static_cast<int64_t>(size_of(dtype));
  // Linux grants more than it has and kills the process at the first touch: refuse before that.
  check(bytes <= physical_memory(), ErrorCode::OutOfMemory, "shape ", shape_string(shape), " of ", dtype_name(dtype),
        " needs ", bytes, " bytes, this machine has ", physical_memory());
  return at::empty(shape, at::TensorOptions().dtype(scalar_type(dtype)));
}

Device tensor_device(const at::Tensor& tensor) {
  return has_cuda_ops() && ops_of(Device::Cuda).owns(tensor) ? Device::Cuda : Device::Cpu;
}

at::Tensor new_tensor_on(Device device, const std::vector<int64_t>& shape, DType dtype) {
  if (device == Device::Cpu) return new_tensor(shape, dtype);
  checked_size(shape, dtype);
  return ops_of(device).empty(shape, dtype);
}

at::Tensor bring_to(Device device, const at::Tensor& tensor) {
  const Device from = tensor_device(tensor);
  at::Tensor dense = tensor.is_contiguous() ? tensor : tensor.contiguous();
  if (from == device) return dense;
  at::Tensor there = new_tensor_on(device, dense.sizes().vec(), dtype_of(dense, "tensor"));
  const auto bytes = static_cast<int64_t>(dense.nbytes());
  if (bytes == 0) return there;
  if (from == Device::Cpu)
    ops_of(device).upload(there.data_ptr(), dense.const_data_ptr(), bytes);
  else
    ops_of(from).download(there.data_ptr(), dense.const_data_ptr(), bytes);
  return there;
}

void register_tensor(Napi::Env env, Napi::Object exports) {
  edge_data(env).ledger = std::make_shared<StorageLedger>();
  edge_data(env).constructors[class_name] = Napi::Persistent(TensorHandle::define(env));
  exports.Set("tensorFrom", Napi::Function::New(env, tensor_from_js, "tensorFrom"));
  exports.Set("tensorMemory", Napi::Function::New(env, tensor_memory_js, "tensorMemory"));
  exports.Set("tensorZeros", Napi::Function::New(env, tensor_zeros_js, "tensorZeros"));
}

}  // namespace eepo::node
