#include "model/generate.h"

#include <omp.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "core/team.h"
#include "kernels/sample.h"
#include "model/cache_pool.h"
#include "model/diagnose.h"

namespace eepo {
namespace {

constexpr int64_t kPrefillTokens = 8192;    // tokens of one prefill pass
constexpr int64_t kLogitFloats = 16 << 20;  // logits held at a time
constexpr int64_t kFirstCapacity = 32;      // positions a row's own cache starts with

constexpr int64_t kCachedLayerFloats = 1 << 19;  // a layer that fits a core's own cache (2 MB)

// What one thread needs for its rows of a step.
struct RowScratch {
  DecodeScratch decode;
  FloatBuffer hidden, logits;
  at::Tensor ids, positions, rows, slots, drawn;
};

// A row that no token can be drawn for: its logits are not finite. It ends the generation, with an Error that says why.
struct Unsampled {
  int64_t row;
};

// A prompt's keys and values are there while one of its samples is being drawn; a row's own grow by doubling.
struct Prompt {
  int64_t length = 0;
  CacheRegion region;
  int64_t running = 0;  // of its samples
};

// Rows come and go: a sample that has ended makes room for the next one in order. Where the cache is full, the youngest
// row is put back and later drawn again from its first token on; its random numbers are its own, so it becomes the same
// response. The oldest row is never put back for another one, so every round of that ends.
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
        prompt_state_(prompts.offsets.size() - 1),
        samples_(prompt_state_.size() * options.samples_per_prompt),
        own_(samples_.size()),
        max_rows_(options.max_rows > 0 ? options.max_rows : static_cast<int64_t>(samples_.size())),
        cache_(make_cache()) {
    for (size_t row = 0; row < samples_.size(); ++row) waiting_.insert(static_cast<int64_t>(row));
  }

  std::vector<Sample> run() {
    try {
      draw_all();
    } catch (const Unsampled& failed) {
      fail_row(failed.row);
    }
    return std::move(samples_);
  }

 private:
  void draw_all() {
    while (!waiting_.empty() || !active_.empty()) {
      cancel_.check();
      admit();
      make_room();
      if (!active_.empty()) step();
      if (progress_) progress_(drawn_, static_cast<int64_t>(active_.size()));
    }
  }

  // Says which tensor is to blame: the row's sequence is computed once more, from the first layer on.
  [[noreturn]] void fail_row(int64_t row) {
    const size_t p = prompt_of(row);
    std::vector<int32_t> ids(prompts_.ids.begin() + prompts_.offsets[p],
                             prompts_.ids.begin() + prompts_.offsets[p + 1]);
    ids.insert(ids.end(), samples_[row].tokens.begin(), samples_[row].tokens.end());
    auto found = find_in_weights(ops_, decoder_.layout(), weights_);
    if (!found) {
      const auto last = static_cast<int64_t>(ids.size()) - 1;
      found = find_in_sequence(decoder_, weights_, ids, last, {}, 1, cancel_);
    }
    fail(ErrorCode::NonFinite, "no token can be drawn for prompt ", p, " (id ", options_.prompt_ids[p], "), sample ",
         options_.sample_offset + row % options_.samples_per_prompt, ", position ", length_of(row),
         ": its logits divided by the temperature hold NaN or Infinity, or no finite number",
         found ? "; first non-finite tensor: " + describe(*found) : std::string());
  }

  size_t prompt_of(int64_t row) const { return row / options_.samples_per_prompt; }
  int64_t length_of(int64_t row) const { return static_cast<int64_t>(samples_[row].tokens.size()); }
  bool ended(int64_t row) const { return samples_[row].stopped || length_of(row) >= options_.max_new_tokens; }

  // The first token needs no memory of the row's own, the last one's keys and values are never read.
  int64_t most_own() const { return cache_capacity(std::max<int64_t>(options_.max_new_tokens - 1, 1)); }

