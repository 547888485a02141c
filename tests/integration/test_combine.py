"""
Calls that several jobs share, with real programs: embeddings of many jobs in one request, and marked questions in one prompt.
The simulator counts calls and tokens; what jobs are charged with must add up to that, whatever goes wrong.
"""

import json
import time

import pytest

from harness import http_request, merge, wait_for
from wire import Client, pb

LINGER_MS, JOBS_MAX, SLOTS = 200, 16, 200
INPUT_USD, OUTPUT_USD = 1.0, 3.0  # per million tokens: 1000 and 3000 nano-dollars a token
# Of protocols: the simulator's path, and what it calls a question in its counters. None: the default provider's, of OpenAI's.
PROTOCOLS = {None: (None, "chat.completions"), "anthropic": ("/v1", "messages"), "gemini": ("/v1beta", "generateContent"),
             "openai-responses": ("/v1", "responses")}
PRICES = {"input_usd_per_mtok": INPUT_USD, "output_usd_per_mtok": OUTPUT_USD}


def start(cluster, linger_ms=LINGER_MS, jobs_max=JOBS_MAX, sim=("--first-token-ms", "20"), workers=1, broker=None, protocol=None, **changes):
    cluster.start_modelsim(*sim)
    cluster.config = merge({
        "log": {"level": "info"},
        "tiers": [{"name": "standard", "combine_linger": f"{linger_ms}ms", "combine_jobs_max": jobs_max, "deadline": "60s",
                   "backoff_first": "50ms", "backoff_max": "200ms"}],
        "cache": {"mode": "off"},
    }, changes)
    cluster.config["models"] = [{"name": name, "provider": "sim", **PRICES} for name in ("sim-small", "sim-embed")]
    if protocol is not None:
        url = cluster.modelsim.ready["http"] + PROTOCOLS[protocol][0]
        cluster.config["providers"] = [{"name": "sim", "type": protocol, "base_url": url, "api_key": "key"}]
    cluster.start_broker(broker={"store": "memory", **(broker or {})})
    bound = {"payload_bytes_max": broker["payload_bytes_max"]} if "payload_bytes_max" in (broker or {}) else {}
    return [cluster.start_worker(worker={"slots": SLOTS}, broker=bound) for _ in range(workers)]


def set_faults(cluster, *faults):
    status, text = http_request(cluster.modelsim.ready["http"], "/control/faults", {"faults": list(faults)})
    assert status == 200, text


def counters(cluster):
    return json.loads(http_request(cluster.modelsim.ready["http"], "/control/counters")[1])


def calls(cluster):
    return counters(cluster)["requests_total"]


def submit_embeddings(client, inputs, tier="standard", tenantless=None, **body):
    request = pb.ModelRequest(operation="embeddings", body=json.dumps({"input": inputs, "dimensions": 8, **body}).encode())
    return client.submit(request.SerializeToString(), tier=tier, route="sim-embed")


def answer(client, job):
    """(Result, ModelResponse, its body)"""
    result, payload = client.result(job)
    assert result.state == pb.JOB_STATE_SUCCEEDED, result
    response = pb.ModelResponse.FromString(payload)
    return result, response, json.loads(response.body)


def vectors(body):
    assert [d["index"] for d in body["data"]] == list(range(len(body["data"])))
    return [d["embedding"] for d in body["data"]]


def check_bill(cluster, done):
    """What jobs are charged with is what the simulator has counted, to the token and the nano-dollar."""
    counted = counters(cluster)
    usages = [r.usage for r, _, _ in done]
    assert sum(u.input_tokens for u in usages) == counted["input_tokens"]
    assert sum(u.output_tokens for u in usages) == counted["output_tokens"]
    cost = sum(u.cost_nanousd for u in usages)
    assert cost == counted["input_tokens"] * 1000 + counted["output_tokens"] * 3000
    check_ledger(cluster, cost)
    return cost


