#include "model/generate.h"

#include <omp.h>

#include <algorithm>
#include <exception>

#include "kernels/blocks.h"
#include "kernels/gemm.h"
#include "kernels/sample.h"

namespace eepo {
namespace {

constexpr int64_t kPrefillTokens = 8192;    // tokens of one prefill pass
constexpr int64_t kLogitFloats = 16 << 20;  // logits held at a time
constexpr int64_t kFirstCapacity = 32;      // positions a row's own cache starts with

constexpr int64_t kCachedLayerFloats = 1 << 19;  // a layer that fits a core's own cache (2 MB)

int64_t round_up(int64_t n) { return (n + 15) / 16 * 16; }

// The cache of all prompts (filled once) and of every sample's own tokens (grows by doubling).
class Cache {
 public:
  Cache(const AttentionShape& shape, int64_t layers, const Packed& prompts, int64_t rows)
      : shape_(shape), layers_(layers), rows_(rows) {
    int64_t floats = 0;
    for (size_t p = 0; p + 1 < prompts.offsets.size(); ++p) {
      const int64_t length = prompts.offsets[p + 1] - prompts.offsets[p];
      lengths_.push_back(length);
      starts_.push_back(floats);
      floats += cache_slot_floats(shape, round_up(length));
    }
    prompt_layer_ = floats;
    prompt_ = FloatBuffer(layers * floats);
  }

  /// Keys and values of prompts [first, first + offsets.size() - 1) in one layer.
  void fill_prompts(int64_t layer, size_t first, const std::vector<int64_t>& offsets, const float* qkv) {
    const auto count = static_cast<int64_t>(offsets.size()) - 1;
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t p = 0; p < count; ++p)
      for (int64_t t = offsets[p]; t < offsets[p + 1]; ++t)
        cache_append(qkv + t * shape_.ld, shape_, prompt_slot(layer, first + p), round_up(lengths_[first + p]),
                     t - offsets[p]);
  }

  /// Room for `length` own tokens in every row.
  void ensure(int64_t length) {
    if (length <= capacity_) return;
    const int64_t capacity = round_up(std::max(std::max(kFirstCapacity, 2 * capacity_), length));
    FloatBuffer larger(layers_ * rows_ * cache_slot_floats(shape_, capacity));
    const int64_t lines = capacity_ ? own_.size() / capacity_ : 0;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < lines; ++i)
      std::copy_n(own_.data() + i * capacity_, capacity_, larger.data() + i * capacity);
    own_ = std::move(larger);
    capacity_ = capacity;
  }

  float* prompt_slot(int64_t layer, size_t prompt) { return prompt_.data() + layer * prompt_layer_ + starts_[prompt]; }
  float* own_slot(int64_t layer, int64_t row) {
    return own_.data() + (layer * rows_ + row) * cache_slot_floats(shape_, capacity_);
  }
  DecodeRow view(int64_t layer, size_t prompt, int64_t row, int64_t own_length) {
    return {prompt_slot(layer, prompt), lengths_[prompt], round_up(lengths_[prompt]),
            own_slot(layer, row),       own_length,       capacity_};
  }
  int64_t capacity() const { return capacity_; }

 private:
  AttentionShape shape_;
  int64_t layers_, rows_, prompt_layer_ = 0, capacity_ = 0;
  std::vector<int64_t> lengths_, starts_;
  FloatBuffer prompt_, own_;
};

// What one thread needs for its rows of a step.
struct RowScratch {
  DecodeScratch decode;
  std::vector<float> hidden, logits;
};

