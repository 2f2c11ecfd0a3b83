#!/bin/sh
# Coverage-guided fuzzing of the native parsers (native/fuzz/fuzz.h says what each harness is), with libFuzzer and the
# address and undefined-behaviour sanitizers. It needs clang++ 14 or newer and its fuzzer runtime; no libtorch, no Node.
#
#   scripts/fuzz.sh [--seconds N | --runs N] [--keep] [HARNESS...]
#
# Each harness runs for N seconds (default 10), or for N inputs, from native/fuzz/corpus/HARNESS; what it finds on the
# way stays in build/fuzz/corpus. --keep then replaces native/fuzz/corpus/HARNESS by few inputs that cover the
# same code. Exit status 1: there is a finding, and its input is in build/fuzz/findings. CXX chooses the compiler.
set -eu
cd "$(dirname "$0")/.."
out=build/fuzz
limit=-max_total_time=10
keep=
names=
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) limit=-max_total_time=$2; shift ;;
    --runs) limit=-runs=$2; shift ;;
    --keep) keep=1 ;;
    -*) echo "usage: scripts/fuzz.sh [--seconds N | --runs N] [--keep] [HARNESS...]" >&2; exit 2 ;;
    *) names="$names $1" ;;
  esac
  shift
done

harnesses="json safetensors safetensors_header conversion model_config"
for name in $names; do
  case " $harnesses " in *" $name "*) ;; *) echo "no such harness: $name (there are: $harnesses)" >&2; exit 2 ;; esac
done
harnesses=${names:-$harnesses}

mkdir -p "$out" "$out/findings"
echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' >"$out/probe.cc"
cxx=
for candidate in ${CXX:-} clang++-19 clang++ clang++-18 clang++-17 clang++-16 clang++-15 clang++-14; do
  if command -v "$candidate" >/dev/null && "$candidate" -fsanitize=fuzzer,address,undefined "$out/probe.cc" -o "$out/probe" 2>/dev/null; then
    cxx=$candidate
    break
  fi
done
if [ -z "$cxx" ]; then
  echo "no clang++ with libFuzzer is installed: fuzzing skipped (Debian, Ubuntu: apt-get install clang-19 libclang-rt-19-dev)"
  exit 0
fi

# Without the detection of stack use after return, which takes more than half of the time where exceptions are thrown.
sanitize="-fsanitize=address,undefined -fno-sanitize-recover=all -fsanitize-address-use-after-return=never"
flags="-std=c++20 -O2 -g1 -Inative -D_GLIBCXX_ASSERTIONS -fno-omit-frame-pointer -Wall -Wextra -Wno-unknown-pragmas -Wno-source-uses-openmp $sanitize"
parsers="core/json core/utf8 model/safetensors model/safetensors_parse model/adapter_layout model/rope_frequencies train/layout"

stale() { # object: whether a header or a source is newer
  [ ! -e "$1" ] || [ -n "$(find native/core native/model native/train native/fuzz scripts/fuzz.sh -name corpus -prune -o -newer "$1" -type f -print | head -n 1)" ]
}
compile() { # source without native/ and .cc, object, sanitizer of the fuzzer
  stale "$2" || return 0
  rm -f "$2" # so that nothing old is linked where this fails
  # shellcheck disable=SC2086
  $cxx $flags "$3" -c "native/$1.cc" -o "$2"
}
objects=
wanted=
for parser in $parsers; do
  objects="$objects $out/$(basename "$parser").o"
  wanted="$wanted $parser:$(basename "$parser")"
done
for name in $harnesses; do wanted="$wanted fuzz/$name:fuzz_$name"; done
for pair in $wanted; do
  compile "${pair%%:*}" "$out/${pair##*:}.o" -fsanitize=fuzzer-no-link &
  other=${second:-}
  second=$!
  if [ -n "$other" ]; then wait "$other"; fi # two compilers at a time
done
wait
for name in $harnesses; do
  # shellcheck disable=SC2086
  $cxx $sanitize -fsanitize=fuzzer "$out/fuzz_$name.o" $objects -o "$out/$name"
done

longest() {
  case $1 in json) echo 512 ;; safetensors) echo 1024 ;; safetensors_header) echo 192 ;; conversion) echo 257 ;; *) echo 192 ;; esac
}
number() { # the last value libFuzzer printed of a statistic
  sed -n "s/^stat::$1: *//p" "$2" | tail -n 1
}

# Less is remembered of freed memory and of who allocated it, which takes time: run a finding's input alone for more.
export ASAN_OPTIONS="malloc_context_size=1:quarantine_size_mb=4:thread_local_quarantine_size_kb=64"
export UBSAN_OPTIONS=print_stacktrace=1
status=0
printf '%-20s %12s %9s %9s %7s %s\n' harness inputs inputs/s features corpus findings
for name in $harnesses; do
  log=$out/$name.log
  dictionary=
  case $name in json | safetensors) dictionary=-dict=native/fuzz/json.dict ;; esac
  kept=native/fuzz/corpus/$name
  mkdir -p "$out/corpus/$name" "$kept"
  found=0
  # shellcheck disable=SC2086
  "$out/$name" "$limit" -max_len="$(longest "$name")" -timeout=10 -rss_limit_mb=1024 \
    -print_final_stats=1 $dictionary -artifact_prefix="$out/findings/$name-" "$out/corpus/$name" "$kept" >"$log" 2>&1 || found=1
  features=$(sed -n 's/.* ft: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
  printf '%-20s %12s %9s %9s %7s %s\n' "$name" "$(number number_of_executed_units "$log")" \
    "$(number average_exec_per_sec "$log")" "${features:--}" "$(find "$kept" -type f | wc -l)" "$found"
  if [ "$found" = 1 ]; then
    status=1
    grep -E -A 12 'FINDING|ERROR|runtime error|Test unit written' "$log" | head -n 40
  elif [ -n "$keep" ]; then
    rm -rf "$out/smallest"
    mkdir "$out/smallest"
    "$out/$name" -set_cover_merge=1 -use_counters=0 -max_len="$(longest "$name")" "$out/smallest" "$kept" "$out/corpus/$name" >"$out/$name.merge.log" 2>&1
    rm -rf "$kept"
    mv "$out/smallest" "$kept"
  fi
done
exit $status
