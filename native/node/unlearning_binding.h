#pragma once

#include <napi.h>

namespace eepo::node {

/// complementaryLoss and ascend; called by register_kernels().
void register_unlearning(Napi::Env env, Napi::Object exports);

}  // namespace eepo::node
