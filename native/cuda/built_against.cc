// What the CUDA half says of itself, read by lib/cuda.ts out of the file before it is loaded.
#include <torch/version.h>

namespace eepo {

extern "C" __attribute__((visibility("default"), used)) const char eepo_cuda_built_against[] =
    "eepo cuda half built against libtorch " TORCH_VERSION ", eepo " EEPO_VERSION ", architectures " EEPO_ARCHITECTURES
    ";";

}  // namespace eepo
