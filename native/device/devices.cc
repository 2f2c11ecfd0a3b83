// Which devices this process has.
#include <atomic>

#include "core/error.h"
#include "device/ops.h"

namespace eepo {
namespace {

std::atomic<Ops*> cuda_ops{nullptr};

}  // namespace

void install_cuda_ops(Ops* ops) { cuda_ops.store(ops); }

bool has_cuda_ops() { return cuda_ops.load() != nullptr; }

Ops& ops_of(Device device) {
  if (device == Device::Cpu) return cpu_ops();
  Ops* ops = cuda_ops.load();
  check(ops != nullptr, ErrorCode::Unsupported,
        "device 'cuda' is not available: the CUDA half of eepo is not loaded; see npx eepo doctor");
  return *ops;
}

}  // namespace eepo
