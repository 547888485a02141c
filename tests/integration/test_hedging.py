"""
A second call beside a slow one, at another provider, with real programs: two simulated model servers, of which the first is sometimes slow.
"""

import json
import time

import pytest

from harness import http_request, merge, program, wait_for
from test_streaming import END, ROLE, event, next_chunk, providers, rest_of  # noqa: F401
from test_streaming import submit as submit_stream
from wire import Client, pb

FIRST_TOKEN_MS, SLOW_FACTOR, JOBS, WINDOW = 100, 20, 1000, 40
INPUT_USD, OUTPUT_USD = 1.0, 2.0  # per million tokens
SHARE = 0.05
TOKENS = 28  # of a prompt


def server(cluster, name, seed):
    """One that answers with words of its own, and writes down its calls."""
    return cluster.run(name, [program("tiermq-modelsim"), "--listen", "127.0.0.1:0", "--first-token-ms", str(FIRST_TOKEN_MS),
                              "--seed", str(seed), "--calls", cluster.directory / f"{name}.calls"])


def start(cluster, share=SHARE, workers=1, providers=lambda *two: list(two), failover=("other",), more_models=(), **changes):
    """Model sim-small at "sim", and at "other" when the broker says so. Returns the other server."""
    first, other = server(cluster, "modelsim", 1), server(cluster, "modelsim-other", 2)
    cluster.modelsim = first
    cluster.config = merge({
        "log": {"level": "info"},
        "tiers": [{"name": "realtime", "hedge_share": share, "deadline": "60s", "shed_target": "0ms"}],
        "providers": providers({"name": "sim", "type": "openai", "base_url": first.ready["http"] + "/v1"},
                               {"name": "other", "type": "openai", "base_url": other.ready["http"] + "/v1"}),
        "models": [{"name": "sim-small", "provider": "sim", "failover": list(failover), "input_usd_per_mtok": INPUT_USD,
                    "output_usd_per_mtok": OUTPUT_USD}, *more_models],
        "cache": {"mode": "off"},
    }, changes)
    cluster.start_broker(broker={"store": "memory"})
    for _ in range(workers):
        cluster.start_worker(worker={"slots": 100})
    return other


def set_faults(server, *faults):
    status, text = http_request(server.ready["http"], "/control/faults", {"faults": list(faults)})
    assert status == 200, text


def counters(server):
    return json.loads(http_request(server.ready["http"], "/control/counters")[1])


def calls_of(server):
    return sum(counters(server)["requests"].values())


def began_ms(cluster, name):
    """By job, when its call at that server began, by the one clock of both servers."""
    lines = (json.loads(line) for line in (cluster.directory / f"{name}.calls").read_text().splitlines())
    return {line["key"][:36]: line["at_ms"] for line in lines if line["event"] == "began"}


def submit(client, number, route="sim-small", **fields):
    stream = {"stream": True, "stream_options": {"include_usage": True}} if fields.get("stream") else {}
    body = {"messages": [{"role": "user", "content": f"question {number}: " + "why " * 20}], "max_tokens": 8, **stream}
    request = pb.ModelRequest(operation="chat.completions", body=json.dumps(body).encode())
    return client.submit(request.SerializeToString(), tier="realtime", route=route, input_tokens=TOKENS, estimated_tokens=TOKENS + 8, **fields)


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
    # One that lost may have been ended before the server saw it.
    assert outcomes["won"] <= calls_of(other) <= seconds and calls_of(cluster.modelsim) == JOBS
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
        assert "; second call, beside a slow first one: other/" in response.router_reason
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


def test_none_is_made_before_it_is_known_how_long_calls_take(cluster):
    other = start(cluster, share=0.5)
    slow = {"kind": "slow", "factor": SLOW_FACTOR}
    with Client(cluster.broker) as client:
        serve(client, 6)
        set_faults(cluster.modelsim, slow)
        _, response = answer(client, submit(client, 100))
        assert not response.hedged and calls_of(other) == 0

        set_faults(cluster.modelsim)
        serve(client, 60)
        set_faults(cluster.modelsim, slow)
        done = [answer(client, submit(client, number)) for number in range(200, 204)]
        assert [a.hedged for _, a in done] == [True] * 4
    firsts, seconds = began_ms(cluster, "modelsim"), began_ms(cluster, "modelsim-other")
    waited = sorted(seconds[job] - firsts[job] for job in seconds)
    print(f"second calls began {waited} ms after their first ones")
    assert len(waited) == 4 and FIRST_TOKEN_MS <= waited[0] and waited[-1] < FIRST_TOKEN_MS * SLOW_FACTOR


def made_by(worker, provider):
    return sum(v for k, v in worker.metrics().items() if k.startswith(f'tiermq_worker_provider_calls_total{{provider="{provider}"'))


