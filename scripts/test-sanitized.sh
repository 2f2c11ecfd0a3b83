#!/bin/sh
# The tests under the address and undefined-behaviour sanitizers: builds the addon, and the emulated CUDA half, with them
# into build/sanitized (build/Release stays as it is) and runs all compiled tests, or those whose file name contains one
# of the words. A finding in any process, a child's included, fails the run even where the test itself passes.
#   npm run build:ts && scripts/test-sanitized.sh [--build-only | --no-build] [--leaks] [--node SCRIPT [ARGUMENT]...] [WORD]...
# --node runs one script instead of tests; --leaks before it: with LeakSanitizer, and scripts/sanitizers/leaks.txt as its
# suppressions. Needs GCC with its sanitizer runtimes. EEPO_SANITIZED_TIMEOUT: seconds for one test file, default 1800.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
out=$root/build/sanitized
export EEPO_COMPILER="${CXX:-g++}"
leaks=0
only_build=
no_build=
script=
while [ $# -gt 0 ]; do
  case "$1" in
    --build-only) only_build=1 ;;
    --no-build) no_build=1 ;;
    --leaks) leaks=1 ;;
    --node) script=1; shift; break ;;
    *) break ;;
  esac
  shift
done

[ -e dist/lib/native.js ] || { echo "dist/ is missing; run: npm run build:ts" >&2; exit 1; }
asan=$("$EEPO_COMPILER" -print-file-name=libasan.so)
ubsan=$("$EEPO_COMPILER" -print-file-name=libubsan.so)
for runtime in "$asan" "$ubsan"; do
  [ -e "$runtime" ] || { echo "$EEPO_COMPILER has no $runtime: install GCC with its sanitizers" >&2; exit 1; }
done

# cmake-js sets CMAKE_CXX_FLAGS itself, so the flags come with the compiler. vptr is off: it asks libtorch for type
# information that its hidden classes do not have.
build() {
  mkdir -p "$out"
  CXX=$root/scripts/sanitizers/c++ node scripts/build-native.cjs --out "$out" >"$out/build.log" 2>&1 || return 1
  libtorch=$(node -e 'import("./dist/lib/libtorch/find.js").then(({ findLibtorch }) => console.log(findLibtorch().path))')
  EEPO_EMULATED_OUT=$out/emulated CXX=$root/scripts/sanitizers/c++ sh scripts/build-emulated-cuda.sh "$libtorch" \
    >>"$out/build.log" 2>&1
}
if [ -z "$no_build" ] && ! build; then
  tail -n 60 "$out/build.log"
  exit 1
fi
[ -z "$only_build" ] || exit 0

logs=$out/findings
rm -rf "$logs"
mkdir -p "$logs"
# The logs, not exit codes, say what was found: a child process that dies may be what a test expects. An allocation
# that is too large fails, as it does without the sanitizer. Leaks of a whole Node process are V8's: --leaks. Not
# detect_stack_use_after_return: up to GCC 13 its frames are not aligned for AVX-512, which crashes (GCC bug 110027).
common="log_path=$logs/report:print_stacktrace=1:halt_on_error=1:allocator_may_return_null=1"
export EEPO_BUILD="$out" EEPO_SANITIZED=1
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" # threads that spin only slow each other down here
export ASAN_OPTIONS="$common:detect_leaks=$leaks:strict_string_checks=1"
export UBSAN_OPTIONS="$common"
export LSAN_OPTIONS="suppressions=$root/scripts/sanitizers/leaks.txt:print_suppressions=0"
status=0
if [ -n "$script" ]; then
  LD_PRELOAD="$asan $ubsan" node "$@" || status=$?
else
  files=$(ls dist/test/*.test.js)
  if [ $# -gt 0 ]; then files=$(for word in "$@"; do ls dist/test/*.test.js | grep -F -- "$word"; done | sort -u); fi
  # shellcheck disable=SC2086
  LD_PRELOAD="$asan $ubsan" node --test --test-reporter=spec --test-concurrency="${JOBS:-2}" \
    --test-timeout=$((1000 * ${EEPO_SANITIZED_TIMEOUT:-1800})) $files || status=$?
fi
found=$(find "$logs" -type f | wc -l)
echo "sanitizers: $found findings"
if [ "$found" -gt 0 ]; then
  find "$logs" -type f | head -n 5 | xargs head -n 60
  exit 1
fi
exit "$status"
