"""The ledger against the simulator's own bill, and budgets under many clients: faults, killed brokers and workers included.

The long form: TIERMQ_COST_JOBS=100000 pytest -k 'equals_the_bill or many_clients'
"""

import csv
import io
import json
import os
import random
import re
import select
import signal
import threading
import time

import pytest

from harness import http_request, program, wait_for
from wire import Client, pb

JOBS = int(os.environ.get("TIERMQ_COST_JOBS", "2000"))
CUT_JOBS = JOBS // 10
SHARED_JOBS = JOBS // 3
# Nano-dollars a token: no call's cost has to be rounded, so that sums of tokens are sums of money.
PRICES = {"sim-small": (150, 600), "sim-medium": (2500, 10000), "sim-large": (10000, 30000)}
MODELS = [{"name": name, "provider": "sim", "input_usd_per_mtok": price[0] / 1000, "output_usd_per_mtok": price[1] / 1000,
           "quality": quality, "max_tokens_default": 64} for (name, price), quality in zip(PRICES.items(), (40, 70, 90))]
# Of a 429 by chance the broker would learn to be slow: rate limits are real ones.
FAULTS = [{"kind": "status", "status": 503, "rate": 0.05},
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
    """It pings while it waits: a client that is silent for four heartbeats is forgotten, and slow calls take longer."""
    ends = ("result", "status")
    wait_for(lambda: client.ping() and any(name in ends and item.job_id == job for name, item, _ in client.items), "the end of a job")
    client.any(ends, lambda item: item.job_id == job)
    client.collected(job)


def calls_read(server):
    return control(None, "counters", server=server)["requests_total"]


def calls_begun(cluster, provider):
    """By workers, whatever the provider has read of them."""
    return sum(value for worker in cluster.workers for name, value in worker.metrics().items()
               if name.startswith("tiermq_worker_provider_calls_total{") and f'provider="{provider}"' in name)


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
    What was answered in the moment in which we hung up is an estimate here, and an answer there; what we hung up on before the
    provider had read it, of which a busy machine has more, is an estimate here alone. Each provider has one model here.
    """
    for (provider, model), (row, sums) in every_call(cluster, servers).items():
        answered, cut = sums["answered"], sums["cut"]
        unseen = row["calls"] - answered["calls"] - cut["calls"]
        assert row["calls"] == calls_begun(cluster, provider), (row, sums)
        assert unseen == row["calls"] - calls_read(servers[provider]) >= 0, (row, sums)
        crossed = row["estimated_calls"] - cut["calls"] - unseen
        unread = [a - b for a, b in zip(billed(model, sums), counted(row))]
        assert unread[0] == crossed >= 0 and unread[1] >= 0 and unread[2] >= 0, (row, sums)
        assert crossed > 0 or unread == [0, 0, 0], (row, sums)
        assert row["late_nanousd"] >= row["estimated_nanousd"] > 0 or row["estimated_calls"] == 0


def test_ledger_has_second_calls_and_cancelled_and_expired_ones_as_the_bill_has_them(cluster):
    servers = start_two(cluster)
    with Client(cluster.broker) as client:
        for begin in range(0, 120, 20):  # by which the broker learns how long calls take
            for job in [ask(client, number, stream=number % 3 == 0) for number in range(begin, begin + 20)]:
                conclusion(client, job)
        control(cluster, "faults", {"faults": [{"kind": "slow", "factor": 10, "rate": 0.2}]})
        for begin in range(200, 200 + CUT_JOBS, 40):
            had = sum(map(calls_read, servers.values()))
            jobs = [ask(client, number, stream=number % 3 == 0) for number in range(begin, begin + 40)]
            wait_for(lambda: client.ping() and sum(map(calls_read, servers.values())) >= had + 40, "all of them at a provider")
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


LIMITS = ("--requests-per-min", "9000", "--limit-burst", "0.1")


def start(cluster, **of_tiers):
    tiers = [{"name": name, "backoff_first": "100ms", "backoff_max": "500ms", **of_tiers} for name in ("realtime", "standard", "background")]
    cluster.config = {"models": MODELS, "tiers": tiers}
    cluster.start_modelsim("--first-token-ms", "2", *LIMITS)
    cluster.start_broker(broker={"lease": "1s", "heartbeat": "200ms", "reclaim": "1s"})
    for _ in range(2):
        cluster.start_worker(worker={"slots": 16})


def write_jobs(cluster, count, share_marked, popularity, models):
    """Prompts of a Zipf-like popularity, so that some are answered by the cache or by an identical job; some may share calls."""
    dice = random.Random(7)
    path = cluster.directory / "jobs.jsonl"
    with open(path, "w") as out:
        for _ in range(count):
            number = int(dice.paretovariate(popularity))
            out.write(json.dumps({"prompt": f"tell me of thing number {number % 100000}", "max_tokens": 40,
                                  "tier": dice.choice(("realtime", "standard", "background")), "deadline": "300s",
                                  "batchable": dice.random() < share_marked,
                                  "model": dice.choice(("auto", "sim-small", "sim-medium", "sim-large")[:models])}) + "\n")
    return path


def expect_the_bill(cluster, jobs, share_marked=0.0, popularity=0.4, models=4):
    """Of mixed jobs, at a provider that fails in every way, with a broker that is killed in the middle. Returns the ledger's total."""
    control(cluster, "faults", {"faults": FAULTS})
    submission = cluster.cli_start("submit", "--file", write_jobs(cluster, jobs, share_marked, popularity, models), "--window", "128", "--out",
                                   cluster.directory / "out.jsonl")
    results = cluster.directory / "out.jsonl"
    wait_for(lambda: results.exists() and results.read_text().count("\n") > jobs // 3, "a third of the results", timeout_s=600)
    cluster.broker.kill()
    cluster.restart_broker()
    _, said = submission.communicate(timeout=3600)
    assert results.read_text().count("\n") == jobs, said
    wait_for(lambda: control(cluster, "counters")["in_flight"] == 0, "the last calls")
    wait_for(lambda: sum(w.metrics().get("tiermq_worker_answers_kept", 0) for w in cluster.workers) == 0, "what workers keep")
    expect_equal(cluster)
    total = cost(cluster)["total"]
    assert total["calls"] > jobs / 50 and total["cache_hits"] > jobs / 50
    cluster.broker.stop()
    cluster.restart_broker()
    assert cost(cluster)["total"]["cost_nanousd"] == total["cost_nanousd"]
    return total


def test_ledger_equals_the_bill_to_the_token_over_faults_and_a_killed_broker(cluster):
    start(cluster)
    expect_the_bill(cluster, JOBS)


def test_ledger_equals_the_bill_to_the_call_where_calls_are_shared(cluster):
    start(cluster, combine_linger="100ms", combine_jobs_max=8)
    total = expect_the_bill(cluster, SHARED_JOBS, share_marked=0.7, popularity=0.15, models=2)
    combined = sum(value for w in cluster.workers for name, value in w.metrics().items()
                   if name.startswith("tiermq_worker_combined_jobs_total") and 'result="answered"' in name)
    print({key: total[key] for key in ("calls", "cost_nanousd", "saved_batching_nanousd", "followers", "cache_hits")}, combined)
    assert combined > SHARED_JOBS / 20



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


# ---- budgets ----

CLIENTS, SLOTS = 50, 16
EACH = max(16, JOBS // 150)
LIMIT_NANOUSD = EACH * 300_000
ANSWER_TOKENS = 40
BROKER_DEATHS = 1 + JOBS // 20000
SPEND_FAULTS = [*FAULTS, {"kind": "slow", "factor": 10, "rate": 0.05}]
REFUSAL = re.compile(r"has too little left \((\d+\.\d{9}) USD, attempts in flight may take (\d+\.\d{9}) of it\) "
                     r"for what this job may cost \((\d+\.\d{9}) USD\)")


def request_of(client, job):
    """Each has as many bytes as any other, and so the same worst case."""
    body = {"messages": [{"role": "user", "content": f"client {client:02d} asks question {job:06d}"}], "max_tokens": ANSWER_TOKENS}
    return pb.ModelRequest(operation="chat.completions", body=json.dumps(body).encode()).SerializeToString()


# A token for each byte of the payload, and max_tokens.
WORST_NANOUSD = len(request_of(0, 0)) * PRICES["sim-small"][0] + ANSWER_TOKENS * PRICES["sim-small"][1]


class Spender(threading.Thread):
    """A client that submits one job after the other, whatever becomes of them, and comes back over restarts."""

    def __init__(self, cluster, servers, number):
        super().__init__(daemon=True)
        self.cluster, self.servers, self.number = cluster, servers, number
        self.outcomes = []  # (how it ended, what the bill was afterwards if a budget was the reason)

    def spend(self, job):
        with Client(self.cluster.broker) as client:
            client.submit(request_of(self.number, job), tier="standard", route="sim-small", max_tokens=ANSWER_TOKENS)
            return client.any(("result", "rejected"), timeout_s=3)[1]  # a broker that was killed says nothing more

    def run(self):
        for job in range(EACH):
            try:
                outcome = self.spend(job)
            except AssertionError:  # the broker went away in the middle
                time.sleep(0.5)
                continue
            self.outcomes.append((outcome, paid_to(self.servers) if is_by_budget(outcome) else 0))


def is_by_budget(outcome):
    return outcome.reason == pb.REJECT_BUDGET if isinstance(outcome, pb.Rejected) else outcome.error_code == "budget"


def paid_to(servers, kinds=("answered", "cut")):
    """What the providers charge, calls that were cut off included."""
    sums = [bill(None, server)["sim-small"][kind] for server in servers for kind in kinds]
    return sum(s["input_tokens"] * PRICES["sim-small"][0] + s["output_tokens"] * PRICES["sim-small"][1] for s in sums)


def calls_of(servers, kind):
    return sum(bill(None, server)["sim-small"][kind]["calls"] for server in servers)


def purse(cluster):
    return cost(cluster)["budgets"][0]


def limit_of(nanousd):
    return [{"name": "b", "tenant": "default", "daily_usd": nanousd / 1e9}]


def spend_the_day(cluster):
    """A budget that has too little left until midnight. Returns the refusal of a prompt."""
    if time.time() % 86400 > 86400 - 15 * 60:
        pytest.skip("a new day begins within the 10 minutes for which a prompt is tried again")
    cluster.start_modelsim()
    cluster.config = {"models": MODELS, "cache": {"mode": "off"},
                      "budgets": [{"name": "b", "tenant": "default", "daily_usd": f"{2 * WORST_NANOUSD / 1e9:.9f}"}]}
    cluster.start_broker()
    cluster.start_worker()
    for number in range(20):
        done = cluster.cli("submit", "--model", "sim-small", "--max-tokens", str(ANSWER_TOKENS), f"question {number}")
        if done.returncode != 0:
            return done
    raise AssertionError("nothing was refused")


def test_prompt_is_refused_at_once_when_the_budget_is_spent_for_the_day(cluster):
    done = spend_the_day(cluster)
    assert done.returncode == 7 and REFUSAL.search(done.stderr) and "it is refilled at" in done.stderr


def test_file_that_waits_for_a_budget_says_so_once_and_its_cancelled_jobs_tell_why(cluster):
    spend_the_day(cluster)
    lines = "".join(json.dumps({"text": f"question {number}", "model": "sim-small", "max_tokens": ANSWER_TOKENS}) + "\n"
                    for number in range(100, 105))
    process = cluster.cli_start("submit", "--file", "-", input=lines)
    assert select.select([process.stderr], [], [], 30)[0], "it waits in silence"
    told = process.stderr.readline()
    assert "refused for now: budget: " in told and REFUSAL.search(told) and "tried again at " in told
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    results = [json.loads(line) for line in out.splitlines()]
    assert {result["outcome"] for result in results} == {"cancelled"} and "refused for now: budget" not in err
    reasons = [result["error"]["text"] for result in results]
    assert all("cancelled while it was refused for now; the last time: budget" in reason for reason in reasons)
    assert any(REFUSAL.search(reason) for reason in reasons)


def start_spending(cluster, lease):
    """Two workers, each with a provider's server of its own, so that the bill of each is known. Returns the servers."""
    servers = [cluster.run(f"modelsim-{seed}", [program("tiermq-modelsim"), "--listen", "127.0.0.1:0", "--first-token-ms", "30",
                                                *LIMITS, "--seed", str(seed)]) for seed in (1, 2)]
    cluster.modelsim = servers[0]
    cluster.config = {"models": MODELS, "cache": {"mode": "off"}, "budgets": limit_of(LIMIT_NANOUSD)}
    cluster.start_broker(broker={"lease": lease, "heartbeat": "200ms", "reclaim": "2s"})
    for server in servers:
        control(cluster, "faults", {"faults": SPEND_FAULTS}, server)
        cluster.start_worker(worker={"slots": SLOTS}, providers=[{"name": "sim", "type": "openai",
                                                                  "base_url": server.ready["http"] + "/v1"}])
    return servers


def spend_all(cluster, servers, kills_worker):
    """All clients at once, until each has submitted all it has; in between the broker is killed, and maybe the first worker."""
    spenders = [Spender(cluster, servers, number) for number in range(CLIENTS)]
    for spender in spenders:
        spender.start()
    for death in range(1, BROKER_DEATHS + 1):
        wait_for(lambda: paid_to(servers) > LIMIT_NANOUSD * death // (BROKER_DEATHS + 3), "some to be spent", timeout_s=600)
        cluster.broker.kill()
        cluster.restart_broker()
    if kills_worker:
        wait_for(lambda: paid_to(servers) > LIMIT_NANOUSD * (BROKER_DEATHS + 1) // (BROKER_DEATHS + 3), "most to be spent", timeout_s=600)
        cluster.workers[0].kill()
    for spender in spenders:
        spender.join(timeout=3600)
    wait_for(lambda: purse(cluster)["reserved_nanousd"] == 0, "all to be settled")
    return [outcome for spender in spenders for outcome in spender.outcomes]


def nanousd_of(text):
    return int(text.replace(".", ""))


def check_refusals(outcomes, estimated_max):
    """
    Each job that a budget turned away would have exceeded it: less than its worst case was left, attempts in flight not counted.
    And what was left was the budget without the bill: a refusal never rests on more than what was really spent.
    """
    turned_away = [(outcome, paid) for outcome, paid in outcomes if is_by_budget(outcome)]
    assert any(isinstance(outcome, pb.Rejected) for outcome, _ in turned_away)
    for outcome, paid in turned_away:
        text = outcome.text if isinstance(outcome, pb.Rejected) else outcome.error_text
        left, reserved, needed = map(nanousd_of, REFUSAL.search(text).groups())
        assert needed == WORST_NANOUSD > left, text
        assert left + paid + estimated_max >= LIMIT_NANOUSD, (text, paid)
        assert left >= reserved, text  # else attempts in flight could exceed it
        assert not isinstance(outcome, pb.Rejected) or 0 < outcome.retry_after_ms <= 86_400_000


def outcome_under(cluster, limit):
    """Of a job while nothing else runs."""
    config = cluster.broker.config
    config["budgets"] = limit_of(limit)
    cluster.write_config(cluster.broker.name, config)
    cluster.broker.signal(signal.SIGHUP)
    wait_for(lambda: purse(cluster)["daily_nanousd"] == limit, "the new limit")
    with Client(cluster.broker) as client:
        client.submit(request_of(CLIENTS, 0), tier="standard", route="sim-small", max_tokens=ANSWER_TOKENS)
        return client.any(("result", "rejected"))[1]


def expect_the_last_nanousd_to_decide(cluster, servers):
    """With nothing in flight a job is refused for one nano-dollar, and not for none."""
    for server in servers:
        control(cluster, "faults", {"faults": []}, server)
    spent = purse(cluster)["day_nanousd"]
    assert isinstance(outcome_under(cluster, spent + WORST_NANOUSD - 1), pb.Rejected)
    assert outcome_under(cluster, spent + WORST_NANOUSD).state == pb.JOB_STATE_SUCCEEDED


def test_many_clients_hold_a_budget_to_the_nanousd_over_faults_and_a_killed_broker(cluster):
    servers = start_spending(cluster, lease="15s")  # on a busy machine, too, none is lost
    outcomes = spend_all(cluster, servers, kills_worker=False)
    total, spent, paid = cost(cluster)["total"], purse(cluster)["day_nanousd"], paid_to(servers)
    print({"paid": paid, "spent": spent, "limit": LIMIT_NANOUSD, "calls": total["calls"], "outcomes": len(outcomes)})
    assert paid == spent == total["cost_nanousd"] <= LIMIT_NANOUSD < spent + WORST_NANOUSD
    assert total["estimated_calls"] == 0 and total["calls"] == calls_of(servers, "answered") and calls_of(servers, "cut") == 0
    check_refusals(outcomes, estimated_max=0)
    expect_the_last_nanousd_to_decide(cluster, servers)


def test_many_clients_hold_a_budget_to_the_nanousd_over_a_killed_worker_too(cluster):
    """What the killed worker had in flight nobody told: each such attempt is booked at its worst case, and no other is estimated."""
    servers = start_spending(cluster, lease="2s")
    outcomes = spend_all(cluster, servers, kills_worker=True)
    total, spent, paid = cost(cluster)["total"], purse(cluster)["day_nanousd"], paid_to(servers)
    untold = total["estimated_calls"]
    print({"paid": paid, "spent": spent, "limit": LIMIT_NANOUSD, "calls": total["calls"], "estimated": untold, "outcomes": len(outcomes)})
    assert paid <= spent == total["cost_nanousd"] <= LIMIT_NANOUSD < spent + WORST_NANOUSD
    assert 0 < untold <= SLOTS and total["estimated_nanousd"] == untold * WORST_NANOUSD
    # All that the living worker's provider charges is counted, and all that the dead one's does, but for what it had in flight.
    told = total["cost_nanousd"] - total["estimated_nanousd"]
    assert paid_to(servers[1:]) <= told <= paid_to(servers, ("answered",))
    missing = calls_of(servers, "answered") - (total["calls"] - untold)
    assert 0 <= missing and missing + calls_of(servers, "cut") <= untold and calls_of(servers[1:], "cut") == 0
    check_refusals(outcomes, estimated_max=total["estimated_nanousd"])
    expect_the_last_nanousd_to_decide(cluster, servers)


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
