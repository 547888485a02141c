"""What each lever saves by itself, and all together: the same jobs, to real processes, and what the simulated provider charges for them.

--texts: prompts.jsonl. What the jobs are is said in savings_jobs.py. Each run has a simulator, a broker and a worker of its own, and begins with empty
caches and without evidence. Its ledger must be equal to the simulator's bill, to the nano-dollar. "none": each job makes its own call to the
strong model. Beside what the bill is less by than that of "none" stands what the ledger says that the lever saved.
The provider keeps prefixes in every run, as real ones do: OpenAI's without being asked. With Anthropic's protocol it is asked by marks, so there "none" has none.
"""
import collections
import json
import pathlib
import random
import subprocess
import threading
import time
import urllib.request

import yaml

import cache_texts
from savings_jobs import POLITE, TENANTS, Workload, lines_of

DEFAULTS = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "tiermq.yaml"
JOBS, JOBS_QUICK = 6000, 300
SPEED, SPEED_QUICK = (50, 400), (10, 4000)  # ms to the first token, tokens a second
STRONG, WEAK, EMBED = "sim-large", "sim-small", "sim-embed"
PRICES = "input", "cached_input", "cache_write", "output"
EMBED_MODEL = {"name": EMBED, "provider": "embed", "input_usd_per_mtok": 0.02}  # the default configuration has none for embeddings
# What of the ledger tells of a lever.
SAVED_BY = {"cache": ("cache", "followers"), "routing": ("routing",), "optimising": ("optimising",), "combining": ("batching",), "prefixes": ("prompt_cache",)}
SAVED = [name for names in SAVED_BY.values() for name in names]
TIERS = "realtime", "standard", "background"
LEVERS = tuple(SAVED_BY)
CLASSES = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens")


def http(address, path):
    address = address if "://" in address else "http://" + address
    with urllib.request.urlopen(address + path, timeout=10) as answer:
        return json.load(answer)


def default_models(bench, protocol):
    """Those of the default configuration. With Anthropic's protocol at its proportions: reading a prefix costs a tenth, writing it a quarter more."""
    shown = subprocess.run([bench.program("tiermq"), "config", "show", str(DEFAULTS)], check=True, stdout=subprocess.PIPE, text=True).stdout
    models = [{**model, "provider": "sim"} for model in yaml.safe_load(shown)["models"]]
    if protocol == "anthropic":
        for model in models:
            model.update({"cached_input_usd_per_mtok": model["input_usd_per_mtok"] / 10, "cache_write_usd_per_mtok": model["input_usd_per_mtok"] * 1.25})
    return [*models, EMBED_MODEL]


def nanousd_a_token(model):
    """Whole ones, for the four classes: sums of tokens are sums of money."""
    dollars_of = lambda kind: model.get(f"{kind}_usd_per_mtok", model["input_usd_per_mtok"] if kind != "output" else 0)
    return [round(1000 * dollars_of(kind)) for kind in PRICES]


def tiers_with(levers):
    """The default tiers; what a lever sets is off without it."""
    optimising = {"prompt_space": "on", "prompt_repeats": "on", "prompt_history_tokens_max": 1000, "prompt_passages_tokens_max": 600}
    for name in TIERS:
        tier = {"name": name, "prompt_space": "off", "prompt_prefix": "on" if "prefixes" in levers else "off", "hedge_share": 0}
        if "optimising" in levers:
            tier.update(optimising)
        if "combining" in levers and name != "realtime":
            tier.update({"combine_linger": "50ms" if name == "standard" else "500ms"})
        yield tier


