#!/bin/sh
# Builds build/emulated/eepo_cuda.so (or in the folder EEPO_EMULATED_OUT): the CUDA half against the emulator of native/test/emulator, for machines without a
# GPU. EEPO_CUDA_LIBRARY=build/emulated/eepo_cuda.so then makes device 'cuda' run on it.
#   scripts/build-emulated-cuda.sh LIBTORCH_FOLDER
set -eu
cd "$(dirname "$0")/.."
libtorch=${1:?usage: scripts/build-emulated-cuda.sh LIBTORCH_FOLDER}
cxx=${CXX:-g++}
out=${EEPO_EMULATED_OUT:-build/emulated}
mkdir -p "$out"
version=$(node -p "require('./package.json').version")
flags="-std=c++20 -O2 -g -fPIC -fopenmp -fvisibility=hidden -Wall -Wextra -Wno-unknown-pragmas -Wno-restrict -Inative/test/emulator -Inative"
torch="-isystem $libtorch/include -isystem $libtorch/include/torch/csrc/api/include -DEEPO_VERSION=\"$version\""
newest=$(find native/cuda native/kernels native/core native/device native/test/emulator scripts/build-emulated-cuda.sh \
  -type f -printf '%T@\n' | sort -n | tail -n 1)

objects=
jobs=0
for source in native/kernels/*.cu native/test/emulator/*.cc native/cuda/ops.cc; do
  object=$out/$(basename "$source" | tr . _).o
  objects="$objects $object"
  if [ -e "$object" ] && [ "$(stat -c %.9Y "$object" | cut -d. -f1)" -gt "$(echo "$newest" | cut -d. -f1)" ]; then
    continue
  fi
  extra=
  case $source in *runtime.cc | *ops.cc) extra=$torch ;; esac
  # shellcheck disable=SC2086
  $cxx -x c++ $flags $extra -c "$source" -o "$object" &
  jobs=$((jobs + 1))
  if [ "$jobs" -ge "$(nproc)" ]; then
    wait
    jobs=0
  fi
done
wait
# shellcheck disable=SC2086
$cxx -shared -fopenmp $objects -o "$out/eepo_cuda.so" -L"$libtorch/lib" -ltorch_cpu -lc10
echo "$out/eepo_cuda.so"
