// RMSNorm (kernels/blocks.h). A row of up to 512 floats is one warp's, a longer one a block's.
//
// Backward: a team (warp or block) takes a run of rows; dx is finished row by row, dweight is summed in the team's
// registers. Each block leaves one partial row in scratch, and those are summed in order: no atomics, the same bits
// every time.
#include <algorithm>

#include "cuda/common.cuh"
#include "cuda/kernels.h"
#include "kernels/column_sum.cuh"
#include "kernels/strips.cuh"

namespace eepo::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int64_t kWarpDim = 512;         // the longest row of one warp
constexpr int64_t kBackwardBlocks = 512;  // partial sums of dweight
constexpr int64_t kRowsPerTeam = 4;       // at least, in backward

// The sum of x over the team, in every thread. `turn` alternates, so that one barrier per sum is enough.
template <int Team>
__device__ __forceinline__ float team_sum(float x, float (&parts)[2][kWarps], int turn) {
  x = warp_sum(x);
  if constexpr (Team > kWarp) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    if (threadIdx.x % kWarp == 0) parts[turn][warp] = x;
    __syncthreads();
    x = parts[turn][0];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) x += parts[turn][w];
  }
  return x;
}

// Where row `row` of tokens * groups rows starts.
__device__ __forceinline__ int64_t row_start(unsigned row, const NormShape& shape, int64_t ld) {
  const auto groups = static_cast<unsigned>(shape.groups);
  return static_cast<int64_t>(row / groups) * ld + static_cast<int64_t>(row % groups) * shape.dim;
}

template <int Team, int V>
__global__ __launch_bounds__(kThreads) void rms_norm_kernel(const float* x, const float* weight, float eps,
                                                            NormShape shape, unsigned rows, float* y, float* inv) {
  __shared__ float parts[2][kWarps];
  const unsigned row = blockIdx.x * (kThreads / Team) + threadIdx.x / Team;
  const int64_t lane = threadIdx.x % Team * V;
  if (row >= rows) return;  // a whole warp; blocks of one row are never too many
  const float* in = x + row_start(row, shape, shape.ld_in);
  float* out = y + row_start(row, shape, shape.ld_out);
  float square = 0;
#pragma unroll 4
  for (int64_t i = lane; i < shape.dim; i += Team * V) {
    const auto v = load_pack<V>(in + i);
#pragma unroll
    for (int e = 0; e < V; ++e) square += v.at[e] * v.at[e];
  }
  const float r = 1.0f / sqrtf(team_sum<Team>(square, parts, 0) / static_cast<float>(shape.dim) + eps);
  if (inv && lane == 0) inv[row] = r;
  // The row is read again, from the cache. In place: a thread writes only what it alone reads.
#pragma unroll 4
  for (int64_t i = lane; i < shape.dim; i += Team * V) {
    auto v = load_pack<V>(in + i);
    const auto w = load_pack<V>(weight + i);
#pragma unroll
    for (int e = 0; e < V; ++e) v.at[e] = v.at[e] * r * w.at[e];
    store_pack<V>(out + i, v);
  }
}

struct BackwardArguments {
  const float *dy, *x, *weight, *inv;
  NormShape shape;
  unsigned rows, rows_per_team;
  bool accumulate;
  float *dx, *partial;
};

// kPacks: packs of a row per thread, whose dweight is held in registers; 0: any number, held in `partial`.
template <int Team, int V, int kPacks>
__global__ __launch_bounds__(kThreads) void rms_norm_backward_kernel(BackwardArguments a) {
  __shared__ float parts[2][kWarps];
  EEPO_DYNAMIC_SHARED(bytes);
  constexpr int kTeams = kThreads / Team;
  const int64_t dim = a.shape.dim;
  const int team = static_cast<int>(threadIdx.x) / Team;
  const int64_t lane = threadIdx.x % Team * V;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kTeams + team) * a.rows_per_team;
  const int64_t last = first + a.rows_per_team < a.rows ? first + a.rows_per_team : a.rows;
  float* partial = a.partial + blockIdx.x * dim;
  Pack<float, V> sums[kPacks > 0 ? kPacks : 1] = {};
  if constexpr (kPacks == 0)
    for (int64_t i = lane; i < dim; i += Team * V) store_pack<V>(partial + i, sums[0]);

  for (int64_t row = first; row < last; ++row) {
    const float* in = a.x + row_start(static_cast<unsigned>(row), a.shape, a.shape.ld_in);
    const int64_t at = row_start(static_cast<unsigned>(row), a.shape, a.shape.ld_out);
    const float r = a.inv[row];
    float product = 0;
#pragma unroll 4
    for (int64_t i = lane; i < dim; i += Team * V) {
      const auto u = load_pack<V>(a.dy + at + i), v = load_pack<V>(in + i), w = load_pack<V>(a.weight + i);
#pragma unroll
      for (int e = 0; e < V; ++e) product += u.at[e] * v.at[e] * w.at[e];
    }
    const float c = team_sum<Team>(product, parts, static_cast<int>(row & 1)) * r * r * r / static_cast<float>(dim);
    // dx may be dy: a thread writes only what it alone reads.
    const auto finish = [&](int64_t i, Pack<float, V>& sum) {
      const auto u = load_pack<V>(a.dy + at + i), v = load_pack<V>(in + i), w = load_pack<V>(a.weight + i);
      Pack<float, V> d{};
      if (a.accumulate) d = load_pack<V>(a.dx + at + i);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        d.at[e] += u.at[e] * w.at[e] * r - v.at[e] * c;
        sum.at[e] += u.at[e] * v.at[e] * r;
      }
      store_pack<V>(a.dx + at + i, d);
    };
    if constexpr (kPacks > 0) {
#pragma unroll
      for (int k = 0; k < kPacks; ++k)
        if (lane + k * Team * V < dim) finish(lane + k * Team * V, sums[k]);
    } else {
      for (int64_t i = lane; i < dim; i += Team * V) {
        auto sum = load_pack<V>(partial + i);
        finish(i, sum);
        store_pack<V>(partial + i, sum);
      }
    }
  }

  if constexpr (kTeams > 1) {  // the warps' sums meet in shared memory
    auto* mine = reinterpret_cast<float*>(bytes) + team * dim;
#pragma unroll
    for (int k = 0; k < kPacks; ++k)
      if (lane + k * Team * V < dim) store_pack<V>(mine + lane + k * Team * V, sums[k]);
    __syncthreads();
    const auto* all = reinterpret_cast<const float*>(bytes);
    for (int64_t i = threadIdx.x; i < dim; i += kThreads) {
      float total = all[i];
#pragma unroll
      for (int w = 1; w < kTeams; ++w) total += all[w * dim + i];
      partial[i] = total;
    }
  } else if constexpr (kPacks > 0) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k)
      if (lane + k * Team * V < dim) store_pack<V>(partial + lane + k * Team * V, sums[k]);
  }
}

