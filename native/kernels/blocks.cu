// The elementwise parts of a decoder layer, and the embedding. Equations and contracts: kernels/blocks.h and
// cuda/kernels.h. Every kernel moves each float once, 16 bytes at a time where shapes and pointers allow it.
#include <algorithm>
#include <vector>

#include "cuda/common.cuh"
#include "cuda/kernels.h"
#include "kernels/column_sum.cuh"
#include "kernels/strips.cuh"

namespace eepo::cuda {
namespace {

// As on the CPU: beyond 88 the sigmoid is below 1e-38 all the same, and exp() stays finite. NaN passes.
__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x > 88.0f ? 88.0f : -x)); }

template <int V>
__global__ __launch_bounds__(kStripThreads) void swiglu_kernel(Strips strips, const float* gate_up, int64_t width,
                                                               float* out) {
  int64_t t, i;
  if (!strips.mine(t, i)) return;
  const auto gate = load_pack<V>(gate_up + t * 2 * width + i * V),
             up = load_pack<V>(gate_up + (t * 2 + 1) * width + i * V);
  Pack<float, V> y;
#pragma unroll
  for (int e = 0; e < V; ++e) y.at[e] = gate.at[e] * sigmoid(gate.at[e]) * up.at[e];
  store_pack<V>(out + t * width + i * V, y);
}

// d_gate = d up s (1 + g (1 - s)),  d_up = d g s;  s = sigmoid(g)
template <int V>
__global__ __launch_bounds__(kStripThreads) void swiglu_backward_kernel(Strips strips, const float* gate_up,
                                                                        const float* d_out, int64_t width,
                                                                        float* d_gate_up) {
  int64_t t, i;
  if (!strips.mine(t, i)) return;
  const int64_t gate_at = t * 2 * width + i * V, up_at = gate_at + width;
  const auto gate = load_pack<V>(gate_up + gate_at), up = load_pack<V>(gate_up + up_at);
  const auto d = load_pack<V>(d_out + t * width + i * V);
  Pack<float, V> d_gate, d_up;
#pragma unroll
  for (int e = 0; e < V; ++e) {
    const float g = gate.at[e], s = sigmoid(g);
    d_gate.at[e] = d.at[e] * up.at[e] * s * (1.0f + g * (1.0f - s));
    d_up.at[e] = d.at[e] * g * s;
  }
  store_pack<V>(d_gate_up + gate_at, d_gate);
  store_pack<V>(d_gate_up + up_at, d_up);
}

template <int V>
__global__ __launch_bounds__(kStripThreads) void rope_kernel(Strips strips, float* x, int64_t ld, unsigned half,
                                                             const int32_t* positions, const float* cosine,
                                                             const float* sine, float sign) {
  int64_t t, item;
  if (!strips.mine(t, item)) return;
  const unsigned per_head = half / V;
  const unsigned head = static_cast<unsigned>(item) / per_head, i = (static_cast<unsigned>(item) % per_head) * V;
  float* first = x + t * ld + static_cast<int64_t>(head) * 2 * half + i;
  float* second = first + half;
  const int64_t angle = static_cast<int64_t>(positions[t]) * half + i;
  const auto c = load_pack<V>(cosine + angle), s = load_pack<V>(sine + angle);
  auto a = load_pack<V>(first), b = load_pack<V>(second);
#pragma unroll
  for (int e = 0; e < V; ++e) {
    const float u = a.at[e], v = b.at[e], w = sign * s.at[e];
    a.at[e] = u * c.at[e] - v * w;
    b.at[e] = v * c.at[e] + u * w;
  }
  store_pack<V>(first, a);
  store_pack<V>(second, b);
}

// out[row of strips] = from[index[row]], converted; the same row where `index` is null.
template <int V, class From, class To>
__global__ __launch_bounds__(kStripThreads) void gather_kernel(Strips strips, const From* from, const int32_t* index,
                                                               int64_t dim, To* out) {
  int64_t t, i;
  if (!strips.mine(t, i)) return;
  const int64_t row = index ? static_cast<int64_t>(index[t]) : t;
  const auto x = *reinterpret_cast<const Pack<From, V>*>(from + row * dim + i * V);
  Pack<To, V> y;
#pragma unroll
  for (int e = 0; e < V; ++e) y.at[e] = from_float<To>(to_float(x.at[e]));
  *reinterpret_cast<Pack<To, V>*>(out + t * dim + i * V) = y;
}

