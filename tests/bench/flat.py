"""Whether a job costs the same beside a backlog of a thousand and of a million.

First the core alone, in process: CPU time for each event (flat.c). Then the broker with its store, sockets and a worker: as many jobs are
submitted as are concluded, so that the backlog stays; beyond memory_payload_bytes_max payloads are read from the disk before they are
dispatched, which is part of what a large backlog costs.
"""
import json
import statistics
import subprocess

BACKLOGS = (1000, 10000, 100000, 1000000)


def core_alone(bench):
    rounds, jobs, backlogs = (3, 8192, BACKLOGS[:3]) if bench.quick else (21, 32768, BACKLOGS)
    done = subprocess.run([bench.program("bench-flat"), str(rounds), str(jobs), *map(str, backlogs)], stdout=subprocess.PIPE, check=True, text=True, timeout=900)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        bench.add("core alone", row)
    bench.bar("core's CPU time an event, most / least", max(row["ratio"] for row in rows), 1.2, at_least=False)


def fill(bench, backlog):
    broker = bench.broker("rocksdb", kept_as=f"broker-{backlog}")
    bench.run(bench.program("bench-backlog"), "fill", broker.ready["clients"], "background", backlog, 600)
    return broker


def end_to_end(bench):
    """All brokers are there at once, and measured in turn."""
    brokers = {}
    try:
        for backlog in BACKLOGS[:3] if bench.quick else BACKLOGS:
            brokers[backlog] = fill(bench, backlog)
        for _ in range(1 if bench.quick else 7):
            for backlog, broker in brokers.items():
                bench.add("broker, end to end", {"backlog": backlog, **bench.run(
                    bench.program("bench-backlog"), "cycle", broker.ready["clients"], broker.ready["workers"], "background", broker.pid,
                    1 if bench.quick else 2)})
    finally:
        for broker in brokers.values():
            broker.stop()
    bench.bar("broker's CPU time a job, most / beside the least backlog", max(ratios(bench.rows, "broker_cpu_s_per_million")), 1.35,
              at_least=False)
    bench.bar("broker's jobs/s, least / beside the least backlog", min(ratios(bench.rows, "jobs_per_s")), 1 / 1.35)


def ratios(rows, key):
    """Of each backlog to the smallest one in the same round, medians: what else the machine does changes over seconds."""
    values = {}
    for row in rows:
        if row["name"] == "broker, end to end":
            values.setdefault(row["backlog"], []).append(row[key])
    first = next(iter(values.values()))
    return [statistics.median(value / reference for value, reference in zip(of_backlog, first)) for of_backlog in values.values()]


def flat(bench):
    """What a job costs beside backlogs of 1 k to 1 M."""
    core_alone(bench)
    end_to_end(bench)