def test_budget_is_the_clusters_and_not_a_workers(cluster):
    share, jobs = 0.02, 500
    other = start(cluster, share=share, workers=2)
    set_faults(cluster.modelsim, {"kind": "slow", "factor": SLOW_FACTOR, "rate": 0.04})
    with Client(cluster.broker) as client:
        serve(client, jobs)
    wait_for(lambda: counters(other)["in_flight"] == 0, "ended calls")
    firsts = [made_by(worker, "sim") for worker in cluster.workers]
    made = [made_by(worker, "other") for worker in cluster.workers]
    refused = cluster.broker.metrics()['tiermq_hedges_refused_total{tier="realtime",reason="budget"}']
    print(f"{jobs} jobs: first calls by worker {firsts}, second ones {made}, {refused} refused by the budget")
    # Each worker has more jobs than the budget allows second calls for; which of them makes those is chance.
    assert min(firsts) * 0.04 > jobs * share / 2 and refused > 0
    assert 0 < calls_of(other) <= sum(made) <= jobs * share


def test_residency_holds_for_the_second_as_for_the_first(cluster):
    inside = server(cluster, "modelsim-inside", 3)
    outside = start(cluster, share=0.5, tenants=[{"name": "default"}, {"name": "clinic", "residency": "eu"}],
                    providers=lambda first, other: [{**first, "residency": ["eu"]}, other, {
                        "name": "inside", "type": "openai", "base_url": inside.ready["http"] + "/v1", "residency": ["eu"]}],
                    failover=["other", "inside"])
    with Client(cluster.broker, tenant="clinic") as client:
        serve(client, 40)
        set_faults(cluster.modelsim, {"kind": "slow", "factor": SLOW_FACTOR})
        done = serve(client, 10)
    assert calls_of(outside) == 0 and calls_of(inside) == sum(a.hedged for _, a in done) > 5


def test_tenants_models_hold_for_the_second_as_for_the_first(cluster):
    """A route of two models, one a provider."""
    other = start(cluster, share=0.5, failover=[], tenants=[{"name": "default"}, {"name": "strict", "models": ["sim-small"]}],
                  routes=[{"name": "both", "models": ["sim-small", "sim-medium"], "choice": "listed"}],
                  more_models=[{"name": "sim-medium", "provider": "other"}])
    with Client(cluster.broker, tenant="strict") as strict, Client(cluster.broker) as free:
        serve(free, 200, route="both")
        made = calls_of(other)
        set_faults(cluster.modelsim, {"kind": "slow", "factor": SLOW_FACTOR})
        assert not any(a.hedged for _, a in serve(strict, 3, route="both")) and calls_of(other) == made
        assert all(a.hedged for _, a in serve(free, 3, route="both")) and calls_of(other) == made + 3


def test_second_call_is_cut_at_the_deadline_with_the_first(cluster):
    other = start(cluster, share=0.5)
    with Client(cluster.broker) as client:
        serve(client, 40)
        hang = {"kind": "hang", "hang_ms": 20000}
        set_faults(cluster.modelsim, hang)
        set_faults(other, hang)
        job = submit(client, 100, deadline_in_ms=2000)
        assert client.result(job)[0].state == pb.JOB_STATE_EXPIRED
        assert calls_of(other) == 1
        for simulator in (cluster.modelsim, other):
            # It is closed, or the server has noticed that it was.
            wait_for(lambda: closed_by_the_other_side(simulator) == 1 or counters(simulator)["in_flight"] == 0, "a closed connection", timeout_s=5)
        wait_for(lambda: cluster.worker.metrics()["tiermq_worker_in_flight"] == 0, "a free slot")


def test_job_of_a_worker_that_died_between_the_two_is_answered_once(cluster):
    other = start(cluster, share=0.5, broker={"lease": "3s", "heartbeat": "1s"})
    with Client(cluster.broker) as client:
        serve(client, 40)
        hang = {"kind": "hang", "hang_ms": 60000}
        set_faults(cluster.modelsim, hang)
        set_faults(other, hang)
        job = submit(client, 100)
        wait_for(lambda: counters(other)["in_flight"] == 1, "the second call")
        cluster.worker.kill()
        set_faults(cluster.modelsim)
        set_faults(other)
        cluster.start_worker(worker={"slots": 100})
        result, response = answer(client, job)
        assert result.attempts == 2 and not response.hedged
        client.ping()
        assert not client.has("result")


# ------------------------------------------------------------------------------------------------ streams, step by step


@pytest.fixture
def two(cluster, providers):  # noqa: F811
    """Two servers that the test plays, of which the first is known to be quick."""
    near, far = providers("near"), providers("far")
    cluster.config = {"tiers": [{"name": "realtime", "hedge_share": 0.5, "deadline": "60s", "shed_target": "0ms"}],
                      "providers": [near.config(), far.config()], "cache": {"mode": "off"},
                      "models": [{"name": "m", "provider": "near", "failover": ["far"], "input_usd_per_mtok": INPUT_USD,
                                  "output_usd_per_mtok": OUTPUT_USD}]}
    cluster.start_broker(broker={"store": "memory"})
    cluster.start_worker()
    with Client(cluster.broker) as client:
        for number in range(40):
            job = submit_stream(client, "quick", input_tokens=1, estimated_tokens=3)
            call = near.next()
            call.say(ROLE + event({"content": "quick"}) + END)
            call.end()
            rest_of(client, job)
        yield client, near, far


