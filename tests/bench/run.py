#!/usr/bin/env python3
"""Runs the benchmarks side by side and prints a table. Called by run.sh.

Questions: how near does the broker come to what ZeroMQ and RocksDB allow on this machine (queue)? Do realtime jobs wait for a
backlog (tiers)? What stays resident after a million jobs (memory)? How soon is a broker back with a million jobs waiting (recovery)? Does a job cost more
beside a million than beside a thousand (flat)? What does a near lookup cost, and miss (cache_index), and the
whole cache with its store and its thread (cache_keeper)? Do near hits keep their bound
(cache-stream, which needs --data)? Which prompts need the strong model
(routing_quality, which needs --texts prompts.jsonl)? Are tokens of a thousand streams in time (streams)? What do broker and worker add to a call
(added_latency)? What does a second call beside a slow one earn (hedging)? What does each
lever save by the provider's own bill (savings, with --texts prompts.jsonl)? Is the simulator faster than what it tests (modelsim)?
Ceilings and product run in turn, several rounds, and the medians are compared: single figures of a shared machine mean little.
"""
import argparse
import functools
import json
import os
import pathlib
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from cache_index import cache_index
from cache_keeper import cache_keeper
from cache_stream import cache_stream
from flat import flat
from hedging import hedging
from recovery import recovery
from savings import savings
from streams import added_latency, streams

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALL = "queue,tiers,memory,recovery,flat,cache_index,cache_keeper,modelsim,streams,added_latency"


class Daemon:
    """A program of ours that says "ready" on standard error, with its endpoints."""

    def __init__(self, arguments, log_path, ready_seconds=30):
        self.log_path = log_path
        began = time.monotonic()
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.ready = self._wait_ready(arguments[0], ready_seconds)
        self.ready_s = time.monotonic() - began
        # From here on the log goes to a file, by a process that costs nothing while it is quiet.
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=open(log_path, "ab"))
        self.process.stderr.close()

    def _wait_ready(self, name, seconds):
        ends, data, fd = time.monotonic() + seconds, b"", self.process.stderr.fileno()
        while time.monotonic() < ends:
            if not select.select([fd], [], [], 0.5)[0]:
                continue
            more = os.read(fd, 65536)
            data += more
            for line in data.split(b"\n")[:-1]:
                if b'"ready"' in line:
                    return json.loads(line)
            if not more:
                break
        self.process.kill()
        sys.exit(f"{name} did not get ready:\n{data.decode(errors='replace')}")

    @property
    def pid(self):
        return self.process.pid

    def rss_mb(self):
        for line in open(f"/proc/{self.pid}/status"):
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0.0

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.drain.wait()


