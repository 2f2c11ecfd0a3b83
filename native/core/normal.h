// Draws from the standard normal distribution by counter: a pure function of (seed, counter), as core/philox.h.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "core/philox.h"

namespace eepo {

/// Four of them (Box-Muller, in double precision, on 32 random bits each).
inline std::array<float, 4> philox_normal(const PhiloxCounter& counter, uint64_t seed) {
  constexpr double kTurn = 6.283185307179586;
  const PhiloxCounter bits = philox4x32(counter, seed);
  std::array<float, 4> out{};
  for (int pair = 0; pair < 2; ++pair) {
    const double radius = std::sqrt(-2.0 * std::log((bits[2 * pair] + 0.5) * 0x1p-32));
    const double angle = kTurn * (bits[2 * pair + 1] * 0x1p-32);
    out[2 * pair] = static_cast<float>(radius * std::cos(angle));
    out[2 * pair + 1] = static_cast<float>(radius * std::sin(angle));
  }
  return out;
}

}  // namespace eepo
