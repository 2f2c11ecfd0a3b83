// Arguments from JavaScript as C++ values. Every failure is InvalidArgument and names the argument.
#pragma once

#include <ATen/core/Tensor.h>
#include <napi.h>

#include <cstdint>
#include <limits>
#include <string>

#include "core/device.h"
#include "core/dtype.h"

namespace eepo::node {

/// Any number but NaN.
double number_argument(Napi::Value value, const char* name);

/// An integer in [lowest, highest] (within the safe integers).
int64_t integer_argument(Napi::Value value, const char* name, int64_t lowest, int64_t highest = (int64_t{1} << 53) - 1);

/// A finite number > 0; with `allow_zero` also 0 (greedy).
float temperature_argument(Napi::Value value, bool allow_zero = false);

/// A non-negative safe integer, or a bigint of 64 bits.
uint64_t seed_argument(Napi::Value value, const char* name = "seed");

/// 'cpu' or 'cuda'; undefined is the CPU.
Device device_argument(Napi::Value value);

/// Fails unless both tensors are on one device; the names are the arguments'.
void require_same_device(const at::Tensor& tensor, const char* name, const at::Tensor& other, const char* other_name);

/// Fails unless the tensor has this rank.
void require_rank(const at::Tensor& tensor, const char* name, int64_t rank, const char* meaning);

/// Fails unless the tensor has one dimension of this length; `rows_of` says whose rows they are.
void require_length(const at::Tensor& tensor, const char* name, int64_t length, const char* rows_of);

void require_dtype(const at::Tensor& tensor, const char* name, DType dtype);

/// float32, bfloat16 or float16.
void require_real(const at::Tensor& tensor, const char* name);

}  // namespace eepo::node
