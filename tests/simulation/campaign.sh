#!/bin/sh
# Runs the core through very many simulated worlds on all processors, and goes on after one that fails.
#
#   tests/simulation/campaign.sh [FIRST [COUNT]]     seeds FIRST (1) to FIRST + COUNT - 1 (COUNT: 100000)
#
# Says every thousand seeds which is the next one: a campaign that was stopped goes on from there. Failing seeds and a summary
# in one line go to stdout. BUILD names the build folder (build); it should be an optimised one.
set -eu
cd "$(dirname "$0")/../.."
first=${1:-1} count=${2:-100000}
exec "${BUILD:-build}/tests/simulation/tiermq-simulate" --seed "$first" --seeds "$count" \
    --processes "$(nproc)" --keep-going --progress 1000
