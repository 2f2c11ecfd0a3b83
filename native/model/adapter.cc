#include "model/adapter.h"

#include <algorithm>
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

namespace {

// [rows, parts * rank] = x A^T
void project(Ops& ops, const AdapterView& adapter, const AdapterLinear& linear, int64_t in, const float* x,
             int64_t rows, float* out) {
  const int64_t width = linear.count * adapter.layout->rank();
  ops.gemm(Op::None, Op::Transpose, rows, width, in, 1, x, in, adapter.data + linear.a, in, 0, out, width);
}

}  // namespace

void adapter_forward(Ops& ops, const AdapterView& adapter, LinearId id, const LinearSlot& slot, const float* x,
                     int64_t rows, FloatBuffer& scratch, float* y) {
  const AdapterLinear& linear = adapter.layout->linear(id);
  if (linear.count == 0) return;
  const int64_t rank = adapter.layout->rank(), width = linear.count * rank;
  float* projected = scratch.reserve(ops, rows * width);
  project(ops, adapter, linear, slot.in, x, rows, projected);
  for (int64_t p = 0; p < linear.count; ++p) {
    const AdapterPart& part = linear.parts[p];
    ops.gemm(Op::None, Op::Transpose, rows, part.out, rank, adapter.layout->scale(), projected + p * rank, width,
             adapter.data + part.b, rank, 1, y + part.column, slot.out);
  }
}

void adapter_backward(Ops& ops, const AdapterView& adapter, float* gradient, LinearId id, const LinearSlot& slot,
                      const float* dy, const float* x, int64_t rows, FloatBuffer& scratch, float* dx) {
  const AdapterLinear& linear = adapter.layout->linear(id);
  if (linear.count == 0) return;
  const int64_t rank = adapter.layout->rank(), width = linear.count * rank;
  const float scale = adapter.layout->scale();
  float* projected = scratch.reserve(ops, 2 * rows * width);
  float* d_projected = projected + rows * width;
  project(ops, adapter, linear, slot.in, x, rows, projected);
  for (int64_t p = 0; p < linear.count; ++p) {
    const AdapterPart& part = linear.parts[p];
    const float* d_part = dy + part.column;
    // dB += scale dy^T (x A^T);  d(x A^T) = scale dy B
    ops.gemm(Op::Transpose, Op::None, part.out, rank, rows, scale, d_part, slot.out, projected + p * rank, width, 1,
             gradient + part.b, rank);
    ops.gemm(Op::None, Op::None, rows, rank, part.out, scale, d_part, slot.out, adapter.data + part.b, rank, 0,
             d_projected + p * rank, width);
  }
  ops.gemm(Op::Transpose, Op::None, width, slot.in, rows, 1, d_projected, width, x, slot.in, 1, gradient + linear.a,
           slot.in);
  ops.gemm(Op::None, Op::None, rows, slot.in, width, 1, d_projected, width, adapter.data + linear.a, slot.in, 1, dx,
           slot.in);
}

void add_product(const AdapterLayout& layout, const float* adapter, const AdapterLayout::Product& product,
                 int64_t begin, int64_t count, float* out) {
  const int64_t rank = layout.rank(), in = product.in;
  const float *a = adapter + product.a, *b = adapter + product.b;
#pragma omp parallel for schedule(static)
  for (int64_t row = begin / in; row <= (begin + count - 1) / in; ++row) {
    const int64_t from = std::max(begin, row * in), to = std::min(begin + count, (row + 1) * in);
    for (int64_t r = 0; r < rank; ++r) {
      const float factor = layout.scale() * b[row * rank + r];
      for (int64_t i = from; i < to; ++i) out[i - begin] += factor * a[r * in + i - row * in];
    }
  }
}

}  // namespace eepo
