#include "node/arguments.h"

#include <cmath>

#include "core/error.h"
#include "device/ops.h"
#include "node/tensor.h"

namespace eepo::node {

double number_argument(Napi::Value value, const char* name) {
  check(value.IsNumber(), ErrorCode::InvalidArgument, name, " must be a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  check(!std::isnan(number), ErrorCode::InvalidArgument, name, " must be a number, got NaN");
  return number;
}

int64_t integer_argument(Napi::Value value, const char* name, int64_t lowest, int64_t highest) {
  const double number = number_argument(value, name);
  check(std::trunc(number) == number && number >= static_cast<double>(lowest) && number <= static_cast<double>(highest),
        ErrorCode::InvalidArgument, name, " must be an integer from ", lowest, " to ", highest, ", got ", number);
  return static_cast<int64_t>(number);
}

float temperature_argument(Napi::Value value, bool allow_zero) {
  const double number = number_argument(value, "temperature");
  const auto temperature = static_cast<float>(number);
  check(std::isfinite(temperature) && (temperature > 0 || (allow_zero && number == 0)), ErrorCode::InvalidArgument,
        "temperature must be finite and ", allow_zero ? "at least 0" : "greater than 0", ", got ", number);
  return temperature;
}

uint64_t seed_argument(Napi::Value value, const char* name) {
  if (!value.IsBigInt()) return static_cast<uint64_t>(integer_argument(value, name, 0));
  bool lossless = false;
  const uint64_t seed = value.As<Napi::BigInt>().Uint64Value(&lossless);
  check(lossless, ErrorCode::InvalidArgument, name, " must be a bigint of at most 64 bits and not negative");
  return seed;
}

Device device_argument(Napi::Value value) {
  if (value.IsUndefined()) return Device::Cpu;
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string();
  check(name == "cpu" || name == "cuda", ErrorCode::InvalidArgument, "device must be 'cpu' or 'cuda', got '", name,
        "'");
  const Device device = name == "cpu" ? Device::Cpu : Device::Cuda;
  ops_of(device);
  return device;
}

void require_same_device(const at::Tensor& tensor, const char* name, const at::Tensor& other, const char* other_name) {
  check(tensor_device(tensor) == tensor_device(other), ErrorCode::InvalidArgument, name, " is on device '",
        device_name(tensor_device(tensor)), "' and ", other_name, " on '", device_name(tensor_device(other)),
        "'; move one with to({ device })");
}

void require_rank(const at::Tensor& tensor, const char* name, int64_t rank, const char* meaning) {
  check(tensor.dim() == rank, ErrorCode::InvalidArgument, name, " must have shape ", meaning, ", got ",
        shape_string(tensor.sizes()));
}

void require_length(const at::Tensor& tensor, const char* name, int64_t length, const char* rows_of) {
  check(tensor.dim() == 1 && tensor.size(0) == length, ErrorCode::InvalidArgument, name, " must have shape [", length,
        "], one per ", rows_of, ", got ", shape_string(tensor.sizes()));
}

void require_dtype(const at::Tensor& tensor, const char* name, DType dtype) {
  const DType got = dtype_of(tensor, name);
  check(got == dtype, ErrorCode::InvalidArgument, name, " must be ", dtype_name(dtype), ", got ", dtype_name(got));
}

void require_real(const at::Tensor& tensor, const char* name) {
  check(dtype_of(tensor, name) != DType::Int64, ErrorCode::InvalidArgument, name,
        " must be float32, bfloat16 or float16, got int64");
}

}  // namespace eepo::node
