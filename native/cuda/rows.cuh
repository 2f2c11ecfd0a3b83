// Inside the kernels of rows of logits (token_stats, token_grad, sample): a row as fixed segments of 4 KB, each loaded
// by one warp into registers and reduced to (max, S, T), and the merge of those in their order.
//
// Which lane holds which column depends on the column alone: not on the row's alignment (a row that begins anywhere is
// loaded in aligned 16-byte packs all the same and shifted into place by shuffles), the number of rows or of blocks.
// Products and sums are written as intrinsics, which the compiler neither contracts nor reorders. So a row has the
// same bits in any batch and in every kernel of this family.
//
// Exponents are in units of log2(e)/tau: d_j = z_j log2(e)/tau - r, one fused multiply-add, where r is any number near
// the maximum as long as all terms share it. r = fl(max log2(e)/tau) is subtracted exactly, so a row shifted by 300
// loses nothing.
#pragma once

#include "cuda/common.cuh"
#include "cuda/kernels.h"

namespace eepo::cuda {

constexpr int kPacks = 8;  // 16-byte loads a lane has in flight
/// Columns of one segment.
template <class T>
constexpr int kSegment = kPacks * kWarp * kPack<T>;
constexpr int64_t kMaxSharedSegments = 2048;  // above (V > 2M) the partial sums of a row are in scratch memory
constexpr int kRowWarps = 8;
constexpr double kDoubleLn2 = 0.69314718055994530942;

/// Of one segment, with r = reference(max): sum = sum 2^d, shifted = sum d 2^d.
struct Partial {
  float max, sum, shifted;
};

/// log2(e)/tau as a float, and what it lost: exact = log2e (1 + error).
struct Scale {
  float log2e;
  double error, temperature;
};

inline Scale make_scale(float temperature) {
  const double exact = 1.4426950408889634074 / static_cast<double>(temperature);
  const float rounded = static_cast<float>(exact);
  return {rounded, exact / static_cast<double>(rounded) - 1, static_cast<double>(temperature)};
}

template <class T>
struct Rows {
  const T* data;
  int64_t rows, cols, stride;
  __device__ const T* row(int64_t r) const { return data + r * stride; }
};

template <class T>
Rows<T> rows_of(const LogitsView& view) {
  return {static_cast<const T*>(view.data), view.rows, view.cols, view.stride};
}

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) & (kWarp - 1); }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x) / kWarp; }
__device__ __forceinline__ int warp_count() { return static_cast<int>(blockDim.x) / kWarp; }
__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }
__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fffffffu); }

// ---- elements inside 16 bytes; `i` is known when compiled -----------------------------------------------------------

__device__ __forceinline__ uint32_t word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
__device__ __forceinline__ void set_word(uint4& v, int i, uint32_t value) {
  if (i == 0) v.x = value;
  if (i == 1) v.y = value;
  if (i == 2) v.z = value;
  if (i == 3) v.w = value;
}

__device__ __forceinline__ uint32_t bits_of(float x) { return __float_as_uint(x); }
__device__ __forceinline__ uint32_t bits_of(BFloat16 x) { return x.bits; }
__device__ __forceinline__ uint32_t bits_of(Float16 x) { return x.bits; }
template <class T>
__device__ __forceinline__ uint32_t minus_infinity_bits() {
  return bits_of(from_float<T>(-infinity()));
}

template <class T>
__device__ __forceinline__ uint32_t element_bits(const uint4& v, int i) {
  if constexpr (sizeof(T) == 4) {
    return word(v, i);
  } else {
    return (word(v, i / 2) >> (16 * (i & 1))) & 0xffffu;
  }
}
template <class T>
__device__ __forceinline__ void set_element_bits(uint4& v, int i, uint32_t bits) {
  if constexpr (sizeof(T) == 4) {
    set_word(v, i, bits);
  } else {
    const uint32_t old = word(v, i / 2);
    set_word(v, i / 2, (i & 1) ? (old & 0xffffu) | (bits << 16) : (old & 0xffff0000u) | bits);
  }
}
__device__ __forceinline__ float value_of_bits(uint32_t bits, float) { return __uint_as_float(bits); }
__device__ __forceinline__ float value_of_bits(uint32_t bits, BFloat16) { return __uint_as_float(bits << 16); }
__device__ __forceinline__ float value_of_bits(uint32_t bits, Float16) {
  return to_float(Float16{static_cast<uint16_t>(bits)});
}
template <class T>
__device__ __forceinline__ float element(const uint4& v, int i) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return __uint_as_float((i & 1) ? word(v, i / 2) & 0xffff0000u : word(v, i / 2) << 16);
  } else {
    return value_of_bits(element_bits<T>(v, i), T{});
  }
}