  CachePool make_cache() {
    int64_t longest = 0, prompts = 0;
    for (size_t p = 0; p < prompt_state_.size(); ++p) {
      prompt_state_[p].length = prompts_.offsets[p + 1] - prompts_.offsets[p];
      longest = std::max(longest, cache_capacity(prompt_state_[p].length));
      prompts += cache_capacity(prompt_state_[p].length);
    }
    const int64_t rows = std::min(max_rows_, static_cast<int64_t>(samples_.size())), floor = longest + most_own();
    // growing holds the old region and the new one: half as much again
    const int64_t most = prompts + rows * (most_own() + most_own() / 2 + kCacheGranularity);
    check(options_.cache_tokens == 0 || options_.cache_tokens >= floor, ErrorCode::InvalidArgument, "cacheTokens is ",
          options_.cache_tokens, ", too few for one response: the longest prompt and maxNewTokens need ", floor);
    most_ = most;
    const bool bounded = options_.cache_tokens > 0 && options_.cache_tokens < most;
    const int64_t limit = bounded ? options_.cache_tokens / kCacheGranularity * kCacheGranularity : most;
    const int64_t first = std::min(prompts + rows * std::min(kFirstCapacity, most_own()), limit);
    // Growing up to a bound would need old and new side by side. A CPU's memory is only there once it is touched.
    const bool at_once = bounded && ops_.device() != Device::Cpu;
    return {ops_, decoder_.attention_shape(), config_.layers, at_once ? limit : first, limit, floor};
  }

  // Fills up the rows, in order. A row takes part once its prompt is computed and it has memory of its own.
  void admit() {
    while (!waiting_.empty() && static_cast<int64_t>(active_.size()) < max_rows_ && expect_room()) {
      const int64_t row = *waiting_.begin();
      if (prompt_state_[prompt_of(row)].region.empty()) {
        if (prefill(prompt_of(row), rows_free())) continue;  // it may have ended with its first token
        break;
      }
      auto own = cache_.take(std::min(kFirstCapacity, most_own()));
      if (!own) break;
      start(row, *own);
    }
    if (active_.empty() && !waiting_.empty()) start_alone(*waiting_.begin());
  }

  int64_t rows_free() const { return max_rows_ - static_cast<int64_t>(active_.size()); }

  // In a bounded cache a row is let in only if all rows together are likely to find room to the end: drawing a row
  // again costs more than waiting. Likely is the mean length of those that have ended, at least a quarter of the
  // longest.
  bool expect_room() const {
    if (cache_.limit() >= most_ || active_.empty()) return true;
    const int64_t likely = ended_rows_ == 0 ? most_own() / 2 : std::max(ended_tokens_ / ended_rows_, most_own() / 4);
    int64_t promised = std::max(likely, kFirstCapacity);
    for (const int64_t row : active_) promised += std::max(likely, own_[row].capacity);
    for (const Prompt& prompt : prompt_state_) promised += prompt.region.capacity;
    return promised <= cache_.limit();
  }

  void start(int64_t row, const CacheRegion& own) {
    own_[row] = own;
    ++prompt_state_[prompt_of(row)].running;
    waiting_.erase(row);
    active_.insert(std::ranges::upper_bound(active_, row), row);
  }

  // With nothing else in the cache, and all it can need from the start: always possible.
  void start_alone(int64_t row) {
    free_idle_prompts();
    if (!prefill(prompt_of(row), 1)) fail_cache();
    if (ended(row)) return;
    const auto own = cache_.take(most_own());
    if (!own) fail_cache();
    start(row, *own);
  }
  [[noreturn]] void fail_cache() const {
    fail(ErrorCode::OutOfMemory, "the key-value cache cannot hold one prompt and a response of ",
         options_.max_new_tokens, " tokens; lower maxNewTokens");
  }

  // Every active row gets memory for its next token, the oldest first.
  void make_room() {
    for (size_t i = 0; i < active_.size(); ++i) {
      const int64_t row = active_[i];
      CacheRegion& own = own_[row];
      if (length_of(row) <= own.capacity) continue;
      const int64_t wanted = std::min(most_own(), 2 * own.capacity);
      while (!cache_.enlarge(own, wanted)) {
        if (free_idle_prompts()) continue;
        const int64_t youngest = active_.back();
        const bool alone = active_.size() == 1;
        put_back(youngest);
        if (alone) start_alone(row);  // its old memory lay in the way of the new
        if (youngest == row) return;
      }
    }
  }

  bool free_idle_prompts() {
    bool any = false;
    for (Prompt& prompt : prompt_state_) {
      if (prompt.running > 0 || prompt.region.empty()) continue;
      cache_.give_back(prompt.region);
      any = true;
    }
    return any;
  }

  // Back to where only its first token is drawn.
  void put_back(int64_t row) {
    Sample& s = samples_[row];
    drawn_ -= length_of(row) - 1;
    s.tokens.resize(1);
    s.logprob.resize(1);
    s.entropy.resize(1);
    waiting_.insert(row);
    release(row);
    std::erase(active_, row);
  }

  // A row's memory, and its prompt's when no sample of it is left.
  void release(int64_t row) {
    cache_.give_back(own_[row]);
    const size_t p = prompt_of(row);
    if (--prompt_state_[p].running > 0) return;
    const auto next = waiting_.lower_bound(static_cast<int64_t>(p) * options_.samples_per_prompt);
    if (next == waiting_.end() || prompt_of(*next) != p) cache_.give_back(prompt_state_[p].region);
  }

