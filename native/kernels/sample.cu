// CUDA form of sample (see sample.h and cuda/rows.cuh).
//
// The trick: the partial sums of a row's segments, which token_stats makes anyway, are a coarse cumulative
// distribution. One uniform per row picks a segment by prefix sums; only that one is read again, to find the token, and
// once more summed without it: the log-prob and entropy are then the very bits of token_stats. With few rows (a
// decoding step) the segments of a row are shared among blocks, as there: the same draw.
//
// top_k and top_p cut the row at a key: logits as integers in their order, found digit by digit from the top. Counts
// are integers and masses fixed-point numbers of 64 bits, so a cut does not depend on who added first.
//
// Floor: every logit read once, 20 bytes a row written; with top_k or top_p the row is read again from the cache, three
// to eight times (fewer for 16-bit types). Per logit as token_stats.
#include "cuda/rows.cuh"

namespace eepo::cuda {
namespace {

constexpr int kDigitBits = 11;
constexpr int kBins = 1 << kDigitBits;

struct SampleJob {
  Scale scale;  // of temperature 1 where greedy
  bool greedy;
  int64_t top_k;  // 0: off
  double top_p;   // 1: off
  uint64_t seed;
  const uint32_t* counters;  // 4 per row
  int64_t* token;
  float *logprob, *entropy;
  int64_t* bad_row;
  int64_t segments;
  Partial* scratch;  // partial sums, or null: in shared memory
};

/// philox_uniform of core/philox.h.
__device__ __forceinline__ double uniform_of(const uint32_t* counter, uint64_t seed) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c0, product1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return static_cast<double>(((uint64_t{c0} << 32) | c1) >> 11) * 0x1p-53;
}

// ---- what follows is done by one warp unless said otherwise, and its result is in every lane ------------------------

/// Sum over this lane and those below.
template <class Number>
__device__ __forceinline__ Number inclusive_scan(Number x) {
#pragma unroll
  for (int offset = 1; offset < kWarp; offset <<= 1) {
    const Number below = __shfl_up_sync(kFullMask, x, offset);
    if (lane_index() >= offset) x += below;
  }
  return x;
}

__device__ __forceinline__ int highest_lane(unsigned lanes) { return 31 - __clz(static_cast<int>(lanes)); }

/// Walks weights in index order, 32 at a time: the first whose running sum exceeds `goal`, never one of weight 0. If
/// rounding puts the goal at or above the whole sum, the last of positive weight.
template <class Number>
struct Walk {
  Number goal;
  Number passed{};      // of all weights before the next
  int64_t chosen = -1;  // so far: the last index of positive weight
  Number before{};      // running sum before it
  bool found = false;

  /// This lane's weight of index first + lane.
  __device__ __forceinline__ void step(int64_t first, Number weight) {
    if (found) return;
    const Number with = inclusive_scan(weight);
    const Number without = __shfl_up_sync(kFullMask, with, 1);
    const unsigned positive = __ballot_sync(kFullMask, weight > 0);
    const unsigned beyond = __ballot_sync(kFullMask, weight > 0 && passed + with > goal);
    if (positive != 0) {
      found = beyond != 0;
      const int lane = found ? __ffs(static_cast<int>(beyond)) - 1 : highest_lane(positive);
      const Number offset = __shfl_sync(kFullMask, lane_index() == 0 ? Number{} : without, lane);
      chosen = first + lane;
      before = passed + offset;
    }
    passed += __shfl_sync(kFullMask, with, kWarp - 1);
  }
};

/// The chosen element of a segment: weight(k, i) of this lane's element i of pack k. -1 if all weights are 0.
template <class T, class Number, class Weight>
__device__ __forceinline__ int walk_segment(Number goal, Weight weight) {
  Walk<Number> packs{goal};
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    Number sum{};
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) sum += weight(k, i);
    packs.step(k * kWarp, sum);
  }
  if (packs.chosen < 0) return -1;
  // Inside the pack, by the lane that holds it.
  const int pack = static_cast<int>(packs.chosen) / kWarp, lane = static_cast<int>(packs.chosen) % kWarp;
  int element = 0;
  Number sum = packs.before;
  bool done = false;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    if (k != pack) continue;
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      const Number w = weight(k, i);
      if (done || !(w > 0)) continue;
      element = i;
      sum += w;
      done = packs.found && sum > goal;
    }
  }
  return (pack * kWarp + lane) * kPack<T> + __shfl_sync(kFullMask, element, lane);
}

