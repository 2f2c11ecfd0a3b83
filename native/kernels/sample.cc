// CPU form of sample: the block sums of a row, one uniform, one more look at the block it falls into.
//
// Floor: rows * cols elements read once (twice with top_k or top_p); 16 bytes written per row.
#include "kernels/sample.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/team.h"
#include "kernels/sample_options.h"
#include "kernels/token_stats_blocks.h"

namespace eepo {
namespace {

// The first index whose running sum exceeds `goal`; never one whose weight is 0. If rounding puts the goal at or above
// the whole sum, the last index of positive weight.
template <class Weight>
int64_t inverse_cdf(int64_t count, double goal, Weight weight) {
  double sum = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double w = weight(i);
    if (w <= 0) continue;
    sum += w;
    last = i;
    if (sum > goal) break;
  }
  return last;
}

struct Row {
  const void* data;
  DType dtype;
  int64_t cols;
  double temperature;
  ExpScale scale;
  BlockSums* sums;  // of all blocks, no target left out
  RowStats stats;   // merged from them

  int64_t blocks() const { return block_count(cols); }
  double block_weight(int64_t block) const {
    return std::exp((static_cast<double>(sums[block].max) - stats.max) / temperature);
  }
};

int64_t first_maximum(const Row& row) {
  int64_t block = 0;
  while (static_cast<double>(row.sums[block].max) != row.stats.max) ++block;
  const int64_t end = std::min(row.cols, (block + 1) * kStatsBlock);
  for (int64_t j = block * kStatsBlock; j < end; ++j) {
    if (element(row.data, row.dtype, j) == row.sums[block].max) return j;
  }
  return end - 1;  // not reached: the block's maximum is one of its elements
}

// Block-CDF: the block by the blocks' sums, then the token inside it by groups of 64, both in index order.
int64_t draw_full(const Row& row, double uniform) {
  constexpr int64_t kGroup = 64;
  const double goal = uniform * row.stats.others;
  double before = 0;  // mass of the blocks passed
  const auto mass = [&](int64_t block) {
    return row.sums[block].sum > 0 ? row.block_weight(block) * row.sums[block].sum : 0;
  };
  int64_t block = 0, last = 0;
  double before_last = 0;
  for (; block < row.blocks(); ++block) {
    const double m = mass(block);
    if (m > 0) {
      last = block;
      before_last = before;
      if (before + m > goal) break;
    }
    before += m;
  }
  block = last;

  alignas(64) float exponentials[kStatsBlock];
  const int64_t count = block_size(row.cols, block);
  EEPO_ISA_DISPATCH(exp_block)
  (block_at(row.data, row.dtype, block), row.dtype, count, row.scale, row.sums[block].max, exponentials);
  double groups[kStatsBlock / kGroup];
  const int64_t group_count = (count + kGroup - 1) / kGroup;
  for (int64_t g = 0; g < group_count; ++g) {
    double sum = 0;
    const int64_t end = std::min(count, (g + 1) * kGroup);
    for (int64_t i = g * kGroup; i < end; ++i) sum += static_cast<double>(exponentials[i]);
    groups[g] = sum;
  }
  const double inside = (goal - before_last) / row.block_weight(block);
  const int64_t group = inverse_cdf(group_count, inside, [&](int64_t g) { return groups[g]; });
  double passed = 0;
  for (int64_t g = 0; g < group; ++g) passed += groups[g];
  const int64_t first = group * kGroup;
  const int64_t offset = inverse_cdf(std::min(kGroup, count - first), inside - passed,
                                     [&](int64_t i) { return static_cast<double>(exponentials[first + i]); });
  return block * kStatsBlock + first + offset;
}

struct Candidate {
  int64_t index;
  float logit;
};

// Finds the largest logits of a row. The k-th largest of the maxima of groups of 64 is no larger than the k-th largest
// logit, and mostly close to it: so after one look at the row only a few hundred logits are looked at again.
class LargestOf {
 public:
  explicit LargestOf(const Row& row) : row_(row) {
    maxima_.clear();
    alignas(64) float values[kStatsBlock];
    for (int64_t b = 0; b < row.blocks(); ++b) {
      const int64_t count = block_size(row.cols, b);
      EEPO_ISA_DISPATCH(widen_block)(block_at(row.data, row.dtype, b), row.dtype, count, values);
      for (int64_t g = 0; g < count; g += kGroup) {
        float most = values[g];
        for (int64_t i = g + 1; i < std::min(count, g + kGroup); ++i) most = std::max(most, values[i]);
        maxima_.push_back(most);
      }
    }
  }

