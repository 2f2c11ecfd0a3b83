// What must hold of the tensors of any file that was accepted.
#pragma once

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "fuzz/fuzz.h"
#include "model/safetensors.h"

namespace eepo::fuzz {

/// Every tensor lies within `file`, whole, no two share a byte and nothing is left between them.
inline void require_whole(const FileTensors& tensors, std::string_view file) {
  const auto* begin = reinterpret_cast<const uint8_t*>(file.data());
  const uint8_t* end = begin + file.size();
  std::vector<std::pair<const uint8_t*, const uint8_t*>> spans;
  for (const auto& [name, tensor] : tensors) {
    require(find_invalid_utf8(name) == std::string_view::npos, "a name that is not UTF-8");
    require(tensor.bytes >= 0 && tensor.data >= begin + 8 && tensor.data <= end && tensor.bytes <= end - tensor.data,
            "a tensor outside the file:", name);
    __int128 elements = 1;
    for (const int64_t size : tensor.shape) {
      require(size >= 0, "a negative size:", name);
      elements *= size;
      require(elements <= std::numeric_limits<int64_t>::max(), "a shape that overflows:", name);
    }
    require(elements == tensor.elements, "a wrong number of elements:", name);
    if (is_float(tensor.dtype)) {
      const int64_t bytes = tensor.dtype == FileDType::F64 ? 8 : tensor.dtype == FileDType::F32 ? 4 : 2;
      require(elements * bytes == tensor.bytes, "a tensor that is not whole:", name);
    }
    if (tensor.bytes > 0) spans.emplace_back(tensor.data, tensor.data + tensor.bytes);
  }
  std::ranges::sort(spans);
  for (size_t i = 1; i < spans.size(); ++i)
    require(spans[i - 1].second == spans[i].first, "tensors overlap or leave a hole");
  if (!spans.empty()) require(spans.back().second == end, "bytes after the last tensor");
}

/// Reads every byte, by every way there is.
inline void read_all(const FileTensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (!is_float(tensor.dtype)) {
      try {
        float none = 0;
        convert(tensor, DType::Float32, &none);
        require(false, "converted a dtype that is not supported:", tensor.dtype_name);
      } catch (const Error& error) {
        require(error.code() == ErrorCode::Unsupported, "an error of another class:", error.what());
      }
      continue;
    }
    const auto count = static_cast<size_t>(tensor.elements);
    std::vector<float> wide(count);
    convert(tensor, DType::Float32, wide.data());
    std::vector<uint16_t> narrow(count);
    convert(tensor, DType::BFloat16, narrow.data());
    for (const auto& [other_name, other] : tensors)
      if (is_float(other.dtype)) {
        const bool same = same_values(tensor, other);
        require(same == same_values(other, tensor), "same_values is not symmetric:", name);
        require(same || &other != &tensor, "a tensor differs from itself:", name);
      }
  }
}

}  // namespace eepo::fuzz
