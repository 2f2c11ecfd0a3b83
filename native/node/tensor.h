// Tensors in JavaScript's hands: a type-tagged ObjectWrap around an at::Tensor. TypeScript's class Tensor
// (lib/tensor.ts) holds one of these handles.
#pragma once

#include <ATen/core/Tensor.h>
#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "device/scalar_type.h"

namespace eepo::node {

/// The tensor behind a handle. Throws InvalidArgument naming the argument when `value` is no handle, Disposed when it
/// was disposed. The reference is good until control returns to JavaScript: a job copies it (a reference count).
at::Tensor& unwrap_tensor(Napi::Value value, const char* argument_name);

/// unwrap_tensor(), or an undefined tensor for undefined and null.
at::Tensor unwrap_optional_tensor(Napi::Value value, const char* argument_name);

/// unwrap_tensor() for every element of an array; elements are named argument_name[i]. With `optional` an element may
/// be null.
std::vector<at::Tensor> unwrap_tensors(Napi::Value value, const char* argument_name, bool optional = false);

/// A new handle; counts the storage's bytes as external memory of this environment.
Napi::Value wrap_tensor(Napi::Env env, at::Tensor tensor);

/// float32, bfloat16, float16 or int64; anything else is Unsupported.
DType dtype_of(const at::Tensor& tensor, const char* argument_name);
const char* dtype_name(DType dtype);

/// Where the tensor's memory is.
Device tensor_device(const at::Tensor& tensor);

/// "[2, 3]", for messages.
std::string shape_string(at::IntArrayRef shape);

/// Uninitialised, dense, on the CPU. Throws OutOfMemory before asking for more than the machine has.
at::Tensor new_tensor(const std::vector<int64_t>& shape, DType dtype);

/// new_tensor() on any device; in a job of that device.
at::Tensor new_tensor_on(Device device, const std::vector<int64_t>& shape, DType dtype);

/// The tensor, dense, on `device`: itself if it is both. Called in a job of the device that is not the CPU; brings a
/// tensor from or to the GPU through the host (from it: waits).
at::Tensor bring_to(Device device, const at::Tensor& tensor);

/// The Tensor class and the functions that create tensors.
void register_tensor(Napi::Env env, Napi::Object exports);

}  // namespace eepo::node