class Run:
    """One workload through one cluster with some levers."""

    def __init__(self, bench, name, levers, workload, protocol="openai"):
        self.bench, self.name, self.levers, self.workload, self.protocol = bench, name, levers, workload, protocol
        self.models = default_models(bench, protocol)
        self.prices = {model["name"]: nanousd_a_token(model) for model in self.models}
        self.folder = bench.folder("savings-" + name.replace(" ", "-").replace(",", ""))
        first_ms, tokens_per_s = SPEED_QUICK if bench.quick else SPEED
        self.sim = bench.modelsim("--first-token-ms", str(first_ms), "--tokens-per-s", str(tokens_per_s), "--tokens", "20:160", "--prefix-cache", "300",
                                  "--ignore", ",".join(POLITE), "--alike")
        self.start()

    def start(self):
        url = self.sim.ready["http"] + "/v1"
        keeps = "on" if "prefixes" in self.levers else "off"
        shared = {"tiers": list(tiers_with(self.levers)), "tenants": [{"name": name} for name, _ in TENANTS],
                  "providers": [{"name": "sim", "type": self.protocol, "base_url": url, "prompt_cache": keeps},
                                {"name": "embed", "type": "openai", "base_url": url}],
                  "models": self.models, "routes": [{"name": "auto", "models": [WEAK, STRONG]}], "cost": {"reference_model": STRONG},
                  "cache": {"mode": "near" if "cache" in self.levers else "off", "judge": "equal", "lookup_timeout": "20ms"}}
        self.broker = self.daemon("tiermq-broker", {**shared, "broker": {
            **{f"listen_{kind}": "tcp://127.0.0.1:*" for kind in ("clients", "workers", "events")},
            "admin": "127.0.0.1:0", "store": "rocksdb", "data_dir": str(self.folder / "broker")}})
        self.worker = self.daemon("tiermq-worker", {**shared, "worker": {
            "name": "w", "brokers": [self.broker.ready["workers"]], "events": [self.broker.ready["events"]],
            "admin": "127.0.0.1:0", "data_dir": str(self.folder / "worker")}})

    def daemon(self, program, config):
        path = self.folder / f"{program}.yaml"
        path.write_text(json.dumps(config))
        return self.bench.daemon([self.bench.program(program), "--config", str(path)], f"{self.folder.name}-{program}.log")

    def stop(self):
        for daemon in (self.worker, self.broker, self.sim):
            daemon.stop()

    # ------------------------------------------------------------------------------------------- the jobs

    def submit(self):
        """Hands all jobs in, each when its time has come, and returns their result lines by number."""
        begins, threads = time.monotonic() + 0.5, []
        for tenant, _ in TENANTS:
            threads.append(threading.Thread(target=self.submit_of, args=(tenant, begins), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()
        results = {}
        for tenant, _ in TENANTS:
            for line in (self.folder / f"{tenant}.jsonl").read_text().splitlines():
                result = json.loads(line)
                results[int(result["id"][1:])] = result
        return results

    def submit_of(self, tenant, begins):
        command = [self.bench.program("tiermq"), "submit", "--brokers", self.broker.ready["clients"], "--tenant", tenant, "--file", "-",
                   "--window", "4096", "--out", str(self.folder / f"{tenant}.jsonl"), "--json"]
        route = "auto" if "routing" in self.levers else STRONG
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True) as process:
            for at, line in lines_of(self.workload, tenant, route, "cache" in self.levers):
                time.sleep(max(0.0, begins + at - time.monotonic()))
                process.stdin.write(line)
                process.stdin.flush()
            process.stdin.close()

    # ------------------------------------------------------------------------------------------- the money

    def bill(self):
        """By model, what the provider charges: calls, the four classes of tokens, nano-dollars."""
        rows = {}
        for model, of in http(self.sim.ready["http"], "/control/bill")["models"].items():
            sums = of["answered"]
            cached, written = sums["cached_tokens"], sums["cache_write_tokens"]
            tokens = (sums["input_tokens"] - cached - written, cached, written, sums["output_tokens"])
            if sums["calls"] > 0 or of["cut"]["calls"] > 0:
                rows[model] = (sums["calls"], *tokens, sum(n * price for n, price in zip(tokens, self.prices[model])))
                assert of["cut"]["calls"] == 0, "a call was cut"
        return rows

    def ledger(self):
        """The same by the broker's ledger, and its total."""
        cost = http(self.broker.ready["admin"], "/v1/cost?by=model")
        rows = {row["model"]: (row["calls"], *(row[name] for name in CLASSES), row["cost_nanousd"])
                for row in cost["rows"] if row["calls"] > 0}
        return rows, cost["total"]

    def settled(self):
        """Both, once the jobs that the cache makes for itself are over, too."""
        last, since = None, time.monotonic()
        while time.monotonic() - since < 2:
            now = (self.bill(), self.ledger()[0], http(self.sim.ready["http"], "/control/counters")["in_flight"])
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.1)
        return self.bill(), *self.ledger()

    def metrics(self, beginning):
        """The worker's whose names begin so."""
        with urllib.request.urlopen(f"http://{self.worker.ready['admin']}/metrics", timeout=10) as answer:
            samples = (line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line.startswith(beginning))
            return {name: float(value) for name, value in samples}

    def checks_nanousd(self):
        """What the cache's own jobs have cost: audits here."""
        return round(1e9 * sum(self.metrics("tiermq_worker_cache_checks_cost_usd_total").values()))


