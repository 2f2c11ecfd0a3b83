// What this machine's memory gives, measured beside the kernels: the times nothing that touches so many bytes can beat.
#pragma once

#include <cstddef>
#include <cstdint>

namespace eepo::bench {

/// Reads every byte once, on all threads. Returns a sum, so that nothing is left out.
uint64_t read_all(const void* data, size_t bytes);

/// Reads and writes every byte once, in place, on all threads. Twice gives the same bits again.
void read_write_all(void* data, size_t bytes);

/// Copies on all threads.
void copy_all(void* to, const void* from, size_t bytes);

}  // namespace eepo::bench
