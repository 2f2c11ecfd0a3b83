#include "model/generate.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <exception>

#include "kernels/sample.h"
#include "kernels/sample_options.h"

namespace eepo {
namespace {

constexpr int64_t kPrefillTokens = 8192;    // tokens of one prefill pass
constexpr int64_t kLogitFloats = 16 << 20;  // logits held at a time
constexpr int64_t kFirstCapacity = 32;      // positions a row's own cache starts with

constexpr int64_t kCachedLayerFloats = 1 << 19;  // a layer that fits a core's own cache (2 MB)

int64_t round_up(int64_t n) { return (n + 15) / 16 * 16; }

// The cache of all prompts (filled once) and of every sample's own tokens (grows by doubling), each [layers, slots].
class Cache {
 public:
  Cache(Ops& ops, const AttentionShape& shape, int64_t layers, const Packed& prompts, int64_t rows)
      : ops_(ops), shape_(shape), layers_(layers), rows_(rows) {
    for (size_t p = 0; p + 1 < prompts.offsets.size(); ++p) {
      const int64_t length = prompts.offsets[p + 1] - prompts.offsets[p];
      lengths_.push_back(length);
      starts_.push_back(prompt_layer_);
      prompt_layer_ += cache_slot_floats(shape, round_up(length));
    }
    prompt_ = FloatBuffer(ops, layers * prompt_layer_);
  }

  /// Where the tokens of prompts [first, first + offsets.size() - 1) go in every layer.
  std::vector<CacheSlot> prompt_slots(size_t first, const std::vector<int64_t>& offsets) const {
    std::vector<CacheSlot> slots;
    for (size_t p = 0; p + 1 < offsets.size(); ++p)
      for (int64_t t = offsets[p]; t < offsets[p + 1]; ++t)
        slots.push_back({starts_[first + p], static_cast<int32_t>(round_up(lengths_[first + p])),
                         static_cast<int32_t>(t - offsets[p])});
    return slots;
  }
  float* prompt_layer(int64_t layer) { return prompt_.data() + layer * prompt_layer_; }

  /// Room for `length` own tokens in every row.
  void ensure(int64_t length) {
    if (length <= capacity_) return;
    const int64_t capacity = round_up(std::max(std::max(kFirstCapacity, 2 * capacity_), length));
    FloatBuffer larger(ops_, layers_ * rows_ * cache_slot_floats(shape_, capacity));
    if (capacity_) {
      const auto floats = static_cast<int64_t>(sizeof(float));
      ops_.copy_2d(larger.data(), capacity * floats, own_.data(), capacity_ * floats, capacity_ * floats,
                   own_.size() / capacity_);
    }
    own_ = std::move(larger);
    capacity_ = capacity;
  }

  DecodeRow row(size_t prompt, int64_t row, int64_t own_length) const {
    return {starts_[prompt],
            row * cache_slot_floats(shape_, capacity_),
            static_cast<int32_t>(lengths_[prompt]),
            static_cast<int32_t>(round_up(lengths_[prompt])),
            static_cast<int32_t>(own_length),
            static_cast<int32_t>(capacity_)};
  }
  CacheView view(const DecodeRow* rows, const CacheSlot* slots) {
    return {prompt_.data(), own_.data(), prompt_layer_, rows_ * cache_slot_floats(shape_, capacity_), rows, slots};
  }

 private:
  Ops& ops_;
  AttentionShape shape_;
  int64_t layers_, rows_, prompt_layer_ = 0, capacity_ = 0;
  std::vector<int64_t> lengths_, starts_;
  FloatBuffer prompt_, own_;
};

// What one thread needs for its rows of a step.
struct RowScratch {
  DecodeScratch decode;
  FloatBuffer hidden, logits;
  at::Tensor ids, positions, rows, slots, drawn;
};

class Generator {
 public:
  Generator(Decoder& decoder, const Weights& weights, const Packed& prompts, const GenerateOptions& options,
            const CancelToken& cancel, const GenerateProgress& progress)
      : ops_(decoder.ops()),
        decoder_(decoder),
        config_(decoder.config()),
        weights_(weights),
        prompts_(prompts),
        options_(options),
        cancel_(cancel),
        progress_(progress),
        prompt_count_(prompts.offsets.size() - 1),
        samples_(prompt_count_ * options.samples_per_prompt),
        cache_(ops_, decoder.attention_shape(), config_.layers, prompts, static_cast<int64_t>(samples_.size())) {}