  // The k largest, ties broken towards the lower index; in index order. Good until the next call.
  const std::vector<Candidate>& operator()(int64_t k) const {
    const auto larger = [](const Candidate& a, const Candidate& b) {
      return a.logit > b.logit || (a.logit == b.logit && a.index < b.index);
    };
    collect(bound(k));
    if (static_cast<int64_t>(candidates_.size()) > k) {
      std::nth_element(candidates_.begin(), candidates_.begin() + (k - 1), candidates_.end(), larger);
      candidates_.resize(static_cast<size_t>(k));
      std::sort(candidates_.begin(), candidates_.end(),
                [](const Candidate& a, const Candidate& b) { return a.index < b.index; });
    }
    return candidates_;
  }

 private:
  static constexpr int64_t kGroup = 64;

  float bound(int64_t k) const {
    if (k > static_cast<int64_t>(maxima_.size())) return -std::numeric_limits<float>::infinity();
    sorted_ = maxima_;
    std::nth_element(sorted_.begin(), sorted_.begin() + (k - 1), sorted_.end(), std::greater<>());
    return sorted_[static_cast<size_t>(k - 1)];
  }

  void collect(float bound) const {
    candidates_.clear();
    float values[kGroup];
    const int64_t width = static_cast<int64_t>(size_of(row_.dtype));
    for (size_t g = 0; g < maxima_.size(); ++g) {
      if (maxima_[g] < bound) continue;
      const int64_t first = static_cast<int64_t>(g) * kGroup, count = std::min(kGroup, row_.cols - first);
      EEPO_ISA_DISPATCH(widen_block)
      (static_cast<const char*>(row_.data) + first * width, row_.dtype, count, values);
      for (int64_t i = 0; i < count; ++i) {
        if (values[i] >= bound) candidates_.push_back({first + i, values[i]});
      }
    }
  }

