#pragma once

#include <napi.h>

namespace eepo::node {

/// What `eepo bench kernels` measures with (lib/bench/native.ts).
void register_bench(Napi::Env env, Napi::Object exports);

}  // namespace eepo::node
