// The model behind lib/policy.ts.
#pragma once

#include <napi.h>

namespace eepo::node {

void register_model(Napi::Env env, Napi::Object exports);

}  // namespace eepo::node
