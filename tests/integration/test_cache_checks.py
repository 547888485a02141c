"""Jobs that workers make of their own accord: whose they are, how many there are, and what they are believed."""

import json

import wire
from harness import http_request, wait_for
from test_providers import CHAT_ANSWER, recorder

MODEL = "sim-small"


def request(text, **fields):
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}]}).encode()
    return wire.pb.ModelRequest(operation="chat.completions", model=MODEL, body=body, **fields).SerializeToString()


def leave(worker):
    worker.send(wire.pb.WorkerMessage(goodbye=True))


def answer(client, payload):
    """The usage of a real worker's answer."""
    job = client.submit(payload, route=MODEL)
    result, packed = client.result(job)
    client.collected(job)
    assert result.state == wire.pb.JOB_STATE_SUCCEEDED, result
    return wire.pb.ModelResponse.FromString(packed).usage


def test_a_dispatch_says_whether_a_worker_made_the_job_and_for_which_pool(cluster):
    broker = cluster.start_broker(pools=["default", "edge"])
    worker = wire.Worker(broker, "w0", pools=["default", "edge"])
    made = worker.make(pool="edge")
    asked = wire.Client(broker).submit(tier="background")
    of_worker, of_client = worker.dispatched(made)[0], worker.dispatched(asked)[0]
    assert of_worker.is_of_worker and of_worker.pool == "edge"
    assert not of_client.is_of_worker and of_client.pool == "default"
    leave(worker)


def test_a_restart_does_not_forget_that_a_worker_made_the_job(cluster):
    broker = cluster.start_broker()
    worker = wire.Worker(broker, "w0", credit=0)
    made = worker.make()
    wire.Client(broker).submit_until("accepted", tier="background")  # so that what came before is on the disk
    broker.kill()
    broker = cluster.restart_broker()
    worker = wire.Worker(broker, "w1")
    dispatch, _ = worker.dispatched(made)
    assert dispatch.is_of_worker
    leave(worker)


def test_a_job_of_a_worker_needs_what_it_says_and_one_that_says_nothing_is_not_made(cluster):
    cluster.config = {"providers": [{"name": "here", "base_url": "http://127.0.0.1:1/v1", "residency": ["eu"]}, {"name": "there", "base_url": "http://127.0.0.1:1/v1"}],
                      "models": [{"name": "a", "provider": "there"}, {"name": "b", "provider": "here"}]}
    broker = cluster.start_broker()
    worker = wire.Worker(broker, "w0")
    silent = worker.make(needs=None)
    needs = wire.pb.JobNeeds(complexity=7, abilities=2, input_tokens=100, residency="eu")
    made = worker.make(needs=needs, complexity=200, abilities=1, residency="")
    nowhere = worker.make(needs=wire.pb.JobNeeds(residency="mars"))
    last = worker.make()
    dispatch, _ = worker.dispatched(made)
    assert dispatch.upstream.provider == "here"
    assert (dispatch.needs.complexity, dispatch.needs.abilities, dispatch.needs.residency, dispatch.tenant_residency) == (7, 2, "eu", "")
    assert 100 <= dispatch.needs.input_tokens <= 106
    worker.dispatched(last)
    assert not worker.has("dispatch", lambda item: item.job_id in (silent, nowhere))
    leave(worker)


def test_jobs_of_workers_are_one_under_one_idempotency_key(cluster):
    broker = cluster.start_broker()
    worker = wire.Worker(broker, "w0")
    first = worker.make(idempotency_key="refresh/00/1")
    again = worker.make(idempotency_key="refresh/00/1")
    other = worker.make(idempotency_key="refresh/00/2")
    worker.dispatched(first)
    worker.dispatched(other)
    assert not worker.has("dispatch", lambda item: item.job_id == again)
    leave(worker)


def audit(**fields):
    return wire.pb.CacheCheck(why=wire.pb.CacheCheck.WHY_AUDIT, tier="standard", embedder="builtin/1.1", near_score=9,
                              near_key=bytes(16), served=b'{"choices":[{"message":{"content":"another"}}]}', weight_permille=1000, **{"about": b"\x0a\x07default", **fields})


