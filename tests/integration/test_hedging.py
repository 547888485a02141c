"""
A second call beside a slow one, at another provider, with real programs: two simulated model servers, of which the first is sometimes slow.
"""

import json

import pytest

from harness import http_request, program, wait_for
from wire import Client, pb

FIRST_TOKEN_MS, SLOW_FACTOR, JOBS, WINDOW = 100, 20, 1000, 40
INPUT_USD, OUTPUT_USD = 1.0, 2.0  # per million tokens
SHARE = 0.05
TOKENS = 28  # of a prompt


def start(cluster, share=SHARE, **changes):
    """Model sim-small at "sim", and at "other" when the broker says so. They answer with different words. Returns the other server."""
    first = cluster.start_modelsim("--first-token-ms", str(FIRST_TOKEN_MS), "--seed", "1")
    other = cluster.run("modelsim-other", [program("tiermq-modelsim"), "--listen", "127.0.0.1:0", "--first-token-ms", str(FIRST_TOKEN_MS),
                                           "--seed", "2"])
    cluster.modelsim = first
    cluster.config = {
        "log": {"level": "info"},
        "tiers": [{"name": "realtime", "hedge_share": share, "deadline": "60s", "shed_target": "0ms"}],
        "providers": [{"name": "sim", "type": "openai", "base_url": first.ready["http"] + "/v1"},
                      {"name": "other", "type": "openai", "base_url": other.ready["http"] + "/v1"}],
        "models": [{"name": "sim-small", "provider": "sim", "failover": ["other"], "input_usd_per_mtok": INPUT_USD,
                    "output_usd_per_mtok": OUTPUT_USD}],
        "cache": {"mode": "off"},
        **changes,
    }
    cluster.start_broker(broker={"store": "memory"})
    cluster.start_worker(worker={"slots": 100})
    return other


def set_faults(server, *faults):
    status, text = http_request(server.ready["http"], "/control/faults", {"faults": list(faults)})
    assert status == 200, text


def counters(server):
    return json.loads(http_request(server.ready["http"], "/control/counters")[1])


def calls_of(server):
    return sum(counters(server)["requests"].values())


def submit(client, number, **fields):
    stream = {"stream": True, "stream_options": {"include_usage": True}} if fields.get("stream") else {}
    body = {"messages": [{"role": "user", "content": f"question {number}: " + "why " * 20}], "max_tokens": 8, **stream}
    request = pb.ModelRequest(operation="chat.completions", body=json.dumps(body).encode())
    return client.submit(request.SerializeToString(), tier="realtime", route="sim-small", input_tokens=TOKENS, estimated_tokens=TOKENS + 8, **fields)


def answer(client, job):
    """(Result, ModelResponse)"""
    result, payload = client.result(job)
    assert result.state == pb.JOB_STATE_SUCCEEDED, result
    return result, pb.ModelResponse.FromString(payload)


def serve(client, jobs, **fields):
    """So many jobs, WINDOW at a time. Returns what came of them."""
    waiting, done = [], []
    for number in range(jobs):
        waiting.append(submit(client, number, **fields))
        if len(waiting) == WINDOW:
            done.append(answer(client, waiting.pop(0)))
    return done + [answer(client, job) for job in waiting]


def hedges(cluster):
    metrics = cluster.broker.metrics()
    return {outcome: metrics[f'tiermq_hedges_total{{tier="realtime",outcome="{outcome}"}}'] for outcome in ("won", "lost", "failed")}