/// Word i of kPack<T> elements that element(i) gives as floats, rounded.
template <class T, class Element>
__device__ __forceinline__ uint32_t rounded_word(int i, Element element) {
  if constexpr (sizeof(T) == 4) {
    return __float_as_uint(element(i));
  } else {
    const float low = element(2 * i), high = element(2 * i + 1);
#ifdef __CUDACC__
    if constexpr (std::is_same_v<T, BFloat16>) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
      return *reinterpret_cast<const uint32_t*>(&pair);
    } else {
      const __half2 pair = __floats2half2_rn(low, high);
      return *reinterpret_cast<const uint32_t*>(&pair);
    }
#else
    return bits_of(from_float<T>(low)) | bits_of(from_float<T>(high)) << 16;
#endif
  }
}

/// The larger of a and b, per element of a word; of a number and NaN, the number.
template <class T>
__device__ __forceinline__ uint32_t word_max(uint32_t a, uint32_t b) {
  if constexpr (sizeof(T) == 4) {
    return __float_as_uint(fmaxf(__uint_as_float(a), __uint_as_float(b)));
  } else {
#ifdef __CUDACC__
    using Pair = std::conditional_t<std::is_same_v<T, BFloat16>, __nv_bfloat162, __half2>;
    const Pair most = __hmax2(*reinterpret_cast<const Pair*>(&a), *reinterpret_cast<const Pair*>(&b));
    return *reinterpret_cast<const uint32_t*>(&most);
#else
    const auto larger = [](uint32_t x, uint32_t y) {
      const float value_x = value_of_bits(x, T{}), value_y = value_of_bits(y, T{});
      return value_x >= value_y || value_y != value_y ? x : y;
    };
    return larger(a & 0xffffu, b & 0xffffu) | larger(a >> 16, b >> 16) << 16;
#endif
  }
}

// ---- segments between memory and registers --------------------------------------------------------------------------

/// The 16 bytes that begin `bytes` (2, 4, .. 14) into the 32 of a and b.
__device__ __forceinline__ uint4 funnel(const uint4& a, const uint4& b, unsigned bytes) {
  uint32_t w[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
  const bool eight = bytes & 8u, four = bytes & 4u, two = bytes & 2u;
#pragma unroll
  for (int i = 0; i < 6; ++i) w[i] = eight ? w[i + 2] : w[i];
#pragma unroll
  for (int i = 0; i < 5; ++i) w[i] = four ? w[i + 1] : w[i];
#pragma unroll
  for (int i = 0; i < 4; ++i) w[i] = two ? (w[i] >> 16) | (w[i + 1] << 16) : w[i];
  return {w[0], w[1], w[2], w[3]};
}

__device__ __forceinline__ uint4 select(bool first, const uint4& a, const uint4& b) {
  return {first ? a.x : b.x, first ? a.y : b.y, first ? a.z : b.z, first ? a.w : b.w};
}

__device__ __forceinline__ uint4 shuffle(const uint4& v, int lane) {
  return {__shfl_sync(kFullMask, v.x, lane), __shfl_sync(kFullMask, v.y, lane), __shfl_sync(kFullMask, v.z, lane),
          __shfl_sync(kFullMask, v.w, lane)};
}

/// Columns [at, at + kPack<T>) one by one, -inf behind the row's end.
template <class T>
__device__ __forceinline__ uint4 load_elements(const T* row, int64_t cols, int64_t at) {
  uint4 v{};
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) {
    set_element_bits<T>(v, i, at + i < cols ? bits_of(row[at + i]) : minus_infinity_bits<T>());
  }
  return v;
}