def test_what_a_client_calls_a_check_is_none(cluster):
    """Else anybody could make evidence, and have what was served denied."""
    cluster.start_modelsim()
    broker = cluster.start_broker()
    worker = cluster.start_worker()
    client = wire.Client(broker)
    payload = request("What does the museum cost?", check=audit())
    assert answer(client, payload).cache == wire.pb.CACHE_MISS
    wait_for(lambda: answer(client, payload).cache == wire.pb.CACHE_HIT, "a hit")
    assert 'tiermq_worker_cache_checks_total{why="audit"' not in worker.admin("/metrics")[1]


def test_an_audit_is_judged_and_its_answer_kept_by_the_rules_of_the_tier_that_served(cluster):
    """The audit tier may keep nothing of its own."""
    tiers = [{"name": "standard", "cache_ttl": "1h"}, {"name": "background", "cache_ttl": "0s"}]
    cluster.config = {"tiers": tiers, "cache": {"mode": "near"}}
    cluster.start_modelsim()
    broker = cluster.start_broker()
    worker = cluster.start_worker()
    wire.Worker(broker, "maker", credit=0).make(request("What does the museum cost?", check=audit()), route=MODEL)
    wait_for(lambda: 'tiermq_worker_cache_checks_total{why="audit",result="different"} 1' in worker.admin("/metrics")[1], "a verdict")
    client = wire.Client(broker)
    assert answer(client, request("What does the museum cost?")).cache == wire.pb.CACHE_HIT


TOPICS = [f"{verb} the {noun} of {place}" for verb in ("describe", "explain", "draw", "measure") for noun in ("harbour", "library", "bridge", "market", "castle")
          for place in ("Lisbon", "Turin", "Bergen", "Ghent", "Porto", "Krakow")]
REWORDINGS = ("{}.", "Please {}.", "Could you {}?", "{}, please!", "{}, thanks.", "Can you please {}?")


def start_with_judge(cluster, court, max_error=0.05):
    cluster.start_modelsim()
    sim = f"http://{cluster.modelsim.ready['http'].removeprefix('http://')}/v1"
    cluster.config = {
        "tiers": [{"name": "standard", "cache_max_error": max_error}, {"name": "background"}],
        "providers": [{"name": "sim", "base_url": sim}, {"name": "court", "base_url": f"{court.url}/v1"}],
        "models": [{"name": MODEL, "provider": "sim"}, {"name": "judge", "provider": "court"}],
        "cache": {"mode": "near", "judge": "model", "judge_model": "judge", "audit_share_max": 1}}
    cluster.start_broker()
    return cluster.start_worker()


def submit_reworded(cluster, wording):
    lines = "\n".join(json.dumps({"prompt": wording.format(topic)}) for topic in TOPICS)
    done = cluster.cli("submit", "--file", "-", "--model", MODEL, "--json", input=lines)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def judged(worker, result):
    return worker.metrics().get(f'tiermq_worker_cache_checks_total{{why="miss",result="{result}"}}', 0)


def told(word):
    choice = {"index": 0, "message": {"role": "assistant", "content": word}, "finish_reason": "stop"}
    return 200, {}, {**CHAT_ANSWER, "choices": [choice]}


def test_a_model_that_judges_misses_opens_a_class(cluster):
    """The simulator says something else to each wording; the judge takes all of it for the same."""
    with recorder(told("Yes.")) as court:
        worker = start_with_judge(cluster, court)
        for wording in REWORDINGS:
            submit_reworded(cluster, wording)
            wait_for(lambda: worker.metrics().get('tiermq_worker_cache_checks_total{why="judge",result="made"}', 0) == len(court.seen), "the judge")
        wait_for(lambda: [c["state"] for c in cluster.broker.admin_json("/v1/cache/evidence")["classes"]] == ["open"], "the class to open")
        assert judged(worker, "same") > 100 and judged(worker, "different") == 0
        answers = submit_reworded(cluster, "{} for me, please.")
        assert sum(answer["cache"] == "near_hit" for answer in answers) > 0
        body = court.seen[0][2]
        assert body["model"] == "judge" and "First answer:" in body["messages"][0]["content"]


