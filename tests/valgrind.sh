#!/usr/bin/env bash
# A short real life of a cluster under valgrind's memcheck: broker, worker, simulated model and command line must use no memory that
# is not theirs, decide nothing by bytes that nobody set, and end without a leak.
#   tests/valgrind.sh [--quick] [--keep] [BUILD DIR]     --quick: a fifth of the jobs; a build without sanitizers (build)
# Jobs of all tiers, identical ones, a stream, a provider that is down, dead letters, a broker that restarts; then SIGTERM. It takes
# about a minute, --quick half of that. Suppressions, each with its reason: tests/valgrind.supp.
set -euo pipefail
cd "$(dirname "$0")/.."
export TIERMQ_TEST_TIMEOUT_S=${TIERMQ_TEST_TIMEOUT_S:-120} PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tests/integration
exec /usr/bin/python3 tests/valgrind.py "$@"
