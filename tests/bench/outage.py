#!/usr/bin/env python3
"""The outage drills. Called by outage.sh.

outage        60 s of steady load on three tiers; the provider is down from second 15 to 35. Questions: is any job lost? How often was
              the provider asked while it was down, with ten thousand jobs waiting? How long until the backlog is gone? Did the
              recovery ask more of the provider than its limit allows? What became of realtime meanwhile?
limit         60 s of load at twice what the provider allows; it says its limits in headers. Question: how much of what it allows is used?
limit-silent  the same, with 429 and Retry-After alone.

The provider counts for itself, each second: its history is what the figures and the plot are made of.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from run import Bench  # noqa: E402

TIERS = ("realtime", "standard", "background")


def http(address, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    address = address if "://" in address else f"http://{address}"
    with urllib.request.urlopen(urllib.request.Request(address + path, data=data), timeout=10) as answer:
        return json.loads(answer.read() or b"{}")


class Drill:
    def __init__(self, bench, name, sim_arguments, load, seconds, patience_s):
        self.bench, self.name, self.load, self.seconds, self.patience_s = bench, name, load, seconds, patience_s
        self.sim = bench.modelsim("--first-token-ms", "40", *sim_arguments)
        provider = self.sim.ready["http"] + "/v1"
        self.broker = bench.broker("rocksdb", provider=provider)
        self.workers = [bench.worker(self.broker, provider, f"worker-{i}", slots=128) for i in range(2)]
        self.admin = self.broker.ready["admin"]

    def run(self, events):
        """Runs the load; `events` are (second, function), carried out in time. Returns the client's seconds and its sum."""
        tiers = [f"{tier}:{per_s}:{deadline_ms}" for tier, per_s, deadline_ms in self.load]
        time.sleep(1 - time.time() % 1)  # the provider counts by the clock's seconds
        process = subprocess.Popen([self.bench.program("bench-drill"), self.broker.ready["clients"], str(self.seconds),
                                    str(self.patience_s), *tiers], stdout=subprocess.PIPE, text=True)
        self.began_ms = time.time() * 1000
        began = time.monotonic()
        for second, act in events:
            time.sleep(max(0.0, began + second - time.monotonic()))
            act()
        lines = [json.loads(line) for line in process.stdout]
        if process.wait() != 0:
            sys.exit("bench-drill failed")
        return [line for line in lines if "second" in line], lines[-1]

    def history(self):
        """What the provider saw, by second of the drill."""
        seconds = {}
        for entry in http(self.sim.ready["http"], "/control/history")["seconds"]:
            second = round((entry["t_ms"] - self.began_ms) / 1000)
            total = seconds.setdefault(second, dict.fromkeys(("requests", "answered", "limited", "failed"), 0))
            for key in total:
                total[key] += entry[key]
        return seconds

    def stop(self):
        for daemon in (*self.workers, self.broker, self.sim):
            daemon.stop()


def between(history, first, end, key):
    return sum(entry[key] for second, entry in history.items() if first <= second < end)


def table(client, history):
    print(f"{'s':>4}{'asked':>8}{'answered':>9}{'limited':>8}{'failed':>7}{'open':>8}"
          + "".join(f"{tier[:10] + ' ok':>14}{'p99 ms':>8}{'lost/exp/rej':>14}" for tier in TIERS))
    for line in client:
        seen = history.get(line["second"], {})
        row = f"{line['second']:>4}{seen.get('requests', 0):>8}{seen.get('answered', 0):>9}{seen.get('limited', 0):>8}" \
              f"{seen.get('failed', 0):>7}{line['open']:>8}"
        for tier in TIERS:
            counts = line[tier]
            row += f"{counts['succeeded']:>14}{counts['p99_ms']:>8}" \
                   f"{counts['lost'] + counts['dead']:>6}/{counts['expired']}/{counts['rejected']}".ljust(14)
        print(row)