template <class T>
__device__ __forceinline__ int64_t first_maximum(const T* row, int64_t cols, const Partial* partials,
                                                 int64_t segments) {
  float top = -infinity();
  for (int64_t s = lane_index(); s < segments; s += kWarp) top = fmaxf(top, partials[s].max);
  top = warp_max(top);
  int64_t segment = 0;
  for (int64_t first = 0; first < segments; first += kWarp) {
    const int64_t s = first + lane_index();
    const unsigned has = __ballot_sync(kFullMask, s < segments && partials[s].max == top);
    if (has != 0) {
      segment = first + __ffs(static_cast<int>(has)) - 1;
      break;
    }
  }
  uint4 v[kPacks];
  load_segment(v, row, cols, segment * kSegment<T>);
  // Weight 1 for the maximum, 0 for all others: the first with a running sum above 0.
  return segment * kSegment<T> + walk_segment<T>(0, [&](int k, int i) { return element<T>(v[k], i) == top ? 1 : 0; });
}

template <class T>
__device__ __forceinline__ int64_t draw_full(const T* row, int64_t cols, const Partial* partials, int64_t segments,
                                             const RowSums& sums, float log2e, double uniform) {
  const auto weight_of = [&](int64_t s) {
    return segment_weight(segment_distance(partials[s], log2e, sums.reference));
  };
  Walk<double> walk{uniform * sums.others};
  for (int64_t first = 0; first < segments && !walk.found; first += kWarp) {
    const int64_t s = first + lane_index();
    const bool some = s < segments && partials[s].sum > 0;
    walk.step(first, some ? weight_of(s) * static_cast<double>(partials[s].sum) : 0.0);
  }
  const int64_t segment = walk.chosen;
  const double inside = (walk.goal - walk.before) / weight_of(segment);
  uint4 v[kPacks];
  load_segment(v, row, cols, segment * kSegment<T>);
  const float r = reference(partials[segment].max, log2e);
  return segment * kSegment<T> + walk_segment<T>(inside, [&](int k, int i) {
           return static_cast<double>(exp2_approx(exponent(element<T>(v[k], i), log2e, r)));
         });
}

// ---- top_k, top_p: by a whole block ---------------------------------------------------------------------------------

template <class T>
constexpr int kKeyBits = 8 * static_cast<int>(sizeof(T));

/// Integers in the order of the logits; -0 counts as 0.
template <class T>
__device__ __forceinline__ uint32_t key_of(uint32_t bits) {
  constexpr uint32_t kSign = 1u << (kKeyBits<T> - 1), kAll = kSign | (kSign - 1);
  if ((bits & ~kSign) == 0) bits = 0;
  return (bits & kSign) ? ~bits & kAll : bits | kSign;
}
template <class T>
__device__ __forceinline__ float value_of_key(uint32_t key) {
  constexpr uint32_t kSign = 1u << (kKeyBits<T> - 1), kAll = kSign | (kSign - 1);
  return value_of_bits((key & kSign) ? key & ~kSign : ~key & kAll, T{});
}

/// Masses relative to the row's maximum as integers; a row's sum stays below 2^64.
struct FixedMass {
  float log2e, reference, unit;
  __device__ __forceinline__ unsigned long long operator()(float z) const {
    return static_cast<unsigned long long>(exp2_approx(exponent(z, log2e, reference)) * unit);
  }
};

struct SelectShared {
  uint32_t low[kBins], high[kBins];
  unsigned long long total, above, result;
  uint32_t key, digit;
};

/// Adds to one bin; 32-bit atomics, which shared memory has in hardware, with a carry.
__device__ __forceinline__ void add_to_bin(SelectShared& shared, uint32_t bin, unsigned long long amount) {
  const uint32_t low = static_cast<uint32_t>(amount);
  const uint32_t old = atomicAdd(&shared.low[bin], low);
  const uint32_t high = static_cast<uint32_t>(amount >> 32) + (old + low < old ? 1u : 0u);
  if (high != 0) atomicAdd(&shared.high[bin], high);
}

