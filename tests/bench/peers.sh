#!/usr/bin/env bash
# Builds (release) and measures tiermq beside the queues that people use; prints a table and, with --json FILE, writes it.
#   tests/bench/peers.sh [--install] [--quick] [--json FILE] [--seconds S] [--rounds N] [--only tiermq,redis,...] [--dir DIR]
# Peers come from Debian packages; what is missing is named and left out, or installed with --install (services are not started).
# Every server runs on a port and in a directory of its own, and is stopped at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=build-release
servers=(beanstalkd gearman-job-server redis-server nats-server rabbitmq-server)
libraries=(libhiredis-dev libnats-dev librabbitmq-dev)

install_missing() {
    local missing=("$@") as_root=() made_policy=
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    # Debian starts what it installs, unless this file forbids it.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 0755 /dev/stdin /usr/sbin/policy-rc.d
        made_policy=yes
    fi
    local status=0
    { "${as_root[@]}" apt-get update -q && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}"; } >&2 || status=$?
    [ -z "$made_policy" ] || "${as_root[@]}" rm -f /usr/sbin/policy-rc.d
    return "$status"
}

install=
arguments=()
for argument in "$@"; do
    if [ "$argument" = --install ]; then install=yes; else arguments+=("$argument"); fi
done

missing=()
for package in "${servers[@]}" "${libraries[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ -n "$install" ]; then
        install_missing "${missing[@]}"
    else
        echo "peers: not installed, so left out: ${missing[*]} (--install installs them)" >&2
    fi
fi

deploy/packages.sh --tests
[ -f "$build/build.ninja" ] || meson setup "$build" --buildtype=release >/dev/null
# Also looks again for libraries that were not there the last time.
meson setup --reconfigure "$build" -Dbench_peers=true >/dev/null
ninja -C "$build" --quiet
exec /usr/bin/python3 tests/bench/peers.py --build "$build" "${arguments[@]}"