template <class From, class To>
void gather(const Context& context, const From* from, const int32_t* index, int64_t rows, int64_t dim, To* out) {
  if (rows * dim == 0) return;
  with_width(dim % 4 == 0 && aligned16(from, out), [&](auto v) {
    constexpr int V = decltype(v)::value;
    const Strips strips(rows, dim / V);
    EEPO_LAUNCH((gather_kernel<V, From, To>), strips.blocks(), kStripThreads, 0, context.stream, strips, from, index,
                dim, out);
  });
}

// y += x
template <int V>
__global__ __launch_bounds__(kStripThreads) void add_kernel(Strips strips, const float* x, float* y) {
  int64_t t, i;
  if (!strips.mine(t, i)) return;
  auto sum = load_pack<V>(y + i * V);
  const auto more = load_pack<V>(x + i * V);
#pragma unroll
  for (int e = 0; e < V; ++e) sum.at[e] += more.at[e];
  store_pack<V>(y + i * V, sum);
}

template <int V>
__global__ __launch_bounds__(kStripThreads) void add_bias_kernel(Strips strips, float* x, const float* bias) {
  int64_t r, i;
  if (!strips.mine(r, i)) return;
  float* at = x + (r * strips.items + i) * V;
  auto sum = load_pack<V>(at);
  const auto b = load_pack<V>(bias + i * V);
#pragma unroll
  for (int e = 0; e < V; ++e) sum.at[e] += b.at[e];
  store_pack<V>(at, sum);
}

// One row of x per row of the strips. order: the summands grouped by their row; group k is order[first[k]..first[k+1])
// and belongs to row named[k]. They are added one by one, so that the result has the bits of the CPU's.
template <int V>
__global__ __launch_bounds__(kStripThreads) void scatter_add_kernel(Strips strips, const float* d_out,
                                                                    const int32_t* order, const int32_t* first,
                                                                    const int32_t* named, int64_t dim, float* x) {
  int64_t group, i;
  if (!strips.mine(group, i)) return;
  float* to = x + static_cast<int64_t>(named[group]) * dim + i * V;
  auto sum = load_pack<V>(to);
  const int32_t end = first[group + 1];
#pragma unroll 4
  for (int32_t k = first[group]; k < end; ++k) {
    const auto d = load_pack<V>(d_out + static_cast<int64_t>(order[k]) * dim + i * V);
#pragma unroll
    for (int e = 0; e < V; ++e) sum.at[e] += d.at[e];
  }
  store_pack<V>(to, sum);
}

// The three tables of scatter_add_rows in one array: order [count], first [groups + 1], named [groups].
std::vector<int32_t> group_by_row(const int32_t* rows, int64_t count, int64_t& groups) {
  std::vector<uint64_t> keys(count);  // row, then summand: sorting keeps the summands of a row in order
  for (int64_t r = 0; r < count; ++r)
    keys[r] = static_cast<uint64_t>(static_cast<uint32_t>(rows[r])) << 32 | static_cast<uint32_t>(r);
  std::sort(keys.begin(), keys.end());
  std::vector<int32_t> order, first, named;
  order.reserve(3 * count + 1);
  for (int64_t k = 0; k < count; ++k) {
    const auto row = static_cast<int32_t>(keys[k] >> 32);
    if (k == 0 || row != named.back()) {
      first.push_back(static_cast<int32_t>(k));
      named.push_back(row);
    }
    order.push_back(static_cast<int32_t>(keys[k] & 0xffffffffu));
  }
  first.push_back(static_cast<int32_t>(count));
  groups = static_cast<int64_t>(named.size());
  order.insert(order.end(), first.begin(), first.end());
  order.insert(order.end(), named.begin(), named.end());
  return order;
}

// Rows of one partial sum: a function of the number of rows alone.
int64_t rows_per_chunk(int64_t rows) { return std::max<int64_t>(64, ceil_div(rows, 512)); }

}  // namespace

void swiglu(const Context& context, const float* gate_up, int64_t width, int64_t tokens, float* out) {
  if (tokens * width == 0) return;
  with_width(width % 4 == 0 && aligned16(gate_up, out), [&](auto v) {
    constexpr int V = decltype(v)::value;
    const Strips strips(tokens, width / V);
    EEPO_LAUNCH((swiglu_kernel<V>), strips.blocks(), kStripThreads, 0, context.stream, strips, gate_up, width, out);
  });
}

void swiglu_backward(const Context& context, const float* gate_up, const float* d_out, int64_t width, int64_t tokens,
                     float* d_gate_up) {
  if (tokens * width == 0) return;
  with_width(width % 4 == 0 && aligned16(gate_up, d_out, d_gate_up), [&](auto v) {
    constexpr int V = decltype(v)::value;
    const Strips strips(tokens, width / V);
    EEPO_LAUNCH((swiglu_backward_kernel<V>), strips.blocks(), kStripThreads, 0, context.stream, strips, gate_up, d_out,
                width, d_gate_up);
  });
}