def check_ledger(cluster, cost_nanousd):
    """Its calls are the simulator's, however many jobs each was for; and the jobs' parts add up to what they used."""
    bills = json.loads(http_request(cluster.modelsim.ready["http"], "/control/bill")[1])["models"]
    rows = {row["model"]: row for row in cluster.broker.admin_json("/v1/cost?by=model")["rows"] if row["calls"] > 0}
    sums = {model: of["answered"] for model, of in bills.items() if of["answered"]["calls"] > 0}
    assert {model: (row["calls"], row["input_tokens"], row["output_tokens"]) for model, row in rows.items()} == \
        {model: (of["calls"], of["input_tokens"], of["output_tokens"]) for model, of in sums.items()}
    assert sum(row["cost_nanousd"] for row in rows.values()) == cost_nanousd


def text_of(number):
    return f"text number {number} " + "is longer than others " * (number % 4)


def lone_vectors(cluster, texts):
    """As the provider gives them one by one."""
    found = []
    for text in texts:
        _, body = http_request(cluster.modelsim.ready["http"], "/v1/embeddings", {"model": "sim-embed", "input": text, "dimensions": 8})
        found.append(json.loads(body)["data"][0]["embedding"])
    return found


def reset(cluster):
    assert http_request(cluster.modelsim.ready["http"], "/control/reset", {})[0] == 200


def test_embeddings_of_many_jobs_go_in_few_calls(cluster):
    start(cluster)
    jobs = 100
    with Client(cluster.broker) as client:
        waiting = [submit_embeddings(client, text_of(n)) for n in range(jobs)]
        done = [answer(client, job) for job in waiting]
    made = calls(cluster)
    print(f"{jobs} jobs, {made} calls")
    assert made <= jobs / JOBS_MAX + 3
    check_bill(cluster, done)
    for result, response, body in done:
        assert result.usage.combined > 1 and "one call for" in response.router_reason
        assert body["usage"]["prompt_tokens"] == result.usage.input_tokens
    assert [vectors(body)[0] for _, _, body in done] == lone_vectors(cluster, [text_of(n) for n in range(jobs)])
    metrics = cluster.workers[0].metrics()
    assert metrics['tiermq_worker_combined_jobs_total{kind="embeddings",result="answered"}'] == jobs


def test_jobs_of_several_inputs_keep_their_order(cluster):
    start(cluster)
    set_faults(cluster, {"kind": "shuffled"})
    lists = [[text_of(10 * n + i) for i in range(n + 1)] for n in range(6)]
    with Client(cluster.broker) as client:
        waiting = [submit_embeddings(client, texts) for texts in lists]
        done = [answer(client, job) for job in waiting]
    assert calls(cluster) <= 2
    check_bill(cluster, done)
    set_faults(cluster)
    for texts, (_, _, body) in zip(lists, done):
        assert vectors(body) == lone_vectors(cluster, texts)


def test_what_differs_is_not_sent_together(cluster):
    start(cluster, tenants=[{"name": "default"}, {"name": "other"}])
    with Client(cluster.broker) as client, Client(cluster.broker, tenant="other") as other:
        waiting = [(client, submit_embeddings(client, "a text")), (client, submit_embeddings(client, "a text", dimensions=16)),
                   (client, submit_embeddings(client, "a text", user="u1")), (client, submit_embeddings(client, "b", encoding_format="base64")),
                   (other, submit_embeddings(other, "a text"))]
        done = [answer(peer, job) for peer, job in waiting]
    assert calls(cluster) == len(done)
    assert all(result.usage.combined == 0 for result, _, _ in done)
    check_bill(cluster, done)


def test_without_linger_each_job_makes_its_call(cluster):
    start(cluster, linger_ms=0)
    with Client(cluster.broker) as client:
        done = [answer(client, job) for job in [submit_embeddings(client, text_of(n)) for n in range(20)]]
    assert calls(cluster) == 20 and all(result.usage.combined == 0 for result, _, _ in done)


