#!/usr/bin/env bash
# Builds (release) and judges the near matches of the cache's built-in embedder.
#   tests/bench/cache_quality.sh --data DIRECTORY [--json FILE] [--quick]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build-release
deploy/packages.sh --tests
[ -f "$build/build.ninja" ] || meson setup "$build" --buildtype=release >/dev/null
ninja -C "$build" --quiet tests/bench/bench-cache-quality
exec /usr/bin/python3 tests/bench/cache_quality.py --build "$build" "$@"
