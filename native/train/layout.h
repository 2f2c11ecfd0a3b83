// Where every parameter lives. All weights of a model are one flat float32 buffer, so a copy of them (gradient,
// optimizer moments, theta') is one allocation with the same offsets, and a step is one loop. Matrices that read the
// same input lie side by side (q|k|v, gate|up), so each such group is one matrix product.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/config.h"

namespace eepo {

struct Parameter {
  std::string name;  // as in a Hugging Face checkpoint
  std::vector<int64_t> shape;
  int64_t offset = 0;  // in floats
  int64_t size() const {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    return n;
  }
};

struct LayerOffsets {
  int64_t norm1, qkv, qkv_bias, q_norm, k_norm, o, norm2, gate_up, down;
};

class Layout {
 public:
  explicit Layout(const ModelConfig& config);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Parameter* find(const std::string& name) const {
    const auto it = by_name_.find(name);
    return it == by_name_.end() ? nullptr : &parameters_[it->second];
  }
  /// Floats of the flat buffer, alignment gaps included (they stay zero).
  int64_t flat_size() const { return flat_size_; }
  /// Numbers a checkpoint holds.
  int64_t parameter_count() const { return parameter_count_; }

  int64_t embed, final_norm, head;  // head == embed when tied
  std::vector<LayerOffsets> layers;

 private:
  int64_t add(std::string name, std::vector<int64_t> shape, bool aligned = true);

  std::vector<Parameter> parameters_;
  std::unordered_map<std::string, size_t> by_name_;
  int64_t flat_size_ = 0, parameter_count_ = 0;
};

}  // namespace eepo
