// Where an adapter's parameters live: the As and Bs of low-rank adapters (model/adapter.h) in one flat space of their
// own, float32, as a model's parameters do.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/config.h"
#include "train/layout.h"

namespace eepo {

/// In the order of a checkpoint's names.
constexpr std::array<const char*, 7> kAdapterTargets = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                        "gate_proj", "up_proj", "down_proj"};

struct AdapterConfig {
  int64_t rank = 0;
  float scale = 1;
  std::array<bool, kAdapterTargets.size()> targets{};  // as in kAdapterTargets
};

/// One target's share of a linear layer (q of q|k|v, say): its B, and the columns of the output that it adds to.
struct AdapterPart {
  int64_t b, column, out;
};

/// The adapters of one linear layer. Their As lie one behind the other, so all of A x is one product.
struct AdapterLinear {
  int64_t a = 0, count = 0;
  std::array<AdapterPart, 3> parts{};
};

class AdapterLayout {
 public:
  AdapterLayout(const ModelConfig& model, const AdapterConfig& config);

  int64_t rank() const { return config_.rank; }
  float scale() const { return config_.scale; }
  /// count is 0 where no target is.
  const AdapterLinear& linear(LinearId id) const { return linears_[id.layer * 4 + static_cast<int64_t>(id.kind)]; }
  /// Named as in PEFT's files; offsets in floats.
  const std::vector<Parameter>& parameters() const { return parameters_; }
  /// Floats of the space, alignment gaps included.
  int64_t size() const { return size_; }
  int64_t parameter_count() const { return parameter_count_; }

  /// Where the A and B of a model's parameter are: of model.layers.0.self_attn.q_proj.weight, if that is a target.
  struct Product {
    int64_t a, b, in;
  };
  const Product* product(const std::string& parameter) const;

 private:
  int64_t add(std::string name, std::vector<int64_t> shape, bool aligned);

  AdapterConfig config_;
  std::vector<AdapterLinear> linears_;
  std::vector<Parameter> parameters_;
  std::unordered_map<std::string, Product> products_;
  int64_t size_ = 0, parameter_count_ = 0;
};

}  // namespace eepo