void rope(const Context& context, float* x, int64_t ld, int64_t heads, int64_t head_dim, const int32_t* positions,
          int64_t tokens, const float* cosine, const float* sine, bool inverse) {
  if (tokens * heads * head_dim == 0) return;
  const int64_t half = head_dim / 2;
  with_width(half % 4 == 0 && ld % 4 == 0 && aligned16(x, cosine, sine), [&](auto v) {
    constexpr int V = decltype(v)::value;
    const Strips strips(tokens, heads * half / V);
    EEPO_LAUNCH((rope_kernel<V>), strips.blocks(), kStripThreads, 0, context.stream, strips, x, ld,
                static_cast<unsigned>(half), positions, cosine, sine, inverse ? -1.0f : 1.0f);
  });
}

void embed(const Context& context, const void* table, DType dtype, const int32_t* ids, int64_t tokens, int64_t dim,
           float* out) {
  if (dtype == DType::Float32)
    gather(context, static_cast<const float*>(table), ids, tokens, dim, out);
  else
    gather(context, static_cast<const BFloat16*>(table), ids, tokens, dim, out);
}

void cast(const Context& context, const void* from, DType from_dtype, void* to, DType to_dtype, int64_t n) {
  constexpr const int32_t* kInPlace = nullptr;
  if (from_dtype == DType::Float32 && to_dtype == DType::BFloat16)
    gather(context, static_cast<const float*>(from), kInPlace, 1, n, static_cast<BFloat16*>(to));
  else if (from_dtype == DType::BFloat16 && to_dtype == DType::Float32)
    gather(context, static_cast<const BFloat16*>(from), kInPlace, 1, n, static_cast<float*>(to));
}

void add_bias(const Context& context, float* x, const float* bias, int64_t rows, int64_t cols) {
  if (rows * cols == 0) return;
  with_width(cols % 4 == 0 && aligned16(x, bias), [&](auto v) {
    constexpr int V = decltype(v)::value;
    const Strips strips(rows, cols / V);
    EEPO_LAUNCH((add_bias_kernel<V>), strips.blocks(), kStripThreads, 0, context.stream, strips, x, bias);
  });
}

void bias_backward(const Context& context, const float* dx, int64_t rows, int64_t cols, float* dbias) {
  if (rows * cols == 0) return;
  const int64_t per_chunk = rows_per_chunk(rows), chunks = ceil_div(rows, per_chunk);
  if (chunks == 1) return column_sum(context.stream, dx, rows, cols, rows, true, dbias);
  auto* partial = static_cast<float*>(context.scratch(chunks * cols * sizeof(float)));
  column_sum(context.stream, dx, rows, cols, per_chunk, false, partial);
  column_sum(context.stream, partial, chunks, cols, chunks, true, dbias);
}

void add(const Context& context, const float* x, int64_t n, float* y) {
  if (n == 0) return;
  with_width(n % 4 == 0 && aligned16(x, y), [&](auto v) {
    constexpr int V = decltype(v)::value;
    const Strips strips(1, n / V);
    EEPO_LAUNCH((add_kernel<V>), strips.blocks(), kStripThreads, 0, context.stream, strips, x, y);
  });
}

void gather_rows(const Context& context, const float* x, const int32_t* rows, int64_t count, int64_t dim, float* out) {
  gather(context, x, rows, count, dim, out);
}

void scatter_add_rows(const Context& context, const float* d_out, const int32_t* host_rows, int64_t count, int64_t dim,
                      float* x) {
  if (count * dim == 0) return;
  int64_t groups = 0;
  const std::vector<int32_t> tables = group_by_row(host_rows, count, groups);
  auto* order = static_cast<int32_t*>(context.scratch(tables.size() * sizeof(int32_t)));
  context.upload(order, tables.data(), tables.size() * sizeof(int32_t));
  const int32_t* first = order + count;
  const int32_t* named = first + groups + 1;
  with_width(dim % 4 == 0 && aligned16(d_out, x), [&](auto v) {
    constexpr int V = decltype(v)::value;
    const Strips strips(groups, dim / V);
    EEPO_LAUNCH((scatter_add_kernel<V>), strips.blocks(), kStripThreads, 0, context.stream, strips, d_out, order, first,
                named, dim, x);
  });
}

}  // namespace eepo::cuda