/// The largest key K for which the amounts of all keys >= K reach `needed` (at least 1, at most their sum); `above`:
/// of those > K. Keys for which amount() is 0 do not matter.
struct Cut {
  uint32_t key;
  unsigned long long above;
};

template <class T, class Amount>
__device__ Cut find_cut(const T* row, int64_t cols, unsigned long long needed, SelectShared& shared, Amount amount) {
  uint32_t prefix = 0, known = 0;  // the digits found, and a mask of them
  unsigned long long above = 0;
  for (int bits = kKeyBits<T>; bits > 0;) {
    const int width = bits < kDigitBits ? bits : kDigitBits;
    bits -= width;
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += static_cast<int>(blockDim.x)) {
      shared.low[i] = shared.high[i] = 0;
    }
    __syncthreads();
    const uint32_t digits = (1u << width) - 1;
    for (int64_t j = threadIdx.x; j < cols; j += blockDim.x) {
      const uint32_t key = key_of<T>(bits_of(row[j]));
      if ((key & known) != prefix) continue;
      const unsigned long long mass = amount(key);
      if (mass != 0) add_to_bin(shared, (key >> bits) & digits, mass);
    }
    __syncthreads();
    if (warp_index() == 0) {
      // Lane l has the l-th run of bins from the top.
      const int run = (1 << width) / kWarp, top = (1 << width) - 1 - lane_index() * run;
      const auto amount_at = [&](int bin) {
        return (static_cast<unsigned long long>(shared.high[bin]) << 32) | shared.low[bin];
      };
      unsigned long long mine = 0;
      for (int i = 0; i < run; ++i) mine += amount_at(top - i);
      const unsigned long long with = inclusive_scan(mine);
      const unsigned reached = __ballot_sync(kFullMask, above + with >= needed);
      const int lane = reached != 0 ? __ffs(static_cast<int>(reached)) - 1 : kWarp - 1;
      if (lane_index() == lane) {
        unsigned long long sum = above + with - mine;
        int bin = top;
        for (int i = 1; i < run && sum + amount_at(bin) < needed; ++i) sum += amount_at(bin--);
        shared.above = sum;
        shared.digit = static_cast<uint32_t>(bin);
      }
    }
    __syncthreads();
    above = shared.above;
    prefix |= shared.digit << bits;
    known |= digits << bits;
    __syncthreads();
  }
  return {prefix, above};
}

/// Sum over the row of amount(key), by the block.
template <class T, class Amount>
__device__ unsigned long long sum_keys(const T* row, int64_t cols, SelectShared& shared, Amount amount) {
  if (threadIdx.x == 0) shared.total = 0;
  __syncthreads();
  unsigned long long sum = 0;
  for (int64_t j = threadIdx.x; j < cols; j += blockDim.x) sum += amount(key_of<T>(bits_of(row[j])));
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(kFullMask, sum, offset);
  if (lane_index() == 0) atomicAdd(&shared.total, sum);
  __syncthreads();
  const unsigned long long total = shared.total;
  __syncthreads();
  return total;
}

/// What top_k and top_p leave: all keys > key, and the first `ties` in index order of those == key.
struct Kept {
  uint32_t key;
  unsigned long long ties;
  unsigned long long mass;  // of all that is kept
};

