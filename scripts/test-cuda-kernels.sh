#!/bin/sh
# Builds the CUDA kernels and their tests with the C++ compiler alone, against the emulator of native/test/emulator, and
# runs them: no GPU, no CUDA, no libtorch.
#   scripts/test-cuda-kernels.sh [--sanitize] [WORD]...    only the tests whose name contains one of the words
# --sanitize: under the address and undefined-behaviour sanitizers, which see what a kernel does outside its arrays.
set -eu
cd "$(dirname "$0")/.."
cxx=${CXX:-g++}
out=build/cuda-kernels-test
optimize=-O2
sanitize=
if [ "${1:-}" = --sanitize ]; then
  shift
  out=build/cuda-kernels-sanitize
  optimize=-O1
  sanitize="-g -fsanitize=address,undefined -fno-sanitize-recover=all"
fi
mkdir -p "$out"
# No contraction: a kernel's bits are those that its intrinsics say.
common="-std=c++20 $optimize -DNDEBUG -Inative -Wall -Wextra -fopenmp $sanitize"
emulated="$common -Inative/test/emulator -ffp-contract=off -Wno-unknown-pragmas"
cpu="$common -fno-math-errno"

newest=$(find native/core native/cuda native/kernels native/test scripts/test-cuda-kernels.sh -name '*.h' -o -name '*.cuh' \
  -o -name test-cuda-kernels.sh | xargs ls -t | head -n 1)
objects=
running=0
compile() { # object, source, flags...
  object=$out/$1.o
  source=$2
  shift 2
  objects="$objects $object"
  if [ -e "$object" ] && [ "$object" -nt "$source" ] && [ "$object" -nt "$newest" ]; then return; fi
  "$cxx" "$@" -c -x c++ "$source" -o "$object" || touch "$out/failed" &
  running=$((running + 1))
  if [ "$running" -ge "${JOBS:-2}" ]; then
    wait
    running=0
  fi
}

rm -f "$out/failed"
# shellcheck disable=SC2086
{
  for name in token_stats token_grad ascend gemm blocks; do
    compile "${name}_base" "native/kernels/${name}_isa.cc" $cpu -fno-trapping-math -Wno-maybe-uninitialized -DEEPO_ISA_NAMESPACE=isa_base
  done
  for name in token_stats token_stats_reference token_grad token_grad_reference complementary_loss ascend sample \
    sample_reference gemm blocks attention linear_head non_finite; do
    compile "$name" "native/kernels/$name.cc" $cpu
  done
  compile isa native/core/isa.cc $cpu
  compile emulator native/test/emulator/emulator.cc $emulated
  for source in native/kernels/*.cu; do
    compile "cuda_$(basename "$source" .cu)" "$source" $emulated
  done
  for source in native/test/cuda_*_test.cc; do
    compile "$(basename "$source" .cc)" "$source" $emulated
  done
  wait
  if [ -e "$out/failed" ]; then exit 1; fi
  "$cxx" -fopenmp $sanitize $objects -o "$out/cuda_kernels_test"
  objects=
  compile emulator native/test/emulator/emulator.cc $emulated
  compile emulator_test native/test/emulator_test.cc $emulated
  wait
  "$cxx" -fopenmp $sanitize $objects -o "$out/emulator_test"
}
"$out/emulator_test"
exec "$out/cuda_kernels_test" "$@"