  // Computes a prompt and those after it, as many as there are `rows` for and as fit into one pass. The first time, the
  // first token of every sample is drawn from the logits behind the prompt. false: no memory for even one.
  bool prefill(size_t first, int64_t rows) {
    const int64_t per_prompt = options_.samples_per_prompt;
    const auto drawn = [&](size_t p) { return !samples_[p * per_prompt].tokens.empty(); };
    Packed chunk;
    chunk.offsets.push_back(0);
    std::vector<size_t> members;
    std::vector<int32_t> last;
    std::vector<CacheSlot> slots;
    for (size_t p = first; p < prompt_state_.size() && rows > 0; ++p, rows -= per_prompt) {
      Prompt& prompt = prompt_state_[p];
      if (p > first && (drawn(first) || drawn(p) || chunk.tokens() + prompt.length > kPrefillTokens)) break;
      const auto region = cache_.take(prompt.length);
      if (!region) break;
      prompt.region = *region;
      for (int64_t t = 0; t < prompt.length; ++t)
        slots.push_back({cache_.floats_at(*region), static_cast<int32_t>(region->capacity), static_cast<int32_t>(t)});
      chunk.ids.insert(chunk.ids.end(), prompts_.ids.begin() + prompts_.offsets[p],
                       prompts_.ids.begin() + prompts_.offsets[p + 1]);
      chunk.offsets.push_back(chunk.tokens());
      last.push_back(static_cast<int32_t>(chunk.tokens() - 1));
      members.push_back(p);
    }
    if (members.empty()) return false;
    const CacheSlot* device_slots = ops_.stage(slots, slots_memory_);
    float* hidden = prompt_scratch_.hidden.reserve(ops_, static_cast<int64_t>(last.size()) * config_.hidden_size);
    decoder_.forward(
        weights_, chunk, last, scratch_, Keep::Nothing, hidden, cancel_, [&](int64_t layer, const float* qkv) {
          ops_.cache_append(qkv, decoder_.attention_shape(), device_slots, chunk.tokens(), cache_.layer(layer));
        });
    if (!drawn(first)) draw_first(members, hidden);
    return true;
  }

  void draw_first(const std::vector<size_t>& members, const float* hidden) {
    const int64_t per_prompt = options_.samples_per_prompt;
    for_logits(hidden, static_cast<int64_t>(members.size()), prompt_scratch_, [&](int64_t begin, int64_t count) {
      std::vector<int64_t> rows(per_prompt);
      for (int64_t i = 0; i < count; ++i) {
        const auto p = static_cast<int64_t>(members[begin + i]);
        for (int64_t s = 0; s < per_prompt; ++s) rows[s] = p * per_prompt + s;
        // stride 0: every sample of the prompt draws from the same row of logits
        draw(rows, prompt_scratch_.logits.data() + i * config_.vocab_size, 0, prompt_scratch_);
      }
    });
    for (const size_t p : members) {
      bool any = false;
      for (int64_t row = static_cast<int64_t>(p) * per_prompt; row < static_cast<int64_t>(p + 1) * per_prompt; ++row) {
        if (ended(row)) waiting_.erase(row);
        any = any || !ended(row);
      }
      if (!any) cache_.give_back(prompt_state_[p].region);
      drawn_ += per_prompt;
    }
  }

  // One token for every active row. A layer's weights that fit a core's cache are walked by every thread for rows of
  // its own: one parallel region a step. Larger ones are walked together, each product in parallel, so that they stream
  // from memory once.
  void step() {
    const auto count = static_cast<int64_t>(active_.size());
    int64_t positions = 0;
    for (const int64_t row : active_)
      positions = std::max(positions, prompt_state_[prompt_of(row)].length + length_of(row));
    decoder_.extend_positions(positions);
    const int64_t layer_floats = decoder_.layout().flat_size() / config_.layers;
    const int64_t threads = omp_get_max_threads();
    const bool apart = ops_.device() == Device::Cpu && layer_floats <= kCachedLayerFloats;
    const int64_t parts = apart ? std::min(threads, count) : 1;
    scratch_rows_.resize(std::max<size_t>(scratch_rows_.size(), parts));
    TeamErrors errors;
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int64_t part = 0; part < parts; ++part)
      errors.run([&] { step_rows(count * part / parts, count * (part + 1) / parts, scratch_rows_[part]); });
    errors.rethrow();
    drawn_ += count;
    std::erase_if(active_, [&](int64_t row) {
      if (!ended(row)) return false;
      ++ended_rows_;
      ended_tokens_ += length_of(row);
      release(row);
      return true;
    });
  }

