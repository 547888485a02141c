#!/usr/bin/env bash
# Static analysis of the shipped sources: clang-tidy (.clang-tidy: few checks, all errors) and cppcheck.
#   tests/static.sh [--deep] [BUILD DIR]     a build directory made by meson (build)
# The analyser leaves a function after 8,000 states of it; with --deep after 225,000, which is what clang does by itself,
# and takes some times as long.
set -euo pipefail
cd "$(dirname "$0")/.."
states=8000
if [ "${1:-}" = --deep ]; then
    states=225000
    shift
fi
build=${1:-build}
[ -f "$build/compile_commands.json" ] || { echo "tests/static.sh: $build is no build directory; run tests/run.sh first" >&2; exit 2; }

mapfile -t sources < <(git ls-files 'common/*.c' 'broker/*.c' 'worker/*.c' 'client/*.c' 'tests/chaos/*.c' 'tests/modelsim/*.c' 'tests/simulation/*.c')
# One file a call: with several, clang-tidy 14 takes every va_list after the first file for uninitialised.
echo "==> clang-tidy on ${#sources[@]} files"
printf '%s\n' "${sources[@]}" |
    xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p "$build" --extra-arg=-Wno-unknown-warning-option \
        --extra-arg=-Xclang --extra-arg=-analyzer-config --extra-arg=-Xclang --extra-arg=max-nodes="$states" 2>&1 |
    { grep -v "warnings\? .*generated\.$" || true; }

# What is told to cppcheck: protobuf-c's versions, which it would try to tell apart; it knows neither cleanup attributes
# (memleak) nor that glibc's readdir is safe on a folder of one's own.
echo "==> cppcheck"
cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 --language=c --enable=warning,portability --max-configs=1 \
    --suppress=missingIncludeSystem --suppress=memleak --suppress=readdirCalled \
    -D__GNUC__ -DPROTOBUF_C_VERSION_NUMBER=1004001 -DPROTOBUF_C_MIN_COMPILER_VERSION=1000000 -I. -I"$build" \
    --library=posix -j "$(nproc)" "${sources[@]}"
echo "static analysis: no findings"
