"""The ledger against the simulator's own bill, and budgets under many clients: faults, killed brokers and workers included.

The long form: TIERMQ_COST_JOBS=100000 pytest -k equals_the_bill
"""

import csv
import io
import json
import os
import random
import threading
import time

from harness import http_request, program, wait_for
from wire import Client, pb

JOBS = int(os.environ.get("TIERMQ_COST_JOBS", "3000"))
CUT_JOBS = JOBS // 10
# Nano-dollars a token: no call's cost has to be rounded, so that sums of tokens are sums of money.
PRICES = {"sim-small": (150, 600), "sim-medium": (2500, 10000), "sim-large": (10000, 30000)}
MODELS = [{"name": name, "provider": "sim", "input_usd_per_mtok": price[0] / 1000, "output_usd_per_mtok": price[1] / 1000,
           "quality": quality, "max_tokens_default": 64} for (name, price), quality in zip(PRICES.items(), (40, 70, 90))]
FAULTS = [{"kind": "status", "status": 503, "rate": 0.05}, {"kind": "status", "status": 429, "rate": 0.03, "retry_after_ms": 20},
          {"kind": "reset", "rate": 0.03}, {"kind": "truncated", "rate": 0.02}, {"kind": "error_in_200", "rate": 0.02},
          {"kind": "garbage", "rate": 0.01}, {"kind": "empty", "rate": 0.01}]


def control(cluster, what, body=None, server=None):
    status, text = http_request((server or cluster.modelsim).ready["http"], f"/control/{what}", body)
    assert status == 200, text
    return json.loads(text)


def bill(cluster, server=None):
    return control(cluster, "bill", server=server)["models"]


def cost(cluster, by="model"):
    return cluster.broker.admin_json(f"/v1/cost?by={by}")


def costs_of(calls):
    return sum(calls[m]["answered"]["input_tokens"] * p[0] + calls[m]["answered"]["output_tokens"] * p[1] for m, p in PRICES.items())


def counted(row):
    """What providers counted themselves: calls, tokens and money of a row without its estimates."""
    tokens = sum(row[name] for name in ("input_tokens", "cached_input_tokens", "cache_write_tokens", "cache_write_long_tokens",
                                        "output_tokens"))
    return (row["calls"] - row["estimated_calls"], tokens - row["estimated_tokens"], row["cost_nanousd"] - row["estimated_nanousd"])


def billed(model, sums):
    answered = sums["answered"]
    price = PRICES[model]
    return (answered["calls"], answered["input_tokens"] + answered["output_tokens"],
            answered["input_tokens"] * price[0] + answered["output_tokens"] * price[1])


def expect_equal(cluster):
    rows = {row["model"]: row for row in cost(cluster)["rows"]}
    sums = {model: sums for model, sums in bill(cluster).items() if sums["answered"]["calls"] > 0}
    assert {model: counted(row) for model, row in rows.items() if counted(row)[0] > 0} == \
        {model: billed(model, of) for model, of in sums.items()}


# ---- second calls, cancelled and late ones: two providers ----

def start_two(cluster):
    """The same models at "sim" and at "other", where second calls go. Returns the servers by provider."""
    servers = {name: cluster.run(f"modelsim-{name}", [program("tiermq-modelsim"), "--listen", "127.0.0.1:0", "--first-token-ms", "60",
                                                      "--tokens-per-s", "400", "--seed", str(seed)])
               for seed, name in enumerate(("sim", "other"), 1)}
    cluster.modelsim = servers["sim"]
    cluster.config = {
        "providers": [{"name": name, "type": "openai", "base_url": server.ready["http"] + "/v1"} for name, server in servers.items()],
        "models": [{**model, "failover": ["other"]} for model in MODELS], "cache": {"mode": "off"},
        "tiers": [{"name": "realtime", "hedge_share": 0.5, "deadline": "60s", "shed_target": "0ms"}]}
    cluster.start_broker(broker={"lease": "2s", "heartbeat": "200ms"})
    for _ in range(2):
        cluster.start_worker(worker={"slots": 32})
    return servers