def test_jobs_under_a_budget_make_calls_of_their_own(cluster):
    tiers = [{"name": name, "combine_linger": f"{LINGER_MS}ms", "deadline": "60s"} for name in ("standard", "background")]
    start(cluster, tiers=tiers, budgets=[{"name": "b", "tier": "standard", "daily_usd": 100}])
    with Client(cluster.broker) as client:
        held = [answer(client, job) for job in [submit_embeddings(client, text_of(n)) for n in range(10)]]
        free = [answer(client, job) for job in [submit_embeddings(client, text_of(n), tier="background") for n in range(10)]]
    assert all(result.usage.combined == 0 for result, _, _ in held)
    assert all(result.usage.combined > 1 for result, _, _ in free)
    check_bill(cluster, held + free)


@pytest.mark.parametrize("kind", ["combine_drop", "combine_merge"])
def test_an_answer_that_is_no_permutation_is_asked_again_alone(cluster, kind):
    start(cluster)
    set_faults(cluster, {"kind": kind})
    with Client(cluster.broker) as client:
        done = [answer(client, job) for job in [submit_embeddings(client, text_of(n)) for n in range(JOBS_MAX)]]
    assert calls(cluster) == JOBS_MAX + 1
    check_bill(cluster, done)
    assert all(result.usage.combined == 0 and "then alone: index" in response.router_reason for result, response, _ in done)
    assert [vectors(body)[0] for _, _, body in done] == lone_vectors(cluster, [text_of(n) for n in range(JOBS_MAX)])


def test_an_answer_that_is_large_for_all_of_them_alone_is_taken(cluster):
    """Each vector fits into a result, and all of them do not: the reply has room for four times as much."""
    start(cluster, broker={"store": "memory", "payload_bytes_max": "8KiB"}, jobs_max=4)
    with Client(cluster.broker) as client:
        done = [answer(client, job) for job in [submit_embeddings(client, text_of(n), dimensions=1024) for n in range(4)]]
    sizes = [len(json.dumps(body)) for _, _, body in done]
    assert sum(sizes) > 8 * 1024 > max(sizes)
    assert calls(cluster) == 1 and all(result.usage.combined == 4 for result, _, _ in done)
    check_bill(cluster, done)


def test_a_failed_call_is_one_failure_of_each(cluster):
    """503 once: all jobs are tried again, and the broker has heard of one failed call."""
    start(cluster)
    set_faults(cluster, {"kind": "status", "status": 503})
    with Client(cluster.broker) as client:
        waiting = [submit_embeddings(client, text_of(n)) for n in range(JOBS_MAX)]
        wait_for(lambda: calls(cluster) == 1, "the call")
        set_faults(cluster)
        done = [answer(client, job) for job in waiting]
    check_bill(cluster, done)
    assert all(result.attempts == 2 for result, _, _ in done)
    assert calls(cluster) < JOBS_MAX
    failed = cluster.workers[0].metrics()['tiermq_worker_provider_calls_total{provider="sim",model="sim-embed",outcome="unavailable"}']
    upstream, = (u for u in cluster.broker.admin_json("/v1/upstreams")["upstreams"] if u["model"] == "sim-embed")
    assert failed == upstream["unavailable"] == 1


def test_what_is_rejected_together_is_asked_alone(cluster):
    """One of them is the culprit: the others are answered, and it alone is dead."""
    start(cluster)
    set_faults(cluster, {"kind": "status", "status": 400, "text": "poison"})
    with Client(cluster.broker) as client:
        waiting = [submit_embeddings(client, "poison" if n == 3 else text_of(n)) for n in range(8)]
        results = [client.result(job)[0] for job in waiting]
    assert [r.state == pb.JOB_STATE_SUCCEEDED for r in results] == [n != 3 for n in range(8)]
    assert calls(cluster) == 9


