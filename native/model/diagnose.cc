#include "model/diagnose.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace eepo {
namespace {

constexpr int64_t kLogitFloats = 16 << 20;  // logits looked at at a time
using Kind = NonFinite::Kind;

float element(Ops& ops, const void* x, DType dtype, int64_t index) {
  const auto size = static_cast<int64_t>(size_of(dtype));
  uint32_t bits = 0;
  ops.download(&bits, static_cast<const char*>(x) + index * size, size);
  if (dtype == DType::Float32) return std::bit_cast<float>(bits);
  const auto half = static_cast<uint16_t>(bits);
  return dtype == DType::BFloat16 ? bf16_to_float(half) : f16_to_float(half);
}

std::optional<NonFinite> search(Ops& ops, const void* x, DType dtype, int64_t n, Kind kind, const std::string& name) {
  const int64_t at = ops.first_non_finite(x, dtype, n);
  if (at < 0) return std::nullopt;
  NonFinite found;
  found.kind = kind;
  found.name = name;
  found.index = at;
  found.value = element(ops, x, dtype, at);
  return found;
}

// Rows of `width` floats, of the tokens from `first` on.
std::optional<NonFinite> search_rows(Ops& ops, const float* x, int64_t rows, int64_t width, int64_t first, Kind kind,
                                     const std::string& name, int64_t layer = -1) {
  auto found = search(ops, x, DType::Float32, rows * width, kind, name);
  if (!found) return found;
  found->position = first + found->index / width;
  found->index %= width;
  found->layer = layer;
  return found;
}

}  // namespace

std::string describe(const NonFinite& found) {
  std::string text = found.name;
  if (found.position >= 0) text += ", token " + std::to_string(found.position);
  const char* value = std::isnan(found.value) ? "NaN" : found.value > 0 ? "Infinity" : "-Infinity";
  if (found.kind == Kind::Logprob || found.kind == Kind::Entropy) return text + " is " + value;
  return text + ": element " + std::to_string(found.index) + " is " + value;
}

std::optional<NonFinite> find_in_weights(Ops& ops, const Layout& layout, const Weights& weights) {
  for (const Parameter& p : layout.parameters()) {
    const DType dtype = p.matrix() ? weights.dtype : DType::Float32;
    const void* space = p.matrix() ? weights.matrices : weights.vectors;
    const void* at = static_cast<const char*>(space) + p.offset * static_cast<int64_t>(size_of(dtype));
    if (auto found = search(ops, at, dtype, p.size(), Kind::Weight, p.name)) return found;
  }
  if (!weights.adapter) return std::nullopt;
  for (const Parameter& p : weights.adapter.layout->parameters())
    if (auto found = search(ops, weights.adapter.data + p.offset, DType::Float32, p.size(), Kind::Weight, p.name))
      return found;
  return std::nullopt;
}

std::optional<NonFinite> find_in_gradient(Ops& ops, const std::vector<Parameter>& parameters, const float* flat,
                                          const std::function<int64_t(const Parameter&)>& offset, bool tied) {
  const auto look = [&](const Parameter& p) {
    return search(ops, flat + offset(p), DType::Float32, p.size(), Kind::Gradient, p.name);
  };
  // The order of a checkpoint is that of the forward; a backward goes the other way.
  for (auto p = parameters.rbegin(); p != parameters.rend(); ++p) {
    auto found = look(*p);
    if (!found) continue;
    // A tied head is written first and, as the embedding, last: it was bad before the final norm if that is bad too.
    if (tied && p == parameters.rbegin())
      if (auto head = look(parameters.front())) return head;
    return found;
  }
  return std::nullopt;
}

std::optional<NonFinite> find_in_sequence(Decoder& decoder, const Weights& weights, const std::vector<int32_t>& ids,
                                          int64_t first, const std::vector<int64_t>& targets, float temperature,
                                          const CancelToken& cancel) {
  Ops& ops = decoder.ops();
  const int64_t n = static_cast<int64_t>(ids.size()), dim = decoder.config().hidden_size;
  const int64_t layers = decoder.config().layers, asked = n - first, vocab = decoder.config().vocab_size;
  Packed batch;
  batch.ids = ids;
  batch.offsets = {0, n};
  std::vector<int32_t> rows(asked);
  std::iota(rows.begin(), rows.end(), static_cast<int32_t>(first));
  Activations acts;
  FloatBuffer hidden_memory, memory;
  float* hidden = hidden_memory.reserve(ops, asked * dim);
  decoder.forward(weights, batch, rows, acts, Keep::Inputs, hidden, cancel);

  const auto after = [](int64_t layer) { return "the hidden state after layer " + std::to_string(layer); };
  for (int64_t l = 0; l < layers; ++l) {
    const std::string name = l == 0 ? std::string("the token embedding") : after(l - 1);
    if (auto found = search_rows(ops, acts.layers[l].input.data(), n, dim, 0, Kind::Hidden, name, l - 1)) return found;
  }
  if (auto found = search_rows(ops, acts.last.data(), asked, dim, first, Kind::Hidden, after(layers - 1), layers - 1))
    return found;
  const std::string normed = "the hidden state after the final norm";
  if (auto found = search_rows(ops, hidden, asked, dim, first, Kind::Hidden, normed, layers - 1)) return found;

  const int64_t chunk = std::max<int64_t>(1, kLogitFloats / vocab);
  for (int64_t at = 0; at < asked; at += chunk) {
    const int64_t count = std::min(chunk, asked - at);
    float* logits = memory.reserve(ops, std::min(chunk, asked) * vocab);
    decoder.logits(weights, hidden + at * dim, count, logits);
    if (auto found = search_rows(ops, logits, count, vocab, first + at, Kind::Logits, "the logits")) return found;
  }
  if (targets.empty()) return std::nullopt;

  float* stats = memory.reserve(ops, 2 * asked);
  at::Tensor staged;
  const WeightMatrix matrix = weights.matrix(decoder.layout().head_matrix());
  const LinearHead head{hidden, matrix.data, matrix.dtype, asked, matrix.in, matrix.out, DType::Float32};
  ops.linear_token_stats(head, ops.stage(targets, staged), temperature, stats, stats + asked, nullptr, &cancel);
  if (auto found = search_rows(ops, stats, asked, 1, first, Kind::Logprob, "the log-prob")) return found;
  return search_rows(ops, stats + asked, asked, 1, first, Kind::Entropy, "the entropy");
}

}  // namespace eepo