# ----------------------------------------------------------------------------------------------- what is told of a run

def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0


def latencies(workload, results):
    by_tier = collections.defaultdict(list)
    for number, result in results.items():
        by_tier[workload.jobs[number]["line"]["tier"]].append(result["total_us"] / 1000)
    return {tier: (round(percentile(by_tier[tier], 0.5)), round(percentile(by_tier[tier], 0.99))) for tier in TIERS}


def near_hits(workload, results):
    """(near hits, those whose answer was made for another question)."""
    owners = collections.defaultdict(set)
    for number, result in results.items():
        if result.get("cache") not in ("hit", "near_hit", "stale_hit"):
            owners[result.get("text")].add(workload.jobs[number]["key"])
    hits = [number for number, result in results.items() if result.get("cache") == "near_hit"]
    wrong = [n for n in hits if owners[results[n]["text"]] and workload.jobs[n]["key"] not in owners[results[n]["text"]]]
    return len(hits), len(wrong)


def sent_weak(workload, results):
    """Share that the weak model answered: of the prompts that it got wrong and a strong one right, of those that it got right, of all."""
    shares = {}
    for name, wanted in (("needs strong", "complex"), ("weak is right", "simple"), ("all", None)):
        models = [result.get("model") for number, result in results.items() for row in [workload.jobs[number]["row"]]
                  if result.get("model") in (WEAK, STRONG) and (wanted is None or (row.get("complexity") == wanted and row["source"] in ("mmlu", "gsm8k")))]
        shares[name] = round(100 * models.count(WEAK) / len(models), 1) if models else None
    return shares


def is_equal(bill, ledger, total):
    """To the call, the token and the nano-dollar, by model."""
    return bill == ledger and total["cost_nanousd"] == sum(row[-1] for row in bill.values()) and total["estimated_calls"] == 0


def measure(bench, name, levers, workload, protocol="openai"):
    run = Run(bench, name, levers, workload, protocol)
    try:
        results = run.submit()
        bill, ledger, total = run.settled()
        checks = run.checks_nanousd()
    finally:
        run.stop()
    succeeded = sum(result["outcome"] == "succeeded" for result in results.values())
    near, wrong = near_hits(workload, results)
    sums = [sum(row[i] for row in bill.values()) for i in range(6)]
    row = {"name": "savings", "levers": name, "with": levers, "jobs": len(workload.jobs), "succeeded": succeeded, "bill_nanousd": sums[5], "ledger_nanousd": total["cost_nanousd"],
           "is_equal": is_equal(bill, ledger, total), "calls": sums[0],
           **dict(zip(CLASSES, sums[1:5])), "saved_nanousd": {by: total[f"saved_{by}_nanousd"] for by in SAVED},
           "latency_ms": latencies(workload, results),
           "exact": sum(result.get("cache") == "hit" for result in results.values()), "near": near, "near_wrong": wrong, "checks_nanousd": checks,
           "shared": sum("led_by" in result for result in results.values()),
           "combined": sum(result.get("combined", 0) > 1 for result in results.values()), "sent_weak": sent_weak(workload, results)}
    if not row["is_equal"]:
        print(f"  bill {bill}\n  ledger {ledger}, estimated calls {total['estimated_calls']}")
    bench.add("savings", row)
    return row