def test_one_that_leaves_does_not_stop_the_others(cluster):
    start(cluster, sim=("--first-token-ms", "1500"))
    with Client(cluster.broker) as client:
        waiting = [submit_embeddings(client, text_of(n)) for n in range(4)]
        short = client.submit(pb.ModelRequest(operation="embeddings", body=json.dumps({"input": "short", "dimensions": 8}).encode())
                              .SerializeToString(), tier="standard", route="sim-embed", deadline_in_ms=900)
        wait_for(lambda: calls(cluster) == 1, "the call")
        client.send(pb.ClientMessage(cancel=[pb.Cancel(job_id=waiting[1])]))
        assert client.result(short)[0].state == pb.JOB_STATE_EXPIRED
        assert client.result(waiting[1])[0].state == pb.JOB_STATE_CANCELLED
        done = [answer(client, waiting[n]) for n in (0, 2, 3)]
    assert calls(cluster) == 1
    check_bill(cluster, done)  # those who are left pay for all


def test_the_last_to_leave_ends_the_call(cluster):
    start(cluster, sim=("--first-token-ms", "5000"))
    with Client(cluster.broker) as client:
        waiting = [submit_embeddings(client, text_of(n)) for n in range(4)]
        wait_for(lambda: calls(cluster) == 1, "the call")
        client.send(pb.ClientMessage(cancel=[pb.Cancel(job_id=job) for job in waiting]))
        for job in waiting:
            assert client.result(job)[0].state == pb.JOB_STATE_CANCELLED
    wait_for(lambda: counters(cluster)["aborted"] == 1, "the end of the call")


def test_a_worker_that_is_killed_loses_no_job(cluster):
    first, _ = start(cluster, sim=("--first-token-ms", "700"), workers=2, broker={"lease": "1s", "heartbeat": "250ms"})
    with Client(cluster.broker) as client:
        waiting = [submit_embeddings(client, text_of(n)) for n in range(60)]
        wait_for(lambda: calls(cluster) >= 2, "calls")
        first.kill()
        wait_for(lambda: client.ping() and sum(name == "result" for name, _, _ in client.items) == len(waiting), "all answers")
        done = [answer(client, job) for job in waiting]
        time.sleep(0.5)
        assert not client.has("result"), "a job was answered twice"
    some = range(0, 60, 12)  # each takes its time
    assert [vectors(done[n][2])[0] for n in some] == lone_vectors(cluster, [text_of(n) for n in some])


# ---- questions ----

SYSTEM = "You answer questions of a test shortly and truly, in plain words without any markup at all."


def question_of(number):
    """They begin and end alike, but for every third: so words alone do not tell them apart."""
    ending = "and why is that so, please?" if number % 3 else f"for the reader of chapter {number}?"
    return f"What is the meaning of the number {number} in this list {ending}"


def chat(question, system=SYSTEM, **body):
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": [*messages, {"role": "user", "content": question}], **body}


def submit_question(client, body, batchable=True, tier="standard", **fields):
    request = pb.ModelRequest(operation="chat.completions", body=json.dumps(body).encode(), batchable=batchable)
    return client.submit(request.SerializeToString(), tier=tier, route="sim-small", **fields)


def lone_answer(cluster, body):
    """What the model says when it is asked this alone."""
    status, text = http_request(cluster.modelsim.ready["http"], "/v1/chat/completions", {"model": "sim-small", **body})
    assert status == 200, text
    return json.loads(text)["choices"][0]["message"]["content"]


def check_answers(cluster, bodies, done):
    set_faults(cluster)
    for asked, (result, _, body) in zip(bodies, done):
        choice, = body["choices"]
        assert choice["message"]["content"] == lone_answer(cluster, asked), asked
        assert choice["finish_reason"] == "stop" and choice["index"] == 0


def ask_all(cluster, bodies, **fields):
    with Client(cluster.broker) as client:
        return [answer(client, job) for job in [submit_question(client, body, **fields) for body in bodies]]


def redone(cluster, why):
    return cluster.workers[0].metrics().get(f'tiermq_worker_combine_redone_total{{kind="questions",why="{why}"}}', 0)


def check_protocol(cluster, protocol):
    """All was asked in this one."""
    assert counters(cluster)["requests"][PROTOCOLS[protocol][1]] == calls(cluster)


