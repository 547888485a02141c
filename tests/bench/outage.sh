#!/usr/bin/env bash
# Builds (release) and runs the outage drills: what a provider sees, and what clients see, while it is down or limits.
#   tests/bench/outage.sh [--json FILE] [--svg FILE] [--only outage,limit,limit-silent] [--quick]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build-release
deploy/packages.sh --tests
[ -f "$build/build.ninja" ] || meson setup "$build" --buildtype=release >/dev/null
ninja -C "$build" --quiet benchmarks
exec /usr/bin/python3 tests/bench/outage.py --build "$build" "$@"