def ask(client, number, stream=False, **fields):
    body = {"messages": [{"role": "user", "content": f"question {number}: " + "why " * 20}], "max_tokens": 24,
            **({"stream": True, "stream_options": {"include_usage": True}} if stream else {})}
    request = pb.ModelRequest(operation="chat.completions", body=json.dumps(body).encode()).SerializeToString()
    return client.submit(request, tier="realtime", route="sim-small", input_tokens=28, estimated_tokens=52, max_tokens=24, stream=stream, **fields)


def conclusion(client, job):
    client.any(("result", "status"), lambda item: item.job_id == job)
    client.collected(job)


def every_call(cluster, servers):
    """By provider and model: (calls in the ledger, of them estimated, answered by the bill, cut off by the bill), and their tokens."""
    rows = {(row["provider"], row["model"]): row for row in cost(cluster, "provider,model")["rows"] if row["calls"] > 0}
    bills = {(name, model): of for name, server in servers.items() for model, of in bill(cluster, server).items()
             if of["answered"]["calls"] + of["cut"]["calls"] > 0}
    assert rows.keys() == bills.keys()
    return {key: (rows[key], bills[key]) for key in rows}


def expect_calls_equal(cluster, servers):
    """
    Each call that the providers charge is in the ledger, once: with the provider's own count, or as an estimate where we hung up.
    What was answered in the moment in which we hung up is an estimate here, and an answer there.
    """
    for (_, model), (row, sums) in every_call(cluster, servers).items():
        answered, cut = sums["answered"], sums["cut"]
        assert row["calls"] == answered["calls"] + cut["calls"]
        crossed = row["estimated_calls"] - cut["calls"]
        unread = [a - b for a, b in zip(billed(model, sums), counted(row))]
        assert unread[0] == crossed >= 0 and unread[1] >= 0 and unread[2] >= 0, (row, sums)
        assert crossed > 0 or unread == [0, 0, 0], (row, sums)
        assert row["late_nanousd"] >= row["estimated_nanousd"] > 0 or row["estimated_calls"] == 0


def test_ledger_has_second_calls_and_cancelled_and_expired_ones_as_the_bill_has_them(cluster):
    servers = start_two(cluster)
    with Client(cluster.broker) as client:
        for number in range(120):  # by which the broker learns how long calls take
            conclusion(client, ask(client, number, stream=number % 3 == 0))
        control(cluster, "faults", {"faults": [{"kind": "slow", "factor": 10, "rate": 0.2}]})
        for begin in range(200, 200 + CUT_JOBS, 40):
            jobs = [ask(client, number, stream=number % 3 == 0) for number in range(begin, begin + 40)]
            time.sleep(0.02)
            for job in jobs[::5]:
                client.cancel(job)
            for job in jobs:
                conclusion(client, job)
        control(cluster, "faults", {"faults": [{"kind": "hang", "hang_ms": 3000, "rate": 0.2}]})
        for job in [ask(client, number, deadline_in_ms=400) for number in range(5000, 5040)]:
            conclusion(client, job)
    for server in servers.values():
        wait_for(lambda: control(cluster, "counters", server=server)["in_flight"] == 0, "the last calls")
    wait_for(lambda: sum(w.metrics().get("tiermq_worker_answers_kept", 0) for w in cluster.workers) == 0, "what workers keep")
    total = cost(cluster)["total"]
    print({key: total[key] for key in ("calls", "estimated_calls", "cost_nanousd", "estimated_nanousd", "late_nanousd")})
    assert total["estimated_calls"] > CUT_JOBS / 20
    assert every_call(cluster, servers)[("other", "sim-small")][0]["calls"] > 0
    expect_calls_equal(cluster, servers)