# -------------------------------------------------------------------------------------------------- plot

def plot(path, title, client, history, marks):
    """Two panels: what the provider was asked and answered, and what was open and succeeded at the client."""
    last = max([line["second"] for line in client] + [1])
    width, height, left, top, gap = 960, 520, 70, 40, 60
    panel = (height - top - gap - 50) / 2
    x = lambda second: left + second * (width - left - 20) / last
    seen = [history.get(second, {}) for second in range(last + 1)]
    panels = [
        ("calls a second at the provider", [("asked", "#888888", [e.get("requests", 0) for e in seen]),
                                            ("answered", "#2a7f3f", [e.get("answered", 0) for e in seen]),
                                            ("limited", "#d08000", [e.get("limited", 0) for e in seen]),
                                            ("failed", "#c03030", [e.get("failed", 0) for e in seen])]),
        ("jobs at the client", [("open", "#3050c0", [line["open"] for line in client]),
                                ("succeeded a second", "#2a7f3f",
                                 [sum(line[tier]["succeeded"] for tier in TIERS) for line in client])]),
    ]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/><text x="{left}" y="22" font-size="15">{title}</text>']
    for index, (label, lines) in enumerate(panels):
        base = top + index * (panel + gap) + panel
        most = max(max(values + [1]) for _, _, values in lines)
        y = lambda value: base - value * panel / most
        for first, end, color in marks:
            out.append(f'<rect x="{x(first):.1f}" y="{base - panel:.1f}" width="{x(end) - x(first):.1f}" height="{panel:.1f}" fill="{color}"/>')
        for part in range(5):
            value = most * part / 4
            out.append(f'<line x1="{left}" x2="{width - 20}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#dddddd"/>'
                       f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0f}</text>')
        for second in range(0, last + 1, 5):
            out.append(f'<text x="{x(second):.1f}" y="{base + 15:.1f}" text-anchor="middle">{second}</text>')
        out.append(f'<text x="{left}" y="{base - panel - 6:.1f}">{label}</text>')
        for number, (name, color, values) in enumerate(lines):
            points = " ".join(f"{x(second):.1f},{y(value):.1f}" for second, value in enumerate(values))
            out.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.8"/>'
                       f'<text x="{left + 260 + number * 110}" y="{base - panel - 6:.1f}" fill="{color}">{name}</text>')
    out.append("</svg>")
    pathlib.Path(path).write_text("\n".join(out) + "\n")


# ------------------------------------------------------------------------------------------------- drills