def compare(row, none):
    """(by how much the bill is less, how much more the ledger says that the levers saved)."""
    names = [name for lever in row["with"] for name in SAVED_BY[lever]]
    return none["bill_nanousd"] - row["bill_nanousd"], sum(row["saved_nanousd"][name] - none["saved_nanousd"][name] for name in names)


def dollars(nanousd):
    return f"{nanousd / 1e9:.3f}"


def print_table(rows):
    """As it stands in docs/cost.md."""
    print("\n| | US$ | less, US$ | less | ledger says | differs | calls | input | cached | written | output | realtime | standard | background |\n| --- |" + " --- |" * 13)
    for row, none in rows:
        less, said = compare(row, none)
        of_it = f"{100 * (said - less) / less:+.0f} %" if less else "–"
        saved = ("–",) * 4 if row is none else (dollars(less), f"{100 * less / none['bill_nanousd']:.1f} %", dollars(said), of_it)
        times = [f"{p50} / {p99}" if row is none else f"{p50 - none['latency_ms'][tier][0]:+d} / {p99 - none['latency_ms'][tier][1]:+d}"
                 for tier, (p50, p99) in row["latency_ms"].items()]
        tokens = [f"{row[name]:,}".replace(",", " ") for name in CLASSES]
        print("| " + " | ".join([row["levers"], dollars(row["bill_nanousd"]), *saved, f"{row['calls']:,}".replace(",", " "), *tokens, *times]) + " |")
    print()


def rows_of_texts(bench):
    if bench.texts:
        with open(bench.texts[0], encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    return [{"text": text, "source": "made up"} for text in cache_texts.prompts(1000, [], random.Random(1))]


def warm_up(bench, rows):
    """The first programs that a machine starts are slower: their latency counts for nothing."""
    run = Run(bench, "warm-up", (), Workload(rows, JOBS_QUICK))
    try:
        run.submit()
    finally:
        run.stop()


def savings(bench):
    """What each lever saves, by the provider's own bill."""
    texts = rows_of_texts(bench)
    workload = Workload(texts, bench.jobs or (JOBS_QUICK if bench.quick else JOBS))
    if not bench.quick:
        warm_up(bench, texts)
    keys = collections.Counter(job["key"] for job in workload.jobs)
    print(f"  {len(workload.jobs)} jobs in {workload.jobs[-1]['at']:.0f} s, {len(keys)} different ones, "
          f"{sum(job['is_reworded'] for job in workload.jobs)} reworded; {dict(collections.Counter(job['kind'] for job in workload.jobs))}")
    runs = [("none", ()), *((lever, (lever,)) for lever in LEVERS), ("all", LEVERS)]
    measured = {name: measure(bench, name, levers, workload) for name, levers in (runs if not bench.quick else [runs[0], runs[-1]])}
    rows = [(row, measured["none"]) for row in measured.values()]
    if not bench.quick:
        marked = [measure(bench, name, levers, workload, "anthropic") for name, levers in (("none, Anthropic", ()), ("prefixes, Anthropic", ("prefixes",)))]
        rows += [(row, marked[0]) for row in marked]
    print_table(rows)
    for row, none in rows:
        bench.bar(f"{row['levers']}: ledger less bill, nano-dollars", abs(row["ledger_nanousd"] - row["bill_nanousd"]) + (not row["is_equal"]), 0, at_least=False)
        bench.bar(f"{row['levers']}: jobs that did not succeed", row["jobs"] - row["succeeded"], 0, at_least=False)
        if row is not none:
            bench.bar(f"{row['levers']}: saved, percent", 100 * compare(row, none)[0] / none["bill_nanousd"], 0)
    if bench.quick and not all(row["is_equal"] for row, _ in rows):
        raise SystemExit("a ledger differs from the bill")
