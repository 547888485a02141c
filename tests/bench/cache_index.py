"""What a near lookup in the cache costs beside 10 k, 100 k and 1 M entries in one scope, what it misses, and what an entry takes.

The built-in embedder's index (cache_index.c) with texts of cache_texts.py: made of the prompts in --texts, or made up. Beside it, in the same
run: a GET from Redis over loopback, and for dense vectors hnswlib (left out where they are not installed). Times with a bar are CPU time.
"""
import shutil
import socket
import subprocess
import sys
import time
import pathlib

COSINE_MIN = 0.3
# Entries, lookups, queries that are compared with a scan, and the bar for p99.
SIZES = ((10000, 5000, 300, 300), (100000, 5000, 100, None), (1000000, 5000, 60, 3000))
HERE = pathlib.Path(__file__).resolve().parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def redis(bench):
    program = shutil.which("redis-server")
    if program is None:
        print("  redis-server is not installed: left out")
        return
    port = free_port()
    server = subprocess.Popen([program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(bench.work)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        bench.add("redis GET", bench.run(bench.program("bench-cache-redis"), port, 10000, 2000 if bench.quick else 20000))
    finally:
        server.terminate()
        server.wait()


def dense(bench):
    program = pathlib.Path(bench.program("bench-cache-hnsw"))
    if not program.exists():
        print("  hnswlib is not installed: left out")
        return
    for entries in (5000,) if bench.quick else (20000, 50000):
        row = bench.run(program, entries, 256, 1000)
        bench.add("dense vectors, beside hnswlib", row)
        bench.bar(f"dense vectors found of a scan's, {entries}", min(row["ours_recall"], row["ours_after_deletes_recall"]), 0.98)


def lexical(bench):
    sizes = SIZES[:1] if bench.quick else SIZES
    texts = bench.work / "texts"
    subprocess.run([sys.executable, str(HERE / "cache_texts.py"), str(sizes[-1][0] * 21 // 20), str(texts), *bench.texts], check=True)
    for entries, lookups, scans, bar_us in sizes:
        row = bench.run(bench.program("bench-cache-index"), texts, entries, lookups, scans, COSINE_MIN)
        bench.add("near lookups", row)
        if bar_us is not None:
            bench.bar(f"near lookup p99 us, {entries} entries", row["lookup_p99_us"], bar_us, at_least=False)
        bench.bar(f"near lookup p99 between fills / alone, {entries}", row["lookup_beside_fills_p99_us"] / row["lookup_p99_us"], 2, at_least=False)
        bench.bar(f"found of a scan's, {entries}", row["recall_0.0"], 0.98)
        bench.bar(f"bytes an entry, {entries}", row["bytes_per_entry"], 1.6 * 1024, at_least=False)


def cache_index(bench):
    """What a near lookup costs, and what it misses."""
    redis(bench)
    dense(bench)
    lexical(bench)
