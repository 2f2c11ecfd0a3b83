// The angle by which each pair of dimensions of a head is turned from one position to the next.
#pragma once

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace eepo {

/// The frequencies of a sequence of `length` tokens, theta^(-2i/d) rescaled as `rope` says. Only dynamic ones depend on
/// the length.
std::vector<float> rope_frequencies(const RopeConfig& rope, int64_t head_dim, int64_t length);

/// Throws InvalidFile where an angle within the context would be no finite number. After ModelConfig::validate().
void check_rope(const ModelConfig& config);

}  // namespace eepo
