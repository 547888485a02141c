#!/usr/bin/python3
"""Reads the include lines: which layer may use which, and that each header compiles alone.

    tests/check_includes.py BUILD_ROOT [COMPILER ...]

The layers are those of CONTRIBUTING.md: common <- proto <- client, broker, worker. Without BUILD_ROOT's generated headers
nothing that includes proto/ compiles, so the test depends on them.
"""
import concurrent.futures
import os
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')

# What files under a folder may include with quotes. The longest folder that fits counts.
MAY_USE = {
    "common/": ["common/"],
    "proto/": ["common/", "proto/"],
    "client/": ["common/", "proto/", "client/"],
    "client/cli/": ["common/", "client/tiermq.h", "client/cli/"],
    "client/gateway/": ["common/", "client/tiermq.h", "client/gateway/"],
    "broker/": ["common/", "proto/", "broker/"],
    "broker/core/": ["common/", "proto/", "broker/core/", "broker/store/store.h"],  # what a change of a record is
    "worker/": ["common/", "proto/", "worker/"],
}
# The state machine without I/O: no clock, socket, disk, thread or random device, not even through common/.
CORE = "broker/core/"
CORE_MAY_NOT = [
    "common/clock.h", "common/http_admin.h", "common/link.h", "common/log.h", "common/loop.h",
    "common/metrics.h", "fcntl.h", "poll.h", "pthread.h", "sys/", "time.h", "unistd.h", "zmq.h", "rocksdb/", "sodium.h",
]
# Installed: it stands alone.
PUBLIC = "client/tiermq.h"


def sources(suffixes):
    for folder in ("common", "proto", "client", "broker", "worker", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes:
                yield path.relative_to(ROOT).as_posix()


def includes(name):
    for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
        found = INCLUDE.match(line)
        if found:
            yield number, found[1] == '"', found[2]


def rule_for(name):
    folders = [folder for folder in MAY_USE if name.startswith(folder)]
    return MAY_USE[max(folders, key=len)] if folders else None


def complaint(name, is_ours, included):
    """Why this file may not have this line; None when it may."""
    allowed = rule_for(name)
    if name == PUBLIC and is_ours:
        return "the installed header includes nothing of the project"
    if is_ours and "/" not in included:
        return "write the path from the root"
    if is_ours and allowed is not None and not any(included.startswith(a) for a in allowed):
        return "this layer may use " + ", ".join(allowed) + " only"
    if name.startswith(CORE) and any(included.startswith(banned) for banned in CORE_MAY_NOT):
        return "the core has no I/O, clock, thread or random device"
    return None


def check_layers():
    errors, lines = [], 0
    for name in sources({".c", ".h"}):
        for number, is_ours, included in includes(name):
            lines += 1
            why = complaint(name, is_ours, included)
            if why is not None:
                errors.append(f'{name}:{number}: includes "{included}": {why}')
    return errors, lines


def compiles_alone(name, build, compiler):
    command = compiler + ["-std=gnu17", "-D_GNU_SOURCE", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}",
                          f"-I{build}", "-x", "c", "-"]
    # Twice: it must guard itself against that too.
    text = f'#include "{name}"\n#include "{name}"\n'
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    return f"{name} does not compile alone:\n{done.stderr}" if done.returncode != 0 else None


def check_headers(build, compiler):
    headers = [name for name in sources({".h"})]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda name: compiles_alone(name, build, compiler), headers)
    return [error for error in found if error], len(headers)


def check_itself():
    """The rules refuse what they are for, so that an empty list of errors means something."""
    for name, is_ours, included in [
        ("common/x.c", True, "broker/core/core.h"), ("common/x.c", True, "proto/wire.pb-c.h"),
        ("broker/x.c", True, "worker/x.h"), ("worker/x.c", True, "broker/x.h"), ("worker/x.c", True, "client/x.h"),
        ("broker/core/x.c", True, "common/clock.h"), ("broker/core/x.c", False, "sys/socket.h"),
        ("broker/core/x.c", True, "broker/store/disk.h"), ("client/cli/x.c", True, "client/x.h"),
        ("client/tiermq.h", True, "common/id.h"), ("common/x.c", True, "x.h"),
    ]:
        assert complaint(name, is_ours, included), f"{name} may include {included}"
    for name, included in [("broker/core/x.c", "common/heap.h"), ("client/x.c", "proto/wire.pb-c.h"),
                           ("tests/x.c", "broker/core/core.h")]:
        assert complaint(name, True, included) is None, f"{name} may not include {included}"


def main():
    build = sys.argv[1]
    compiler = sys.argv[2:] or shlex.split(os.environ.get("CC", "cc"))
    check_itself()
    errors, lines = check_layers()
    header_errors, headers = check_headers(build, compiler)
    errors += header_errors
    for error in errors:
        print(error)
    print(f"{lines} include lines and {headers} headers read, {len(errors)} errors")
    return 1 if errors or lines == 0 or headers == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
