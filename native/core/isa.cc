#include "core/isa.h"

#include <cstdlib>
#include <string_view>

namespace eepo {
namespace {

Isa best() {
#ifdef EEPO_X86_64
  // These builtins also ask the operating system (xgetbv), so a kernel that does not save the wide registers counts.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512) return Isa::Avx512;
  if (avx2) return Isa::Avx2;
#endif
  return Isa::Base;
}

Isa choose() {
  const Isa most = best();
  const char* wanted = std::getenv("EEPO_ISA");
  if (wanted == nullptr) return most;
  const std::string_view name(wanted);
  for (Isa candidate : {Isa::Base, Isa::Avx2, Isa::Avx512}) {
    if (name == isa_name(candidate) && candidate <= most) return candidate;
  }
  return most;
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::Base: return "base";
    case Isa::Avx2: return "avx2";
    case Isa::Avx512: return "avx512";
  }
  return "base";
}

}  // namespace eepo