class Bench:
    def __init__(self, arguments):
        self.build = pathlib.Path(arguments.build).resolve()
        self.quick = arguments.quick
        self.jobs = getattr(arguments, "jobs", None)
        self.texts = getattr(arguments, "texts", None) or []
        self.data = getattr(arguments, "data", None)
        self.seconds = 1.0 if self.quick else 4.0
        self.rounds = 1 if self.quick else 3
        self.rows, self.bars = [], []
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="tiermq-bench-", dir=arguments.dir))

    def program(self, name):
        return str(self.build / {"tiermq-broker": "broker", "tiermq-worker": "worker", "tiermq": "client",
                                 "tiermq-modelsim": "tests/modelsim"}.get(name, "tests/bench") / name)

    def run(self, *arguments, timeout=900):
        done = subprocess.run([str(a) for a in arguments], stdout=subprocess.PIPE, timeout=timeout, check=False, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, arguments))} ended with {done.returncode}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def folder(self, name):
        path = self.work / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def broker(self, store, **more):
        name = more.get("kept_as", "broker")
        folder = self.work / name if more.get("keep") else self.folder(name)
        config = folder / "tiermq.yaml"
        provider = more.get("provider", "http://127.0.0.1:9/v1")
        config.write_text(f"""
broker:
  listen_clients: tcp://127.0.0.1:*
  listen_workers: tcp://127.0.0.1:*
  listen_events: tcp://127.0.0.1:*
  admin: 127.0.0.1:0
  store: {store}
  data_dir: {folder}/data
  {more.get('broker', '')}
tenants: {json.dumps(more.get('tenants', [{'name': 'default'}]))}
providers: [{{name: sim, type: openai, base_url: "{provider}"}}]
models: [{{name: sim-small, provider: sim, input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.60}}]
""")
        return Daemon([self.program("tiermq-broker"), "--config", str(config)], folder / "log", more.get("ready_seconds", 30))

    def worker(self, broker, provider, name, cache="off", slots=256, kept=False, connections=256):
        """`cache`: its mode, or all of that section. With `kept` its folder is there."""
        folder = self.work / name if kept else self.folder(name)
        config = folder / "tiermq.yaml"
        config.write_text(f"""
worker:
  brokers: ["{broker.ready['workers']}"]
  events: ["{broker.ready['events']}"]
  name: {name}
  slots: {slots}
  admin: 127.0.0.1:0
  data_dir: {folder}/data
cache: {json.dumps(cache if isinstance(cache, dict) else {"mode": cache})}
providers: [{{name: sim, type: openai, base_url: "{provider}", connections_max: {connections}}}]
models: [{{name: sim-small, provider: sim, input_usd_per_mtok: 0.15, output_usd_per_mtok: 0.60}}]
""")
        return Daemon([self.program("tiermq-worker"), "--config", str(config)], folder / "log")

    def daemon(self, arguments, log):
        return Daemon(arguments, self.work / log)

    def modelsim(self, *arguments):
        return Daemon([self.program("tiermq-modelsim"), "--listen", "127.0.0.1:0", *arguments], self.work / "modelsim.log")

    def add(self, name, result):
        self.rows.append({**result, "name": name})
        print("  " + json.dumps(self.rows[-1]), flush=True)

    def bar(self, text, value, limit, at_least=True):
        self.bars.append({"what": text, "value": round(value, 3), "limit": round(limit, 3), "at_least": at_least,
                          "holds": value >= limit if at_least else value <= limit})

    def median(self, name, window, key):
        return statistics.median(r[key] for r in self.rows if r["name"] == name and r.get("window") == window)

    # ------------------------------------------------------------------------------------------------ scenarios

    def queue(self):
        """Ceilings and product in turn."""
        for _ in range(self.rounds):
            for window in (1, 256):
                self.add("relay", self.run(self.program("bench-ceiling"), "relay", window, self.seconds))
                for name, store, tier in (("memory", "memory", "standard"), ("memory, tier without durability", "memory", "realtime")):
                    self.measure_broker(name, store, tier, window)
                self.add("commit loop", self.run(self.program("bench-ceiling"), "commit", window, self.seconds, self.folder("commit") / "db"))
                self.measure_broker("rocksdb", "rocksdb", "standard", window)
        ratio = lambda ours, theirs, window: self.median(ours, window, "jobs_per_s") / self.median(theirs, window, "jobs_per_s")
        self.bar("memory / relay, window 256", ratio("memory", "relay", 256), 0.25)
        self.bar("memory / relay, window 1", ratio("memory", "relay", 1), 0.7)
        self.bar("rocksdb / commit loop, window 256", ratio("rocksdb", "commit loop", 256), 0.6)
        self.bar("rocksdb jobs/s, window 256", self.median("rocksdb", 256, "jobs_per_s"), 15000)
        self.bar("rocksdb p99 ms, window 256", self.median("rocksdb", 256, "p99_us") / 1000, 40, at_least=False)
        self.bar("rocksdb p50 ms, window 1", self.median("rocksdb", 1, "p50_us") / 1000, 1, at_least=False)

    def measure_broker(self, name, store, tier, window):
        broker = self.broker(store)
        try:
            self.add(name, self.run(self.program("bench-queue"), broker.ready["clients"], broker.ready["workers"], broker.pid, tier,
                                    window, self.seconds))
        finally:
            broker.stop()

    def tiers(self):
        """Realtime beside a backlog, then realtime end to end."""
        backlog = 2000 if self.quick else 100000
        # A quarter of the slots is reserved for realtime: 64 slots of 500 ms take 128 jobs a second, 16 of 40 ms take 400. With more
        # slots the short model would let the backlog fill both cores, and the machine would be measured, not the queue.
        for text, model_ms, slots, realtime_per_s in (("realtime beside a backlog, model 500 ms", 500, 256, 120),
                                                      ("realtime end to end, model 40 ms", 40, 64, 350)):
            sim = self.modelsim("--first-token-ms", str(model_ms))
            broker = self.broker("rocksdb", provider=sim.ready["http"] + "/v1")
            worker = self.worker(broker, sim.ready["http"] + "/v1", "worker", slots=slots)
            try:
                result = self.run(self.program("bench-tiers"), broker.ready["clients"], backlog, 100, realtime_per_s, 3 if self.quick else 20)
                self.add(text, result)
            finally:
                for daemon in (worker, broker, sim):
                    daemon.stop()
            if model_ms == 500:
                self.bar("realtime queue wait p99 ms beside a backlog", result["queue_p99_ms"], 10, at_least=False)
            else:
                self.bar("realtime end to end p99 ms, model 40 ms", result["total_p99_us"] / 1000, 100, at_least=False)

    def memory(self):
        """Resident memory after many small jobs, through a worker and the simulator, and of the broker alone."""
        jobs = 20000 if self.quick else 1000000
        sim = self.modelsim()
        broker = self.broker("rocksdb", provider=sim.ready["http"] + "/v1")
        worker = self.worker(broker, sim.ready["http"] + "/v1", "worker")
        prompts = self.work / "jobs.jsonl"
        with open(prompts, "w") as out:
            for i in range(jobs):
                out.write('{"prompt":"question number %d","tier":"standard"}\n' % i)
        try:
            began = time.monotonic()
            subprocess.run([self.program("tiermq"), "submit", "--brokers", broker.ready["clients"], "--file", str(prompts), "--window", "1024",
                            "--out", "/dev/null", "--json"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            took = time.monotonic() - began
            self.add("memory after jobs", {"jobs": jobs, "jobs_per_s": round(jobs / took), "broker_mb": round(broker.rss_mb(), 1),
                                           "worker_mb": round(worker.rss_mb(), 1)})
        finally:
            for daemon in (worker, broker, sim):
                daemon.stop()
        self.bar(f"broker MB after {jobs} jobs", self.rows[-1]["broker_mb"], 100, at_least=False)
        self.bar(f"worker MB after {jobs} jobs", self.rows[-1]["worker_mb"], 100, at_least=False)

    def modelsim_speed(self):
        sim = self.modelsim()
        try:
            result = self.run(self.program("bench-http"), sim.ready["http"], sim.pid, 64, 2 if self.quick else 5)
            self.add("modelsim", result)
        finally:
            sim.stop()
        self.bar("modelsim requests/s of one core", result["requests_per_core_s"], 20000)

    # ------------------------------------------------------------------------------------------------ report

    def report(self, path):
        print(f"\n{'what':<44}{'window':>7}{'jobs/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'CPU s/M broker':>16}{'CPU s/M all':>13}")
        for name, window in dict.fromkeys((r["name"], r["window"]) for r in self.rows if "window" in r):
            values = [self.median(name, window, k) for k in
                      ("jobs_per_s", "p50_us", "p99_us", "broker_cpu_s_per_million", "all_cpu_s_per_million")]
            print(f"{name:<44}{window:>7}{values[0]:>10.0f}{values[1] / 1000:>9.2f}{values[2] / 1000:>9.2f}{values[3]:>16.1f}{values[4]:>13.1f}")
        self.print_bars()
        if path:
            self.write_json(path)

    def print_bars(self):
        print(f"\n{'bar':<60}{'measured':>10}{'limit':>10}")
        for bar in self.bars:
            sign = ">=" if bar["at_least"] else "<="
            print(f"{bar['what']:<60}{bar['value']:>10}{sign:>4}{bar['limit']:>6}  {'holds' if bar['holds'] else 'MISSED'}")

    def write_json(self, path, **more):
        with open(path, "w") as out:
            json.dump({"machine": {"cores": os.cpu_count(), "uname": list(os.uname())[2:]}, "seconds": self.seconds, "rounds": self.rounds,
                       **more, "rows": self.rows, "bars": self.bars}, out, indent=1)


def of_routing(bench):
    """Which prompts need the strong model."""
    from routing_quality import routing_quality  # here alone numpy is needed
    routing_quality(bench)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="short: shows that it runs, its figures mean little")
    parser.add_argument("--only", help="scenarios; without it those that take minutes, and with --quick savings as well")
    parser.add_argument("--jobs", type=int, help="of the backlog that recovery makes; each takes about 1.2 KiB of disk")
    parser.add_argument("--texts", nargs="*", metavar="FILE", help="real prompts for cache_index and cache_keeper (see cache_texts.py), and for routing_quality")
    parser.add_argument("--data", metavar="DIR", help="for cache-stream: semcache_dev.tsv and train_clusters.tsv")
    parser.add_argument("--dir", help="where data directories are made; its disk is what is measured")
    arguments = parser.parse_args()
    only = arguments.only or ALL + (",savings" if arguments.quick else "")
    bench = Bench(arguments)
    scenarios = {"cache-stream": functools.partial(cache_stream, bench), "queue": bench.queue, "tiers": bench.tiers, "memory": bench.memory,
                 "recovery": functools.partial(recovery, bench), "flat": functools.partial(flat, bench),
                 "cache_index": functools.partial(cache_index, bench), "cache_keeper": functools.partial(cache_keeper, bench), "modelsim": bench.modelsim_speed,
                 "routing_quality": functools.partial(of_routing, bench),
                 "streams": functools.partial(streams, bench), "added_latency": functools.partial(added_latency, bench),
                 "hedging": functools.partial(hedging, bench),
                 "savings": functools.partial(savings, bench)}
    try:
        for name in only.split(","):
            if name not in scenarios:
                parser.error(f"--only {name}: use {','.join(scenarios)}")
            scenario = scenarios[name]
            print(f"== {name}: {getattr(scenario, 'func', scenario).__doc__ or ''}", flush=True)
            scenario()
        bench.report(arguments.json)
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    # A quick run on a shared machine says nothing about speed: only that everything runs.
    return 0 if arguments.quick or all(bar["holds"] for bar in bench.bars) else 1


if __name__ == "__main__":
    sys.exit(main())
