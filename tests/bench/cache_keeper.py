"""What the whole cache costs beside 10 k, 100 k and 1 M entries in one scope: its store, its index and its thread (cache_keeper.c), and then
a job that a real worker and broker answer from it.

Texts are those of cache_texts.py. In the same run: a GET from Redis over loopback. Bars are for times by the clock; CPU time stands beside
them. Where the machine has other work (load_average), the clock says more about that than about the cache.
"""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

from cache_index import redis

HERE = pathlib.Path(__file__).resolve().parent
# Entries, lookups, queries that are compared with a scan, and the bar for p99 of near ones.
SIZES = ((10000, 20000, 500, 300), (100000, 20000, 300, None), (1000000, 10000, 150, 3000))
QUICK = ((5000, 1000, 50, None),)
FILLS_PER_S = 200
END_TO_END_FROM = 100000
MEMORY_BYTES_MAX = 4 << 30
TOKENS = ("--tokens", "160:240")  # as cache_keeper.c answers


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class EndToEnd:
    """A broker, a worker whose cache was filled beforehand, and a client that has one job under way."""

    def __init__(self, bench, folder, texts):
        self.bench, self.texts = bench, texts
        self.sim = bench.modelsim(*TOKENS)
        provider = self.sim.ready["http"] + "/v1"
        self.broker = bench.broker("rocksdb", provider=provider)
        worker = bench.folder("worker")
        (worker / "data").mkdir()
        folder.rename(worker / "data" / "cache")
        self.worker = bench.worker(self.broker, provider, "worker", kept=True, slots=16, cache={
            "mode": "near", "lookup_timeout": "1s", "entries_max": 10_000_000, "bytes_max": "16GiB", "memory_bytes_max": f"{MEMORY_BYTES_MAX >> 20}MiB"})

    def stop(self):
        for daemon in (self.worker, self.broker, self.sim):
            daemon.stop()

    def ask(self, prompts, *arguments, window=1):
        """The answers, as the command tells them."""
        lines = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
        done = subprocess.run([self.bench.program("tiermq"), "submit", "--brokers", self.broker.ready["clients"], "--model", "sim-small", "--tier", "realtime", "--file", "-",
                               "--window", str(window), *arguments], input=lines, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait_for_index(self):
        while True:
            done = subprocess.run([self.bench.program("tiermq"), "cache", "stats", "--json", "--admin", self.broker.ready["admin"]],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
            if done.returncode == 0 and not json.loads(done.stdout)["all"]["building"]:
                return

    def learn(self):
        """Rewordings that are answered alike, until near hits are served."""
        for round_ in range(40):
            prompts = [text.upper() + "?!."[round_ % 3] for text in self.texts[round_ * 100:(round_ + 1) * 100]]
            if any(answer["cache"] == "near_hit" for answer in self.ask(prompts, window=16)):
                return
        sys.exit("near hits are not learned")

    def measure(self, what, prompts, wanted, *arguments):
        answers = self.ask(prompts, *arguments)
        times = [answer["total_us"] for answer in answers if answer["cache"] == wanted]
        if not times:
            sys.exit(f"{what}: no answer has cache {wanted}")
        return {f"{what}_p50_us": statistics.median(times), f"{what}_p99_us": percentile(times, 0.99), f"{what}_jobs": len(times)}

    def run(self, jobs):
        self.wait_for_index()
        self.learn()
        texts = self.texts[4000:]
        row = self.measure("without", texts[:jobs], "none", "--cache-use", "off")
        row |= self.measure("exact", texts[jobs:2 * jobs], "hit")
        row |= self.measure("near", [text.upper() + "?" for text in texts[2 * jobs:3 * jobs]], "near_hit")
        return row | {"worker_mb": round(self.worker.rss_mb())}


def end_to_end(bench, folder, texts, entries):
    with open(texts, encoding="utf-8") as lines:
        some = [line.rstrip("\n") for line, _ in zip(lines, range(20000))]
    cluster = EndToEnd(bench, folder, some)
    try:
        row = cluster.run(100 if bench.quick else 2000)
    finally:
        cluster.stop()
    bench.add("a job end to end", {"entries": entries, "load_average": os.getloadavg()[0], **row})


def cache_keeper(bench):
    """What the whole cache costs: store, index and thread; and a job answered from it."""
    redis(bench)
    sizes = QUICK if bench.quick else SIZES[:bench.jobs] if bench.jobs else SIZES
    texts = bench.work / "texts"
    subprocess.run([sys.executable, str(HERE / "cache_texts.py"), str(max(25000, sizes[-1][0] * 21 // 20)), str(texts), *bench.texts], check=True)
    for entries, lookups, scans, bar_us in sizes:
        folder = bench.work / "filled"
        bench.add("cache filled", bench.run(bench.program("bench-cache-keeper"), "fill", texts, entries, folder))
        row = bench.run(bench.program("bench-cache-keeper"), "measure", texts, entries, folder, lookups, scans, FILLS_PER_S)
        bench.add("the whole cache", {"load_average": os.getloadavg()[0], **row})
        bench.bar(f"exact hit in the keeper p99 us, {entries}", row["exact_inside_p99_us"], 50, at_least=False)
        bench.bar(f"first exact hit after a start ms, {entries}", row["first_hit_ms"], 1000, at_least=False)
        bench.bar(f"index complete after a start s, {entries}", row["index_s"], 120, at_least=False)
        bench.bar(f"memory of an entry bytes, {entries}", row["bytes_per_entry"], 1.6 * 1024, at_least=False)
        if bar_us is not None:
            bench.bar(f"near lookup through the thread p99 us, {entries}", row["near_p99_us"], bar_us, at_least=False)
        bench.bar(f"near p99 beside fills / alone, {entries}", row["beside_fills_p99_us"] / row["near_p99_us"], 2, at_least=False)
        bench.bar(f"served of a scan's hits, {entries}", min(row[f"served_{i}"] for i in range(3)), 0.98)
        if bench.quick or entries >= END_TO_END_FROM:
            end_to_end(bench, folder, texts, entries)
        shutil.rmtree(folder, ignore_errors=True)