def outage(bench, arguments):
    quick = bench.quick
    seconds, down, up = (14, 4, 9) if quick else (60, 15, 35)
    per_s = 60 if quick else 250
    limit_per_s = 300 if quick else 1500
    load = [("realtime", per_s // 2, 5000), ("standard", per_s, 600000), ("background", per_s, 3600000)]
    drill = Drill(bench, "outage", ["--requests-per-min", str(limit_per_s * 60)], load, seconds, 60)
    fail = lambda: http(drill.sim.ready["http"], "/control/faults", {"faults": [{"kind": "status", "status": 503}]})
    mend = lambda: http(drill.sim.ready["http"], "/control/faults", {"faults": []})
    try:
        client, total = drill.run([(down, fail), (up, mend)])
        history = drill.history()
        upstream = [u for u in http(drill.admin, "/v1/upstreams")["upstreams"] if u["model"] == "sim-small"][0]
    finally:
        drill.stop()
    table(client, history)
    attempts = between(history, down + 1, up - 1, "requests")
    waiting = max(line["open"] for line in client if down <= line["second"] <= up)
    steady = sum(per for _, per, _ in load) * 0.3
    drained = next((line["second"] for line in client if line["second"] > up and line["open"] < steady), None)
    peak = max(entry["requests"] for second, entry in history.items() if second >= up)
    result = {
        "lost": sum(total[tier]["lost"] + total[tier]["dead"] for tier in TIERS) + total["open"],
        "durable_expired_or_rejected": sum(total[tier]["expired"] + total[tier]["rejected"] for tier in TIERS[1:]),
        "attempts_while_down": attempts, "waiting": waiting, "probes": upstream["probes"],
        "drained_after_s": None if drained is None else drained - up, "peak_after_recovery_per_s": peak,
        "limit_per_s": limit_per_s, "limited": between(history, up, 1 << 30, "limited"),
        "realtime": {"succeeded": total["realtime"]["succeeded"], "expired": total["realtime"]["expired"],
                     "rejected": total["realtime"]["rejected"]},
    }
    print(json.dumps(result))
    bench.bar("outage: jobs lost", result["lost"] + result["durable_expired_or_rejected"], 0, at_least=False)
    bench.bar("outage: attempts while down (probes in all)", attempts, max(upstream["probes"], 1), at_least=False)
    bench.bar("outage: jobs waiting meanwhile", waiting, 100 if quick else 10000)
    bench.bar("outage: seconds from recovery to drained", 999 if drained is None else drained - up, 30, at_least=False)
    bench.bar("outage: peak calls/s after recovery", peak, limit_per_s * 1.05, at_least=False)
    if arguments.svg:
        plot(arguments.svg, f"a provider that is down from second {down} to {up}, {sum(l[1] for l in load)} jobs/s", client, history,
             [(down, up, "#fbe3e3")])
    return {"name": "outage", **result, "seconds": client, "provider": history}


def limit(bench, arguments, silent):
    quick = bench.quick
    seconds = 10 if quick else 60
    allowed = 100 if quick else 300
    load = [("realtime", allowed // 5, 5000), ("standard", allowed * 4 // 5, 600000), ("background", allowed, 3600000)]
    sim = ["--requests-per-min", str(allowed * 60)] + (["--no-limit-headers"] if silent else [])
    name = "limit-silent" if silent else "limit"
    drill = Drill(bench, name, sim, load, seconds, 0)
    try:
        client, total = drill.run([])
        history = drill.history()
    finally:
        drill.stop()
    table(client, history)
    answered = between(history, 2, seconds, "answered")
    share = answered / (allowed * (seconds - 2))
    result = {"goodput_share": round(share, 4), "answered": answered, "limited": between(history, 2, seconds, "limited"),
              "lost": sum(total[tier]["lost"] + total[tier]["dead"] for tier in TIERS)}
    print(json.dumps(result))
    bench.bar(f"{name}: share of the allowed rate that was used", share, 0.95)
    if arguments.svg:
        path = pathlib.Path(arguments.svg)
        plot(path.with_name(f"{path.stem}-{name}{path.suffix}"), f"a provider that allows {allowed}/s of {sum(l[1] for l in load)}/s",
             client, history, [])
    return {"name": name, **result, "seconds": client, "provider": history}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--svg", metavar="FILE", help="a plot of the outage; those of the limits go beside it")
    parser.add_argument("--quick", action="store_true", help="short: shows that it runs, its figures mean little")
    parser.add_argument("--only", default="outage,limit,limit-silent")
    parser.add_argument("--dir", help="where data directories are made")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    drills = {"outage": lambda: outage(bench, arguments), "limit": lambda: limit(bench, arguments, False),
              "limit-silent": lambda: limit(bench, arguments, True)}
    results = []
    try:
        for name in arguments.only.split(","):
            if name not in drills:
                parser.error(f"--only {name}: use {','.join(drills)}")
            print(f"== {name}", flush=True)
            results.append(drills[name]())
        bench.report(None)
        if arguments.json:
            with open(arguments.json, "w") as out:
                json.dump({"cores": os.cpu_count(), "drills": results, "bars": bench.bars}, out, indent=1)
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    return 0 if arguments.quick or all(bar["holds"] for bar in bench.bars) else 1


if __name__ == "__main__":
    sys.exit(main())
