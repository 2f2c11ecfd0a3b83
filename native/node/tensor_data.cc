#include "node/tensor_data.h"

#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"
#include "node/tensor.h"

namespace eepo::node {
namespace {

constexpr double max_safe_integer = 9007199254740991.0;
// From this size on, handing over the buffer is cheaper for the event loop than another copy.
constexpr size_t external_buffer_bytes = size_t{1} << 20;

struct TypedArrayView {
  napi_typedarray_type type;
  size_t length;
  const void* data;
};

TypedArrayView view_typed_array(Napi::Value value) {
  bool is_typed_array = false;
  napi_is_typedarray(value.Env(), value, &is_typed_array);
  TypedArrayView view{};
  void* data = nullptr;
  if (!is_typed_array ||
      napi_get_typedarray_info(value.Env(), value, &view.type, &view.length, &data, nullptr, nullptr) != napi_ok) {
    fail(ErrorCode::InvalidArgument,
         "data must be a Float32Array, Float64Array, Uint16Array, Int32Array or BigInt64Array");
  }
  view.data = data;
  return view;
}

int64_t exact_integer(double value, size_t index) {
  check(std::trunc(value) == value && std::abs(value) <= max_safe_integer, ErrorCode::InvalidArgument, "data[", index,
        "] is ", value, ", which is not an integer that dtype int64 can take from a number");
  return static_cast<int64_t>(value);
}

template <class Real>
void copy_reals(const Real* from, size_t length, DType dtype, void* to) {
  switch (dtype) {
    case DType::Float32:
      for (size_t i = 0; i < length; ++i) static_cast<float*>(to)[i] = static_cast<float>(from[i]);
      return;
    case DType::BFloat16:
      for (size_t i = 0; i < length; ++i) static_cast<uint16_t*>(to)[i] = float_to_bf16(static_cast<float>(from[i]));
      return;
    case DType::Float16:
      for (size_t i = 0; i < length; ++i) static_cast<uint16_t*>(to)[i] = float_to_f16(static_cast<float>(from[i]));
      return;
    case DType::Int64:
      for (size_t i = 0; i < length; ++i) static_cast<int64_t*>(to)[i] = exact_integer(from[i], i);
      return;
  }
}

void fill(const TypedArrayView& view, DType dtype, void* to) {
  const bool half = dtype == DType::BFloat16 || dtype == DType::Float16;
  switch (view.type) {
    case napi_float32_array: copy_reals(static_cast<const float*>(view.data), view.length, dtype, to); return;
    case napi_float64_array: copy_reals(static_cast<const double*>(view.data), view.length, dtype, to); return;
    case napi_uint16_array:
      check(half, ErrorCode::InvalidArgument,
            "data is a Uint16Array, which holds the bits of bfloat16 or float16, but "
            "dtype is ",
            dtype_name(dtype), "; give dtype 'bfloat16' or 'float16', or other data");
      if (view.length > 0) std::memcpy(to, view.data, view.length * sizeof(uint16_t));
      return;
    case napi_int32_array:
      check(dtype == DType::Int64, ErrorCode::InvalidArgument, "data is an Int32Array, which needs dtype 'int64', not ",
            dtype_name(dtype));
      for (size_t i = 0; i < view.length; ++i) {
        static_cast<int64_t*>(to)[i] = static_cast<const int32_t*>(view.data)[i];
      }
      return;
    case napi_bigint64_array:
      check(dtype == DType::Int64, ErrorCode::InvalidArgument,
            "data is a BigInt64Array, which needs dtype 'int64', not ", dtype_name(dtype));
      if (view.length > 0) std::memcpy(to, view.data, view.length * sizeof(int64_t));
      return;
    default:
      fail(ErrorCode::InvalidArgument,
           "data must be a Float32Array, Float64Array, Uint16Array, Int32Array or BigInt64Array");
  }
}

Napi::ArrayBuffer array_buffer(Napi::Env env, HostCopy& copy) {
  if (copy.size >= external_buffer_bytes) {
    void* data = copy.bytes.get();
    napi_value external = nullptr;
    const napi_status status = napi_create_external_arraybuffer(
        env, data, copy.size, [](napi_env, void* bytes, void*) { delete[] static_cast<std::byte*>(bytes); }, nullptr,
        &external);
    if (status == napi_ok) {
      copy.bytes.release();  // the finalizer owns it now
      return Napi::ArrayBuffer(env, external);
    }
    if (status != napi_no_external_buffers_allowed) {
      // Any other failure (a worker thread is being terminated) may come after the buffer took the memory: freeing it
      // here could free it twice, and a leak in an environment that is going away is the lesser evil.
      copy.bytes.release();
      throw Napi::Error::New(env);
    }
    // Some hosts (Electron) refuse external buffers: copy.
  }
  Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, copy.size);
  if (copy.size > 0) std::memcpy(buffer.Data(), copy.bytes.get(), copy.size);
  return buffer;
}

}  // namespace

