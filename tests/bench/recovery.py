"""How long a broker with a backlog takes from its start to "ready", and what is resident then.

The backlog comes through the protocol, one job of 1 KiB after the other. The broker is killed with it, started again, and counted: as many
jobs wait as were accepted and not concluded. A worker then takes some of them, which shows that the payloads are there as well. The same
again after a SIGTERM, which leaves a journal with nothing to replay.
"""
import json
import os
import pathlib
import signal
import time
import urllib.request

DRAINED = 10000  # jobs, after each start
SETTLE_S = 2  # what was on its way when the last job was accepted has been written then


def status_mb(pid, field):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(field + ":"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return round((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 2)


def stats(broker):
    with urllib.request.urlopen(f"http://{broker.ready['admin']}/v1/stats", timeout=60) as answer:
        return json.load(answer)


def wait_until_ready_to_dispatch(broker, jobs, seconds):
    """After broker.reclaim the jobs move to their queues, which needs memory of its own."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with urllib.request.urlopen(f"http://{broker.ready['admin']}/v1/queues", timeout=60) as answer:
            if sum(queue["ready"] for queue in json.load(answer)["queues"]) >= jobs:
                return
        time.sleep(0.1)
    raise SystemExit(f"after {seconds} s not all {jobs} jobs can be dispatched")


def folder_mb(path):
    return round(sum(entry.stat().st_size for entry in pathlib.Path(path).rglob("*") if entry.is_file()) / 2**20)


def restart(bench, how, jobs, seconds_max):
    """Starts the broker on what is there; returns it and the jobs that are left after some were worked."""
    broker = bench.broker("rocksdb", keep=True, broker="reclaim: 2s", **bench.backlog_config)
    ready_cpu_s, ready_mb, peak_mb = cpu_s(broker.pid), status_mb(broker.pid, "VmRSS"), status_mb(broker.pid, "VmHWM")
    found = stats(broker)["jobs"]
    if found != jobs:
        raise SystemExit(f"{found} jobs after {how}, {jobs} were there before")
    wait_until_ready_to_dispatch(broker, jobs, seconds_max)
    settled_mb = status_mb(broker.pid, "VmRSS")
    drained = bench.run(bench.program("bench-backlog"), "drain", broker.ready["workers"], min(DRAINED, jobs // 10), seconds_max)
    left = jobs - drained["jobs"]
    if stats(broker)["jobs"] != left:
        raise SystemExit(f"{stats(broker)['jobs']} jobs after {drained['jobs']} of {jobs} were worked")
    bench.add(f"start after {how}", {"jobs": jobs, "ready_s": round(broker.ready_s, 2), "ready_cpu_s": ready_cpu_s,
                                      "ready_mb": ready_mb, "peak_mb": peak_mb,
                                      "settled_mb": settled_mb, "drained_mb": status_mb(broker.pid, "VmRSS"),
                                      "peak_settled_mb": status_mb(broker.pid, "VmHWM"),
                                      "disk_mb": folder_mb(bench.work / "broker" / "data"), "drained_per_s": drained["jobs_per_s"]})
    return broker, left


def recovery(bench):
    """Start and memory of a broker with a backlog of 1 KiB jobs."""
    jobs = bench.jobs or (50000 if bench.quick else 1000000)
    seconds_max = 120 + jobs // 5000
    bench.backlog_config = {"tenants": [{"name": "default", "jobs_max": 2 * jobs + 1000}], "ready_seconds": seconds_max}
    broker = bench.broker("rocksdb", **bench.backlog_config)
    filled = bench.run(bench.program("bench-backlog"), "fill", broker.ready["clients"], "background", jobs, seconds_max,
                       timeout=seconds_max + 10)
    time.sleep(SETTLE_S)
    bench.add("fill", {"jobs": jobs, "jobs_per_s": filled["jobs_per_s"], "rss_mb": status_mb(broker.pid, "VmRSS"),
                       "peak_mb": status_mb(broker.pid, "VmHWM")})
    rows, filled_mb = [], bench.rows[-1]["rss_mb"]
    left = jobs
    for how, number in (("SIGKILL", signal.SIGKILL), ("SIGTERM", signal.SIGTERM)):
        broker.stop(number)
        broker, left = restart(bench, how, left, seconds_max)
        rows.append(bench.rows[-1])
    broker.stop()
    millions = jobs / 1e6
    if millions >= 1:
        bench.bar("seconds from start to ready, a million jobs", max(row["ready_s"] for row in rows) / millions, 5, at_least=False)
        bench.bar("resident MB, a million jobs", max(max(row["ready_mb"], row["settled_mb"]) for row in rows) / millions, 400,
                  at_least=False)
    if jobs == 1000000:  # up to memory_payload_bytes_max of payloads are kept as well, whatever the backlog
        bench.bar("resident MB of the broker that took a million jobs", filled_mb, 400, at_least=False)
