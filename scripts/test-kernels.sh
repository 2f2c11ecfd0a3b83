#!/bin/sh
# Builds the kernels and their C++ tests with the compiler alone (no libtorch, no Node) and runs them once per
# instruction set that this machine has. `--bench [rounds]` times them instead; `--sanitize` runs the tests under the address and
# undefined-behaviour sanitizers.
set -eu
cd "$(dirname "$0")/.."
cxx=${CXX:-g++}
out=build/kernels-test
sanitize=
if [ "${1:-}" = --sanitize ]; then
  out=build/kernels-sanitize
  sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all"
fi
mkdir -p "$out"
common="-std=c++20 -O3 -DNDEBUG -Inative -Wall -Wextra -fopenmp -fno-math-errno $sanitize"
loops="$common -fno-trapping-math -ffp-contract=fast"
kernels="token_stats token_grad ascend"

x86=
case "$(uname -m)" in x86_64 | amd64) x86=1 ;; esac
objects=
compile() { # object, source, flags...
  object=$out/$1.o
  source=$2
  shift 2
  objects="$objects $object"
  # shellcheck disable=SC2086
  if [ ! -e "$object" ] || [ -n "$(find native/core native/kernels native/test scripts/test-kernels.sh -newer "$object" | head -n 1)" ]; then
    $cxx "$@" -c "$source" -o "$object"
  fi
}

# shellcheck disable=SC2086
{
  # The plainest set first: of an inline function in several objects the linker keeps the first.
  for name in $kernels gemm; do
    compile "${name}_base" "native/kernels/${name}_isa.cc" $loops -DEEPO_ISA_NAMESPACE=isa_base
    if [ -n "$x86" ]; then
      compile "${name}_avx2" "native/kernels/${name}_isa.cc" $loops -DEEPO_ISA_NAMESPACE=isa_avx2 -mavx2 -mfma -mf16c
      compile "${name}_avx512" "native/kernels/${name}_isa.cc" $loops -DEEPO_ISA_NAMESPACE=isa_avx512 \
        -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mavx2 -mf16c -mprefer-vector-width=512
    fi
  done
  plain="$common ${x86:+-DEEPO_X86_64}"
  for name in token_stats token_stats_reference token_grad token_grad_reference linear_head complementary_loss ascend \
    sample sample_reference gemm; do
    compile "$name" "native/kernels/$name.cc" $plain
  done
  compile isa native/core/isa.cc $plain
  kernel_objects=$objects
  compile kernels_bench native/test/kernels_bench.cc $plain
  $cxx -fopenmp $sanitize $objects -o "$out/kernels_bench"
  objects=$kernel_objects
  for test in kernels gemm token_stats token_grad linear_head complementary_loss ascend sample; do
    compile "${test}_test" "native/test/${test}_test.cc" $plain
  done
  $cxx -fopenmp $sanitize $objects -o "$out/kernels_test"
}

if [ "${1:-}" = --bench ]; then
  exec "$out/kernels_bench" ${2:+"$2"}
fi
for set in base ${x86:+avx2 avx512}; do
  EEPO_ISA=$set "$out/kernels_test"
done