@pytest.mark.parametrize("protocol, jobs, system", [
    (None, 64, SYSTEM), *((protocol, 2 * JOBS_MAX, system) for protocol in PROTOCOLS if protocol for system in (SYSTEM, None))])
def test_marked_questions_share_prompts(cluster, protocol, jobs, system):
    start(cluster, protocol=protocol)
    bodies = [chat(question_of(n), system, temperature=0) for n in range(jobs)]
    done = ask_all(cluster, bodies)
    made = calls(cluster)
    print(f"{jobs} questions, {made} calls")
    assert made <= jobs / JOBS_MAX + (3 if protocol is None else 2)
    check_protocol(cluster, protocol)
    check_bill(cluster, done)
    assert all(r.usage.combined > 1 and b["usage"]["total_tokens"] == r.usage.input_tokens + r.usage.output_tokens for r, _, b in done)
    assert len({b["id"] for _, _, b in done}) == len(done)
    check_answers(cluster, bodies, done)


def test_what_is_not_marked_or_means_another_thing_is_asked_alone(cluster):
    start(cluster)
    plain = [chat(question_of(n)) for n in range(4)]
    assert all(r.usage.combined == 0 for r, _, _ in ask_all(cluster, plain, batchable=False))
    for special in ({"stop": ["x"]}, {"n": 2}, {"response_format": {"type": "json_object"}}, {"logprobs": True},
                    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}):
        bodies = [chat(question_of(n), **special) for n in range(2)]
        assert all(r.usage.combined == 0 for r, _, _ in ask_all(cluster, bodies)), special
    long_talk = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": f"c{n}"}]}
                 for n in range(2)]
    assert all(r.usage.combined == 0 for r, _, _ in ask_all(cluster, long_talk))
    differing = [chat(question_of(1), system="One."), chat(question_of(2), system="Two."), chat(question_of(3), temperature=0.5),
                 chat(question_of(4), temperature=0.7), chat(question_of(5), max_tokens=50)]
    assert all(r.usage.combined == 0 for r, _, _ in ask_all(cluster, differing))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bounds_of_answers_add_up(cluster, protocol):
    start(cluster, protocol=protocol)
    bodies = [chat(question_of(n), max_tokens=60 + n) for n in range(8)]
    done = ask_all(cluster, bodies)
    assert calls(cluster) == 1
    check_protocol(cluster, protocol)
    check_bill(cluster, done)
    check_answers(cluster, bodies, done)


FAULTS = {"combine_drop": "missing", "combine_swap": "wrong_words", "combine_swap_answers": "wrong_seal", "combine_merge": "wrong_seal",
          "combine_merge_texts": "missing", "combine_garbage": "not_json", "combine_truncate": "cut"}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_wrong_answer_is_delivered(cluster, protocol, kind):
    """A model that forgets, confuses or merges: each job gets its own answer, asked again alone where it must be."""
    start(cluster, protocol=protocol)
    set_faults(cluster, {"kind": kind})
    bodies = [chat(question_of(n)) for n in range(JOBS_MAX)]
    done = ask_all(cluster, bodies)
    made = calls(cluster)
    check_protocol(cluster, protocol)
    check_bill(cluster, done)
    print(f"{kind}: {made} calls; {sum(r.usage.combined == 0 for r, _, _ in done)} asked again")
    assert 1 < made <= JOBS_MAX + 1 and sum(redone(cluster, why) for why in {FAULTS[kind], "missing"}) == made - 1
    assert any("then alone" in response.router_reason for _, response, _ in done)
    check_answers(cluster, bodies, done)


def test_faults_at_random(cluster):
    """Half of the replies are wrong, in every way there is."""
    start(cluster, jobs_max=8, linger_ms=50)
    set_faults(cluster, *({"kind": kind, "rate": 0.12} for kind in FAULTS))
    bodies = [chat(question_of(n)) for n in range(400)]
    done = ask_all(cluster, bodies)
    print(f"{len(bodies)} questions, {calls(cluster)} calls, faults {counters(cluster)['faults']}")
    check_bill(cluster, done)
    check_answers(cluster, bodies, done)


