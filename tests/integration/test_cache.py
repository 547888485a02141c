"""The cache on real processes: hits, near hits that are learned, invalidations on every worker, jobs that it makes."""

import concurrent.futures
import json
import queue
import signal
import time

import pytest
import wire
from harness import wait_for

MODEL = "sim-small"


def submit(cluster, prompt, *arguments):
    done = cluster.cli("submit", "--json", "--model", MODEL, *arguments, prompt)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ask(cluster, what, **query):
    text = "&".join(f"{k}={v}" for k, v in query.items())
    return cluster.broker.admin_json(f"/v1/cache/{what}" + (f"?{text}" if text else ""))


def entries(cluster):
    return [w["answer"]["entries"] for w in ask(cluster, "stats")["workers"]]


def filled(cluster, count):
    wait_for(lambda: sum(entries(cluster)) == count, f"{count} entries")


@pytest.fixture(name="cluster")
def _cluster(cluster):
    cluster.config = {"cache": {"mode": "near", "lookup_timeout": "500ms"}}
    cluster.start_modelsim()
    cluster.start_broker()
    return cluster


def test_a_repeated_request_is_a_hit_and_an_entry_can_be_looked_at(cluster):
    cluster.start_worker()
    assert submit(cluster, "What does the museum cost?")["cache"] == "miss"
    filled(cluster, 1)
    assert submit(cluster, "What does the museum cost?")["cache"] == "hit"
    top = ask(cluster, "top")["workers"][0]["answer"]["entries"]
    assert [e["text"] for e in top] == ["What does the museum cost?"]
    entry = ask(cluster, "get", key=top[0]["key"])["workers"][0]["answer"]
    assert json.loads(entry["body"])["choices"]


def test_an_invalidation_reaches_every_worker_and_says_what_it_took(cluster):
    for i in range(3):
        cluster.start_worker(f"worker-{i}")
    for i in range(12):
        submit(cluster, f"Question number {i}?", "--cache-tag", "even" if i % 2 == 0 else "odd")
    filled(cluster, 12)
    dry = cluster.broker.admin_json("/v1/cache/invalidate", {"tag": "even", "dry_run": True})
    assert sum(w["answer"]["entries"] for w in dry["workers"]) == 6 and sum(entries(cluster)) == 12
    before = time.monotonic()
    done = cluster.broker.admin_json("/v1/cache/invalidate", {"tag": "even", "reason": "new list"})
    assert time.monotonic() - before < 1
    assert done["complete"] and sum(w["answer"]["entries"] for w in done["workers"]) == 6
    assert sum(entries(cluster)) == 6
    assert done["sequence"] == 1


def test_what_an_invalidation_asked_for_is_in_the_log(cluster):
    worker = cluster.start_worker()
    worker.wait_log("joined a broker")  # while it joins, it may be told of the first twice
    selectors = [{"tag": "even", "namespace": "", "tenant": "default"},
                 {"near_text": "opening \"hours\"", "near_cosine_min": 0.75, "older_than_ms": 3600000},
                 {"key": "ab" * 16, "scope": "cd" * 16},
                 {"document": "d", "route": "r", "model": "m", "template_version": "v", "text_prefix": "What"},
                 {"all": True}]
    for selector in selectors:
        assert cluster.broker.admin_json("/v1/cache/invalidate", selector)["complete"]

    def logged():
        lines = [json.loads(line) for line in worker.output().splitlines()]
        return [line for line in lines if line["message"] == "cache invalidated"]
    lines = wait_for(lambda: (lambda found: found if len(found) == len(selectors) else None)(logged()), "all to be logged")
    assert [json.loads(line["selector"]) for line in lines] == selectors