template <int Team, int V, int kPacks>
void launch_backward(const Context& context, BackwardArguments& a, float* dweight) {
  constexpr int64_t kTeams = kThreads / Team;
  const auto rows = static_cast<int64_t>(a.rows);
  const int64_t per_team = std::max(kRowsPerTeam, ceil_div(rows, kTeams * kBackwardBlocks));
  const int64_t blocks = ceil_div(rows, kTeams * per_team);
  a.rows_per_team = static_cast<unsigned>(per_team);
  a.partial = static_cast<float*>(context.scratch(blocks * a.shape.dim * sizeof(float)));
  const size_t shared = kTeams > 1 ? kTeams * a.shape.dim * sizeof(float) : 0;
  EEPO_LAUNCH((rms_norm_backward_kernel<Team, V, kPacks>), static_cast<unsigned>(blocks), kThreads, shared,
              context.stream, a);
  column_sum(context.stream, a.partial, blocks, a.shape.dim, blocks, true, dweight);
}

// Rows and heads start at multiples of 16 bytes.
bool vector_rows(const NormShape& shape) { return shape.dim % 4 == 0 && shape.ld_in % 4 == 0 && shape.ld_out % 4 == 0; }

}  // namespace

void rms_norm(const Context& context, const float* x, const float* weight, float eps, const NormShape& shape,
              int64_t tokens, float* y, float* inv) {
  const int64_t rows = tokens * shape.groups;
  if (rows == 0) return;
  with_width(vector_rows(shape) && aligned16(x, weight, y), [&](auto v) {
    constexpr int V = decltype(v)::value;
    const auto count = static_cast<unsigned>(rows);
    if (shape.dim <= kWarpDim)
      EEPO_LAUNCH((rms_norm_kernel<kWarp, V>), static_cast<unsigned>(ceil_div(rows, kWarps)), kThreads, 0,
                  context.stream, x, weight, eps, shape, count, y, inv);
    else
      EEPO_LAUNCH((rms_norm_kernel<kThreads, V>), count, kThreads, 0, context.stream, x, weight, eps, shape, count, y,
                  inv);
  });
}

void rms_norm_backward(const Context& context, const float* dy, const float* x, const float* weight, const float* inv,
                       const NormShape& shape, int64_t tokens, bool accumulate, float* dx, float* dweight) {
  const int64_t rows = tokens * shape.groups, dim = shape.dim;
  if (rows == 0) return;
  BackwardArguments a{dy, x, weight, inv, shape, static_cast<unsigned>(rows), 0, accumulate, dx, nullptr};
  if (vector_rows(shape) && aligned16(dy, x, weight, dx)) {
    if (dim <= 128) return launch_backward<kWarp, 4, 1>(context, a, dweight);
    if (dim <= kWarpDim) return launch_backward<kWarp, 4, 4>(context, a, dweight);
    if (dim <= 1024) return launch_backward<kThreads, 4, 1>(context, a, dweight);
    if (dim <= 4096) return launch_backward<kThreads, 4, 4>(context, a, dweight);
    if (dim <= 8192) return launch_backward<kThreads, 4, 8>(context, a, dweight);
    return launch_backward<kThreads, 4, 0>(context, a, dweight);
  }
  if (dim <= kWarpDim) return launch_backward<kWarp, 1, 16>(context, a, dweight);
  if (dim <= 4096) return launch_backward<kThreads, 1, 16>(context, a, dweight);
  launch_backward<kThreads, 1, 0>(context, a, dweight);
}

}  // namespace eepo::cuda
