#!/usr/bin/env bash
# Installs what is missing, builds, and passes all tests. Safe to run again.
#
#   tests/run.sh [--build DIR] [--sanitize address,undefined] [--compiler gcc|clang] [MESON TEST ARGUMENTS]
#   tests/run.sh                         every test
#   tests/run.sh --suite unit            one suite: unit, integration, simulation, chaos, static
#
# Tests that need real-world data read it from the folder TIERMQ_TEST_DATA, and say that they skip where it is not set.
set -euo pipefail
cd "$(dirname "$0")/.."

build='' sanitize=none compiler=gcc
while [ $# -gt 0 ]; do
    case $1 in
        --build) build=$2; shift 2 ;;
        --sanitize) sanitize=$2; shift 2 ;;
        --compiler) compiler=$2; shift 2 ;;
        -h|--help) sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//'; exit 0 ;;
        *) break ;;
    esac
done
case $sanitize in
    none) build=${build:-build} ;;
    address,undefined) build=${build:-build-asan} ;;
    thread) build=${build:-build-tsan} ;;
    *) echo "tests/run.sh: --sanitize \"$sanitize\" is not address,undefined or thread" >&2; exit 2 ;;
esac
if [ -z "${TIERMQ_TEST_DATA:-}" ] && [ -d ../shared/data ]; then
    TIERMQ_TEST_DATA=$(cd ../shared/data && pwd)
    export TIERMQ_TEST_DATA
fi

[ -n "${TIERMQ_TEST_DATA:-}" ] || echo "tests: skipped: those on real prompts (TIERMQ_TEST_DATA names no folder with prompts.jsonl)"

echo "==> packages"
deploy/packages.sh --tests

echo "==> build ($compiler, sanitizers: $sanitize, in $build)"
if [ ! -f "$build/build.ninja" ]; then
    extra=()
    [ "$compiler" = gcc ] || extra+=(-Db_lundef=false)
    # Sanitized code that is optimised less takes much less time to build.
    [ "$sanitize" = none ] || extra+=(-Doptimization=1 -Dc_args=-g1)
    CC=$compiler meson setup "$build" -Db_sanitize="$sanitize" "${extra[@]}" >"$build.setup.log" 2>&1 ||
        { tail -n 30 "$build.setup.log" >&2; exit 1; }
    rm -f "$build.setup.log"
fi
# ThreadSanitizer is for a few tests: meson builds what those need.
choose=()
if [ "$sanitize" != thread ]; then
    ninja -C "$build"
    choose=(--no-rebuild)
fi

echo "==> tests"
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:halt_on_error=1:abort_on_error=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-suppressions=$PWD/tests/tsan.supp:halt_on_error=1}
status=0
# More at a time than there are processors: most of them wait for something.
meson test -C "$build" "${choose[@]}" --print-errorlogs --num-processes $((2 * $(nproc))) "$@" || status=$?

# One line with the sum, whatever the tests are written in.
/usr/bin/python3 - "$build/meson-logs/testlog.json" <<'EOF'
import json, sys
results = [json.loads(line)["result"] for line in open(sys.argv[1])]
passed = sum(r in ("OK", "EXPECTEDFAIL") for r in results)
skipped = results.count("SKIP")
print(f"{passed} passed, {len(results) - passed - skipped} failed, {skipped} skipped")
EOF
exit $status