  const Row& row_;
  // of the thread, so that rows do not allocate
  static thread_local std::vector<float> maxima_, sorted_;
  static thread_local std::vector<Candidate> candidates_;
};
thread_local std::vector<float> LargestOf::maxima_, LargestOf::sorted_;
thread_local std::vector<Candidate> LargestOf::candidates_;

// top_k, then top_p of what it left, then the inverse CDF of what that left, in index order.
int64_t draw_restricted(const Row& row, const SampleOptions& options, double uniform) {
  const LargestOf largest(row);
  const auto weight = [&](const Candidate& c) {
    return std::exp((static_cast<double>(c.logit) - row.stats.max) / row.temperature);
  };
  const auto mass_of = [&](const std::vector<Candidate>& kept) {
    double mass = 0;
    for (const Candidate& c : kept) mass += weight(c);
    return mass;
  };

  const int64_t limit = options.top_k > 0 ? std::min(options.top_k, row.cols) : row.cols;
  std::vector<Candidate> kept;
  double mass = row.stats.others;
  if (options.top_k > 0) {
    kept = largest(limit);
    mass = mass_of(kept);
  }
  if (options.top_p < 1.0f) {
    const double needed = static_cast<double>(options.top_p) * mass;
    // Mostly a few dozen tokens hold the mass: look at ever more of the largest until they do.
    for (int64_t k = std::min<int64_t>(limit, 64);; k = std::min(limit, k * 8)) {
      kept = largest(k);
      if (k == limit || mass_of(kept) >= needed) break;
    }
    std::stable_sort(kept.begin(), kept.end(),
                     [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
    size_t size = 0;
    for (double sum = 0; size < kept.size() && (size == 0 || sum < needed); ++size) sum += weight(kept[size]);
    kept.resize(size);
    std::sort(kept.begin(), kept.end(), [](const Candidate& a, const Candidate& b) { return a.index < b.index; });
    mass = mass_of(kept);
  }
  const auto at = [&](int64_t i) -> const Candidate& { return kept[static_cast<size_t>(i)]; };
  return at(inverse_cdf(static_cast<int64_t>(kept.size()), uniform * mass, [&](int64_t i) { return weight(at(i)); }))
      .index;
}

int64_t draw(const Row& row, const SampleOptions& options, const PhiloxCounter& counter) {
  if (options.temperature == 0.0f) return first_maximum(row);
  const double uniform = philox_uniform(counter, options.seed);
  const bool restricted = (options.top_k > 0 && options.top_k < row.cols) || options.top_p < 1.0f;
  return restricted ? draw_restricted(row, options, uniform) : draw_full(row, uniform);
}

}  // namespace

void check_sample_options(const SampleOptions& options) {
  check(std::isfinite(options.temperature) && options.temperature >= 0, ErrorCode::InvalidArgument,
        "temperature must be 0 (greedy) or a positive number, got ", options.temperature);
  check(options.top_k >= 0, ErrorCode::InvalidArgument, "topK must be 0 (off) or more, got ", options.top_k);
  check(options.top_p > 0 && options.top_p <= 1, ErrorCode::InvalidArgument, "topP must be in (0, 1], got ",
        options.top_p);
}

void fail_sample_row(int64_t row) {
  fail(ErrorCode::NonFinite, "row ", row,
       " of the logits cannot be sampled: it holds NaN or Infinity, or no finite logit");
}

void sample(const LogitsView& logits, const SampleOptions& options, const PhiloxCounter* counters, int64_t* token,
            float* logprob, float* entropy) {
  check_sample_options(options);
  const double temperature = options.temperature == 0.0f ? 1.0 : static_cast<double>(options.temperature);
  const ExpScale scale = exp_scale(temperature);
  const int64_t blocks = block_count(logits.cols);
  int64_t bad_row = std::numeric_limits<int64_t>::max();
  TeamErrors errors;

  // `row.sums` filled, the rest of a row. The chosen token's block is then summed again without it, so that the
  // log-prob and entropy are the very bits that token_stats gives for this token.
  const auto finish = [&](int64_t r, Row& row) {
    row.stats = merge_blocks(row.sums, blocks, {}, temperature);
    if (!row.stats.valid()) {
      token[r] = -1;
      if (logprob) logprob[r] = std::numeric_limits<float>::quiet_NaN();
      if (entropy) entropy[r] = std::numeric_limits<float>::quiet_NaN();
#pragma omp critical(eepo_sample)
      bad_row = std::min(bad_row, r);
      return;
    }
    token[r] = draw(row, options, counters[r]);
    if (!logprob && !entropy) return;
    const Target target{token[r], element(row.data, row.dtype, token[r])};
    const int64_t block = token[r] / kStatsBlock;
    row.sums[block] = sum_block(row.data, row.dtype, row.cols, block, target, scale);
    const RowStats stats = merge_blocks(row.sums, blocks, target, temperature);
    if (logprob) logprob[r] = static_cast<float>(stats.logprob);
    if (entropy) entropy[r] = static_cast<float>(stats.entropy);
  };
  const auto row_of = [&](int64_t r, BlockSums* sums) {
    return Row{row_at(logits, r), logits.dtype, logits.cols, temperature, scale, sums, {}};
  };
  const auto sum = [&](const Row& row, int64_t block) {
    row.sums[block] = sum_block(row.data, row.dtype, row.cols, block, {}, scale);
  };

  const bool split = split_columns(logits.rows, logits.cols);
  std::vector<BlockSums> scratch(static_cast<size_t>(blocks * (split ? 1 : omp_get_max_threads())));
  if (split) {
    for (int64_t r = 0; r < logits.rows; ++r) {
      Row row = row_of(r, scratch.data());
#pragma omp parallel for schedule(static)
      for (int64_t block = 0; block < blocks; ++block) sum(row, block);
      finish(r, row);
    }
  } else {
#pragma omp parallel for schedule(static) if (worth_threads(logits.rows, logits.cols))
    for (int64_t r = 0; r < logits.rows; ++r) {
      errors.run([&] {
        Row row = row_of(r, scratch.data() + blocks * omp_get_thread_num());
        for (int64_t block = 0; block < blocks; ++block) sum(row, block);
        finish(r, row);
      });
    }
  }
  errors.rethrow();
  if (bad_row < logits.rows) fail_sample_row(bad_row);
}

}  // namespace eepo