template <class T>
__device__ Kept restrict_row(const T* row, int64_t cols, const SampleJob& job, const FixedMass& fixed,
                             SelectShared& shared) {
  const auto mass_of = [&](uint32_t key) { return fixed(value_of_key<T>(key)); };
  Kept kept{0, 0, 0};  // no key is 0: that would be a NaN
  if (job.top_k > 0 && job.top_k < cols) {
    const auto one = [](uint32_t) { return 1ull; };
    const Cut cut = find_cut(row, cols, static_cast<unsigned long long>(job.top_k), shared, one);
    kept = {cut.key, static_cast<unsigned long long>(job.top_k) - cut.above, 0};
  }
  const auto mass_above = [&](uint32_t key) { return key > kept.key ? mass_of(key) : 0ull; };
  const unsigned long long above = sum_keys(row, cols, shared, mass_above);
  const unsigned long long each = kept.ties > 0 ? mass_of(kept.key) : 0;
  kept.mass = above + kept.ties * each;
  if (!(job.top_p < 1)) return kept;

  unsigned long long needed = static_cast<unsigned long long>(ceil(job.top_p * static_cast<double>(kept.mass)));
  needed = needed < 1 ? 1 : needed > kept.mass ? kept.mass : needed;
  unsigned long long passed = above;
  if (needed <= above) {
    const Cut cut = find_cut(row, cols, needed, shared, mass_above);
    kept.key = cut.key;
    passed = cut.above;
  }
  const unsigned long long tie = mass_of(kept.key);
  kept.ties = (needed - passed + tie - 1) / tie;
  kept.mass = passed + kept.ties * tie;
  return kept;
}

/// Per segment, what is kept of it.
struct Share {
  unsigned long long above;  // mass of the keys > kept.key
  unsigned long long ties;   // number of keys == kept.key
};

/// Draws from what is kept: the block counts each segment's share, then warp 0 walks them. Valid in warp 0.
template <class T>
__device__ int64_t draw_kept(const T* row, int64_t cols, int64_t segments, const Kept& kept, const FixedMass& fixed,
                             Share* shares, double uniform) {
  for (int64_t s = warp_index(); s < segments; s += warp_count()) {
    unsigned long long above = 0, ties = 0;
    const int64_t end = (s + 1) * kSegment<T> < cols ? (s + 1) * kSegment<T> : cols;
    for (int64_t j = s * kSegment<T> + lane_index(); j < end; j += kWarp) {
      const uint32_t key = key_of<T>(bits_of(row[j]));
      if (key > kept.key) above += fixed(value_of_key<T>(key));
      ties += key == kept.key ? 1 : 0;
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) {
      above += __shfl_xor_sync(kFullMask, above, offset);
      ties += __shfl_xor_sync(kFullMask, ties, offset);
    }
    if (lane_index() == 0) shares[s] = {above, ties};
  }
  __syncthreads();
  if (warp_index() != 0) return -1;

  const unsigned long long tie = kept.ties > 0 ? fixed(value_of_key<T>(kept.key)) : 0;
  unsigned long long goal = static_cast<unsigned long long>(uniform * static_cast<double>(kept.mass));
  if (goal >= kept.mass) goal = kept.mass - 1;
  Walk<unsigned long long> walk{goal};
  unsigned long long ties_passed = 0, ties_before = 0;  // before the next segment, before the chosen one
  for (int64_t first = 0; first < segments && !walk.found; first += kWarp) {
    const int64_t s = first + lane_index();
    const Share share = s < segments ? shares[s] : Share{0, 0};
    const unsigned long long with = inclusive_scan(share.ties), without = ties_passed + with - share.ties;
    const unsigned long long left = kept.ties > without ? kept.ties - without : 0;
    walk.step(first, share.above + (share.ties < left ? share.ties : left) * tie);
    const unsigned long long at_chosen =
        __shfl_sync(kFullMask, without, static_cast<int>(walk.chosen - first) & (kWarp - 1));
    if (walk.chosen >= first) ties_before = at_chosen;
    ties_passed += __shfl_sync(kFullMask, with, kWarp - 1);
  }

  const int64_t begin = walk.chosen * kSegment<T>;
  uint4 v[kPacks];
  load_segment(v, row, cols, begin);
  // The weight of a tie depends on how many came before: ties of the lanes below, pack by pack.
  unsigned long long before_pack[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    unsigned long long mine = 0;
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      const int64_t column = begin + (k * kWarp + lane_index()) * kPack<T> + i;
      mine += column < cols && key_of<T>(element_bits<T>(v[k], i)) == kept.key ? 1 : 0;
    }
    const unsigned long long with = inclusive_scan(mine);
    before_pack[k] = ties_before + with - mine;
    ties_before += __shfl_sync(kFullMask, with, kWarp - 1);
  }
  return begin + walk_segment<T>(goal - walk.before, [&](int k, int i) -> unsigned long long {
           const uint32_t key = key_of<T>(element_bits<T>(v[k], i));
           if (key > kept.key) return fixed(value_of_key<T>(key));
           if (key != kept.key) return 0;
           unsigned long long rank = before_pack[k];
#pragma unroll
           for (int other = 0; other < kPack<T>; ++other) {
             rank += other < i && key_of<T>(element_bits<T>(v[k], other)) == kept.key ? 1 : 0;
           }
           return rank < kept.ties ? tie : 0;
         });
}

