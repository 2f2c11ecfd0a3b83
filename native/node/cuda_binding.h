// The CUDA half: a second binary with the GPU's operations, loaded on request. Internal to native/node.
#pragma once

#include <napi.h>

namespace eepo::node {

void register_cuda(Napi::Env env, Napi::Object exports);

}  // namespace eepo::node
