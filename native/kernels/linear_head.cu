// The moves of rows around the fused head: active rows are gathered before the matrix products and their gradients
// scattered after them. Floor: every row read once and written once.
#include "cuda/common.cuh"
#include "cuda/kernels.h"

namespace eepo::cuda {
namespace {

constexpr int kThreads = 256;

// A row is `units` elements of T; block r moves row r.
template <class T, bool Gather>
__global__ void __launch_bounds__(kThreads) move_rows_kernel(const T* from, const int64_t* rows, int64_t units, T* to) {
  const int64_t r = blockIdx.x, other = rows[r];
  const T* source = from + (Gather ? other : r) * units;
  T* target = to + (Gather ? r : other) * units;
  for (int64_t i = threadIdx.x; i < units; i += kThreads) target[i] = source[i];
}

template <bool Gather>
void move_rows(const Context& context, const void* from, const int64_t* rows, int64_t count, int64_t row_bytes,
               void* to) {
  if (count == 0 || row_bytes == 0) return;
  const auto run = [&](auto unit) {
    using T = decltype(unit);
    EEPO_LAUNCH((move_rows_kernel<T, Gather>), dim3(static_cast<unsigned>(count)), dim3(kThreads), 0, context.stream,
                static_cast<const T*>(from), rows, row_bytes / static_cast<int64_t>(sizeof(T)), static_cast<T*>(to));
  };
  const auto aligned =
      reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to) | static_cast<uintptr_t>(row_bytes);
  if (aligned % 16 == 0) return run(uint4{});
  if (aligned % 4 == 0) return run(uint32_t{});
  run(uint16_t{});
}

}  // namespace

void gather_row_bytes(const Context& context, const void* from, const int64_t* rows, int64_t count, int64_t row_bytes,
                      void* to) {
  move_rows<true>(context, from, rows, count, row_bytes, to);
}

void scatter_row_bytes(const Context& context, const void* from, const int64_t* rows, int64_t count, int64_t row_bytes,
                       void* to) {
  move_rows<false>(context, from, rows, count, row_bytes, to);
}

}  // namespace eepo::cuda
