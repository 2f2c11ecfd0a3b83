// Inside ascend: one run of elements of one tensor.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "kernels/ascend.h"

namespace eepo {

/// Elements [begin, end) of a tensor and the key of its random bits. Element i uses hash(i, key): see ascend_isa.cc.
struct AscendRun {
  const AscendTensor* tensor;
  int64_t begin, end;
  double eta;
  Rounding rounding;
  uint64_t key;
};

// Compiled once per instruction set (ascend_isa.cc). Returns the number of changed elements.
EEPO_ISA_DECLARE(int64_t ascend_run(const AscendRun& run))

}  // namespace eepo
