#!/usr/bin/env python3
"""Measures tiermq beside other queues, in one run, with the same work. Called by peers.sh.

A job of 1 KiB is submitted, worked and removed; it counts when the server has confirmed its submission and its removal, where its
protocol has an answer to that. At window 1 there is one worker; at window 256 as many connections as a system does best with. What a
system has promised when it confirms differs: the column says it. tiermq keeps the payload and the result besides, and hands the
result to the client, who collects it.

Rounds go over all systems in turn, and medians are compared: single figures of a shared machine mean little.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

from run import Bench

WINDOWS = (1, 256)
FSYNC, NO_FSYNC, NONE = "fsync", "no fsync", "memory"
MARGIN = 1.2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server of another project, in a session of its own, so that it is stopped with all its processes."""

    def __init__(self, arguments, folder, environment=None):
        self.log = open(folder / "server.log", "ab")
        self.process = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=folder,
                                        env={**os.environ, **(environment or {})}, start_new_session=True)

    def wait_for(self, port, seconds=60):
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"{self.process.args[0]} does not listen on port {port}; see {self.log.name}")

    def stop(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()
        self.log.close()


def beanstalkd(fsyncs):
    def start(folder):
        port = free_port()
        durable = ["-b", folder, "-f", "0"] if fsyncs else []
        user = ["-u", "root"] if os.geteuid() == 0 else []
        return port, [(["beanstalkd", "-l", "127.0.0.1", "-p", port, *durable, *user], port, None)]
    return start


def gearmand(folder):
    port = free_port()
    user = ["-u", "root"] if os.geteuid() == 0 else []
    return port, [(["gearmand", "--listen", "127.0.0.1", "--port", port, "--log-file", folder / "gearmand.log", *user], port, None)]


def redis(append):
    def start(folder):
        port = free_port()
        durable = ["--appendonly", "yes", "--appendfsync", append] if append else ["--appendonly", "no"]
        return port, [(["redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", folder, *durable], port, None)]
    return start


def nats(folder):
    port = free_port()
    (folder / "nats.conf").write_text(f"""listen: 127.0.0.1:{port}
jetstream {{ store_dir: "{folder}/data", max_file_store: 4GB, max_memory_store: 64MB }}
""")
    return port, [(["nats-server", "-c", folder / "nats.conf"], port, None)]


def rabbitmq(folder):
    port, distribution, mapper = free_port(), free_port(), free_port()
    (folder / "plugins").write_text("[].")
    environment = {
        "HOME": str(folder), "RABBITMQ_NODENAME": "bench@localhost", "RABBITMQ_NODE_PORT": str(port), "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_DIST_PORT": str(distribution), "ERL_EPMD_PORT": str(mapper), "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(folder / "data"), "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"), "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_PID_FILE": str(folder / "pid"), "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    return port, [(["epmd", "-port", mapper, "-address", "127.0.0.1"], mapper, environment),
                  (["/usr/lib/rabbitmq/bin/rabbitmq-server"], port, environment)]


class Peer:
    def __init__(self, key, name, promise, durability, program, start, client, variant=""):
        self.key, self.name, self.promise, self.durability = key, name, promise, durability
        self.program, self.start, self.client, self.variant = program, start, client, variant

    def missing(self, bench):
        if shutil.which(self.program) is None and not os.path.exists(self.program):
            return f"{self.program} is not installed"
        if not os.path.exists(self.client_path(bench)):
            return "the library of its client is not installed"
        return None

    def client_path(self, bench):
        return str(bench.build / "tests/bench/peers" / self.client)

    def measure(self, bench):
        """One row for each window."""
        folder = bench.folder(self.key)
        servers = []
        try:
            port, commands = self.start(folder)
            for arguments, ready_port, environment in commands:
                servers.append(Server(arguments, folder, environment))
                servers[-1].wait_for(ready_port)
            for window in WINDOWS:
                arguments = [self.client_path(bench), port, window, bench.seconds, *([self.variant] if self.variant else [])]
                yield bench.run(*arguments, timeout=bench.seconds + 120)
        finally:
            for server in reversed(servers):
                server.stop()
            shutil.rmtree(folder, ignore_errors=True)


class Tiermq:
    def __init__(self, key, name, promise, durability, store, tier):
        self.key, self.name, self.promise, self.durability = key, name, promise, durability
        self.store, self.tier = store, tier

    def missing(self, bench):
        del bench

    def measure(self, bench):
        for window in WINDOWS:
            broker = bench.broker(self.store)
            try:
                yield bench.run(bench.program("bench-queue"), broker.ready["clients"], broker.ready["workers"], broker.pid, self.tier, window,
                                bench.seconds)
            finally:
                broker.stop()


RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
SYSTEMS = [
    Tiermq("tiermq", "tiermq, rocksdb", "fsync before each confirmation", FSYNC, "rocksdb", "standard"),
    Tiermq("tiermq-memory", "tiermq, memory", "none: store memory", NONE, "memory", "standard"),
    Peer("beanstalkd-fsync", "beanstalkd -b -f0", "fsync at each write", FSYNC, "beanstalkd", beanstalkd(True), "bench-peer-beanstalkd"),
    Peer("redis-always", "redis LPUSH/BRPOPLPUSH/LREM, AOF always", "fsync before each confirmation", FSYNC, "redis-server", redis("always"),
         "bench-peer-redis", "move"),
    Peer("rabbitmq-quorum", "rabbitmq quorum queue, 1 node", "fsync of its log before it confirms", FSYNC, RABBITMQ, rabbitmq,
         "bench-peer-rabbitmq", "quorum"),
    Peer("rabbitmq-classic", "rabbitmq classic durable queue", "fsync before it confirms, but for what was consumed by then", FSYNC, RABBITMQ,
         rabbitmq, "bench-peer-rabbitmq", "classic"),
    Peer("nats", "nats jetstream work queue, R1", "in the page cache; fsync every 2 min", NO_FSYNC, "nats-server", nats, "bench-peer-nats"),
    Peer("redis-everysec", "redis LPUSH/BRPOPLPUSH/LREM, AOF everysec", "in the page cache; fsync every second", NO_FSYNC, "redis-server",
         redis("everysec"), "bench-peer-redis", "move"),
    Peer("redis", "redis LPUSH/BRPOPLPUSH/LREM, no AOF", "none", NONE, "redis-server", redis(None), "bench-peer-redis", "move"),
    Peer("redis-pop", "redis LPUSH/BRPOP, no AOF", "none, and lost with its worker", NONE, "redis-server", redis(None), "bench-peer-redis", "pop"),
    Peer("beanstalkd", "beanstalkd", "none", NONE, "beanstalkd", beanstalkd(False), "bench-peer-beanstalkd"),
    Peer("gearmand", "gearmand background jobs", "none; removal not confirmed", NONE, "gearmand", gearmand, "bench-peer-gearmand"),
]


def versions():
    packages = ["beanstalkd", "gearman-job-server", "redis-server", "nats-server", "rabbitmq-server"]
    listed = subprocess.run(["dpkg-query", "-W", "-f=${Package} ${Version}\n", *packages], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                            text=True, check=False).stdout
    return dict(line.split(" ", 1) for line in listed.splitlines() if " " in line)


def measure(bench, systems):
    for number in range(bench.rounds):
        for system in systems:
            for row in system.measure(bench):
                bench.rows.append({"name": system.name, "key": system.key, "durability": system.durability, "promise": system.promise,
                                   "round": number, **{k: row[k] for k in ("window", "jobs_per_s", "p50_us", "p99_us")}})
                print("  " + json.dumps(bench.rows[-1]), flush=True)


def best(bench, systems, durability, window):
    """The fastest peer of this kind: its name and jobs a second; None when none was measured."""
    rates = [(bench.median(s.name, window, "jobs_per_s"), s.name) for s in systems if isinstance(s, Peer) and s.durability == durability]
    return max(rates) if rates else None


def compare(bench, systems):
    """Bars where there is something to compare with."""
    keys = {s.key: s for s in systems}
    if "tiermq" in keys:
        ours = bench.median(keys["tiermq"].name, 256, "jobs_per_s")
        for durability in (FSYNC, NO_FSYNC):
            found = best(bench, systems, durability, 256)
            if found is not None and durability == FSYNC:
                bench.bar(f"rocksdb / {found[1]}", ours / found[0], MARGIN)
            elif found is not None:
                print(f"  rocksdb / {found[1]}, which does not fsync first: {ours / found[0]:.2f}")
    if "tiermq-memory" in keys and "redis-pop" in keys:
        ours = bench.median(keys["tiermq-memory"].name, 256, "jobs_per_s")
        bench.bar(f"memory / {keys['redis-pop'].name}", ours / bench.median(keys["redis-pop"].name, 256, "jobs_per_s"), MARGIN)


def print_table(bench, systems):
    reference = {w: bench.median("tiermq, rocksdb", w, "jobs_per_s") for w in WINDOWS} if systems[0].key == "tiermq" else {}
    print(f"\n{'system':<42}{'window':>7}{'jobs/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'of rocksdb':>11}  when it confirms")
    for window in WINDOWS:
        for system in systems:
            rate, p50, p99 = (bench.median(system.name, window, k) for k in ("jobs_per_s", "p50_us", "p99_us"))
            ratio = f"{rate / reference[window]:.2f}" if window in reference else ""
            print(f"{system.name:<42}{window:>7}{rate:>9.0f}{p50 / 1000:>9.2f}{p99 / 1000:>9.2f}{ratio:>11}  {system.promise}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="1 s a cell, one round: shows that it runs")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a cell")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="keys, separated by commas: " + ", ".join(s.key for s in SYSTEMS))
    parser.add_argument("--dir", type=pathlib.Path, help="where data directories are made; its disk is what is measured")
    arguments = parser.parse_args()
    arguments.jobs = None
    bench = Bench(arguments)
    bench.seconds = 1.0 if arguments.quick else arguments.seconds
    bench.rounds = 1 if arguments.quick else arguments.rounds
    wanted = arguments.only.split(",") if arguments.only else [s.key for s in SYSTEMS]
    if unknown := set(wanted) - {s.key for s in SYSTEMS}:
        parser.error(f"--only: {', '.join(sorted(unknown))} is not known")
    left_out = {s.name: s.missing(bench) for s in SYSTEMS if s.key in wanted and s.missing(bench)}
    systems = [s for s in SYSTEMS if s.key in wanted and s.name not in left_out]
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    try:
        measure(bench, systems)
        print_table(bench, systems)
        print()
        compare(bench, systems)
        bench.print_bars()
        if arguments.json:
            bench.write_json(arguments.json, versions=versions(), left_out=left_out)
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    return 0 if arguments.quick or all(bar["holds"] for bar in bench.bars) else 1


if __name__ == "__main__":
    sys.exit(main())
