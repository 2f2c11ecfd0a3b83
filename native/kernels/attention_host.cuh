// What the launchers of attention kernels share on the host.
#pragma once

#include <cmath>

#include "core/error.h"
#include "kernels/attention_tiles.cuh"
#include "kernels/strips.cuh"

namespace eepo::cuda {

/// `aligned`: all arrays start at multiples of 16 bytes. Throws Unsupported for heads wider than 256.
inline HeadShape head_shape(const AttentionShape& s, bool aligned) {
  check(s.head_dim <= 256, ErrorCode::Unsupported, "attention on CUDA: heads may be up to 256 wide, these are ",
        s.head_dim, "; use device 'cpu'");
  return {static_cast<int>(s.ld),
          static_cast<int>(s.heads),
          static_cast<int>(s.kv_heads),
          static_cast<int>(s.head_dim),
          aligned && s.head_dim % 4 == 0 && s.ld % 4 == 0,
          1.0f / std::sqrt(static_cast<float>(s.head_dim))};
}

}  // namespace eepo::cuda
