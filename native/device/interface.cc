// Compiled into both halves: from which headers each was built. lib/cuda.ts reads it out of the files before the CUDA
// half is loaded, for two binaries that disagree about a class would not fail but crash.
namespace eepo {

extern "C" __attribute__((visibility("default"), used)) const char eepo_device_interface[] =
    "eepo device interface " EEPO_INTERFACE ";";

}  // namespace eepo
