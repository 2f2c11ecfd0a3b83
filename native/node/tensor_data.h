// Copies between JavaScript's typed arrays and tensors. Internal to native/node.
#pragma once

#include <ATen/core/Tensor.h>
#include <napi.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "core/dtype.h"

namespace eepo::node {

DType parse_dtype(Napi::Value value);

/// A shape from an array of non-negative safe integers. `inferred` allows one -1.
std::vector<int64_t> parse_shape(Napi::Value value, bool inferred);

/// The product of the sizes; throws when it or the bytes overflow.
int64_t checked_size(const std::vector<int64_t>& shape, DType dtype);

/// A new tensor with the values of a typed array.
at::Tensor tensor_from(Napi::Value data, const std::vector<int64_t>& shape, DType dtype);

/// Bytes on their way to JavaScript, copied on the device's thread (a later job may overwrite the tensor).
struct HostCopy {
  std::unique_ptr<std::byte[]> bytes;
  size_t size = 0;
  DType dtype = DType::Float32;  // of the elements in `bytes`
};

/// With `bits`, 16-bit floats stay as they are; otherwise they become float32.
HostCopy copy_to_host(const at::Tensor& tensor, bool bits);

/// Float32Array, Uint16Array or BigInt64Array.
Napi::Value typed_array(Napi::Env env, HostCopy copy);

}  // namespace eepo::node