def test_a_model_is_not_asked_about_equal_answers_nor_about_unlikely_candidates(cluster):
    with recorder(told("No, they differ.")) as court:
        worker = start_with_judge(cluster, court, max_error=0.001)  # so few say too little to open it
        submit_reworded(cluster, "{}.")
        submit_reworded(cluster, "{}!")  # the same to the simulator
        wait_for(lambda: judged(worker, "same") > 50, "verdicts")
        before = len(court.seen)
        client = wire.Client(cluster.broker)
        assert answer(client, request("Sing a lullaby about nine grey mice.")).cache == wire.pb.CACHE_MISS
        submit_reworded(cluster, "Could you {}?")
        wait_for(lambda: judged(worker, "different") > 50, "other verdicts")
        assert not any("mice" in seen[2]["messages"][0]["content"] for seen in court.seen[before:])
        assert judged(worker, "different") <= len(court.seen)


def test_an_audit_says_nothing_of_what_was_invalidated_since_it_was_served(cluster):
    """Of two audits that waited meanwhile, one is about an entry that the invalidation fits."""
    cluster.config = {"cache": {"mode": "near"}}
    cluster.start_modelsim()
    broker = cluster.start_broker()
    worker = cluster.start_worker()
    maker = wire.Worker(broker, "maker", credit=0)
    broker.admin_json("/v1/pause", {"kind": "tier", "name": "background"})
    for tag in ("prices", "hours"):
        about = wire.record.CacheAbout(tenant="default", tags=[tag]).SerializeToString()
        maker.make(request(f"What do the {tag} say?", check=audit(about=about)), route=MODEL)
    wait_for(lambda: broker.admin_json("/v1/stats")["jobs"] == 2, "the audits to wait")
    leave(maker)
    done = cluster.cli("cache", "invalidate", "--tag", "prices")
    assert done.returncode == 0, done.stderr
    broker.admin_json("/v1/resume", {"kind": "tier", "name": "background"})

    def said(result):
        return worker.metrics().get(f'tiermq_worker_cache_checks_total{{why="audit",result="{result}"}}', 0)

    wait_for(lambda: said("unknown") + said("different") == 2, "both verdicts")
    assert (said("unknown"), said("different")) == (1, 1)


def calls(cluster):
    return json.loads(http_request(cluster.modelsim.ready["http"], "/control/counters")[1])["requests_total"]


def test_a_stale_entry_is_refreshed_once_however_often_it_is_served(cluster):
    cluster.config = {"tiers": [{"name": "standard", "cache_ttl": "1ms", "cache_stale_while_revalidate": "1h"}, {"name": "background"}]}
    cluster.start_modelsim()
    broker = cluster.start_broker()
    worker = cluster.start_worker()
    client = wire.Client(broker)
    broker.admin_json("/v1/pause", {"kind": "tier", "name": "background"})  # so that the entry stays stale
    payload = request("What does the museum cost?")
    assert answer(client, payload).cache == wire.pb.CACHE_MISS
    wait_for(lambda: answer(client, payload).cache == wire.pb.CACHE_STALE_HIT, "a stale hit")
    before = calls(cluster)
    for _ in range(50):
        assert answer(client, payload).cache == wire.pb.CACHE_STALE_HIT
    assert worker.metrics()['tiermq_worker_cache_checks_total{why="refresh",result="made"}'] == 1
    assert calls(cluster) == before
    broker.admin_json("/v1/resume", {"kind": "tier", "name": "background"})
    wait_for(lambda: calls(cluster) == before + 1, "the refresh")


def test_a_stale_entry_answers_while_the_upstream_is_down_and_not_at_its_first_failure_unless_the_tier_says_so(cluster):
    cluster.config = {"tiers": [{"name": "standard", "cache_ttl": "1ms", "cache_stale_if_error": "1h", "backoff_first": "100ms",
                                 "backoff_max": "200ms", "attempts_max": 1000}, {"name": "background"}]}
    cluster.start_modelsim()
    broker = cluster.start_broker()
    worker = cluster.start_worker()
    client = wire.Client(broker)
    payload = request("What does the museum cost?")
    assert answer(client, payload).cache == wire.pb.CACHE_MISS
    wait_for(lambda: worker.metrics()["tiermq_worker_cache_entries"] == 1, "the fill")
    set_faults(cluster, {"kind": "status", "status": 503})
    before = calls(cluster)
    assert answer(client, payload).cache == wire.pb.CACHE_STALE_HIT
    during = calls(cluster)
    assert during - before > 1, "it fails like others until the upstream is taken to be down"
    for _ in range(5):
        assert answer(client, payload).cache == wire.pb.CACHE_STALE_HIT
    assert calls(cluster) == during


