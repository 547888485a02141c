#!/usr/bin/env bash
# Chaos on real processes: kills, stops, cut connections and a failing model server, and a checker that believes nobody.

#   tests/chaos/run.sh                    200 kills of broker and workers, about 8 minutes
#   tests/chaos/run.sh --quick            every kind of fault once, a dozen kills, under a minute
#   tests/chaos/run.sh --power-cut        a killed broker loses what it had not fsynced, as when the power fails
#   tests/chaos/run.sh --lying-disk       its log too, fsynced or not: must fail, or the checker is blind
#   tests/chaos/run.sh --seed 7           the same decisions again (not the same instants: these are real processes)
#   tests/chaos/run.sh --kills 50 --seconds 300 --workers 6 --clients 8 --rate 20
#   tests/chaos/run.sh --keep             keep the directory; a failed run's is always kept, and its path printed
#   tests/chaos/check.py DIRECTORY        judges a kept directory again
#
# TIERMQ_BUILD names the build (build/ beside tests/). What the directory holds: history-CLIENT.jsonl (what each client did and saw),
# nemesis.jsonl (what was done to whom, and until when), calls.jsonl (what the model server was paid for), *.log of each process,
# broker.json (what the broker said in the end), run.json (how it was run).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export TIERMQ_BUILD=${TIERMQ_BUILD:-$(cd "$here/../.." && pwd)/build}
export PYTHONDONTWRITEBYTECODE=1
exec /usr/bin/python3 "$here/chaos.py" "$@"