  void step_rows(int64_t begin, int64_t end, RowScratch& scratch) {
    const int64_t count = end - begin;
    std::vector<int32_t> ids(count), positions(count);
    std::vector<DecodeRow> rows(count);
    std::vector<CacheSlot> slots(count);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = active_[begin + i];
      const Prompt& prompt = prompt_state_[prompt_of(row)];
      const auto drawn = static_cast<int32_t>(length_of(row));
      ids[i] = samples_[row].tokens.back();
      positions[i] = static_cast<int32_t>(prompt.length) + drawn - 1;
      rows[i] = {cache_.floats_at(prompt.region),
                 cache_.floats_at(own_[row]),
                 static_cast<int32_t>(prompt.length),
                 static_cast<int32_t>(prompt.region.capacity),
                 drawn,
                 static_cast<int32_t>(own_[row].capacity)};
      slots[i] = {rows[i].own_at, rows[i].own_capacity, drawn - 1};
    }
    float* hidden = scratch.hidden.reserve(ops_, count * config_.hidden_size);
    float* memory = cache_.layer(0);
    const CacheView cache{memory,
                          memory,
                          cache_.layer_floats(),
                          cache_.layer_floats(),
                          ops_.stage(rows, scratch.rows),
                          ops_.stage(slots, scratch.slots)};
    decoder_.decode(weights_, ops_.stage(ids, scratch.ids), ops_.stage(positions, scratch.positions), count, hidden,
                    scratch.decode, cache);
    for_logits(hidden, count, scratch, [&](int64_t first, int64_t n) {
      const auto at = active_.begin() + begin + first;
      draw({at, at + n}, scratch.logits.data(), config_.vocab_size, scratch);
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
  void draw(const std::vector<int64_t>& rows, const float* logits, int64_t stride, RowScratch& scratch) {
    const auto count = static_cast<int64_t>(rows.size());
    std::vector<PhiloxCounter> counters(count);
    for (int64_t i = 0; i < count; ++i)
      counters[i] = {options_.iteration, options_.prompt_ids[prompt_of(rows[i])],
                     options_.sample_offset + static_cast<uint32_t>(rows[i] % options_.samples_per_prompt),
                     static_cast<uint32_t>(length_of(rows[i]))};
    // one block, one copy back: [count] tokens of 8 bytes, then [count] log-probs and [count] entropies of 4
    if (!scratch.drawn.defined() || scratch.drawn.numel() < 2 * count)
      scratch.drawn = ops_.empty({2 * count}, DType::Int64);
    auto* device_token = static_cast<int64_t*>(scratch.drawn.data_ptr());
    auto* device_stats = reinterpret_cast<float*>(device_token + count);
    try {
      ops_.sample({logits, DType::Float32, count, config_.vocab_size, stride},
                  {options_.temperature, options_.top_k, options_.top_p, options_.seed}, counters.data(), device_token,
                  device_stats, device_stats + count);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::NonFinite) throw;  // a GPU says it with the token alone, and so it is read below
    }
    std::vector<int64_t> drawn(2 * count);
    ops_.download(drawn.data(), device_token, 2 * count * static_cast<int64_t>(sizeof(int64_t)));
    std::vector<float> stats(2 * count);
    std::memcpy(stats.data(), drawn.data() + count, 2 * count * sizeof(float));
    for (int64_t i = 0; i < count; ++i) {
      if (drawn[i] < 0) throw Unsampled{rows[i]};
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
  std::vector<Prompt> prompt_state_;
  std::vector<Sample> samples_;
  std::vector<CacheRegion> own_;  // of the active rows
  int64_t max_rows_;
  int64_t most_ = 0;  // positions all rows can ever need together
  CachePool cache_;
  Activations scratch_;
  RowScratch prompt_scratch_;
  at::Tensor slots_memory_;
  std::set<int64_t> waiting_;    // rows that are not done, in order
  std::vector<int64_t> active_;  // rows that are being drawn, in order
  std::vector<RowScratch> scratch_rows_;
  int64_t drawn_ = 0, ended_rows_ = 0, ended_tokens_ = 0;
};

}  // namespace

std::vector<Sample> generate(Decoder& decoder, const Weights& weights, const Packed& prompts,
                             const GenerateOptions& options, const CancelToken& cancel,
                             const GenerateProgress& progress) {
  return Generator(decoder, weights, prompts, options, cancel, progress).run();
}

}  // namespace eepo
