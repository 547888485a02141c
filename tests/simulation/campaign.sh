#!/bin/sh
# Runs the core through very many simulated worlds on all processors, and goes on after one that fails.
#
#   tests/simulation/campaign.sh [FIRST [COUNT]]     seeds FIRST (1) to FIRST + COUNT - 1 (COUNT: 100000)
#
# Says every thousand seeds which is the next one: a campaign that was stopped goes on from there. Failing seeds and a summary
# in one line go to stdout. Builds in build-campaign, for speed; BUILD names another build folder, which is taken as it is.
set -eu
cd "$(dirname "$0")/../.."
first=${1:-1} count=${2:-100000} program=tests/simulation/tiermq-simulate
if [ -z "${BUILD:-}" ]; then
    BUILD=build-campaign
    {
        [ -e "$BUILD/build.ninja" ] || meson setup "$BUILD" --buildtype=release -Db_lto=true
        ninja -C "$BUILD" "$program"
    } >"$BUILD.log" 2>&1 || { cat "$BUILD.log"; exit 1; }
fi
exec "$BUILD/$program" --seed "$first" --seeds "$count" --processes "$(nproc)" --keep-going --progress 1000