DType parse_dtype(Napi::Value value) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
  for (const DType dtype : {DType::Float32, DType::BFloat16, DType::Float16, DType::Int64}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  fail(ErrorCode::InvalidArgument, "dtype must be 'float32', 'bfloat16', 'float16' or 'int64', got ",
       value.IsString() ? "'" + name + "'" : std::string("something that is not a string"));
}

std::vector<int64_t> parse_shape(Napi::Value value, bool inferred) {
  check(value.IsArray(), ErrorCode::InvalidArgument, "shape must be an array of non-negative integers");
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<int64_t> shape(array.Length());
  bool seen = false;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value element = array.Get(i);
    check(element.IsNumber(), ErrorCode::InvalidArgument, "shape[", i, "] must be a number");
    const double size = element.As<Napi::Number>().DoubleValue();
    const bool infer = inferred && size == -1 && !seen;
    check(infer || (size >= 0 && size <= max_safe_integer && std::trunc(size) == size), ErrorCode::InvalidArgument,
          "shape[", i, "] must be a non-negative integer", inferred ? " (one may be -1)" : "", ", got ", size);
    seen = seen || infer;
    shape[i] = static_cast<int64_t>(size);
  }
  return shape;
}

int64_t checked_size(const std::vector<int64_t>& shape, DType dtype) {
  int64_t size = 1, bytes = 0;
  bool overflow = false, empty = false;
  for (const int64_t extent : shape) {
    empty = empty || extent == 0;
    overflow = overflow || __builtin_mul_overflow(size, extent == 0 ? 1 : extent, &size);
  }
  overflow = overflow || __builtin_mul_overflow(size, static_cast<int64_t>(size_of(dtype)), &bytes);
  check(!overflow, ErrorCode::InvalidArgument, "shape ", shape_string(shape),
        " has more elements than memory can hold");
  return empty ? 0 : size;
}

at::Tensor tensor_from(Napi::Value data, const std::vector<int64_t>& shape, DType dtype) {
  const TypedArrayView view = view_typed_array(data);
  const int64_t size = checked_size(shape, dtype);
  check(static_cast<uint64_t>(size) == view.length, ErrorCode::InvalidArgument, "data has ", view.length,
        " elements, but shape ", shape_string(shape), " needs ", size);
  at::Tensor tensor = new_tensor(shape, dtype);
  fill(view, dtype, tensor.data_ptr());
  return tensor;
}

HostCopy copy_to_host(const at::Tensor& tensor, bool bits) {
  const at::Tensor dense = tensor.contiguous();
  const DType dtype = dtype_of(dense, "tensor");
  const auto length = static_cast<size_t>(dense.numel());
  const bool half = dtype == DType::BFloat16 || dtype == DType::Float16;
  HostCopy copy;
  copy.dtype = half && !bits ? DType::Float32 : dtype;
  copy.size = length * size_of(copy.dtype);
  copy.bytes = std::make_unique_for_overwrite<std::byte[]>(copy.size);
  if (length == 0) return copy;
  if (copy.dtype == dtype) {
    std::memcpy(copy.bytes.get(), dense.const_data_ptr(), copy.size);
    return copy;
  }
  const auto* from = static_cast<const uint16_t*>(dense.const_data_ptr());
  auto* to = reinterpret_cast<float*>(copy.bytes.get());
  for (size_t i = 0; i < length; ++i) to[i] = dtype == DType::BFloat16 ? bf16_to_float(from[i]) : f16_to_float(from[i]);
  return copy;
}

Napi::Value typed_array(Napi::Env env, HostCopy copy) {
  const size_t length = copy.size / size_of(copy.dtype);
  Napi::ArrayBuffer buffer = array_buffer(env, copy);
  switch (copy.dtype) {
    case DType::Float32: return Napi::Float32Array::New(env, length, buffer, 0);
    case DType::BFloat16:
    case DType::Float16: return Napi::Uint16Array::New(env, length, buffer, 0);
    case DType::Int64: return Napi::BigInt64Array::New(env, length, buffer, 0);
  }
  return env.Undefined();
}

}  // namespace eepo::node
