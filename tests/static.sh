#!/usr/bin/env bash
# Static analysis of the shipped sources: clang-tidy (.clang-tidy: few checks, all errors) and cppcheck.
#   tests/static.sh [BUILD DIR]     a build directory made by meson (build)
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
[ -f "$build/compile_commands.json" ] || { echo "tests/static.sh: $build is no build directory; run tests/run.sh first" >&2; exit 2; }

mapfile -t sources < <(git ls-files 'common/*.c' 'broker/*.c' 'worker/*.c' 'client/*.c' 'tests/modelsim/*.c' 'tests/simulation/*.c')
# The database was written for gcc: clang does not know every flag of it.
echo "==> clang-tidy on ${#sources[@]} files"
printf '%s\n' "${sources[@]}" |
    xargs -P "$(nproc)" -n 4 clang-tidy --quiet -p "$build" --extra-arg=-Wno-unknown-warning-option

echo "==> cppcheck"
cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 --language=c --enable=warning,portability \
    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches -D__GNUC__ -I. -I"$build" \
    --library=posix -j "$(nproc)" "${sources[@]}"