def start(cluster, first_token_ms=2, **changes):
    cluster.config = {"models": MODELS, **changes}
    cluster.start_modelsim("--first-token-ms", str(first_token_ms))
    cluster.start_broker(broker={"lease": "1s", "heartbeat": "200ms", "reclaim": "1s"})
    for _ in range(2):
        cluster.start_worker(worker={"slots": 16})


def write_jobs(cluster, count):
    """Prompts of a Zipf-like popularity, so that some are answered by the cache or by an identical job."""
    dice = random.Random(7)
    path = cluster.directory / "jobs.jsonl"
    with open(path, "w") as out:
        for _ in range(count):
            number = int(dice.paretovariate(0.4))
            out.write(json.dumps({"prompt": f"tell me of thing number {number % 100000}", "max_tokens": 40,
                                  "tier": dice.choice(("realtime", "standard", "background")), "deadline": "300s",
                                  "model": dice.choice(("auto", "sim-small", "sim-medium", "sim-large"))}) + "\n")
    return path


def test_ledger_equals_the_bill_to_the_token_over_faults_and_a_killed_broker(cluster):
    start(cluster)
    control(cluster, "faults", {"faults": FAULTS})
    submission = cluster.cli_start("submit", "--file", write_jobs(cluster, JOBS), "--window", "128", "--out",
                                   cluster.directory / "out.jsonl")
    results = cluster.directory / "out.jsonl"
    wait_for(lambda: results.exists() and results.read_text().count("\n") > JOBS // 3, "a third of the results", timeout_s=600)
    cluster.broker.kill()
    cluster.restart_broker()
    _, said = submission.communicate(timeout=3600)
    assert results.read_text().count("\n") == JOBS, said
    wait_for(lambda: control(cluster, "counters")["in_flight"] == 0, "the last calls")
    wait_for(lambda: sum(w.metrics().get("tiermq_worker_answers_kept", 0) for w in cluster.workers) == 0, "what workers keep")
    expect_equal(cluster)
    total = cost(cluster)["total"]
    assert total["calls"] > JOBS / 50 and total["cache_hits"] > JOBS / 50
    cluster.broker.stop()
    cluster.restart_broker()
    assert cost(cluster)["total"]["cost_nanousd"] == total["cost_nanousd"]


def test_cost_is_shown_as_a_table_csv_and_json(cluster):
    start(cluster)
    assert cluster.cli("submit", "--route", "sim-small", "hello there").returncode == 0
    wait_for(lambda: cost(cluster)["total"]["calls"] == 1, "the call")
    shown = cluster.cli("cost", "--by", "tenant,model")
    assert shown.returncode == 0, shown.stderr
    assert "default sim-small" in shown.stdout
    rows = list(csv.DictReader(io.StringIO(cluster.cli("cost", "--by", "model,day", "--csv").stdout)))
    assert [row["model"] for row in rows] == ["sim-small"]
    whole = json.loads(cluster.cli("cost", "--json").stdout)
    assert f"{whole['total']['cost_nanousd'] / 1e9:.9f}" == rows[0]["cost_usd"]
    assert (whole["rows"][0]["tenant"], whole["total"]["cost_nanousd"]) == ("default", costs_of(bill(cluster)))
    assert cluster.cli("cost", "--by", "colour").returncode != 0
    assert cluster.cli("cost", "--from", "yesterday").returncode != 0
    assert cluster.cli("cost", "--from", "2001-01-01", "--to", "2001-12-31", "--json").stdout.count("sim-small") == 0


CLIENTS, EACH, LIMIT_NANOUSD = 50, 20, 3_000_000


class Spender(threading.Thread):
    """A client that submits one job after the other, whatever becomes of them, and comes back over restarts."""

    def __init__(self, cluster, number):
        super().__init__(daemon=True)
        self.cluster, self.number = cluster, number
        self.outcomes = []

    def request(self, job):
        body = {"messages": [{"role": "user", "content": f"client {self.number} asks question {job}"}], "max_tokens": 40}
        return pb.ModelRequest(operation="chat.completions", body=json.dumps(body).encode()).SerializeToString()

    def spend(self, job):
        with Client(self.cluster.broker) as client:
            client.submit(self.request(job), tier="standard", route="sim-small", max_tokens=40)
            return client.any(("result", "rejected"), timeout_s=5)[1]  # a broker that was killed says nothing more

    def run(self):
        for job in range(EACH):
            try:
                outcome = self.spend(job)
            except AssertionError:  # the broker went away in the middle
                time.sleep(0.5)
                continue
            self.outcomes.append(outcome)


def purse(cluster):
    return cost(cluster)["budgets"][0]


def test_many_clients_hold_a_small_budget_over_a_killed_broker_and_worker(cluster):
    limit = LIMIT_NANOUSD / 1e9
    start(cluster, first_token_ms=30, cache={"mode": "off"},
          budgets=[{"name": "b", "tenant": "default", "daily_usd": limit}])
    spenders = [Spender(cluster, number) for number in range(CLIENTS)]
    for spender in spenders:
        spender.start()
    wait_for(lambda: costs_of(bill(cluster)) > LIMIT_NANOUSD / 4, "some to be spent")
    cluster.broker.kill()
    cluster.restart_broker()
    wait_for(lambda: costs_of(bill(cluster)) > LIMIT_NANOUSD / 2, "half to be spent")
    cluster.workers[0].kill()
    for spender in spenders:
        spender.join(timeout=120)
    wait_for(lambda: purse(cluster)["reserved_nanousd"] == 0, "all to be settled")
    spent, paid = purse(cluster)["day_nanousd"], costs_of(bill(cluster))
    assert paid <= spent <= LIMIT_NANOUSD, (paid, spent)
    refused = [o for spender in spenders for o in spender.outcomes if isinstance(o, pb.Rejected)]
    assert refused and {o.reason for o in refused} == {pb.REJECT_BUDGET}
    assert 0 < min(o.retry_after_ms for o in refused) <= 86_400_000
    # What is left would not have paid for another: a token for each byte of its payload, and max_tokens.
    most = max(len(spenders[-1].request(EACH)) * PRICES["sim-small"][0], 0) + 40 * PRICES["sim-small"][1]
    assert spent + most > LIMIT_NANOUSD - most


# ---- savings ----

CACHED = {"sim-small": 15, "sim-medium": 250, "sim-large": 1000, "sim-claude": 300}  # nano-dollars a token from the prompt cache
CLAUDE = (3000, 15000)


def start_saving(cluster):
    """A quarter of each prompt is in the prompt cache, of OpenAI's kind and of Anthropic's; routes are compared with sim-large."""
    cluster.start_modelsim("--prompt-cache", "25", "--model", "sim-claude")
    url = cluster.modelsim.ready["http"]
    models = [{**model, "cached_input_usd_per_mtok": CACHED[model["name"]] / 1000} for model in MODELS]
    claude = {"name": "sim-claude", "provider": "claude", "input_usd_per_mtok": CLAUDE[0] / 1000, "output_usd_per_mtok": CLAUDE[1] / 1000,
              "cached_input_usd_per_mtok": CACHED["sim-claude"] / 1000, "max_tokens_default": 64}
    cluster.config = {"providers": [{"name": "sim", "type": "openai", "base_url": url + "/v1"},
                                    {"name": "claude", "type": "anthropic", "base_url": url + "/v1"}],
                      "models": [*models, claude], "routes": [{"name": "cheap", "models": ["sim-small", "sim-medium"]}],
                      "cost": {"reference_model": "sim-large"}, "cache": {"mode": "off"}}
    cluster.start_broker()
    cluster.start_worker()


def cost_of(model, sums):
    """What a model takes for so many tokens, some of them from its prompt cache."""
    plain, output = {**PRICES, "sim-claude": CLAUDE}[model]
    return (sums["input_tokens"] - sums["cached_tokens"]) * plain + sums["cached_tokens"] * CACHED[model] + sums["output_tokens"] * output


def test_savings_of_the_prompt_cache_and_of_routes_are_those_of_the_bill(cluster):
    start_saving(cluster)
    usages = []
    with Client(cluster.broker) as client:
        for number, route in enumerate(("cheap", "sim-medium", "sim-claude") * 10):
            body = {"messages": [{"role": "user", "content": f"question {number}: " + "why " * 40}], "max_tokens": 24}
            request = pb.ModelRequest(operation="chat.completions", body=json.dumps(body).encode())
            result, _ = client.result(client.submit(request.SerializeToString(), tier="standard", route=route, max_tokens=24))
            assert result.state == pb.JOB_STATE_SUCCEEDED, result
            usages.append((route, result.usage))
    bills = {model: of["answered"] for model, of in bill(cluster).items() if of["answered"]["calls"] > 0}
    rows = {row["model"]: row for row in cost(cluster)["rows"]}
    assert rows.keys() == bills.keys() and "sim-claude" in rows and sum(sums["cached_tokens"] for sums in bills.values()) > 0
    for model, sums in bills.items():
        row, cached = rows[model], sums["cached_tokens"]
        assert (row["input_tokens"], row["cached_input_tokens"]) == (sums["input_tokens"] - cached, cached)
        assert (row["cost_nanousd"], row["estimated_calls"]) == (cost_of(model, sums), 0)
        assert row["saved_prompt_cache_nanousd"] == cached * ({**PRICES, "sim-claude": CLAUDE}[model][0] - CACHED[model])
    # Jobs that name their model save nothing by a choice. Each job tells its own.
    routed = [usage for route, usage in usages if route == "cheap"]
    assert all(usage.saved_routing_nanousd == 0 for route, usage in usages if route != "cheap")
    for usage in routed:
        sums = {"input_tokens": usage.input_tokens, "cached_tokens": usage.cached_input_tokens, "output_tokens": usage.output_tokens}
        assert usage.saved_routing_nanousd == cost_of("sim-large", sums) - usage.cost_nanousd > 0
    total = cost(cluster)["total"]
    assert total["saved_routing_nanousd"] == sum(usage.saved_routing_nanousd for usage in routed)
    assert total["saved_prompt_cache_nanousd"] == sum(usage.saved_prompt_cache_nanousd for _, usage in usages) > 0
    line = json.loads(cluster.cli("submit", "--json", "--route", "cheap", "--tier", "standard", "said by the job itself: " + "why " * 40).stdout)
    assert line["saved_routing_nanousd"] > 0 and line["saved_prompt_cache_nanousd"] > 0 and "cost_is_estimated" not in line
    total = cost(cluster)["total"]
    metrics = cluster.broker.metrics()
    for by in ("prompt_cache", "routing"):
        assert round(metrics[f'tiermq_ledger_saved_usd{{by="{by}"}}'] * 1e9) == total[f"saved_{by}_nanousd"]


# ---- infrastructure ----

HOURS_MS = 3_600_000
UPKEEP_PRICES = {"worker_usd_per_hour": 1.0, "gpu_usd_per_hour": 2.0, "storage_usd_per_gb_month": 73.0, "traffic_usd_per_gb": 5.0,
                 "pools": [{"name": "fast", "worker_usd_per_hour": 10.0, "gpu_usd_per_hour": 36.0}]}


def upkeep(cluster):
    """Rows by pool."""
    return {row["pool"]: row for row in cost_json(cluster)["infrastructure"]["rows"]}


def cost_json(cluster):
    return cluster.broker.admin_json("/v1/cost")


def money(row, worker_usd, gpu_usd):
    """What the row costs, within the rounding of each of its parts."""
    parts = (row["worker_ms"] * worker_usd / HOURS_MS, row["gpu_ms"] * gpu_usd / HOURS_MS,
             row["storage_byte_hours"] / 1e9 * 73.0 / 730, row["traffic_bytes"] / 1e9 * 5.0)
    return sum(part * 1e9 for part in parts)


def test_infrastructure_is_what_was_there_and_survives_a_restart(cluster):
    cluster.config = {"pools": ["default", "fast"], "cost": UPKEEP_PRICES, "cache": {"mode": "off"}}
    cluster.start_modelsim()
    cluster.start_broker()
    began = time.monotonic()
    cluster.start_worker(worker={"pools": ["fast"], "gpus": 4})
    cluster.start_worker(worker={"pools": ["default", "fast"]})
    started = time.monotonic()
    assert cluster.cli("submit", "--route", "sim-small", "hello there").returncode == 0
    wait_for(lambda: upkeep(cluster).get("fast", {}).get("gpu_ms", 0) > 0, "a count", timeout_s=60)
    time.sleep(1)
    stopped = time.monotonic()
    cluster.broker.stop()  # counts up to its end
    most_ms, least_ms = (time.monotonic() - began) * 1000, (stopped - started) * 1000 - 500
    cluster.restart_broker()
    rows = upkeep(cluster)
    assert least_ms <= rows["default"]["worker_ms"] * 2 <= most_ms, (least_ms, rows, most_ms)
    assert least_ms * 1.5 <= rows["fast"]["worker_ms"] <= most_ms * 1.5, (least_ms, rows, most_ms)
    assert least_ms * 4 <= rows["fast"]["gpu_ms"] <= most_ms * 4 and rows["default"]["gpu_ms"] == 0
    assert rows[""]["traffic_bytes"] > 500 and rows[""]["worker_ms"] == 0
    assert abs(rows["fast"]["cost_nanousd"] - money(rows["fast"], 10.0, 36.0)) < 20_000
    assert abs(rows["default"]["cost_nanousd"] - money(rows["default"], 1.0, 2.0)) < 2_000
    assert abs(rows[""]["cost_nanousd"] - money(rows[""], 0, 0)) < 2_000
    shown = cluster.cli("cost", "--infrastructure", "--by", "day", "--csv")
    assert shown.returncode == 0, shown.stderr
    lines = list(csv.DictReader(io.StringIO(shown.stdout)))
    assert {line["pool"] for line in lines} == {"", "default", "fast"} and len({line["day"] for line in lines}) in (1, 2)
    table = cluster.cli("cost").stdout
    assert "pool fast" in table and "GPU hours" in table
    assert cost_json(cluster)["infrastructure"]["total"]["cost_nanousd"] >= sum(row["cost_nanousd"] for row in rows.values())


def test_a_worker_of_two_brokers_costs_once(cluster):
    cluster.config = {"pools": ["default", "fast"], "cost": UPKEEP_PRICES, "cache": {"mode": "off"}}
    cluster.start_modelsim()
    brokers = [cluster.start_broker(name) for name in ("one", "two")]
    began = time.monotonic()
    cluster.start_worker(worker={"brokers": [b.ready["workers"] for b in brokers], "events": [b.ready["events"] for b in brokers]})
    wait_for(lambda: cluster.workers[0].metrics().get("tiermq_worker_brokers_joined", 0) == 2 or time.monotonic() - began > 3, "both")
    time.sleep(2)
    for broker in brokers:
        broker.stop()
    most_ms = (time.monotonic() - began) * 1000
    counted_ms = 0
    for broker in brokers:
        again = cluster.restart_broker(broker)
        rows = again.admin_json("/v1/cost")["infrastructure"]["rows"]
        counted_ms += sum(row["worker_ms"] for row in rows)
    assert 1500 <= counted_ms <= most_ms, (counted_ms, most_ms)