// ---- kernels --------------------------------------------------------------------------------------------------------

/// The statistics of the drawn token, as token_stats has them: its segment is summed again without it.
template <class T>
__device__ __forceinline__ void write_token(const T* row, int64_t cols, int64_t r, int64_t token, Partial* partials,
                                            const SampleJob& job) {
  if (lane_index() == 0) job.token[r] = token;
  if (job.logprob == nullptr && job.entropy == nullptr) return;
  const int64_t segment = token / kSegment<T>;
  uint4 v[kPacks];
  load_segment(v, row, cols, segment * kSegment<T>);
  const Partial p = sum_loaded<T>(v, segment, token, job.scale.log2e);
  __syncwarp();
  if (lane_index() == 0) partials[segment] = p;
  __syncwarp();
  const RowSums sums = merge(partials, job.segments, true, to_float(row[token]), job.scale);
  if (lane_index() != 0) return;
  if (job.logprob != nullptr) job.logprob[r] = static_cast<float>(sums.logprob);
  if (job.entropy != nullptr) job.entropy[r] = static_cast<float>(sums.entropy);
}

__device__ __forceinline__ void write_bad_row(int64_t r, const SampleJob& job) {
  if (lane_index() != 0) return;
  job.token[r] = -1;
  if (job.logprob != nullptr) job.logprob[r] = not_a_number();
  if (job.entropy != nullptr) job.entropy[r] = not_a_number();
  report_row(job.bad_row, r);
}

/// Warp 0 merges the whole row; all threads of the block get the sums' validity and reference.
template <class T>
__device__ __forceinline__ void draw_row(const Rows<T>& rows, int64_t r, Partial* partials, const SampleJob& job) {
  const T* const row = rows.row(r);
  const RowSums sums = merge(partials, job.segments, false, 0, job.scale);
  if (!sums.valid) {
    write_bad_row(r, job);
    return;
  }
  const int64_t token = job.greedy ? first_maximum(row, rows.cols, partials, job.segments)
                                   : draw_full(row, rows.cols, partials, job.segments, sums, job.scale.log2e,
                                               uniform_of(job.counters + 4 * r, job.seed));
  write_token(row, rows.cols, r, token, partials, job);
}

/// Block r draws from row r: the whole distribution, or greedily.
template <class T>
__global__ void __launch_bounds__(kRowWarps* kWarp, 3) sample_rows(Rows<T> rows, SampleJob job) {
  EEPO_DYNAMIC_SHARED(shared);
  const int64_t r = blockIdx.x;
  Partial* const partials =
      job.scratch != nullptr ? job.scratch + r * job.segments : reinterpret_cast<Partial*>(shared);
  sum_row(rows.row(r), rows.cols, job.segments, -1, job.scale.log2e, partials);
  if (warp_index() == 0) draw_row(rows, r, partials, job);
}

/// The same from what row_partials left; one warp per row.
template <class T>
__global__ void __launch_bounds__(kWarp) sample_merged(Rows<T> rows, SampleJob job) {
  draw_row(rows, blockIdx.x, job.scratch + int64_t{blockIdx.x} * job.segments, job);
}

