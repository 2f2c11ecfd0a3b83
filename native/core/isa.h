// The instruction set the inner loops run on, chosen once at run time. Files named *_isa.cc are compiled once per
// set into the namespaces isa_base, isa_avx2 and isa_avx512 (the last two on x86-64 only).
#pragma once

namespace eepo {

enum class Isa { Base, Avx2, Avx512 };

/// The best set that this CPU and its operating system support. The environment variable EEPO_ISA (avx512, avx2 or
/// base), read at the first call, asks for a lower one; a set the machine lacks, or an unknown name, is ignored.
Isa isa();

/// "base", "avx2" or "avx512".
const char* isa_name(Isa isa);

/// Of one function compiled for every set, the one to call:
///   EEPO_ISA_DISPATCH(dot)(a, b, n)
/// expands to isa_avx512::dot, isa_avx2::dot or isa_base::dot. Each must be declared in its namespace inside
/// namespace eepo; EEPO_ISA_DECLARE does that.
#ifdef EEPO_X86_64
#define EEPO_ISA_DISPATCH(function)                                     \
  (::eepo::isa() == ::eepo::Isa::Avx512 ? &::eepo::isa_avx512::function \
   : ::eepo::isa() == ::eepo::Isa::Avx2 ? &::eepo::isa_avx2::function   \
                                        : &::eepo::isa_base::function)
#define EEPO_ISA_DECLARE(...) \
  namespace isa_base {        \
  __VA_ARGS__;                \
  }                           \
  namespace isa_avx2 {        \
  __VA_ARGS__;                \
  }                           \
  namespace isa_avx512 {      \
  __VA_ARGS__;                \
  }
#else
#define EEPO_ISA_DISPATCH(function) (&::eepo::isa_base::function)
#define EEPO_ISA_DECLARE(...) \
  namespace isa_base {        \
  __VA_ARGS__;                \
  }
#endif

}  // namespace eepo
