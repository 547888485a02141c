"""What a second call beside a slow one earns, and what it costs: two clusters side by side, one with a share for hedging and one without.

Each has two simulated providers, of which the first, the one that is called, takes FACTOR times as long for a share of its calls. Both get the
same calls at the same rate in the same seconds, so that what else the machine does concerns both.
"""
import json
import subprocess
import urllib.request

FIRST_TOKEN_MS, FACTOR, SHARE = 100, 20, 0.05
INPUT_USD, OUTPUT_USD = 0.15, 0.60  # per million tokens


def http(address, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, data=data), timeout=10) as answer:
        return answer.read().decode()


class Cluster:
    def __init__(self, bench, name, share):
        self.bench, self.folder = bench, bench.folder(name)
        self.sims = [bench.daemon([bench.program("tiermq-modelsim"), "--listen", "127.0.0.1:0", "--first-token-ms", str(FIRST_TOKEN_MS),
                                   "--tokens", "20:20", "--tokens-per-s", "200", "--stamp", "--seed", str(seed)], f"{name}-sim-{seed}.log") for seed in (1, 2)]
        shared = {
            "tiers": [{"name": "realtime", "hedge_share": share, "deadline": "60s", "shed_target": "0ms"}],
            "providers": [{"name": n, "type": "openai", "base_url": self.url(i) + "/v1"} for i, n in enumerate(("first", "second"))],
            "models": [{"name": "sim-small", "provider": "first", "failover": ["second"], "input_usd_per_mtok": INPUT_USD,
                        "output_usd_per_mtok": OUTPUT_USD}],
            "cache": {"mode": "off"}}
        self.broker = self.start("tiermq-broker", {**shared, "broker": {
            **{f"listen_{k}": "tcp://127.0.0.1:*" for k in ("clients", "workers", "events")},
            "admin": "127.0.0.1:0", "store": "memory", "data_dir": str(self.folder / "broker")}})
        self.worker = self.start("tiermq-worker", {**shared, "worker": {
            "name": name, "brokers": [self.broker.ready["workers"]], "events": [self.broker.ready["events"]], "slots": 512,
            "admin": "127.0.0.1:0", "data_dir": str(self.folder / "worker")}})

    def url(self, number):
        address = self.sims[number].ready["http"]
        return address if "://" in address else f"http://{address}"

    def start(self, program, config):
        path = self.folder / f"{program}.yaml"
        path.write_text(json.dumps(config))
        return self.bench.daemon([self.bench.program(program), "--config", str(path)], f"{self.folder.name}-{program}.log")

    def set_slow(self, rate):
        http(self.url(0), "/control/faults", {"faults": [{"kind": "slow", "factor": FACTOR, "rate": rate}]})

    def begin(self, what, rate, seconds):
        return subprocess.Popen([self.bench.program("bench-calls"), self.broker.ready["clients"], what, str(rate), "2048", str(seconds)],
                                stdout=subprocess.PIPE, text=True)

    def counts(self):
        """Calls by provider, and what all and what second ones have cost, in US dollars."""
        metrics = dict(line.rsplit(" ", 1) for line in http("http://" + self.broker.ready["admin"], "/metrics").splitlines() if line[:1] != "#")
        calls = [sum(json.loads(http(self.url(i), "/control/counters"))["requests"].values()) for i in (0, 1)]
        return calls + [float(metrics[f'tiermq_{name}_usd_total{{tier="realtime"}}']) for name in ("cost", "hedge_cost")]

    def close(self):
        for daemon in (self.worker, self.broker, *self.sims):
            daemon.stop()


def measure(bench, clusters, what, tail, rate, seconds):
    """Returns the rows, without and with."""
    before = {name: cluster.counts() for name, cluster in clusters.items()}
    running = {name: cluster.begin(what, rate, seconds) for name, cluster in clusters.items()}
    rows = []
    for name, process in running.items():
        result = json.loads(process.communicate()[0].splitlines()[-1])
        first, second, cost, hedge_cost = (b - a for a, b in zip(before[name], clusters[name].counts()))
        key = "first" if what == "stream" else "total"
        rows.append({"tail": tail, "calls": result["calls"], "failed": result["failed"],
                     **{f"{key}_{q}_ms": round(result[f"{key}_{q}_us"] / 1000) for q in ("p50", "p99", "p999")},
                     "second_calls": second, "second_calls_percent": round(100 * second / first, 2),
                     "hedge_cost_percent": round(100 * hedge_cost / cost, 2), "cost_usd": round(cost, 6)})
        bench.add(f"{what}, {tail:.0%} of the calls slow, {name}", rows[-1])
    return rows


def hedging(bench):
    """The tail of realtime jobs with one provider that is sometimes slow, with and without second calls, and what they cost."""
    seconds, rate = 10 if bench.quick else 60, 100
    clusters = {"without": Cluster(bench, "without", 0), "with": Cluster(bench, "with", SHARE)}
    try:
        for process in [cluster.begin("whole", rate, 5) for cluster in clusters.values()]:
            process.communicate()  # so that it is known how long calls take
        for what, tail in (("whole", 0.03), ("stream", 0.03), ("whole", 0.08)):
            for cluster in clusters.values():
                cluster.set_slow(tail)
            without, with_it = measure(bench, clusters, what, tail, rate, seconds)
            if tail < SHARE:
                key = "first_p99_ms" if what == "stream" else "total_p99_ms"
                bench.bar(f"{what}, {tail:.0%} slow: p99 as a share of that without, percent", 100 * with_it[key] / without[key], 50, at_least=False)
        first, second, cost, hedge_cost = clusters["with"].counts()
        bench.bar("second calls, percent of all first ones", 100 * second / first, 100 * SHARE, at_least=False)
        bench.bar("cost of second calls, percent of all cost", 100 * hedge_cost / cost, 100 * SHARE, at_least=False)
    finally:
        for cluster in clusters.values():
            cluster.close()