/// Block r draws from what top_k and top_p leave of row r. `summed`: row_partials was there before. shares: one per
/// segment and row.
template <class T>
__global__ void __launch_bounds__(kRowWarps* kWarp, 2)
    sample_restricted(Rows<T> rows, SampleJob job, bool summed, Share* shares) {
  __shared__ SelectShared select;
  __shared__ float row_max_reference;
  __shared__ bool valid;
  const int64_t r = blockIdx.x;
  const T* const row = rows.row(r);
  Partial* const partials = job.scratch + r * job.segments;
  if (!summed) sum_row(row, rows.cols, job.segments, -1, job.scale.log2e, partials);
  if (warp_index() == 0) {
    const RowSums sums = merge(partials, job.segments, false, 0, job.scale);
    if (lane_index() == 0) {
      row_max_reference = sums.reference;
      valid = sums.valid;
    }
  }
  __syncthreads();
  if (!valid) {
    if (warp_index() == 0) write_bad_row(r, job);
    return;
  }
  // 2^5 of headroom: the maximum's own 2^d is near 1, not exactly 1.
  const int columns_log2 = 64 - __clzll(static_cast<long long>(rows.cols));
  const FixedMass fixed{job.scale.log2e, row_max_reference, exp2f(static_cast<float>(58 - columns_log2))};
  const Kept kept = restrict_row(row, rows.cols, job, fixed, select);
  const int64_t token = draw_kept(row, rows.cols, job.segments, kept, fixed, shares + r * job.segments,
                                  uniform_of(job.counters + 4 * r, job.seed));
  if (warp_index() == 0) write_token(row, rows.cols, r, token, partials, job);
}

template <class T>
void launch_restricted(const Context& context, const Rows<T>& rows, const RowPlan& plan, SampleJob& job) {
  const size_t count = static_cast<size_t>(rows.rows * plan.segments);
  auto* const scratch = static_cast<unsigned char*>(context.scratch(count * (sizeof(Share) + sizeof(Partial))));
  auto* const shares = reinterpret_cast<Share*>(scratch);
  job.scratch = reinterpret_cast<Partial*>(scratch + count * sizeof(Share));
  if (plan.split()) {
    launch_row_partials<T>(context, rows, nullptr, nullptr, nullptr, job.scale.log2e, plan, job.scratch, nullptr);
  }
  EEPO_LAUNCH((sample_restricted<T>), static_cast<unsigned>(rows.rows), kRowWarps * kWarp, 0, context.stream, rows, job,
              plan.split(), shares);
}

template <class T>
void launch(const Context& context, const Rows<T>& rows, SampleJob job) {
  const RowPlan plan = plan_rows<T>(context, rows.rows, rows.cols);
  job.segments = plan.segments;
  if (!job.greedy && ((job.top_k > 0 && job.top_k < rows.cols) || job.top_p < 1)) {
    launch_restricted(context, rows, plan, job);
    return;
  }
  const size_t bytes = plan.scratch_bytes(rows.rows);
  if (bytes > 0) job.scratch = static_cast<Partial*>(context.scratch(bytes));
  const unsigned grid = static_cast<unsigned>(rows.rows);
  if (plan.split()) {
    launch_row_partials<T>(context, rows, nullptr, nullptr, nullptr, job.scale.log2e, plan, job.scratch, nullptr);
    EEPO_LAUNCH((sample_merged<T>), grid, kWarp, 0, context.stream, rows, job);
    return;
  }
  EEPO_LAUNCH((sample_rows<T>), grid, row_threads(plan.segments, kRowWarps), plan.shared_bytes(), context.stream, rows,
              job);
}

}  // namespace

void sample(const Context& context, const LogitsView& logits, const SampleOptions& options,
            const PhiloxCounter* counters, int64_t* token, float* logprob, float* entropy, int64_t* bad_row) {
  if (logits.rows <= 0) return;
  const bool greedy = options.temperature == 0;
  SampleJob job{};
  job.scale = make_scale(greedy ? 1.0f : options.temperature);
  job.greedy = greedy;
  job.top_k = options.top_k;
  job.top_p = static_cast<double>(options.top_p);
  job.seed = options.seed;
  job.counters = reinterpret_cast<const uint32_t*>(counters);
  job.token = token;
  job.logprob = logprob;
  job.entropy = entropy;
  job.bad_row = bad_row;
  with_dtype(logits.dtype, [&](auto type) { launch(context, rows_of<decltype(type)>(logits), job); });
}

}  // namespace eepo::cuda