def begin_both(client, near, far):
    """A stream whose two calls are under way, and have sent no token."""
    job = submit_stream(client, "slow", input_tokens=1, estimated_tokens=3)
    first = next_call(near, "slow")
    first.say(ROLE)
    return job, first, next_call(far, "slow")


def next_call(provider, prompt):
    """Some of those that were quick have had a second one, too."""
    while (call := provider.next()).prompt != prompt:
        pass
    return call


def test_stream_is_of_the_second_alone_once_that_has_sent_a_token(cluster, two):
    client, near, far = two
    won = hedges(cluster)["won"]
    job, first, second = begin_both(client, near, far)
    second.say(ROLE + event({"content": "second"}))
    assert next_chunk(client, job) == (1, 0, False, "second")
    assert first.is_cut.wait(10)
    first.say(event({"content": "first"}))
    second.say(event({"content": " alone"}) + END)
    second.end()
    chunks, result, text = rest_of(client, job)
    assert text == "second alone" and "".join(c[3] for c in chunks) == " alone" and chunks[-1][2]
    assert (result.usage.provider, result.attempts) == ("far", 1)
    assert result.usage.hedge_cost_nanousd == 1 * INPUT_USD * 1000  # its prompt
    assert hedges(cluster)["won"] == won + 1


def test_stream_is_of_the_first_alone_when_that_was_quicker_after_all(cluster, two):
    client, near, far = two
    lost = hedges(cluster)["lost"]
    job, first, second = begin_both(client, near, far)
    second.say(ROLE)
    first.say(event({"content": "first"}))
    assert next_chunk(client, job) == (1, 0, False, "first")
    assert second.is_cut.wait(10)
    first.say(END)
    first.end()
    _, result, text = rest_of(client, job)
    assert (text, result.usage.provider, result.attempts) == ("first", "near", 1)
    assert result.usage.hedge_cost_nanousd == 1 * INPUT_USD * 1000
    assert hedges(cluster)["lost"] == lost + 1


def second_calls_of_a_stream_that_has_begun(cluster, client, near):
    before = sum(hedges(cluster).values())
    job = submit_stream(client, "begun", input_tokens=1, estimated_tokens=3)
    first = next_call(near, "begun")
    first.say(ROLE + event({"content": "one"}))
    next_chunk(client, job)
    time.sleep(1)
    first.say(END)
    first.end()
    assert rest_of(client, job)[2] == "one"
    return sum(hedges(cluster).values()) - before


def test_no_second_call_is_made_beside_a_stream_that_has_begun(cluster, two):
    client, near, _ = two
    # On a busy machine there may be one before the first token has come, now and then.
    assert any(second_calls_of_a_stream_that_has_begun(cluster, client, near) == 0 for _ in range(5))


def test_stream_that_breaks_before_its_first_token_is_left_to_the_second(cluster, two):
    client, near, far = two
    job, first, second = begin_both(client, near, far)
    first.end()
    failed = 'tiermq_worker_provider_calls_total{provider="near",model="m",outcome="unavailable"}'
    wait_for(lambda: cluster.worker.metrics().get(failed), "the first one's failure")
    second.say(ROLE + event({"content": "second"}) + END)
    second.end()
    chunks, result, text = rest_of(client, job)
    assert text == "second" == "".join(c[3] for c in chunks)
    assert (result.usage.provider, result.attempts, result.usage.hedge_cost_nanousd) == ("far", 1, 0)


def test_stream_that_breaks_after_its_first_token_begins_anew_and_its_loser_is_accounted(cluster, two):
    client, near, far = two
    before = cluster.broker.metrics()['tiermq_cost_usd_total{tier="realtime"}']
    job, first, second = begin_both(client, near, far)
    second.say(ROLE + event({"content": "broken"}))
    assert next_chunk(client, job) == (1, 0, False, "broken")
    assert first.is_cut.wait(10)
    second.end()
    waiting = wait_for(lambda: [p for p in (near, far) if not p.calls.empty()], "the next attempt")
    again = next_call(waiting[0], "slow")
    again.say(ROLE + event({"content": "whole"}) + END)
    again.end()
    chunks, result, text = rest_of(client, job)
    assert text == "whole" and "".join(c[3] for c in chunks if c[0] == 2) == "whole"
    assert result.attempts == 2
    # The prompt of the loser, by the length of its body, and the answer, by its usage.
    accounted = (cluster.broker.metrics()['tiermq_cost_usd_total{tier="realtime"}'] - before) * 1e9
    assert accounted > result.usage.cost_nanousd
