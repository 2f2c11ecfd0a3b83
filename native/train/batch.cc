#include "train/batch.h"

#include <algorithm>

namespace eepo {

TrainBatch slice(const TrainBatch& batch, size_t first, size_t end) {
  TrainBatch part;
  const int64_t base = batch.offsets[first];
  part.ids.assign(batch.ids.begin() + base, batch.ids.begin() + batch.offsets[end]);
  for (size_t s = first; s <= end; ++s) part.offsets.push_back(batch.offsets[s] - base);
  part.response_starts.assign(batch.response_starts.begin() + static_cast<int64_t>(first),
                              batch.response_starts.begin() + static_cast<int64_t>(end));
  return part;
}

size_t micro_batch_end(const TrainBatch& batch, size_t first, int64_t budget) {
  size_t end = first + 1;
  while (end < batch.sequences() && batch.offsets[end + 1] - batch.offsets[first] <= budget) ++end;
  return end;
}

SharedBatch share_prompts(const TrainBatch& batch, int64_t sharing_limit) {
  SharedBatch shared;
  Packed& packed = shared.packed;
  packed.offsets.push_back(0);
  const auto append = [&](const int32_t* first, const int32_t* last, int64_t prefix, int64_t whole) {
    packed.ids.insert(packed.ids.end(), first, last);
    packed.offsets.push_back(packed.tokens());
    packed.prefix.push_back(prefix);
    packed.whole.push_back(whole);
  };
  const auto rows_from = [&](int64_t begin) {
    for (int64_t t = begin; t < packed.tokens(); ++t) shared.rows.push_back(static_cast<int32_t>(t));
  };
  int64_t prompt_segment = -1;
  const int32_t* previous = nullptr;  // the prompt of prompt_segment
  int64_t previous_length = 0;
  for (size_t s = 0; s < batch.sequences(); ++s) {
    const int32_t* ids = batch.ids.data() + batch.offsets[s];
    const int64_t prompt = batch.response_starts[s], response = batch.response_length(s);
    if (response == 0) continue;
    const int64_t whole = prompt + response, begin = packed.tokens();
    shared.targets.insert(shared.targets.end(), ids + prompt, ids + whole);
    if (whole > sharing_limit) {
      append(ids, ids + whole - 1, -1, whole);
      rows_from(begin + prompt - 1);
      continue;
    }
    if (prompt != previous_length || !std::equal(ids, ids + prompt, previous)) {
      prompt_segment = packed.count();
      append(ids, ids + prompt, -1, prompt);
      previous = ids;
      previous_length = prompt;
    }
    shared.rows.push_back(static_cast<int32_t>(packed.offsets[prompt_segment + 1] - 1));
    const int64_t own = packed.tokens();
    if (response > 1) append(ids + prompt, ids + whole - 1, prompt_segment, whole);
    rows_from(own);
  }
  return shared;
}

}  // namespace eepo
