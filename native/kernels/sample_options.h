// Inside sample and its reference: what both refuse.
#pragma once

#include <cstdint>

#include "kernels/sample.h"

namespace eepo {

/// Throws InvalidArgument naming the option.
void check_sample_options(const SampleOptions& options);

/// Throws NonFinite naming the row.
[[noreturn]] void fail_sample_row(int64_t row);

}  // namespace eepo
