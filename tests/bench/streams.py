"""Streams and single calls through broker and worker, beside the same calls to the simulator itself and through a bare relay."""

import threading


class Path:
    """A simulator, and a broker and worker before it that have room for many calls at once."""

    def __init__(self, bench, *sim_arguments, slots=2048):
        self.bench = bench
        self.sim = bench.modelsim("--stamp", *sim_arguments)
        url = self.sim.ready["http"]
        self.broker = bench.broker("memory", provider=url + "/v1")
        self.worker = bench.worker(self.broker, url + "/v1", "worker", slots=slots, connections=slots)
        self.relay = bench.daemon([bench.program("bench-relay"), url.removeprefix("http://")], "relay.log")
        self.targets = {"direct": (url, []), "relay": (self.relay.ready["http"], [self.relay.pid]),
                        "tiermq": (self.broker.ready["clients"], [self.broker.pid, self.worker.pid])}

    def calls(self, way, what, rate, window, seconds):
        """`way` is direct, relay or tiermq."""
        target, pids = self.targets[way]
        return self.bench.run(self.bench.program("bench-calls"), target, what, rate, window, seconds, self.sim.pid, *pids)

    def close(self):
        for daemon in (self.worker, self.broker, self.relay, self.sim):
            daemon.stop()


def ms(us):
    return round(us / 1000, 2)


def cpu(result, *names):
    """µs of CPU a call: the client's, the simulator's, then those named."""
    return dict(zip(("client", "simulator") + names, result["cpu_us"]))


class Memory(threading.Thread):
    """The greatest resident memory of daemons while it runs."""

    def __init__(self, **daemons):
        super().__init__(daemon=True)
        self.daemons, self.most = daemons, dict.fromkeys(daemons, 0.0)
        self.is_over = threading.Event()
        self.start()

    def run(self):
        while not self.is_over.wait(0.25):
            for name, daemon in self.daemons.items():
                self.most[name] = max(self.most[name], daemon.rss_mb())

    def end(self):
        self.is_over.set()
        self.join()
        return {f"{name}_mb": round(mb, 1) for name, mb in self.most.items()}


def streams(bench):
    """A thousand streams at once through one worker: memory, and how late tokens are because of the others."""
    count, tokens, tokens_per_s = (100, 30, 10) if bench.quick else (1000, 100, 10)
    seconds = tokens / tokens_per_s
    late = {}
    for many, times in ((1, 1), (count, 1)):
        # The first seconds' streams fill the window. A stream began at each multiple of a tenth of the interval between tokens
        # would share its milliseconds with a tenth of the others for ever.
        rate = many / seconds * 0.9713
        path = Path(bench, "--first-token-ms", "50", "--tokens-per-s", str(tokens_per_s), "--tokens", f"{tokens}:{tokens}")
        try:
            before = {"broker": path.broker.rss_mb(), "worker": path.worker.rss_mb()}
            memory = Memory(broker=path.broker, worker=path.worker)
            result = path.calls("tiermq", "stream", rate, many, seconds * 2)
            row = {"streams": many, "tokens_per_s": result["tokens_per_s"], **memory.end(), "failed": result["failed"],
                   **{f"delay_{q}_ms": ms(result[f"delay_{q}_us"]) for q in ("p50", "p99", "p999", "max")},
                   "before_mb": {k: round(v, 1) for k, v in before.items()}, "cpu_us": cpu(result, "broker", "worker")}
            bench.add(f"{many} streams of {tokens_per_s} tokens/s", row)
            late[many] = row
            direct = path.calls("direct", "stream", rate, many, seconds * 2)
            bench.add(f"{many} streams, direct", {f"delay_{q}_ms": ms(direct[f"delay_{q}_us"]) for q in ("p50", "p99", "p999", "max")})
            row["direct_p999_ms"] = bench.rows[-1]["delay_p999_ms"]
        finally:
            path.close()
    # One stream has few tokens and no tail: what a token takes on an idle way is its median.
    own = late[1]["delay_p50_ms"]
    bench.bar(f"a token late because of {count} streams, p99.9 ms", late[count]["delay_p999_ms"] - own, 5, at_least=False)
    bench.bar("of that beyond the same streams without tiermq, ms", late[count]["delay_p999_ms"] - late[count]["direct_p999_ms"], 5, at_least=False)
    bench.bar(f"of {count} streams failed", late[count]["failed"], 0, at_least=False)
    bench.bar(f"worker MB with {count} streams", late[count]["worker_mb"], 150, at_least=False)
    bench.bar(f"broker MB with {count} streams", late[count]["broker_mb"], 100, at_least=False)


def added_latency(bench):
    """The same calls directly, through a bare relay and through broker and worker, in turn, at half of what the last can carry."""
    path = Path(bench, "--tokens", "20:20")
    seconds = 2 if bench.quick else 8
    try:
        most = {}
        for what, key in (("whole", "total"), ("stream", "first")):
            saturated = path.calls("tiermq", what, 0, 256, seconds)
            most[what] = saturated["calls_per_s"]
            bench.add(f"{what}, saturation", {"calls_per_s": most[what], "p50_ms": ms(saturated["total_p50_us"]),
                                              "p99_ms": ms(saturated["total_p99_us"]), "cpu_us": cpu(saturated, "broker", "worker")})
            add_bars(bench, what, key, compare(bench, path, f"{what} at half", key, most[what] / 2, seconds))
        # Half of it is far more than half of the machine, since messages that come alone share no wake-up.
        compare(bench, path, "stream at a quarter", "first", most["stream"] / 4, seconds)
        bench.bar("end to end, calls/s at saturation", most["whole"], 5000)
    finally:
        path.close()


def compare(bench, path, name, key, rate, seconds):
    """Returns the rounds of each way."""
    what = name.split()[0]
    rounds = {way: [] for way in path.targets}
    for _ in range(bench.rounds):
        for way in rounds:
            result = path.calls(way, what, rate, 1024, seconds)
            rounds[way].append(result)
            names = {"direct": (), "relay": ("relay",), "tiermq": ("broker", "worker")}[way]
            bench.add(f"{name}, {way}", {"rate": round(rate), "late": result["late"], "failed": result["failed"],
                                         "cores": round(result["calls_per_s"] * sum(result["cpu_us"]) / 1e6, 2),
                                         **{f"{key}_{q}_ms": result[f"{key}_{q}_us"] / 1000 for q in ("p50", "p99", "p999")},
                                         "cpu_us": cpu(result, *names)})
    return rounds


def add_bars(bench, what, key, rounds):
    median = lambda way, q: sorted(r[f"{key}_{q}_us"] for r in rounds[way])[len(rounds[way]) // 2] / 1000
    if what == "whole":
        bench.bar("added to a call beyond a bare relay, p50 ms", median("tiermq", "p50") - median("relay", "p50"), 0.2, at_least=False)
        bench.bar("added to a call, p99 ms", median("tiermq", "p99") - median("direct", "p99"), 3, at_least=False)
    else:
        bench.bar("added to the first token, p99 ms", median("tiermq", "p99") - median("direct", "p99"), 3, at_least=False)
