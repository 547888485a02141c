#!/bin/sh
# Which branches of the broker's core the simulator reaches, and nothing else does.
#
#   tests/simulation/coverage.sh [SEEDS [FIRST]]     (200 seeds from 1 on)
#
# Builds with gcov in build-coverage. Prints a line for each file and the sum; branches that were never taken go to
# build-coverage/untaken.txt. What only a mistake in the code could take does not count: see coverage.py.
set -eu
cd "$(dirname "$0")/../.."
seeds=${1:-200} first=${2:-1} build=build-coverage
[ -e "$build/build.ninja" ] || meson setup "$build" -Db_coverage=true >"$build.setup.log" 2>&1 || { cat "$build.setup.log"; exit 1; }
ninja -C "$build" tests/simulation/tiermq-simulate >/dev/null
find "$build" -name '*.gcda' -delete
# Counters are written at the end of a process, and merged: so two of them, and no processes of theirs.
half=$((seeds / 2))
"$build/tests/simulation/tiermq-simulate" --keep-going --seed "$first" --seeds "$((seeds - half))" >"$build/simulate.log" 2>&1 &
other=$!
if [ "$half" -gt 0 ]; then
    "$build/tests/simulation/tiermq-simulate" --keep-going --seed "$((first + seeds - half))" --seeds "$half" >>"$build/simulate.log" 2>&1 || true
fi
wait "$other" || true
grep ' failed$' "$build/simulate.log"
exec python3 tests/simulation/coverage.py "$build"
