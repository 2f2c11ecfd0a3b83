#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command and under 9 minutes on 16 cores: builds the package for the GPU at
# hand, checks every kernel and the decoder against the CPU in float64, checks the invariants, runs the kernels under
# compute-sanitizer, times them, and prints a table.
#
# Needs a GPU with its driver, PyTorch with CUDA (of python3, or LIBTORCH), nvcc of the same CUDA version, g++ and CMake.
# No network, and of npm the production dependencies only: scripts/gpu-bundle.sh packs them, dist/ and Node into
# .gpu/bundle.tar.gz, which is unpacked here where one of them is missing.
#
#   scripts/gpu-check.sh [PHASE...]     only these, of: machine build doctor kernels parity
#                                       bench-quick memcheck racecheck bench
#   OUT=DIR                             where logs and results go (default build/gpu-check)
#   EEPO_GPU_CHECK_SECONDS=520          the time for everything; what does not fit is cut off or left out
#
# Goes on after a failure. Exit code 0 if nothing failed; what was skipped says why.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
out=${OUT:-build/gpu-check}
limit_total=${EEPO_GPU_CHECK_SECONDS:-520}
mkdir -p "$out" build/gpu-work/bin
out=$(cd "$out" && pwd)
wanted=" ${*:-machine build doctor kernels parity bench-quick memcheck racecheck bench} "
kernel_tests=build/cuda/eepo_cuda_kernels_test

# ---- tools --------------------------------------------------------------------------------------------------------------
python=${EEPO_PYTHON:-python3}
if command -v "$python" >/dev/null; then
  # CMake and ninja may have come with the Python of PyTorch.
  PATH="$PATH:$(dirname "$("$python" -c 'import sys; print(sys.executable)')")"
fi
for folder in "${CUDA_HOME:-}" /usr/local/cuda; do
  [[ -n $folder && -d $folder/bin ]] && PATH="$PATH:$folder/bin"
done
if [[ -e .gpu/bundle.tar.gz ]] && { ! command -v node >/dev/null || [[ ! -d dist || ! -d node_modules ]]; }; then
  tar --extract --gzip --file .gpu/bundle.tar.gz
fi
if ! command -v node >/dev/null; then PATH="$root/build/gpu-work/bin:$PATH"; fi
export PATH
# The libtorch that is built against is the one that is loaded, whatever the cache holds.
if [[ -z ${LIBTORCH:-} ]] && command -v "$python" >/dev/null; then
  LIBTORCH=$("$python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])') &&
    export LIBTORCH
fi

# ---- phases -------------------------------------------------------------------------------------------------------------
rows=()
failed=0
record() { # phase, result, seconds, note
  rows+=("$(printf '%-12s %-8s %5d s  %s' "$1" "$2" "$3" "${4:-}")")
  if [[ $2 == FAILED || $2 == TIMEOUT ]]; then failed=1; fi
}

# What a log says at its end of what passed and failed.
note_of() {
  grep -E '^(# (pass|fail) |ℹ (pass|fail) |[0-9]+ failed|========= .*SUMMARY|NOTE )' "$1" | tail -n 2 | tr -s '=\n' ' ' |
    cut -c1-100
}

# phase NAME LIMIT COMMAND...: with a time limit; the output goes to $out/NAME.log, the end of it here if it failed.
phase() {
  local name=$1 limit=$2 began=$SECONDS status=0 left
  shift 2
  [[ $wanted == *" $name "* ]] || return 0
  left=$((limit_total - SECONDS))
  if ((left < 5)); then
    record "$name" SKIPPED 0 "no time left"
    return
  fi
  if ((limit > left)); then limit=$left; fi
  echo "=== $name (at most $limit s)"
  timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1 || status=$?
  case $status in
    0) record "$name" ok $((SECONDS - began)) "$(note_of "$out/$name.log")" ;;
    124 | 137)
      if [[ $name == bench ]]; then  # has no end that must be reached
        record "$name" PARTIAL $((SECONDS - began)) "cut off after $limit s; what was measured is in bench.log"
        return
      fi
      record "$name" TIMEOUT $((SECONDS - began)) "cut off after $limit s"
      ;;
    *) record "$name" FAILED $((SECONDS - began)) "exit code $status $(note_of "$out/$name.log")" ;;
  esac
  if ((status != 0)); then
    # What failed first is often far above the end.
    grep -nE 'FAIL|not ok|✖|error|Error' "$out/$name.log" | head -n 15
    tail -n 25 "$out/$name.log"
  fi
}
skip() { # phase, why
  if [[ $wanted == *" $1 "* ]]; then record "$1" SKIPPED 0 "$2"; fi
}