def test_slow_calls_are_answered_by_the_other_provider_within_the_budget(cluster):
    other = start(cluster)
    set_faults(cluster.modelsim, {"kind": "slow", "factor": SLOW_FACTOR, "rate": 0.03})
    with Client(cluster.broker) as client:
        done = serve(client, JOBS)
    outcomes, metrics = hedges(cluster), cluster.broker.metrics()
    seconds = sum(outcomes.values())
    won = [(r, a) for r, a in done if a.hedged and r.usage.provider == "other"]
    unhelped = [r for r, a in done if not a.hedged and r.usage.call_ms >= FIRST_TOKEN_MS * SLOW_FACTOR]
    print(f"{JOBS} jobs: second calls {outcomes}, refused "
          f"{ {k: v for k, v in metrics.items() if 'hedges_refused' in k and 'realtime' in k and v > 0} }; "
          f"won ones took {sorted(r.run_ms for r, _ in won)} ms; slow ones without: {len(unhelped)}")

    assert seconds == sum(a.hedged for _, a in done) > 10
    assert seconds <= JOBS * SHARE  # of calls
    assert calls_of(other) == seconds and calls_of(cluster.modelsim) == JOBS
    assert len(won) == outcomes["won"] > 5
    assert all(r.run_ms < FIRST_TOKEN_MS * SLOW_FACTOR for r, _ in won)  # the percentile and a quick call
    assert all(r.attempts == 1 for r, _ in done)

    # A server learns of a closed connection when it wants to answer, and some of them find out too late.
    wait_for(lambda: counters(cluster.modelsim)["in_flight"] == counters(other)["in_flight"] == 0, "ended calls")
    assert outcomes["won"] * 0.7 <= counters(cluster.modelsim)["aborted"] <= outcomes["won"]
    assert counters(other)["aborted"] <= outcomes["lost"]

    # Of calls that counted, what is accounted is what the servers have counted, and besides that only losers that were answered in vain.
    first, second = counters(cluster.modelsim), counters(other)
    usages = [r.usage for r, _ in done]
    served = (first["input_tokens"] + second["input_tokens"]) * INPUT_USD + (first["output_tokens"] + second["output_tokens"]) * OUTPUT_USD
    in_vain = first["answered"] + second["answered"] - JOBS
    accounted = sum(u.cost_nanousd for u in usages) / 1000  # nano-dollars a token, in millionths
    losers = sum(u.hedge_cost_nanousd for u in usages) / 1000
    dearest = max(u.cost_nanousd - u.hedge_cost_nanousd for u in usages) / 1000
    print(f"accounted {accounted}, of it losers {losers}; served {served}, of it {in_vain} answers in vain")
    assert 0 <= served - (accounted - losers) <= in_vain * dearest
    # A loser is accounted with the prompt, as the other has counted it.
    assert all(u.hedge_cost_nanousd == u.input_tokens * INPUT_USD * 1000 for u, (_, a) in zip(usages, done) if a.hedged)
    assert all((u.hedge_cost_nanousd > 0) == a.hedged for u, (_, a) in zip(usages, done))
    assert metrics['tiermq_cost_usd_total{tier="realtime"}'] == pytest.approx(accounted / 1e6)
    assert 0 < metrics['tiermq_hedge_cost_usd_total{tier="realtime"}'] <= accounted / 1e6 * SHARE * 1.001


def test_streams_are_of_one_provider_alone(cluster):
    other = start(cluster, share=0.5)
    with Client(cluster.broker) as client:
        serve(client, 40, stream=True)
        client.items.clear()
        set_faults(cluster.modelsim, {"kind": "slow", "factor": SLOW_FACTOR, "rate": 0.5})
        done = serve(client, 40, stream=True)
        texts = {}
        for field, head, data in client.items:
            if field == "chunk":
                texts.setdefault(head[:16], []).append(data)
    by_other = [r for r, _ in done if r.usage.provider == "other"]
    print(f"40 streams: {hedges(cluster)}, {len(by_other)} from the other")
    assert len(by_other) > 3
    for result, response in done:
        chunks = b"".join(texts[result.job_id]).split(b"\n\n")
        events = [json.loads(c.removeprefix(b"data: ")) for c in chunks if c.startswith(b"data: {")]
        text = "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])
        assert len({e["id"] for e in events}) == 1
        assert text == json.loads(response.body)["choices"][0]["message"]["content"]
    wait_for(lambda: counters(cluster.modelsim)["in_flight"] == counters(other)["in_flight"] == 0, "closed connections")


