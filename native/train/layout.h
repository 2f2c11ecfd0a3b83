// Where every parameter lives. A model's parameters are two flat spaces: the matrices (embedding, projections, head),
// which may be stored in bfloat16, and the vectors (norms and biases), always float32. Every copy of them (master,
// gradient, moments, working copy, theta') has the same offsets, so a step is a loop or two. Matrices that read the
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
  int64_t offset = 0;  // in elements of its space
  bool matrix() const { return shape.size() > 1; }
  int64_t size() const {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    return n;
  }
};

/// The four products of a layer.
enum class LinearKind : uint8_t { Qkv, Output, GateUp, Down };

/// Which linear layer of the decoder: what an adapter is attached to.
struct LinearId {
  int64_t layer;
  LinearKind kind;
};

/// A linear's weight [out, in] and where it starts in the space of the matrices.
struct LinearSlot {
  int64_t at, out, in;
};

/// Of the matrices: qkv, o, gate_up, down. Of the vectors: the others; -1 where the architecture has none.
struct LayerOffsets {
  int64_t norm1, qkv, qkv_bias, q_norm, k_norm, o, o_bias, norm2, gate_up, down;
};

class Layout {
 public:
  explicit Layout(const ModelConfig& config);

  /// In the order of a checkpoint.
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Parameter* find(const std::string& name) const {
    const auto it = by_name_.find(name);
    return it == by_name_.end() ? nullptr : &parameters_[it->second];
  }
  LinearSlot linear(LinearId id) const;
  LinearSlot embed_matrix() const { return {embed, vocab_, hidden_}; }
  LinearSlot head_matrix() const { return {head, vocab_, hidden_}; }

  /// Elements of the two spaces, alignment gaps included (they stay zero), and of both.
  int64_t matrix_size() const { return matrix_size_; }
  int64_t vector_size() const { return vector_size_; }
  int64_t flat_size() const { return matrix_size_ + vector_size_; }
  /// Where a parameter lies in one float32 buffer that holds the matrices and then the vectors.
  int64_t flat_offset(const Parameter& p) const { return p.matrix() ? p.offset : matrix_size_ + p.offset; }
  /// Numbers a checkpoint holds.
  int64_t parameter_count() const { return parameter_count_; }

  int64_t embed, head;  // matrices; head == embed when tied
  int64_t final_norm;   // a vector
  std::vector<LayerOffsets> layers;

 private:
  int64_t add(std::string name, std::vector<int64_t> shape, bool aligned = true);

  std::vector<Parameter> parameters_;
  std::unordered_map<std::string, size_t> by_name_;
  int64_t vocab_, hidden_, q_width_, qkv_width_, intermediate_;
  int64_t matrix_size_ = 0, vector_size_ = 0, parameter_count_ = 0;
};

}  // namespace eepo
