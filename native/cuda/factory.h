// The one door into the CUDA half, which is compiled with the addon and must be of the same version: what crosses it is
// a C++ object.
#pragma once

#include <string>

namespace eepo {
class Ops;
}

namespace eepo::cuda {

/// The operations of the first visible GPU (CUDA_VISIBLE_DEVICES chooses), made once and never destroyed; null with
/// `error` set where there is no driver or no GPU, or where the versions differ.
using OpsFactory = Ops*(const char* addon_version, std::string* error);
inline constexpr const char* kFactoryName = "eepo_cuda_ops";

}  // namespace eepo::cuda
