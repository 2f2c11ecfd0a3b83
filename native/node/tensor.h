// Tensors in JavaScript's hands: a type-tagged ObjectWrap around an at::Tensor. TypeScript's class Tensor
// (lib/tensor.ts) holds one of these handles.
#pragma once

#include <ATen/core/Tensor.h>
#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.h"

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
at::ScalarType scalar_type(DType dtype);
const char* dtype_name(DType dtype);

/// "[2, 3]", for messages.
std::string shape_string(at::IntArrayRef shape);

/// Uninitialised, dense, on the CPU. Throws OutOfMemory before asking for more than the machine has.
at::Tensor new_tensor(const std::vector<int64_t>& shape, DType dtype);

/// The Tensor class and the functions that create tensors.
void register_tensor(Napi::Env env, Napi::Object exports);

}  // namespace eepo::node