def set_faults(cluster, *faults):
    assert http_request(cluster.modelsim.ready["http"], "/control/faults", {"faults": list(faults)})[0] == 200


STALE_AT_ONCE = {"tiers": [{"name": "standard", "cache_ttl": "1ms", "cache_stale_if_error": "1h", "cache_stale_at_once": "on",
                            "backoff_first": "1m"}, {"name": "background"}]}


def start_with_stale_entry(cluster, payload, **changes):
    """One worker, one entry that is past its time. Returns the client."""
    broker = cluster.start_broker(**changes)
    worker = cluster.start_worker(**changes)
    client = wire.Client(broker)
    assert answer(client, payload).cache == wire.pb.CACHE_MISS
    wait_for(lambda: worker.metrics()["tiermq_worker_cache_entries"] == 1, "the fill")
    return client


def test_a_stale_entry_answers_the_first_job_of_an_outage(cluster):
    """One call is made, its failure counts for the breaker, and the answer says what it is."""
    cluster.config = STALE_AT_ONCE
    cluster.start_modelsim()
    payload = request("What does the museum cost?")
    client = start_with_stale_entry(cluster, payload)
    for status, retry_after_ms in ((503, 0), (429, 60000)):
        set_faults(cluster, {"kind": "status", "status": status, "retry_after_ms": retry_after_ms})
        before = calls(cluster)
        job = client.submit(payload, route=MODEL)
        result, packed = client.result(job)
        response = wire.pb.ModelResponse.FromString(packed)
        assert (result.state, result.attempts) == (wire.pb.JOB_STATE_SUCCEEDED, 1)
        assert (response.usage.cache, response.usage.quality_lost) == (wire.pb.CACHE_STALE_HIT, 5)
        assert (response.usage.model, response.usage.provider, response.usage.cost_nanousd) == (MODEL, "", 0)
        assert response.usage.saved_nanousd > 0 and response.age_ms > 0
        assert (response.http_status, response.cache_why) == (0, "")
        assert calls(cluster) == before + 1
    metrics, upstream = cluster.broker.metrics(), 'tiermq_upstream_calls_total{provider="sim",model="sim-small",outcome="%s"}'
    assert metrics[upstream % "unavailable"] == metrics[upstream % "rate_limited"] == 1
    assert metrics['tiermq_quality_lost_jobs_total{tier="standard",step="stale"}'] == 2
    assert cluster.worker.metrics()['tiermq_worker_cache_lookups_total{result="stale"}'] == 2
    (row,) = cluster.broker.admin_json("/v1/cache/stats")["workers"][0]["answer"]["lookups"]
    assert (row["stale"], row["exact"]) == (2, 0)
    assert cluster.worker.wait_log("the cache answers in place of a call that failed")["code"] == "unavailable"


def start_with_two_that_fail(cluster, payload):
    """The client, and the calls until now; the model's two providers answer the next ones with 503."""
    cluster.start_modelsim()
    url = cluster.modelsim.ready["http"] + "/v1"
    client = start_with_stale_entry(cluster, payload, providers=[{"name": name, "type": "openai", "base_url": url} for name in ("one", "two")],
                                    models=[{"name": MODEL, "provider": "one", "failover": ["two"]}])
    set_faults(cluster, {"kind": "status", "status": 503})
    return client, calls(cluster)


def test_a_stale_entry_answers_at_once_only_when_no_other_upstream_would_be_called(cluster):
    cluster.config = STALE_AT_ONCE
    payload = request("What does the museum cost?")
    client, before = start_with_two_that_fail(cluster, payload)
    assert answer(client, payload).cache == wire.pb.CACHE_STALE_HIT
    assert calls(cluster) == before + 2, "one at each provider"


