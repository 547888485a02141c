#!/usr/bin/env bash
# Stale answers: four workers with caches under load, invalidations all the while, and kills, stops, cuts and damaged databases.

#   tests/chaos/stale.sh                    five minutes
#   tests/chaos/stale.sh --quick            every kind of fault once, in half a minute
#   tests/chaos/stale.sh --seed 7           the same decisions again (not the same instants: these are real processes)
#   tests/chaos/stale.sh --silent           data changes and nothing is invalidated: must fail, or the checker is blind
#   tests/chaos/stale.sh --keep             keep the directory; a failed run's is always kept, and its path printed
#
# TIERMQ_BUILD names the build (build/ beside tests/).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export TIERMQ_BUILD=${TIERMQ_BUILD:-$(cd "$here/../.." && pwd)/build}
export PYTHONDONTWRITEBYTECODE=1
exec /usr/bin/python3 "$here/stale.py" "$@"