class Generator {
 public:
  Generator(Decoder& decoder, const float* weights, const Packed& prompts, const GenerateOptions& options,
            const CancelToken& cancel, const GenerateProgress& progress)
      : decoder_(decoder),
        config_(decoder.config()),
        weights_(weights),
        prompts_(prompts),
        options_(options),
        cancel_(cancel),
        progress_(progress),
        prompt_count_(prompts.offsets.size() - 1),
        samples_(prompt_count_ * options.samples_per_prompt),
        cache_(decoder.attention_shape(), config_.layers, prompts, static_cast<int64_t>(samples_.size())) {}

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
      std::vector<float> hidden(last.size() * dim), logits;
      decoder_.forward(weights_, chunk, last, scratch_, false, hidden.data(), cancel_,
                       [&](int64_t layer, const float* qkv) { cache_.fill_prompts(layer, first, chunk.offsets, qkv); });
      for_logits(hidden.data(), static_cast<int64_t>(last.size()), logits, [&](int64_t begin, int64_t count) {
        std::vector<int64_t> rows(options_.samples_per_prompt);
        for (int64_t i = 0; i < count; ++i) {
          const auto p = static_cast<int64_t>(first) + begin + i;
          for (int64_t s = 0; s < options_.samples_per_prompt; ++s) rows[s] = p * options_.samples_per_prompt + s;
          // stride 0: every sample of the prompt draws from the same row of logits
          draw(rows, 0, logits.data() + i * config_.vocab_size, 0);
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
    const int64_t parts = layer_floats <= kCachedLayerFloats ? std::min(threads, count) : 1;
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
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = active_[begin + i];
      const size_t p = prompt_of(row);
      ids[i] = samples_[row].tokens.back();
      positions[i] = static_cast<int32_t>(prompts_.offsets[p + 1] - prompts_.offsets[p] + t - 1);
    }
    scratch.hidden.resize(std::max<size_t>(scratch.hidden.size(), count * config_.hidden_size));
    const AttentionShape shape = decoder_.attention_shape();
    decoder_.decode(weights_, ids.data(), positions.data(), count, scratch.hidden.data(), scratch.decode,
                    [&](int64_t layer, const float* qkv) {
                      std::vector<DecodeRow> views(count);
                      for (int64_t i = 0; i < count; ++i) {
                        const int64_t row = active_[begin + i];
                        cache_append(qkv + i * shape.ld, shape, cache_.own_slot(layer, row), cache_.capacity(), t - 1);
                        views[i] = cache_.view(layer, prompt_of(row), row, t);
                      }
                      return views;
                    });
    for_logits(scratch.hidden.data(), count, scratch.logits, [&](int64_t first, int64_t rows) {
      const auto at = active_.begin() + begin + first;
      draw({at, at + rows}, t, scratch.logits.data(), config_.vocab_size);
    });
  }

  // Forms the logits of `count` hidden states a bounded number of rows at a time and hands each range to `use`.
  template <class Use>
  void for_logits(const float* hidden, int64_t count, std::vector<float>& logits, Use use) {
    const int64_t dim = config_.hidden_size, vocab = config_.vocab_size;
    const int64_t chunk = std::max<int64_t>(1, kLogitFloats / vocab);
    for (int64_t begin = 0; begin < count; begin += chunk) {
      const int64_t rows = std::min(chunk, count - begin);
      logits.resize(std::max<size_t>(logits.size(), rows * vocab));
      gemm(Op::None, Op::Transpose, rows, vocab, dim, 1, hidden + begin * dim, dim, weights_ + decoder_.layout().head,
           dim, 0, logits.data(), vocab);
      use(begin, rows);
    }
  }

  void draw(const std::vector<int64_t>& rows, int64_t position, const float* logits, int64_t stride) {
    const auto count = static_cast<int64_t>(rows.size());
    std::vector<PhiloxCounter> counters(count);
    for (int64_t i = 0; i < count; ++i)
      counters[i] = {options_.iteration, options_.prompt_ids[prompt_of(rows[i])],
                     options_.sample_offset + static_cast<uint32_t>(rows[i] % options_.samples_per_prompt),
                     static_cast<uint32_t>(position)};
    std::vector<int64_t> token(count);
    std::vector<float> logprob(count), entropy(count);
    sample({logits, DType::Float32, count, config_.vocab_size, stride},
           {options_.temperature, options_.top_k, options_.top_p, options_.seed}, counters.data(), token.data(),
           logprob.data(), entropy.data());
    for (int64_t i = 0; i < count; ++i) {
      Sample& s = samples_[rows[i]];
      s.tokens.push_back(static_cast<int32_t>(token[i]));
      s.logprob.push_back(logprob[i]);
      s.entropy.push_back(entropy[i]);
      s.stopped = std::ranges::find(options_.stop_tokens, s.tokens.back()) != options_.stop_tokens.end();
    }
  }

  Decoder& decoder_;
  const ModelConfig& config_;
  const float* weights_;
  const Packed& prompts_;
  const GenerateOptions& options_;
  const CancelToken& cancel_;
  const GenerateProgress& progress_;
  size_t prompt_count_;
  std::vector<Sample> samples_;
  Cache cache_;
  Activations scratch_;
  std::vector<int64_t> active_;
  std::vector<RowScratch> scratch_rows_;
  int64_t drawn_ = 0, longest_prompt_ = 0;
};

}  // namespace

std::vector<Sample> generate(Decoder& decoder, const float* weights, const Packed& prompts,
                             const GenerateOptions& options, const CancelToken& cancel,
                             const GenerateProgress& progress) {
  return Generator(decoder, weights, prompts, options, cancel, progress).run();
}

}  // namespace eepo