def test_a_stale_entry_answers_a_job_whose_last_attempt_has_failed(cluster):
    """In a tier that would wait, while another provider could be asked and both serve others: no breaker opens."""
    cluster.config = {"tiers": [{"name": "standard", "cache_ttl": "1ms", "cache_stale_if_error": "1h", "attempts_max": 1}, {"name": "background"}]}
    payload = request("What does the museum cost?")
    client, before = start_with_two_that_fail(cluster, payload)
    result, packed = client.result(client.submit(payload, route=MODEL))
    assert (result.state, result.attempts) == (wire.pb.JOB_STATE_SUCCEEDED, 1)
    assert wire.pb.ModelResponse.FromString(packed).usage.cache == wire.pb.CACHE_STALE_HIT
    assert calls(cluster) == before + 1
    result, _ = client.result(client.submit(request("What does the zoo cost?"), route=MODEL))
    assert (result.state, result.error_code) == (wire.pb.JOB_STATE_DEAD, "attempts_exhausted"), "nothing is kept for it"


def test_an_entry_that_is_too_old_or_invalid_does_not_stand_in(cluster):
    """What was invalidated while the call was under way neither."""
    cluster.config = STALE_AT_ONCE
    cluster.start_modelsim()
    payload = request("What does the museum cost?", cache=wire.pb.CacheControl(tags=["museum"]))
    client = start_with_stale_entry(cluster, payload)
    set_faults(cluster, {"kind": "hang", "hang_ms": 1000})
    job = client.submit(payload, route=MODEL)
    wait_for(lambda: json.loads(http_request(cluster.modelsim.ready["http"], "/control/counters")[1])["in_flight"] == 1, "the call")
    assert cluster.cli("cache", "invalidate", "--tag", "museum").returncode == 0
    cluster.broker.wait_log("attempt failed")
    assert client.status(job).state == wire.pb.JOB_STATE_BACKING_OFF


def test_a_streamed_job_has_the_stale_answer_as_a_whole_stream_or_not_at_all(cluster):
    cluster.config = STALE_AT_ONCE
    cluster.start_modelsim()
    payload = request("What does the museum cost?")
    client = start_with_stale_entry(cluster, payload)
    set_faults(cluster, {"kind": "status", "status": 503})
    job = client.submit(payload, route=MODEL, stream=True)
    text = client.wait("chunk")[1].decode()
    said = json.loads(text.removeprefix("data: "))
    result, packed = client.result(job)
    body = json.loads(wire.pb.ModelResponse.FromString(packed).body)
    assert said["choices"][0]["delta"]["content"] == body["choices"][0]["message"]["content"]
    set_faults(cluster, {"kind": "error_in_stream"})
    job = client.submit(payload, route=MODEL, stream=True)
    client.wait("chunk")
    cluster.broker.wait_log("attempt failed")
    assert client.status(job).state == wire.pb.JOB_STATE_BACKING_OFF, "a piece of a fresh answer has been seen"


def lifetime_ms(cluster, text):
    def kept():
        entries = cluster.broker.admin_json("/v1/cache/top")["workers"][0]["answer"]["entries"]
        return [e["expires_in_ms"] for e in entries if e["text"] == text]
    return wait_for(kept, f"an entry of {text}")[0]


def test_what_is_asked_of_today_is_not_kept_for_a_day(cluster):
    cluster.config = {"cache": {"mode": "near"}}
    cluster.start_modelsim()
    broker = cluster.start_broker()
    cluster.start_worker()
    client = wire.Client(broker)
    named = wire.pb.CacheControl(ttl_ms=3600000)
    for text, fields in (("Which trains run?", {}), ("Which trains run today?", {}), ("Which trains run now?", {"cache": named})):
        assert answer(client, request(text, **fields)).cache == wire.pb.CACHE_MISS
    assert lifetime_ms(cluster, "Which trains run?") > 3600000
    assert lifetime_ms(cluster, "Which trains run today?") <= 60000
    assert 60000 < lifetime_ms(cluster, "Which trains run now?") <= 3600000


