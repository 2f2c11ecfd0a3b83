// CPU form of ascend: all tensors cut into runs of equal size, shared among the threads.
//
// Floor: every parameter and gradient read once, every element of `into` written once.
#include "kernels/ascend.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/philox.h"
#include "kernels/ascend_blocks.h"

namespace eepo {
namespace {

constexpr int64_t kRun = int64_t{1} << 16;

void check_tensor(const AscendTensor& tensor, size_t index) {
  check(tensor.size >= 0, ErrorCode::InvalidArgument, "tensor ", index, " has size ", tensor.size);
  check(tensor.size == 0 || (tensor.param && tensor.into), ErrorCode::InvalidArgument, "tensor ", index,
        " lacks `param` or `into`");
  const bool floats = tensor.param_dtype != DType::Int64 && tensor.into_dtype != DType::Int64 &&
                      (!tensor.grad || tensor.grad_dtype != DType::Int64);
  check(floats, ErrorCode::InvalidArgument, "tensor ", index, " is int64; ascend takes float32, bfloat16 and float16");
}

uint64_t tensor_key(uint64_t seed, size_t index) {
  const PhiloxCounter bits =
      philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(uint64_t{index} >> 32), 0, 0}, seed);
  return (uint64_t{bits[1]} << 32) | bits[0];
}

}  // namespace

AscendReport ascend(const std::vector<AscendTensor>& tensors, double eta, Rounding rounding, uint64_t seed) {
  check(std::isfinite(eta), ErrorCode::InvalidArgument, "eta must be a finite number, got ", eta);
  std::vector<AscendRun> runs;
  AscendReport report;
  for (size_t i = 0; i < tensors.size(); ++i) {
    check_tensor(tensors[i], i);
    report.elements += tensors[i].size;
    const uint64_t key = tensor_key(seed, i);
    for (int64_t begin = 0; begin < tensors[i].size; begin += kRun) {
      runs.push_back({&tensors[i], begin, std::min(tensors[i].size, begin + kRun), eta, rounding, key});
    }
  }
  const auto run = EEPO_ISA_DISPATCH(ascend_run);
  const int64_t count = static_cast<int64_t>(runs.size());
  int64_t changed = 0;
#pragma omp parallel for schedule(static) reduction(+ : changed) if (report.elements >= 2 * kRun)
  for (int64_t i = 0; i < count; ++i) changed += run(runs[static_cast<size_t>(i)]);
  report.changed = changed;
  return report;
}

}  // namespace eepo
