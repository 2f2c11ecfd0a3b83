// The devices there are. Each has one executor thread (node/executor.h) and one set of operations (device/ops.h).
#pragma once

#include <cstdint>

namespace eepo {

enum class Device : uint8_t { Cpu, Cuda };

inline const char* device_name(Device device) { return device == Device::Cpu ? "cpu" : "cuda"; }

}  // namespace eepo
