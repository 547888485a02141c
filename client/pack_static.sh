#!/bin/sh
# pack_static.sh OUTPUT ARCHIVE…: one archive of one object that holds all archives and exports only tiermq_*.
set -eu
output=$1
shift
object=$output.o
${LD:-ld} -r -o "$object" --whole-archive "$@"
${OBJCOPY:-objcopy} --wildcard --keep-global-symbol='tiermq_*' "$object"
rm -f "$output"
${AR:-ar} rcs "$output" "$object"
rm -f "$object"
