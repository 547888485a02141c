#!/usr/bin/env bash
# Fuzzes every decoder of foreign bytes for a while.
#   tests/fuzz/run.sh [SECONDS_PER_TARGET [TARGET…]]     (10; all)
# Finds go to build-fuzz/found/; make each a file of tests/fuzz/corpus/TARGET/ and a unit test with the fix. What libFuzzer
# learns stays in build-fuzz/learnt/, so that the next run goes on from there.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-10}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "tests/fuzz/run.sh: \"$seconds\" is no number of seconds" >&2; exit 2; }
shift || true
build=${TIERMQ_BUILD_FUZZ:-build-fuzz}
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for path in tests/fuzz/fuzz_*.c; do
        target=${path##*/fuzz_}
        targets+=("${target%.c}")
    done
fi

if [ ! -f "$build/build.ninja" ]; then
    # -no-link: the libraries are instrumented too, and no program but the targets gets libFuzzer's main.
    CC=clang CFLAGS='-fsanitize=fuzzer-no-link -g1' meson setup "$build" -Dfuzz=true -Db_lundef=false -Doptimization=1 \
        -Db_sanitize=address,undefined >"$build.setup.log" 2>&1 || { tail -n 30 "$build.setup.log" >&2; exit 1; }
    rm -f "$build.setup.log"
fi
ninja --quiet -C "$build" fuzz
mkdir -p "$build/found"

fuzz() {
    local target=$1 log="$build/fuzz-$1.log"
    mkdir -p "$build/learnt/$target"
    # A leak is a find; an input of more than 64 KiB finds little more and runs slowly.
    if "$build/tests/fuzz/fuzz-$target" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$build/found/$target-" \
        "$build/learnt/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
        printf '==> %s, %d s: %s runs, %s edges\n' "$target" "$seconds" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
            "$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | cut -c6-)"
    else
        printf '==> %s, %d s: FAILED\n%s\n' "$target" "$seconds" "$(tail -n 40 "$log")"
        return 1
    fi
}
export -f fuzz
export build seconds

# As many at once as there are processors. A find of one target does not keep the others from being tried.
if ! printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {}'; then
    echo "tests/fuzz/run.sh: there are finds; see $build/found/" >&2
    exit 1
fi
