// Philox4x32-10 (Salmon et al. 2011): a counter-based generator. A draw is a pure function of
// (seed, counter), so a sampled token depends on (seed, iteration, prompt, sample, position) and on
// nothing else: not on the batch it was in, nor on the number of threads.
#pragma once

#include <array>
#include <cstdint>

namespace eepo {

using PhiloxCounter = std::array<uint32_t, 4>;

inline PhiloxCounter philox4x32(PhiloxCounter counter, uint64_t seed) {
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// A uniform double in [0, 1) with 53 random bits.
inline double philox_uniform(const PhiloxCounter& counter, uint64_t seed) {
  const PhiloxCounter bits = philox4x32(counter, seed);
  const uint64_t word = (uint64_t{bits[0]} << 32) | bits[1];
  return static_cast<double>(word >> 11) * 0x1p-53;
}

}  // namespace eepo
