#include "model/adapter_layout.h"

#include <utility>

namespace eepo {
namespace {

struct Target {
  size_t name;  // in kAdapterTargets
  LinearKind kind;
  const char* block;
  int64_t out, in;
};

}  // namespace

AdapterLayout::AdapterLayout(const ModelConfig& c, const AdapterConfig& config) : config_(config) {
  const std::array<Target, kAdapterTargets.size()> targets = {{
      {0, LinearKind::Qkv, "self_attn", c.q_width(), c.hidden_size},
      {1, LinearKind::Qkv, "self_attn", c.kv_width(), c.hidden_size},
      {2, LinearKind::Qkv, "self_attn", c.kv_width(), c.hidden_size},
      {3, LinearKind::Output, "self_attn", c.hidden_size, c.q_width()},
      {4, LinearKind::GateUp, "mlp", c.intermediate_size, c.hidden_size},
      {5, LinearKind::GateUp, "mlp", c.intermediate_size, c.hidden_size},
      {6, LinearKind::Down, "mlp", c.hidden_size, c.intermediate_size},
  }};
  // before anything grows with these numbers, as in ModelConfig::validate()
  double per_layer = 0;
  for (const Target& t : targets)
    if (config.targets[t.name]) per_layer += static_cast<double>(t.in) + static_cast<double>(t.out);
  const double total = per_layer * static_cast<double>(c.layers) * static_cast<double>(config.rank);
  check(config.rank > 0 && total < 1e14, ErrorCode::InvalidArgument, "the adapter's rank ", config.rank, " makes ",
        total, " parameters; at most 1e14 can be addressed");
  linears_.resize(c.layers * 4);
  for (int64_t l = 0; l < c.layers; ++l) {
    const std::string layer = "model.layers." + std::to_string(l) + ".";
    const auto module = [&](const Target& t) { return layer + t.block + "." + kAdapterTargets[t.name]; };
    const auto linear_of = [&](const Target& t) -> AdapterLinear& {
      return linears_[l * 4 + static_cast<int64_t>(t.kind)];
    };
    std::array<int64_t, kAdapterTargets.size()> a{};
    std::array<int64_t, 4> column{};  // outputs of the linear before this target
    for (const Target& t : targets) {
      if (!config.targets[t.name]) continue;
      AdapterLinear& linear = linear_of(t);
      a[t.name] = add("base_model.model." + module(t) + ".lora_A.weight", {config.rank, t.in}, linear.count == 0);
      if (linear.count++ == 0) linear.a = a[t.name];
    }
    std::array<int64_t, 4> part{};
    for (const Target& t : targets) {
      const auto kind = static_cast<size_t>(t.kind);
      if (config.targets[t.name]) {
        const int64_t b = add("base_model.model." + module(t) + ".lora_B.weight", {t.out, config.rank}, true);
        linear_of(t).parts[part[kind]++] = {b, column[kind], t.out};
        products_.emplace(module(t) + ".weight", Product{a[t.name], b, t.in});
      }
      column[kind] += t.out;
    }
  }
  size_ = (size_ + 15) / 16 * 16;
}

int64_t AdapterLayout::add(std::string name, std::vector<int64_t> shape, bool aligned) {
  if (aligned) size_ = (size_ + 15) / 16 * 16;
  parameters_.push_back({std::move(name), std::move(shape), size_});
  const int64_t offset = size_;
  size_ += parameters_.back().size();
  parameter_count_ += parameters_.back().size();
  return offset;
}

const AdapterLayout::Product* AdapterLayout::product(const std::string& parameter) const {
  const auto it = products_.find(parameter);
  return it == products_.end() ? nullptr : &it->second;
}

}  // namespace eepo
