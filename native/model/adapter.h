// Low-rank adapters (LoRA, Hu et al. 2021, eq. 3): a linear layer whose weight W is frozen computes
//
//   y = W x + b + scale B A x,   A [rank, in],  B [out, rank],  scale = alpha / rank (or alpha / sqrt(rank))
//
// Only A and B are trained. They are float32 and lie in one flat space of their own, as a model's parameters do.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/buffer.h"
#include "device/ops.h"
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

/// An adapter's numbers on the device. No layout: no adapter.
struct AdapterView {
  const AdapterLayout* layout = nullptr;
  const float* data = nullptr;
  explicit operator bool() const { return layout != nullptr; }
};

/// y[rows, slot.out] += scale B A x.
void adapter_forward(Ops& ops, const AdapterView& adapter, LinearId id, const LinearSlot& slot, const float* x,
                     int64_t rows, FloatBuffer& scratch, float* y);
/// From dy[rows, slot.out] of the same layer: adds to the adapter's gradient (flat) and to dx[rows, slot.in].
void adapter_backward(Ops& ops, const AdapterView& adapter, float* gradient, LinearId id, const LinearSlot& slot,
                      const float* dy, const float* x, int64_t rows, FloatBuffer& scratch, float* dx);

/// Adds elements [begin, begin + count) of scale B A, as a matrix of the parameter's shape, to `out`. All on the host.
void add_product(const AdapterLayout& layout, const float* adapter, const AdapterLayout::Product& product,
                 int64_t begin, int64_t count, float* out);

}  // namespace eepo