/// A warp loads columns [begin, begin + kSegment<T>) of a row: lane l holds kPack<T> columns from (32 k + l) kPack<T>
/// on in v[k]. Nothing outside of the row is read; columns behind its end are -inf.
template <class T>
__device__ __forceinline__ void load_segment(uint4 (&v)[kPacks], const T* row, int64_t cols, int64_t begin) {
  const int lane = lane_index();
  const T* const first = row + begin;
  const unsigned shift = static_cast<unsigned>(reinterpret_cast<uintptr_t>(first)) & 15u;
  if (shift == 0 && begin + kSegment<T> <= cols) {
    const uint4* const packs = reinterpret_cast<const uint4*>(first) + lane;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) v[k] = packs[k * kWarp];
  } else if (begin > 0 && begin + kSegment<T> + kPack<T> <= cols) {
    // Aligned packs, each completed from its successor's front: that of the next lane, for the last lane that of the
    // first lane's next pack.
    const uint4* const packs =
        reinterpret_cast<const uint4*>(reinterpret_cast<const unsigned char*>(first) - shift) + lane;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) v[k] = packs[k * kWarp];
    const uint4 beyond = lane == 0 ? packs[kPacks * kWarp] : uint4{};
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const uint4 following = k + 1 < kPacks ? v[k + 1 < kPacks ? k + 1 : k] : beyond;
      const uint4 offered = select(lane == 0, following, v[k]);
      v[k] = funnel(v[k], shuffle(offered, (lane + 1) & (kWarp - 1)), shift);
    }
  } else {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t at = begin + (k * kWarp + lane) * kPack<T>;
      if (shift == 0 && at + kPack<T> <= cols) {
        v[k] = *reinterpret_cast<const uint4*>(row + at);
      } else {
        v[k] = load_elements(row, cols, at);
      }
    }
  }
}

/// Column `inside` of the segment becomes -inf.
template <class T>
__device__ __forceinline__ void exclude(uint4 (&v)[kPacks], int64_t inside) {
  const int64_t mine = inside - lane_index() * kPack<T>;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      if (mine == k * kWarp * kPack<T> + i) set_element_bits<T>(v[k], i, minus_infinity_bits<T>());
    }
  }
}

// ---- sums -----------------------------------------------------------------------------------------------------------

/// r of a segment with this maximum; any number will do where there is nothing but -inf (or NaN).
__device__ __forceinline__ float reference(float max, float log2e) {
  return max == -infinity() ? 0.0f : __fmul_rn(max, log2e);
}

__device__ __forceinline__ float exponent(float z, float log2e, float reference) {
  return __fmaf_rn(z, log2e, -reference);
}

template <class T>
__device__ __forceinline__ float lane_max(const uint4 (&v)[kPacks]) {
  uint4 top = v[0];
#pragma unroll
  for (int k = 1; k < kPacks; ++k) {
    top = {word_max<T>(top.x, v[k].x), word_max<T>(top.y, v[k].y), word_max<T>(top.z, v[k].z),
           word_max<T>(top.w, v[k].w)};
  }
  float most = -infinity();
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) most = fmaxf(most, element<T>(top, i));
  return most;
}

/// Per element: a maximum a fused multiply-add, one exponential, a clamp (of -inf, so that -inf 2^-inf is 0), an
/// addition and a fused multiply-add. NaN and +inf make the sums NaN.
template <class T>
__device__ __forceinline__ Partial sum_segment(const uint4 (&v)[kPacks], float log2e) {
  const float top = warp_max(lane_max<T>(v));
  const float r = reference(top, log2e);
  float sum[4] = {}, shifted[4] = {};
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      const float d = exponent(element<T>(v[k], i), log2e, r);
      const float e = exp2_approx(d);
      sum[i & 3] = __fadd_rn(sum[i & 3], e);
      shifted[i & 3] = __fmaf_rn(fmaxf(d, -127.0f), e, shifted[i & 3]);
    }
  }
  const float s = __fadd_rn(__fadd_rn(sum[0], sum[1]), __fadd_rn(sum[2], sum[3]));
  const float t = __fadd_rn(__fadd_rn(shifted[0], shifted[1]), __fadd_rn(shifted[2], shifted[3]));
  return {top, warp_sum(s), warp_sum(t)};
}

