// Where NaN or Infinity appeared first, in the order of computation: a weight, the hidden states layer by layer, the
// logits, the statistics of the tokens; of gradients, the order in which a backward writes them. Nothing here is called
// before something was seen that is not finite.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "model/decoder.h"

namespace eepo {

struct NonFinite {
  enum class Kind : uint8_t { Weight, Hidden, Logits, Logprob, Entropy, Gradient, Moment } kind = Kind::Weight;
  std::string name;    // of the parameter; of everything else a few words
  int64_t index = 0;   // of the element, in its tensor; of hidden states and logits, within its token's row
  float value = 0;     // NaN, +inf or -inf
  int64_t layer = -1;  // after which hidden states are bad, from 0; -1 elsewhere
  int64_t sequence = -1, position = -1;  // the token's, where there is one
};

/// "model.norm.weight: element 3 is NaN", "the hidden state after layer 2, token 7: element 0 is Infinity".
std::string describe(const NonFinite& found);

/// The first weight, in the order of a checkpoint, an adapter's after the model's.
std::optional<NonFinite> find_in_weights(Ops& ops, const Layout& layout, const Weights& weights);

/// The first gradient (or moment, any flat buffer of `parameters`) in the order of a backward pass: the head first.
/// `offset(p)`: where a parameter lies.
std::optional<NonFinite> find_in_gradient(Ops& ops, const std::vector<Parameter>& parameters, const float* flat,
                                          const std::function<int64_t(const Parameter&)>& offset, bool tied);

/// One sequence computed again: hidden states of all its tokens, then logits and, with targets, statistics of the
/// tokens from `first` on. targets: none, or one for each of those.
std::optional<NonFinite> find_in_sequence(Decoder& decoder, const Weights& weights, const std::vector<int32_t>& ids,
                                          int64_t first, const std::vector<int64_t>& targets, float temperature,
                                          const CancelToken& cancel);

}  // namespace eepo