def test_a_model_that_cannot_do_it_is_soon_left_alone(cluster):
    start(cluster, linger_ms=50)
    set_faults(cluster, {"kind": "combine_garbage"})
    rounds = 6
    for n in range(rounds):
        ask_all(cluster, [chat(question_of(100 * n + i)) for i in range(4)])
    assert calls(cluster) == rounds * 4 + 3


def test_a_swap_of_which_nothing_tells(cluster):
    """What cannot be found out: a reply in which everything but the sense is right. Said so in docs/batching.md."""
    start(cluster)
    set_faults(cluster, {"kind": "combine_swap_texts"})
    bodies = [chat(question_of(n)) for n in range(4)]
    done = ask_all(cluster, bodies)
    set_faults(cluster)
    wrong = [b["choices"][0]["message"]["content"] != lone_answer(cluster, asked) for asked, (_, _, b) in zip(bodies, done)]
    assert sum(wrong) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_refused_question_does_not_take_the_others_along(cluster, protocol):
    start(cluster, protocol=protocol)
    set_faults(cluster, {"kind": "refused", "text": "forbidden"})
    bodies = [chat("something forbidden" if n == 2 else question_of(n)) for n in range(6)]
    with Client(cluster.broker) as client:
        results = [client.result(job)[0] for job in [submit_question(client, body) for body in bodies]]
    assert [r.state == pb.JOB_STATE_SUCCEEDED for r in results] == [n != 2 for n in range(6)]
    assert redone(cluster, "refused") + redone(cluster, "rejected") == 6
    check_protocol(cluster, protocol)


def test_answers_of_shared_prompts_are_not_kept(cluster):
    """Who asks without the mark is never served one, and the marked are served what was answered alone."""
    start(cluster, cache={"mode": "exact"})
    bodies = [chat(question_of(n), temperature=0) for n in range(4)]
    ask_all(cluster, bodies)
    before = calls(cluster)
    done = ask_all(cluster, bodies, batchable=False)
    assert calls(cluster) == before + 4 and all(r.usage.cache == pb.CACHE_MISS for r, _, _ in done)
    done = ask_all(cluster, bodies)
    assert calls(cluster) == before + 4 and all(r.usage.cache == pb.CACHE_HIT for r, _, _ in done)


def test_the_command_line_marks_questions(cluster):
    start(cluster)
    lines = "".join(json.dumps({"id": n, "prompt": question_of(n), "model": "sim-small", "batchable": n != 5}) + "\n" for n in range(6))
    done = cluster.cli("submit", "--file", "-", input=lines)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert {r["id"]: r.get("combined", 0) for r in results} == {n: 5 if n != 5 else 0 for n in range(6)}
    lines = "".join(json.dumps({"prompt": question_of(n), "model": "sim-small"}) + "\n" for n in range(4))
    done = cluster.cli("submit", "--batchable", "--file", "-", input=lines)
    assert all(json.loads(line)["combined"] == 4 for line in done.stdout.splitlines()), done.stdout
    assert calls(cluster) == 3


@pytest.mark.parametrize("kind", [None, "combine_drop"])
def test_embeddings_of_many_jobs_go_in_few_calls_at_google(cluster, kind):
    start(cluster, protocol="gemini")
    set_faults(cluster, *([{"kind": kind}] if kind else []))
    with Client(cluster.broker) as client:
        done = [answer(client, job) for job in [submit_embeddings(client, text_of(n)) for n in range(JOBS_MAX)]]
    assert counters(cluster)["requests"]["batchEmbedContents"] == calls(cluster) == (JOBS_MAX + 1 if kind else 1)
    set_faults(cluster)
    assert [vectors(body)[0] for _, _, body in done] == lone_vectors(cluster, [text_of(n) for n in range(JOBS_MAX)])
