#!/usr/bin/env bash
# Installs the Debian packages the project needs; does nothing when all are there.
#   deploy/packages.sh           what building and running needs
#   deploy/packages.sh --tests   and what the tests and checks need
set -euo pipefail

build=(build-essential meson ninja-build pkg-config protobuf-c-compiler libprotobuf-c-dev
       libcurl4-openssl-dev librocksdb-dev libjansson-dev libyaml-dev libmicrohttpd-dev libsodium-dev libxxhash-dev
       libutf8proc-dev ca-certificates curl)
tests=(libcriterion-dev libzmq3-dev python3 python3-pytest python3-zmq python3-protobuf protobuf-compiler python3-yaml python3-kubernetes python3-numpy
       clang llvm libclang-rt-14-dev clang-tidy clang-format cppcheck valgrind libhnswlib-dev prometheus)

wanted=("${build[@]}")
if [ "${1:-}" = "--tests" ]; then
    wanted+=("${tests[@]}")
fi

missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "packages: all ${#wanted[@]} are installed"
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "packages: missing: ${missing[*]}; install them as root" >&2; exit 1; }
    as_root=(sudo)
fi
echo "packages: installing ${missing[*]}"
log=$(mktemp)
if ! { "${as_root[@]}" apt-get update -q && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
       apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "packages: apt-get failed; its whole output is in $log" >&2
    exit 1
fi
rm -f "$log"
