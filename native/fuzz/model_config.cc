// The sizes of a model and of an adapter, as config.json and adapter_config.json may state them: see fuzz.h.
#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include "fuzz/choices.h"
#include "fuzz/fuzz.h"
#include "model/adapter_layout.h"
#include "model/config.h"
#include "model/rope_frequencies.h"
#include "train/layout.h"

namespace {

using namespace eepo;
using fuzz::Choices;
using fuzz::require;

constexpr int64_t kMostLayers = 2;  // of those that are laid out: what follows is the same for each

int64_t size(Choices& c) {
  constexpr int64_t kSpecial[] = {
      0,          -1,    INT64_MAX, INT64_MIN, 1 << 30, (int64_t{1} << 31) - 1, int64_t{1} << 31,
      3037000500, 65536, 10'000,    10'001};
  switch (c.below(8)) {
    case 0: return c.of(kSpecial);
    case 1: return static_cast<int64_t>(c.word());
    case 2: return int64_t{1} << c.below(63);
    case 3: return c.byte() * 256 + c.byte();
    default: return 1 + static_cast<int64_t>(c.below(32));
  }
}

double real(Choices& c) {
  constexpr double kSpecial[] = {0, -1, INFINITY, -INFINITY, 1e308, 5e-324, 1, 1e-300, 1e38, 3.5e38};
  switch (c.below(8)) {
    case 0: return c.of(kSpecial);
    case 1: {
      const double any = std::bit_cast<double>(c.word());
      return std::isnan(any) ? 1 : any;  // refused by number_argument() already
    }
    case 2: return std::ldexp(1.0, static_cast<int>(c.byte()) - 128);
    default: return 1 + static_cast<double>(c.byte()) / 16;
  }
}

ModelConfig config_of(Choices& c) {
  ModelConfig m;
  m.vocab_size = size(c);
  m.hidden_size = size(c);
  m.intermediate_size = size(c);
  m.layers = size(c);
  m.kv_heads = size(c);
  m.heads = c.below(2) == 0 ? m.kv_heads : size(c);
  m.head_dim = size(c);
  m.max_positions = size(c);
  m.norm_eps = c.below(4) == 0 ? static_cast<float>(real(c)) : 1e-6f;
  const uint8_t flags = c.byte();
  m.tied = flags & 1;
  m.qkv_bias = flags & 2;
  m.o_bias = flags & 4;
  m.qk_norm = flags & 8;
  m.rope.type = static_cast<RopeType>(c.below(5));
  m.rope.theta = real(c);
  m.rope.factor = real(c);
  m.rope.original_positions = std::max<int64_t>(size(c), 1);  // integer_argument() starts there
  m.rope.low_freq = real(c);
  m.rope.high_freq = real(c);
  m.rope.beta_fast = real(c);
  m.rope.beta_slow = real(c);
  m.rope.attention_factor = real(c);
  m.rope.truncate = flags & 16;
  return m;
}

/// The spans [begin, begin + size) lie within [0, end), and none shares an element with another.
void require_side_by_side(std::vector<std::pair<int64_t, int64_t>> spans, int64_t end) {
  std::ranges::sort(spans);
  int64_t at = 0;
  for (const auto& [begin, count] : spans) {
    require(begin >= at && count > 0, "parameters overlap");
    at = begin + count;
  }
  require(at <= end, "a parameter beyond the space");
}

void check_layout(const ModelConfig& config) {
  const Layout layout(config);
  std::vector<std::pair<int64_t, int64_t>> matrices, vectors;
  int64_t total = 0;
  for (const Parameter& p : layout.parameters()) {
    require(p.offset >= 0 && p.size() > 0, "a parameter without a place");
    (p.matrix() ? matrices : vectors).emplace_back(p.offset, p.size());
    total += p.size();
    require(layout.find(p.name) == &p, "two parameters of one name");
    require(layout.flat_offset(p) + p.size() <= layout.flat_size(), "a parameter beyond the buffer");
  }
  require(total == layout.parameter_count(), "a wrong number of parameters");
  require_side_by_side(matrices, layout.matrix_size());
  require_side_by_side(vectors, layout.vector_size());
  require(layout.flat_size() < INT64_MAX / 16, "sizes in bytes overflow");
  for (int64_t l = 0; l < config.layers; ++l)
    for (const LinearKind kind : {LinearKind::Qkv, LinearKind::Output, LinearKind::GateUp, LinearKind::Down}) {
      const LinearSlot slot = layout.linear({l, kind});
      require(slot.at >= 0 && slot.out * slot.in <= layout.matrix_size() - slot.at, "a layer beyond the matrices");
    }
}

void check_adapter(const ModelConfig& config, Choices& c) {
  AdapterConfig adapter;
  adapter.rank = std::clamp<int64_t>(size(c), 1, 65536);  // integer_argument()
  const uint8_t targets = c.byte();
  for (size_t i = 0; i < adapter.targets.size(); ++i) adapter.targets[i] = targets >> i & 1;
  try {
    const AdapterLayout layout(config, adapter);
    std::vector<std::pair<int64_t, int64_t>> spans;
    for (const Parameter& p : layout.parameters()) spans.emplace_back(p.offset, p.size());
    require_side_by_side(spans, layout.size());
    require(layout.size() < INT64_MAX / 16, "sizes in bytes overflow");
  } catch (const Error& error) {
    require(error.code() == ErrorCode::InvalidArgument, "an error of another class:", error.what());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  Choices c(data, bytes);
  ModelConfig config = config_of(c);
  try {
    config.validate();
    if (config.head_dim <= 512 || c.byte() == 0) check_rope(config);  // the others take long
  } catch (const Error& error) {
    require(error.code() == ErrorCode::InvalidFile, "an error of another class:", error.what());
    require(std::string_view(error.what()).starts_with("config.json: "),
            "an error that does not name the file:", error.what());
    return 0;
  }
  if (config.head_dim <= 512)
    for (const int64_t length : {int64_t{1}, config.max_positions / 2 + 1, config.max_positions})
      for (const float frequency : rope_frequencies(config.rope, config.head_dim, length))
        require(std::isfinite(frequency), "a rotary frequency that is no number");
  config.layers = std::min(config.layers, kMostLayers);
  check_layout(config);
  check_adapter(config, c);
  return 0;
}
