#!/usr/bin/env bash
# Builds (release) and measures; prints a table and, with --json FILE, writes it.
#   tests/bench/run.sh [--json FILE] [--quick] [--only queue,tiers,memory,recovery,flat,cache_index,cache_keeper,modelsim,streams,added_latency] [--jobs N]
#                      [--texts FILE ...]
#   tests/bench/run.sh --only cache-stream --data DIR
#   tests/bench/run.sh --only routing_quality --texts prompts.jsonl
#   tests/bench/run.sh --only hedging
#   tests/bench/run.sh --only savings --texts prompts.jsonl
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build-release
deploy/packages.sh --tests
[ -f "$build/build.ninja" ] || meson setup "$build" --buildtype=release >/dev/null
ninja -C "$build" --quiet benchmarks
exec /usr/bin/python3 tests/bench/run.py --build "$build" "$@"