  std::vector<Sample> run() {
    prefill();
    for (int64_t t = 1; t < options_.max_new_tokens && !active_.empty(); ++t) {
      cancel_.check();
      step(t);
      if (progress_) progress_(drawn_, static_cast<int64_t>(active_.size()));
    }
    return std::move(samples_);
  }

 private:
  size_t prompt_of(int64_t row) const { return row / options_.samples_per_prompt; }

  // The prompts' hidden states at their last token, each sampled once per sample: the first token of every row.
  void prefill() {
    const int64_t dim = config_.hidden_size;
    for (size_t p = 0; p < prompt_count_; ++p)
      longest_prompt_ = std::max(longest_prompt_, prompts_.offsets[p + 1] - prompts_.offsets[p]);
    for (size_t first = 0; first < prompt_count_;) {
      Packed chunk;
      chunk.offsets.push_back(0);
      std::vector<int64_t> last;
      size_t end = first;
      while (end < prompt_count_ &&
             (end == first || chunk.tokens() + prompts_.offsets[end + 1] - prompts_.offsets[end] <= kPrefillTokens)) {
        chunk.ids.insert(chunk.ids.end(), prompts_.ids.begin() + prompts_.offsets[end],
                         prompts_.ids.begin() + prompts_.offsets[end + 1]);
        chunk.offsets.push_back(chunk.tokens());
        last.push_back(chunk.tokens() - 1);
        ++end;
      }
      const std::vector<CacheSlot> slots = cache_.prompt_slots(first, chunk.offsets);
      const CacheSlot* device_slots = ops_.stage(slots, slots_memory_);
      float* hidden = prompt_scratch_.hidden.reserve(ops_, static_cast<int64_t>(last.size()) * dim);
      decoder_.forward(weights_, chunk, last, scratch_, false, hidden, cancel_, [&](int64_t layer, const float* qkv) {
        ops_.cache_append(qkv, decoder_.attention_shape(), device_slots, chunk.tokens(), cache_.prompt_layer(layer));
      });
      for_logits(hidden, static_cast<int64_t>(last.size()), prompt_scratch_, [&](int64_t begin, int64_t count) {
        std::vector<int64_t> rows(options_.samples_per_prompt);
        for (int64_t i = 0; i < count; ++i) {
          const auto p = static_cast<int64_t>(first) + begin + i;
          for (int64_t s = 0; s < options_.samples_per_prompt; ++s) rows[s] = p * options_.samples_per_prompt + s;
          // stride 0: every sample of the prompt draws from the same row of logits
          draw(rows, 0, prompt_scratch_.logits.data() + i * config_.vocab_size, 0, prompt_scratch_);
        }
      });
      first = end;
    }
    drawn_ = static_cast<int64_t>(samples_.size());
    for (size_t row = 0; row < samples_.size(); ++row)
      if (!samples_[row].stopped) active_.push_back(static_cast<int64_t>(row));
  }

  // One token for every active row. A layer's weights that fit a core's cache are walked by every thread for rows of
  // its own: one parallel region a step. Larger ones are walked together, each product in parallel, so that they stream
  // from memory once.
  void step(int64_t t) {
    const auto count = static_cast<int64_t>(active_.size());
    cache_.ensure(t);
    decoder_.extend_positions(longest_prompt_ + t);
    const int64_t layer_floats = decoder_.layout().flat_size() / config_.layers;
    const int64_t threads = omp_get_max_threads();
    const bool apart = ops_.device() == Device::Cpu && layer_floats <= kCachedLayerFloats;
    const int64_t parts = apart ? std::min(threads, count) : 1;
    scratch_rows_.resize(std::max<size_t>(scratch_rows_.size(), parts));
    std::vector<std::exception_ptr> failures(parts);
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int64_t part = 0; part < parts; ++part) {
      try {
        step_rows(t, count * part / parts, count * (part + 1) / parts, scratch_rows_[part]);
      } catch (...) {  // must not leave the parallel region
        failures[part] = std::current_exception();
      }
    }
    for (const auto& failure : failures)
      if (failure) std::rethrow_exception(failure);
    drawn_ += count;
    std::erase_if(active_, [&](int64_t row) { return samples_[row].stopped; });
  }