/// What merge() gives, the same in every lane. Sums are relative to 2^reference.
struct RowSums {
  float reference;
  double others;   // sum over j != y of 2^d_j; over all j without a target
  double target;   // 2^d_y; 0 without a target
  double shifted;  // sum over all j of d_j 2^d_j
  double logprob, entropy, one_minus_p;
  bool valid;  // false for a row with NaN, +inf or no finite logit; then the statistics are NaN
};

/// How far a segment's reference lies below the row's, exactly.
__device__ __forceinline__ double segment_distance(const Partial& p, float log2e, float row_reference) {
  return static_cast<double>(reference(p.max, log2e)) - static_cast<double>(row_reference);
}

/// 2^distance: of a float exponential, with what the float lost of the exponent.
__device__ __forceinline__ double segment_weight(double distance) {
  const float rounded = static_cast<float>(distance);
  const double lost = distance == static_cast<double>(rounded) ? 0 : distance - static_cast<double>(rounded);
  return static_cast<double>(exp2f(rounded)) * (1 + kDoubleLn2 * lost);
}

__device__ __forceinline__ float row_reference(const Partial* partials, int64_t count, float log2e, float start) {
  float top = start;
  for (int64_t s = lane_index(); s < count; s += kWarp) {
    const float max = partials[s].max;
    top = fmaxf(top, max == -infinity() ? max : reference(max, log2e));
  }
  return warp_max(top);
}

/// One warp merges the segments' sums, in double: lane l those of segments l, l + 32, ..., then the lanes.
/// `logit`: the target's, left out of the segments; has_target false: there is none.
__device__ __noinline__ inline RowSums merge(const Partial* partials, int64_t count, bool has_target, float logit,
                                             Scale scale) {
  RowSums row{};
  const float from_target = has_target ? __fmul_rn(logit, scale.log2e) : -infinity();
  row.reference = row_reference(partials, count, scale.log2e, from_target);
  double others = 0, shifted = 0;
  for (int64_t s = lane_index(); s < count; s += kWarp) {
    const Partial p = partials[s];
    if (p.sum == 0) continue;  // nothing but -inf
    const double distance = segment_distance(p, scale.log2e, row.reference);
    const double weight = segment_weight(distance);
    others += weight * static_cast<double>(p.sum);
    shifted += weight * (static_cast<double>(p.shifted) + static_cast<double>(p.sum) * distance);
  }
  others = warp_sum(others);
  shifted = warp_sum(shifted);
  const double ln2 = kDoubleLn2;
  const double d =
      has_target ? static_cast<double>(logit) * static_cast<double>(scale.log2e) - static_cast<double>(row.reference)
                 : -static_cast<double>(infinity());
  const double target = has_target ? exp2(d) : 0;
  const double total = others + target;
  row.others = others;
  row.target = target;
  row.shifted = target > 0 ? shifted + target * d : shifted;
  row.valid = total > 0;
  if (!row.valid) {
    row.logprob = row.entropy = row.one_minus_p = static_cast<double>(not_a_number());
    return row;
  }
  if (target >= others) {
    // Relative to the target: ln(1 + others) keeps l and H exact as p_y -> 1.
    const double ratio = others / target;
    const double mean = (shifted - d * others) / total;
    const double log_sum = log1p(ratio);
    row.logprob = 0 - log_sum - scale.error * ln2 * mean;
    row.entropy = log_sum - ln2 * mean;
  } else {
    const double mean = row.shifted / total;
    const double log_sum = log(total);
    row.logprob = d * ln2 - log_sum + (target > 0 ? scale.error * ln2 * (d - mean) : 0);
    row.entropy = log_sum - ln2 * mean;
  }
  row.entropy = row.entropy < 0 ? 0 : row.entropy;
  row.one_minus_p = others / total;
  return row;
}

/// The sums of segment `s`, loaded in v, without column `target` (if it lies there).
template <class T>
__device__ __forceinline__ Partial sum_loaded(uint4 (&v)[kPacks], int64_t s, int64_t target, float log2e) {
  const int64_t inside = target - s * kSegment<T>;
  if (inside >= 0 && inside < kSegment<T>) exclude<T>(v, inside);
  return sum_segment<T>(v, log2e);
}

// ---- few rows: the segments of a row over several blocks ------------------------------------------------------------