machine() {
  date --utc
  nvidia-smi || return
  nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version,clocks.max.sm,clocks.max.mem --format=csv
  nproc
  for tool in nvcc cmake ninja g++ node; do echo "$tool: $("$tool" --version 2>&1 | grep -E '[0-9]\.[0-9]' | tail -n 1)"; done
  "$python" -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda)'
  echo "NOTE $(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1)"
}

build() {
  node scripts/build-native.cjs --cuda --cuda-archs native --jobs "$(nproc)" || return
  cmake --build build/cmake --target eepo_cuda_kernels_test --parallel "$(nproc)"
}

# The package itself must find the GPU usable.
doctor() {
  node dist/lib/cli/main.js doctor
  node dist/lib/cli/main.js doctor --json | node -e '
    const { status } = JSON.parse(require("node:fs").readFileSync(0, "utf8")).cuda;
    if (!status?.available) throw new Error(status?.reason ?? "the addon does not load");
    console.log(`NOTE ${status.device.name}, ${(status.device.freeBytes / 1e9).toFixed(1)} GB free`);'
}

# compute-sanitizer on the C++ tests, whose shapes are small already. Its own errors have exit code 9.
sanitize() {
  compute-sanitizer --tool "$1" --error-exitcode 9 "${@:2}" "$kernel_tests"
}

# A test file that skips everything succeeds too; here that is a failure.
parity() {
  local status=0
  env EEPO_CUDA_LIBRARY= node --test --test-reporter=tap dist/test/cuda.test.js >"$out/parity.tap" 2>&1 || status=$?
  cat "$out/parity.tap"
  if ! grep -qE '^# pass [1-9]' "$out/parity.tap"; then
    echo "NOTE no test was run"
    return 1
  fi
  # with parts for the CPU as well
  env EEPO_CUDA_LIBRARY= node --test --test-reporter=tap dist/test/goldens.test.js dist/test/lora.test.js \
    dist/test/gradient-checkpointing.test.js || status=$?
  return "$status"
}

bench() {
  node dist/lib/cli/main.js bench kernels --device cuda --json "$out/$1.json" "${@:2}"
}

export -f machine build doctor parity sanitize bench
export out python kernel_tests

phase machine 30 bash -c machine
phase build 240 bash -c build
phase doctor 90 bash -c doctor
if [[ -x $kernel_tests ]]; then
  phase kernels 90 "$kernel_tests"
else
  skip kernels "$kernel_tests was not built"
fi
if [[ -e dist/test/cuda.test.js ]]; then
  phase parity 150 bash -c parity
else
  skip parity "dist/test/cuda.test.js is missing"
fi
phase bench-quick 100 bash -c 'bench bench-quick --quick'
for tool in memcheck racecheck; do
  if ! command -v compute-sanitizer >/dev/null; then
    skip "$tool" "compute-sanitizer is not installed"
  elif [[ ! -x $kernel_tests ]]; then
    skip "$tool" "$kernel_tests was not built"
  else
    phase "$tool" 90 bash -c "sanitize $tool"
  fi
done
# Every shape, with what is left of the time.
phase bench 300 bash -c 'bench bench'

nvidia-smi --query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw --format=csv,noheader >>"$out/machine.log" 2>&1
{
  echo
  printf '%-12s %-8s %7s  %s\n' phase result time note
  printf '%s\n' "${rows[@]}"
  echo "total $SECONDS s; logs and results in $out"
} | tee "$out/table.txt"
exit "$failed"
