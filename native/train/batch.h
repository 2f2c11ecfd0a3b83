// Prompts and their responses as a training pass wants them.
#pragma once

#include <cstdint>
#include <vector>

#include "model/decoder.h"

namespace eepo {

/// Whole sequences, prompt + response, one behind the other; response_starts[s] counts the prompt tokens of s (>= 1).
struct TrainBatch {
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets;
  std::vector<int64_t> response_starts;

  size_t sequences() const { return response_starts.size(); }
  int64_t response_length(size_t s) const { return offsets[s + 1] - offsets[s] - response_starts[s]; }
};

/// Sequences [first, end) of a batch.
TrainBatch slice(const TrainBatch& batch, size_t first, size_t end);

/// End of the micro-batch that starts at `first`: at least one sequence, else up to `budget` tokens.
size_t micro_batch_end(const TrainBatch& batch, size_t first, int64_t budget);

/// What the decoder computes: neighbouring sequences with the same prompt share it, and a response's last token, which
/// predicts nothing, is left out. With G samples a prompt that is (G - 1) prompts and G tokens a group less. Sequences
/// longer than `sharing_limit` (Decoder::sharing_limit) keep a prompt of their own.
struct SharedBatch {
  Packed packed;
  std::vector<int32_t> rows;     // the row whose hidden state predicts each response token, sequence by sequence
  std::vector<int64_t> targets;  // those tokens
};
SharedBatch share_prompts(const TrainBatch& batch, int64_t sharing_limit);

}  // namespace eepo