/// How a launch shares its work. parts == 1: one block per row; else `parts` blocks per row, in a first kernel that
/// leaves the partial sums in scratch memory.
struct RowPlan {
  int64_t segments;
  int parts;
  bool split() const { return parts > 1; }
  bool shared() const { return !split() && segments <= kMaxSharedSegments; }
  size_t shared_bytes() const { return shared() ? static_cast<size_t>(segments) * sizeof(Partial) : 0; }
  size_t scratch_bytes(int64_t rows) const {
    return shared() ? 0 : static_cast<size_t>(rows * segments) * sizeof(Partial);
  }
};

template <class T>
RowPlan plan_rows(const Context& context, int64_t rows, int64_t cols) {
  RowPlan plan{ceil_div(cols, kSegment<T>), 1};
  if (rows < 2 * int64_t{context.multiprocessors}) {
    const int64_t wanted = ceil_div(4 * int64_t{context.multiprocessors}, rows);
    plan.parts = static_cast<int>(wanted < plan.segments ? wanted : plan.segments);
    if (plan.parts < 1) plan.parts = 1;  // no columns
  }
  return plan;
}

/// Threads of a block that has `segments` segments to share.
inline unsigned row_threads(int64_t segments, int most_warps) {
  return static_cast<unsigned>(kWarp * (segments < most_warps ? (segments < 1 ? 1 : segments) : most_warps));
}

__device__ __forceinline__ bool in_range(int64_t target, int64_t cols) { return target >= 0 && target < cols; }

/// Block (part, row) sums its share of the row's segments into partials[row]. targets may be null; with `a`, rows whose
/// a and b are 0 are left out. Where target_logits is not null it receives each row's z_y.
template <class T>
__global__ void __launch_bounds__(kRowWarps* kWarp, 3)
    row_partials(Rows<T> rows, const int64_t* targets, const float* a, const float* b, float log2e, int64_t segments,
                 Partial* partials, float* target_logits) {
  const int64_t r = blockIdx.y;
  if (a != nullptr && a[r] == 0 && (b == nullptr || b[r] == 0)) return;
  const T* const row = rows.row(r);
  const int64_t target = targets != nullptr && in_range(targets[r], rows.cols) ? targets[r] : -1;
  const int64_t end = segments * (blockIdx.x + 1) / gridDim.x;
  for (int64_t s = segments * blockIdx.x / gridDim.x + warp_index(); s < end; s += warp_count()) {
    uint4 v[kPacks];
    load_segment(v, row, rows.cols, s * kSegment<T>);
    const Partial p = sum_loaded<T>(v, s, target, log2e);
    if (lane_index() == 0) partials[r * segments + s] = p;
  }
  if (target_logits != nullptr && target >= 0 && blockIdx.x == 0 && threadIdx.x == 0) {
    target_logits[r] = to_float(row[target]);
  }
}

template <class T>
void launch_row_partials(const Context& context, const Rows<T>& rows, const int64_t* targets, const float* a,
                         const float* b, float log2e, const RowPlan& plan, Partial* partials, float* target_logits) {
  const dim3 grid(static_cast<unsigned>(plan.parts), static_cast<unsigned>(rows.rows));
  const unsigned threads = row_threads(ceil_div(plan.segments, plan.parts), kRowWarps);
  EEPO_LAUNCH((row_partials<T>), grid, threads, 0, context.stream, rows, targets, a, b, log2e, plan.segments, partials,
              target_logits);
}

/// The partial sums of a whole row by one block, into `partials`, which all its threads see afterwards.
template <class T>
__device__ __forceinline__ void sum_row(const T* row, int64_t cols, int64_t segments, int64_t target, float log2e,
                                        Partial* partials) {
  for (int64_t s = warp_index(); s < segments; s += warp_count()) {
    uint4 v[kPacks];
    load_segment(v, row, cols, s * kSegment<T>);
    const Partial p = sum_loaded<T>(v, s, target, log2e);
    if (lane_index() == 0) partials[s] = p;
  }
  __syncthreads();
}

/// Lowers *bad_row to `row`.
__device__ __forceinline__ void report_row(int64_t* bad_row, int64_t row) {
  if (bad_row != nullptr) atomicMin(reinterpret_cast<long long*>(bad_row), static_cast<long long>(row));
}

}  // namespace eepo::cuda