def test_an_invalidation_whose_answer_has_no_place_is_not_recorded(cluster):
    worker = cluster.start_worker("worker")
    wait_for(lambda: ask(cluster, "stats")["workers"], "a worker that can be asked")
    answered = queue.Queue()

    def question():
        answered.put(cluster.broker.admin("/v1/cache/stats")[0])

    worker.signal(signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        for _ in range(20):
            pool.submit(question)
        assert answered.get() == 503  # the others have taken every place
        status, text = cluster.broker.admin("/v1/cache/invalidate", {"tag": "even"})
        worker.signal(signal.SIGCONT)
    assert status == 503, text
    assert cluster.broker.admin_json("/v1/cache/invalidate", {"tag": "even"})["sequence"] == 1


def test_a_worker_that_was_away_clears_what_was_invalidated_before_it_serves(cluster):
    worker = cluster.start_worker("worker")
    submit(cluster, "Which trains run at night?", "--cache-tag", "trains")
    submit(cluster, "Which buses run at night?", "--cache-tag", "buses")
    filled(cluster, 2)
    worker.stop()
    cluster.broker.admin_json("/v1/cache/invalidate", {"tag": "trains"})
    cluster.start_worker("worker")
    assert submit(cluster, "Which trains run at night?")["cache"] == "miss"
    assert submit(cluster, "Which buses run at night?")["cache"] == "hit"


def test_a_killed_worker_keeps_its_place_in_the_invalidations(cluster):
    worker = cluster.start_worker("worker")
    submit(cluster, "Which trains run at night?", "--cache-tag", "trains")
    filled(cluster, 1)
    cluster.broker.admin_json("/v1/cache/invalidate", {"tag": "trains"})
    submit(cluster, "Which trains run at night?", "--cache-tag", "trains")
    filled(cluster, 1)
    worker.kill()
    cluster.start_worker("worker")
    assert submit(cluster, "Which trains run at night?")["cache"] == "hit"


def test_the_brokers_log_outlives_it(cluster):
    cluster.start_worker("worker")
    submit(cluster, "Which trains run at night?", "--cache-tag", "trains")
    filled(cluster, 1)
    cluster.worker.stop()
    cluster.broker.admin_json("/v1/cache/invalidate", {"tag": "trains"})
    cluster.broker.kill()
    cluster.restart_broker()
    cluster.start_worker("worker")
    assert submit(cluster, "Which trains run at night?")["cache"] == "miss"


def test_a_damaged_database_is_set_aside_and_a_new_one_begun(cluster):
    worker = cluster.start_worker("worker")
    submit(cluster, "Which trains run at night?")
    filled(cluster, 1)
    worker.stop()
    folder = cluster.directory / "worker" / "cache"
    for path in folder.glob("MANIFEST*"):
        path.write_bytes(b"not a manifest at all" * 100)
    worker = cluster.start_worker("worker")
    assert submit(cluster, "Which trains run at night?")["cache"] == "miss"
    filled(cluster, 1)
    assert submit(cluster, "Which trains run at night?")["cache"] == "hit"
    assert list(folder.parent.glob("cache.damaged-*"))
    assert cluster.worker.metrics()["tiermq_worker_cache_set_aside_total"] == 1


def test_wrong_questions_are_refused(cluster):
    cluster.start_worker()
    for body, word in (({}, "nothing"), ({"all": True, "tag": "a"}, "all"), ({"key": "xyz"}, "hexadecimal"), ({"tagg": "a"}, "tagg")):
        status, text = cluster.broker.admin("/v1/cache/invalidate", body)
        assert status == 400 and word in text, text
    status, text = cluster.broker.admin("/v1/cache/get?key=zz")
    assert status == 400 and "32 hexadecimal digits" in text, text


def test_each_of_more_questions_than_a_worker_holds_has_an_answer(cluster):
    brokers = [cluster.broker] + [cluster.start_broker(f"broker-{i}") for i in range(2, 6)]
    worker = cluster.start_worker("worker")
    for broker in brokers:
        wait_for(lambda: broker.admin_json("/v1/cache/stats")["workers"], "a worker that can be asked")
    answered = {broker.name: queue.Queue() for broker in brokers}

    def question(broker):
        answered[broker.name].put(broker.admin("/v1/cache/top"))

    worker.signal(signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(17 * len(brokers)) as pool:
        for broker in brokers * 17:
            pool.submit(question, broker)
        for broker in brokers:
            assert answered[broker.name].get()[0] == 503  # the others, 16 of each broker, wait for the worker
        worker.signal(signal.SIGCONT)
    for broker in brokers:
        for _ in range(16):
            status, text = answered[broker.name].get()
            (answer,) = json.loads(text)["workers"]
            assert status == 200 and ("answer" in answer or "too much to do" in answer["error"]), text


def test_another_judge_is_another_class_of_what_is_learned(cluster):
    worker = cluster.start_worker("worker")

    def learned_by():
        return ask(cluster, "stats")["workers"][0]["answer"]["embedder"].rsplit("/", 1)[1]

    wait_for(lambda: ask(cluster, "stats")["workers"], "a worker that can be asked")
    assert learned_by() == "equal"
    path = cluster.directory / "worker.yaml"
    config = json.loads(path.read_text())
    config["cache"] |= {"judge": "embedding", "judge_cosine_min": 0.97}
    path.write_text(json.dumps(config))
    worker.signal(signal.SIGHUP)
    worker.wait_log("configuration reloaded")
    assert learned_by() == "embedding:0.970"


def test_explaining_for_an_unknown_tier_is_refused_and_uses_no_class(cluster):
    cluster.start_worker()
    wait_for(lambda: ask(cluster, "stats")["workers"], "a worker that can be asked")
    status, text = cluster.broker.admin("/v1/cache/explain?a=x&b=y&tier=gold")
    assert status == 400 and "gold" in text, text
    assert "answer" in ask(cluster, "explain", a="red", b="blue")["workers"][0]
    assert ask(cluster, "stats")["workers"][0]["answer"]["classes"] == []
    done = cluster.cli("cache", "stats", "--bogus")
    assert done.returncode == 2 and "--bogus" in done.stderr


def test_what_is_no_answer_is_not_imported(cluster):
    cluster.start_worker()
    submit(cluster, "Which trains run at night?")
    filled(cluster, 1)
    path = cluster.directory / "cache.jsonl"
    assert cluster.cli("cache", "export", path).returncode == 0
    path.write_text(json.dumps(json.loads(path.read_text()) | {"body": "notjson"}) + "\n")
    done = cluster.cli("cache", "import", path)
    assert done.returncode == 7 and "refused 1" in done.stderr + done.stdout


def test_an_import_says_which_line_a_worker_refuses_and_why(cluster):
    for name in ("one", "two"):
        cluster.start_worker(name)
    good = {"key": "0" * 32, "tenant": "t", "body": '{"choices": [{}]}', "expires_in_ms": 60000}
    wrong = [({"body": "{}"}, "body must be"), ({"scope": "x"}, "scope must be"), ({"hits": -1}, "hits must"),
             ({"tenant": None}, "tenant must be"), ({"key": "12"}, "key must be"), ({"expires_in_ms": 0}, "expires_in_ms must")]
    lines = [json.dumps(good)] + [json.dumps(good | change) for change, _ in wrong] + ["nonsense"]
    wait_for(lambda: len(ask(cluster, "stats")["workers"]) == 2, "both workers")
    done = cluster.cli("cache", "import", "-", input="\n".join(lines) + "\n")
    assert done.returncode == 7
    said = done.stderr.splitlines()
    for number, (_, why) in enumerate(wrong, 2):
        assert len([line for line in said if f"line {number}: worker " in line and why in line]) == 1, done.stderr
    assert any(f"line {len(lines)}: is no JSON: " in line for line in said) and "line 1:" not in done.stderr
    assert entries(cluster) == [1, 1]


def test_opting_out_and_variety_bypass_the_cache(cluster):
    cluster.start_worker()
    for _ in range(2):
        assert submit(cluster, "Say something new", "--cache-use", "off").get("cache", "none") == "none"
    assert sum(entries(cluster)) == 0


def test_near_hits_begin_when_enough_is_known_and_say_why(cluster):
    """Rewordings that only change case and punctuation are answered alike by the model: that is learned, and then served."""
    cluster.start_worker()
    topics = [f"{verb} the {noun} of {place}" for verb in ("Describe", "Explain", "Draw", "Measure", "Paint")
              for noun in ("harbour", "library", "bridge", "market", "castle", "garden") for place in ("Lisbon", "Turin", "Bergen", "Ghent")]

    def ask_all(prompts):
        lines = "\n".join(json.dumps({"prompt": prompt}) for prompt in prompts)
        done = cluster.cli("submit", "--file", "-", "--model", MODEL, "--json", input=lines)
        assert done.returncode == 0, done.stderr

    def state():
        classes = cluster.broker.admin_json("/v1/cache/evidence")["classes"]
        return classes[0]["state"] if classes else "none"

    def audits_cost():
        submit(cluster, "describe the LIGHTHOUSE of Porto?", "--distinct")
        rows = ask(cluster, "stats")["workers"][0]["answer"]["lookups"]
        counted = cluster.worker.metrics().get('tiermq_worker_cache_checks_cost_usd_total{why="audit"}', 0)
        return counted > 0 and any(r["checks_usd"] > 0 for r in rows)

    ask_all([topic + "." for topic in topics])
    for ending in ("!", "?", "...", " ."):
        if state() == "open":
            break
        ask_all([topic.upper() + ending for topic in topics])
        time.sleep(2)
    wait_for(lambda: state() == "open", "the class to open")
    submit(cluster, "Describe the lighthouse of Porto.")
    wait_for(lambda: submit(cluster, "describe the lighthouse of PORTO!")["cache"] == "near_hit", "a near hit")
    stats = ask(cluster, "stats")["workers"][0]["answer"]
    (row,) = [r for r in stats["lookups"] if r["near"] >= 1]  # an audit of one has a row of its own tier
    assert row["tenant"] == "default"
    assert any(c["threshold"] is not None for c in stats["classes"])
    assert row["served_age_seconds"] > 0
    wait_for(audits_cost, "an audit's cost to be told")
    wrong = submit(cluster, "Describe the lighthouse of Ghent.")
    assert wrong["cache"] == "miss"
    assert_that_a_wrong_hit_is_told(cluster, stats["classes"][0]["embedder"])


def assert_that_a_wrong_hit_is_told(cluster, embedder):
    """An audit whose answer differs from what was served: the entry is denied here, and every other worker hears of it."""
    (entry,) = [e for e in ask(cluster, "top", limit=1000)["workers"][0]["answer"]["entries"]
                if e["text"] == "Describe the lighthouse of Porto."]
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Describe the lighthouse of Oporto."}]})
    check = wire.pb.CacheCheck(why=wire.pb.CacheCheck.WHY_AUDIT, tier="standard", embedder=embedder, near_score=9, about=b"\x0a\x07default",
                               near_key=bytes.fromhex(entry["key"]), served=b'{"choices":[{"message":{"content":"another"}}]}', weight_permille=1000)
    request = wire.pb.ModelRequest(operation="chat.completions", model=MODEL, body=body.encode(), check=check)
    other = wire.Worker(cluster.broker, "other", credit=0)
    other.make(request.SerializeToString(), route=MODEL)
    assert other.wait("denial")[0].key.hex() == entry["key"]