  void step_rows(int64_t t, int64_t begin, int64_t end, RowScratch& scratch) {
    const int64_t count = end - begin;
    std::vector<int32_t> ids(count), positions(count);
    std::vector<DecodeRow> rows(count);
    std::vector<CacheSlot> slots(count);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = active_[begin + i];
      const size_t p = prompt_of(row);
      ids[i] = samples_[row].tokens.back();
      positions[i] = static_cast<int32_t>(prompts_.offsets[p + 1] - prompts_.offsets[p] + t - 1);
      rows[i] = cache_.row(p, row, t);
      slots[i] = {rows[i].own_at, rows[i].own_capacity, static_cast<int32_t>(t - 1)};
    }
    float* hidden = scratch.hidden.reserve(ops_, count * config_.hidden_size);
    const CacheView cache = cache_.view(ops_.stage(rows, scratch.rows), ops_.stage(slots, scratch.slots));
    decoder_.decode(weights_, ops_.stage(ids, scratch.ids), ops_.stage(positions, scratch.positions), count, hidden,
                    scratch.decode, cache);
    for_logits(hidden, count, scratch, [&](int64_t first, int64_t n) {
      const auto at = active_.begin() + begin + first;
      draw({at, at + n}, t, scratch.logits.data(), config_.vocab_size, scratch);
    });
  }

  // Forms the logits of `count` hidden states a bounded number of rows at a time and hands each range to `use`.
  template <class Use>
  void for_logits(const float* hidden, int64_t count, RowScratch& scratch, Use use) {
    const int64_t dim = config_.hidden_size, vocab = config_.vocab_size;
    const int64_t chunk = std::max<int64_t>(1, kLogitFloats / vocab);
    float* logits = scratch.logits.reserve(ops_, std::min(chunk, count) * vocab);
    for (int64_t begin = 0; begin < count; begin += chunk) {
      const int64_t rows = std::min(chunk, count - begin);
      decoder_.logits(weights_, hidden + begin * dim, rows, logits);
      use(begin, rows);
    }
  }

  // One token for each of `rows` from its row of logits. The only place of a step where the host waits for the device.
  void draw(const std::vector<int64_t>& rows, int64_t position, const float* logits, int64_t stride,
            RowScratch& scratch) {
    const auto count = static_cast<int64_t>(rows.size());
    std::vector<PhiloxCounter> counters(count);
    for (int64_t i = 0; i < count; ++i)
      counters[i] = {options_.iteration, options_.prompt_ids[prompt_of(rows[i])],
                     options_.sample_offset + static_cast<uint32_t>(rows[i] % options_.samples_per_prompt),
                     static_cast<uint32_t>(position)};
    // one block, one copy back: [count] tokens of 8 bytes, then [count] log-probs and [count] entropies of 4
    if (!scratch.drawn.defined() || scratch.drawn.numel() < 2 * count)
      scratch.drawn = ops_.empty({2 * count}, DType::Int64);
    auto* device_token = static_cast<int64_t*>(scratch.drawn.data_ptr());
    auto* device_stats = reinterpret_cast<float*>(device_token + count);
    ops_.sample({logits, DType::Float32, count, config_.vocab_size, stride},
                {options_.temperature, options_.top_k, options_.top_p, options_.seed}, counters.data(), device_token,
                device_stats, device_stats + count);
    std::vector<int64_t> drawn(2 * count);
    ops_.download(drawn.data(), device_token, 2 * count * static_cast<int64_t>(sizeof(int64_t)));
    std::vector<float> stats(2 * count);
    std::memcpy(stats.data(), drawn.data() + count, 2 * count * sizeof(float));
    for (int64_t i = 0; i < count; ++i) {
      if (drawn[i] < 0) fail_sample_row(i);
      Sample& s = samples_[rows[i]];
      s.tokens.push_back(static_cast<int32_t>(drawn[i]));
      s.logprob.push_back(stats[i]);
      s.entropy.push_back(stats[count + i]);
      s.stopped = std::ranges::find(options_.stop_tokens, s.tokens.back()) != options_.stop_tokens.end();
    }
  }

  Ops& ops_;
  Decoder& decoder_;
  const ModelConfig& config_;
  Weights weights_;
  const Packed& prompts_;
  const GenerateOptions& options_;
  const CancelToken& cancel_;
  const GenerateProgress& progress_;
  size_t prompt_count_;
  std::vector<Sample> samples_;
  Cache cache_;
  Activations scratch_;
  RowScratch prompt_scratch_;
  at::Tensor slots_memory_;
  std::vector<int64_t> active_;
  std::vector<RowScratch> scratch_rows_;
  int64_t drawn_ = 0, longest_prompt_ = 0;
};

}  // namespace

std::vector<Sample> generate(Decoder& decoder, const Weights& weights, const Packed& prompts,
                             const GenerateOptions& options, const CancelToken& cancel,
                             const GenerateProgress& progress) {
  return Generator(decoder, weights, prompts, options, cancel, progress).run();
}

}  // namespace eepo