def test_what_is_asked_of_today_is_not_answered_by_what_is_older(cluster):
    """Though that may be served: here because a request said so."""
    cluster.config = {"cache": {"time_words_ttl": "1ms"}}
    cluster.start_modelsim()
    broker = cluster.start_broker()
    cluster.start_worker()
    client = wire.Client(broker)
    named = wire.pb.CacheControl(ttl_ms=3600000)
    assert answer(client, request("Which trains run today?", cache=named)).cache == wire.pb.CACHE_MISS
    wait_for(lambda: answer(client, request("Which trains run today?", cache=named)).cache == wire.pb.CACHE_HIT, "a hit")
    assert answer(client, request("Which trains run today?")).cache == wire.pb.CACHE_MISS


def test_what_one_worker_denies_the_others_hear_at_once(cluster):
    broker = cluster.start_broker()
    workers = [wire.Worker(broker, f"w{i}") for i in range(3)]
    denials = [wire.pb.CacheDenial(key=bytes([i]) * 16) for i in range(2)] + [wire.pb.CacheDenial(key=b"short")]
    workers[0].send(wire.pb.WorkerMessage(denial=denials))
    for worker in workers[1:]:
        assert [worker.wait("denial")[0].key for _ in range(2)] == [d.key for d in denials[:2]]
    assert not workers[0].has("denial")
    assert broker.metrics()["tiermq_cache_denials_total"] == 2
    assert broker.metrics()["tiermq_cache_denials_dropped_total"] == 1
    workers[0].send(wire.pb.WorkerMessage(denial=[wire.pb.CacheDenial(key=bytes(16))] * 5000))
    wait_for(lambda: broker.metrics()["tiermq_cache_denials_dropped_total"] >= 3000, "denials to be dropped")


def shown(broker, key):
    return broker.admin_json(f"/v1/cache/get?key={key}")["workers"][0]["answer"]


def test_an_entry_that_another_worker_denies_answers_its_own_text_alone(cluster):
    """Through two workers: one has the entry, the other the audit that says that it was wrong."""
    cluster.config = {"cache": {"mode": "near"}}
    cluster.start_modelsim()
    broker = cluster.start_broker()
    cluster.start_worker("serves")
    client = wire.Client(broker)
    assert answer(client, request("Describe the harbour of Lisbon.")).cache == wire.pb.CACHE_MISS
    def entry():
        entries = broker.admin_json("/v1/cache/top")["workers"][0]["answer"]["entries"]
        return entries[0] if entries else None
    key = wait_for(entry, "the entry")["key"]
    assert not shown(broker, key)["denied"]
    looker = wire.Worker(broker, "looks", credit=0)
    looker.send(wire.pb.WorkerMessage(denial=[wire.pb.CacheDenial(key=bytes.fromhex(key))]))
    leave(looker)
    wait_for(lambda: shown(broker, key)["denied"], "the denial")
    assert answer(client, request("Describe the harbour of Lisbon.")).cache == wire.pb.CACHE_HIT


def ask(cluster):
    done = cluster.cli("submit", "--json", "--model", MODEL, "What does the museum cost?")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["cache"]


def test_keys_are_made_with_a_secret_that_is_shown_nowhere(cluster):
    """One cache, opened without a secret, with it twice, and without."""
    secret = "correct-horse-battery"
    cluster.start_modelsim()
    cluster.start_broker()
    for text, expected, entries in (("", "miss", 1), (secret, "miss", 2), (secret, "hit", 2), ("", "hit", 2)):
        worker = cluster.start_worker("same", cache={"key_secret": text})
        assert ask(cluster) == expected
        top = "/v1/cache/top"
        wait_for(lambda: len(cluster.broker.admin_json(top)["workers"][0]["answer"]["entries"]) == entries, "the entries")
        assert worker.metrics().get("tiermq_worker_key_mismatches_total", 0) == 0  # the client's key has no secret
        assert secret not in worker.admin("/v1/config")[1] and secret not in worker.output()
        worker.stop()


def test_a_key_that_is_not_of_its_request_shows_with_a_secret_too(cluster):
    cluster.config = {"cache": {"key_secret": "correct-horse-battery"}}
    cluster.start_modelsim()
    broker = cluster.start_broker()
    worker = cluster.start_worker()
    client = wire.Client(broker)
    job = client.submit(request("What does the museum cost?"), route=MODEL, canonical_key=bytes(16))
    client.result(job)
    assert worker.metrics()["tiermq_worker_key_mismatches_total"] == 1
