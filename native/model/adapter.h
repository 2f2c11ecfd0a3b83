// Low-rank adapters (LoRA, Hu et al. 2021, eq. 3): a linear layer whose weight W is frozen computes
//
//   y = W x + b + scale B A x,   A [rank, in],  B [out, rank],  scale = alpha / rank (or alpha / sqrt(rank))
//
// Only A and B are trained; model/adapter_layout.h says where they are.
#pragma once

#include <cstdint>

#include "core/buffer.h"
#include "device/ops.h"
#include "model/adapter_layout.h"
#include "train/layout.h"

namespace eepo {

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