def set_latency(server, first_token_ms):
    status, text = http_request(server.ready["http"], "/control/latency", {"first_token_ms": first_token_ms})
    assert status == 200, text


def test_one_that_fails_leaves_it_to_the_other(cluster):
    other = start(cluster, share=0.5)
    with Client(cluster.broker) as client:
        serve(client, 40)
        # The first fails after 400 ms, when the second has been under way for long, and takes longer.
        set_latency(cluster.modelsim, 400)
        set_faults(cluster.modelsim, {"kind": "garbage"})
        set_latency(other, 800)
        result, response = answer(client, submit(client, 100))
        assert (result.usage.provider, result.attempts, response.hedged) == ("other", 1, True)
        # And the other way round.
        set_latency(cluster.modelsim, 800)
        set_faults(cluster.modelsim)
        set_faults(other, {"kind": "status", "status": 503})
        result, response = answer(client, submit(client, 101))
        assert (result.usage.provider, result.attempts, response.hedged) == ("sim", 1, True)
        assert result.usage.hedge_cost_nanousd == 0
    assert hedges(cluster) == {"won": 1, "lost": 0, "failed": 1}


def test_both_that_fail_are_one_attempt(cluster):
    other = start(cluster, share=0.5)
    with Client(cluster.broker) as client:
        serve(client, 40)
        set_latency(cluster.modelsim, 400)
        set_faults(cluster.modelsim, {"kind": "garbage", "until_ms": 300})
        set_faults(other, {"kind": "status", "status": 503, "until_ms": 300})
        result, response = answer(client, submit(client, 100))
        assert result.attempts == 2
    assert hedges(cluster)["failed"] == 1


def closed_by_the_other_side(server):
    """Connections of the server that its peer has closed, while it does not look: /proc/net/tcp calls them CLOSE_WAIT (8)."""
    port = int(server.ready["http"].rsplit(":", 1)[1])
    rows = (line.split() for line in open("/proc/net/tcp").readlines()[1:])
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "08" for row in rows)


def test_the_losers_connection_is_closed_at_once(cluster):
    start(cluster, share=0.5)
    with Client(cluster.broker) as client:
        serve(client, 40)
        set_faults(cluster.modelsim, {"kind": "hang", "hang_ms": 20000})
        result, _ = answer(client, submit(client, 100))
        assert result.usage.provider == "other" and result.run_ms < 5000
        wait_for(lambda: closed_by_the_other_side(cluster.modelsim) == 1, "a closed connection", timeout_s=5)
        assert counters(cluster.modelsim)["in_flight"] == 1  # it has not noticed


def test_a_cancelled_job_ends_both_calls(cluster):
    other = start(cluster, share=0.5)
    with Client(cluster.broker) as client:
        serve(client, 40)
        set_faults(cluster.modelsim, {"kind": "hang", "hang_ms": 20000})
        set_faults(other, {"kind": "hang", "hang_ms": 20000})
        job = submit(client, 100)
        wait_for(lambda: counters(other)["in_flight"] == 1, "the second call")
        client.cancel(job)
        assert client.result(job)[0].state == pb.JOB_STATE_CANCELLED
        for server in (cluster.modelsim, other):
            wait_for(lambda: closed_by_the_other_side(server) == 1, "a closed connection", timeout_s=5)


def test_tier_without_a_share_makes_no_second_calls(cluster):
    other = start(cluster, share=0)
    with Client(cluster.broker) as client:
        serve(client, 40)
        set_faults(cluster.modelsim, {"kind": "slow", "factor": 5})
        done = serve(client, 20)
    assert not any(a.hedged for _, a in done) and calls_of(other) == 0
