// Sampling with a key-value cache. Each prompt is computed once, whatever the number of its samples; a row that has
// ended makes room for the next; memory grows with what was really generated, up to a bound.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/cancel.h"
#include "model/decoder.h"

namespace eepo {

struct GenerateOptions {
  int64_t max_new_tokens = 1;
  int64_t samples_per_prompt = 1;
  float temperature = 1;
  int64_t top_k = 0;
  float top_p = 1;
  uint64_t seed = 0;
  uint32_t iteration = 0;
  std::vector<uint32_t> prompt_ids;  // one per prompt: the key of its random numbers
  uint32_t sample_offset = 0;
  std::vector<int32_t> stop_tokens;
  int64_t max_rows = 0;      // samples drawn at a time; 0: all
  int64_t cache_tokens = 0;  // tokens the key-value cache may hold; 0: as many as there are
};

struct Sample {
  std::vector<int32_t> tokens;
  std::vector<float> logprob, entropy;
  bool stopped = false;
};

using GenerateProgress = std::function<void(int64_t tokens, int64_t running)>;

/// prompts: packed, none empty, each + max_new_tokens within the context (checked by the caller).
/// Returns prompts x samples_per_prompt samples, prompt-major. The token at position t of sample s of prompt p is drawn
/// with Philox(seed, (iteration, prompt_ids[p], sample_offset + s, t)), so neither max_rows nor cache_tokens changes
/// it. Throws InvalidArgument when cache_tokens cannot hold one prompt and one response.
std::vector<Sample> generate(Decoder& decoder, const Weights& weights, const Packed& prompts,
                             const GenerateOptions& options, const CancelToken& cancel,
                             const GenerateProgress& progress = nullptr);

}  // namespace eepo
