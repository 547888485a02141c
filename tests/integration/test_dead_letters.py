"""Dead letters on real processes: their history, what an operator does with them, and a job that ends workers."""

import errno
import json
import threading

import pytest

from harness import DiskFaults, http_request, wait_for
from wire import Client, Worker, id_text, pb

TENANTS = {"tenants": [{"name": "default"}, {"name": "other"}]}
IMPATIENT = {"tiers": [{"name": name, "durability": durability, "backoff_first": "1ms", "backoff_max": "5ms"}
                       for name, durability in (("realtime", "none"), ("standard", "fsync"))],
             "providers": [{"name": "p", "type": "openai", "base_url": "http://127.0.0.1:9/v1"}],
             "models": [{"name": "m", "provider": "p", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1}]}  # nothing to fail over to


def lines(done, code=0):
    """What a command printed, JSON by lines."""
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def call(provider, outcome, **fields):
    return pb.Call(upstream=pb.Upstream(provider=provider, model="m"), outcome=outcome, **fields)


def reject(worker, job, code="http_400", text="no such thing", provider="p"):
    dispatch, _ = worker.dispatched(job)
    worker.answer(dispatch, None, outcome=pb.ATTEMPT_REJECTED, error_code=code, error_text=text,
                  calls=[call(provider, pb.ATTEMPT_REJECTED, call_ms=12, cost_nanousd=1000)])
    worker.concluded(job)


def die(client, worker, tier="standard", **fields):
    job = client.submit(b"payload", tier=tier)
    reject(worker, job, **fields)
    assert client.result(job)[0].state == pb.JOB_STATE_DEAD
    return job


@pytest.mark.parametrize("tier", ["standard", "realtime"])
def test_history_tells_what_became_of_each_attempt(cluster, tier):
    cluster.start_broker(**IMPATIENT)
    with Client(cluster.broker) as client, Worker(cluster.broker) as worker:
        job = client.submit(b"x", tier=tier)
        dispatch, _ = worker.dispatched(job)
        worker.answer(dispatch, None, outcome=pb.ATTEMPT_RATE_LIMITED, error_code="http_429", error_text="slow down",
                      retry_after_ms=60, calls=[call("first", pb.ATTEMPT_UNAVAILABLE, call_ms=5),
                                                call("second", pb.ATTEMPT_RATE_LIMITED, call_ms=7, cost_nanousd=2_000_000)])
        dispatch, _ = worker.dispatched(job)
        (seen,) = lines(cluster.cli("status", "--history", "--json", id_text(job)))
        assert seen["state"] == "leased" and seen["history_omitted"] == 0
        (entry,) = seen["history"]
        assert (entry["attempt"], entry["outcome"], entry["error_code"], entry["worker"]) == (1, "rate_limited", "http_429", "raw-worker")
        assert (entry["provider"], entry["calls"], entry["call_ms"], entry["cost_usd"]) == ("second", 2, 12, 0.002)
        assert entry["retry_after_ms"] == 60 and entry["next"] == "backing_off" and entry["wait_ms"] >= 60
        worker.answer(dispatch, None, outcome=pb.ATTEMPT_INVALID, error_code="malformed", error_text="no JSON")
        client.result(job)
        shown = cluster.cli("dead", "show", id_text(job))
        assert shown.returncode == 0, shown.stderr
        for word in ("invalid: no JSON", "rate_limited", "second/m", "then: tried again after", "then: dead letter"):
            assert word in shown.stdout, shown.stdout


def test_history_names_a_failover(cluster):
    broker = cluster.start_broker(
        providers=[{"name": name, "type": "openai", "base_url": "http://127.0.0.1:9/v1"} for name in ("p", "q")],
        models=[{"name": "m", "provider": "p", "failover": ["q"], "input_usd_per_mtok": 1, "output_usd_per_mtok": 1}])
    with Client(broker) as client, Worker(broker) as worker:
        job = client.submit(b"x")
        for provider in ("p", "q"):
            dispatch, _ = worker.dispatched(job)
            assert dispatch.upstream.provider == provider
            worker.answer(dispatch, None, outcome=pb.ATTEMPT_UNAVAILABLE, error_code="http_503",
                          calls=[call(provider, pb.ATTEMPT_UNAVAILABLE)])
        history = wait_for(lambda: (h := broker.admin_json(f"/v1/jobs/{id_text(job)}")["history"]) and len(h) == 2 and h, "both")
        assert [(e["provider"], e["next"]) for e in history] == [("p", "failover"), ("q", "backing_off")]


def test_a_job_that_is_rate_limited_again_and_again_has_a_bounded_history(cluster):
    cluster.start_broker(**IMPATIENT)
    with Client(cluster.broker) as client, Worker(cluster.broker, slots=1) as worker:
        job = client.submit(b"x")
        for _ in range(50):
            dispatch, _ = worker.dispatched(job)
            worker.answer(dispatch, None, outcome=pb.ATTEMPT_RATE_LIMITED, retry_after_ms=1)
        worker.dispatched(job)
        seen = cluster.broker.admin_json(f"/v1/jobs/{id_text(job)}")
        assert [e["attempt"] for e in seen["history"]] == [*range(1, 9), *range(27, 51)]
        assert seen["history_omitted"] == 18


def test_list_filters_pages_and_keeps_tenants_apart(cluster):
    cluster.start_broker(**TENANTS)
    broker = cluster.broker
    with Client(broker) as client, Client(broker, tenant="other") as other, Worker(broker, slots=64) as worker:
        mine = [die(client, worker) for _ in range(25)]
        theirs = [die(other, worker, tier="background", code="http_422", provider="q") for _ in range(3)]
        listed = lines(cluster.cli("dead", "list", "--json"))
        assert [letter["job"] for letter in listed] == [id_text(job) for job in mine + theirs]
        assert {letter["error_code"] for letter in listed} == {"rejected"}
        for arguments in (["--tenant", "other"], ["--tier", "background"], ["--provider", "q"]):
            assert [letter["job"] for letter in lines(cluster.cli("dead", "list", "--json", *arguments))] == [id_text(j) for j in theirs]
        assert lines(cluster.cli("dead", "list", "--json", "--older", "1h")) == []
        assert len(lines(cluster.cli("dead", "list", "--json", "--newer", "1h", "--worker", "raw-worker", "--limit", "7"))) == 7
        assert cluster.cli("dead", "list", "--code", "nothing").stdout == "no dead letters\n"
        unknown = cluster.cli("dead", "list", "--tier", "backgroun")
        assert (unknown.returncode, unknown.stdout) == (0, "no dead letters\n") and 'no tier "backgroun" is configured' in unknown.stderr
        assert cluster.cli("dead", "list", "--tier", "realtime").stderr == ""
        assert 'no tier "x" is configured' in cluster.cli("dead", "requeue", "--tier", "x").stderr
        page = broker.admin_json("/v1/dead?limit=10&tenant=default")
        seen = [letter["id"] for letter in page["dead_letters"]]
        while page["next"] is not None:
            page = broker.admin_json(f"/v1/dead?limit=10&tenant=default&cursor={page['next']}")
            seen += [letter["id"] for letter in page["dead_letters"]]
        assert seen == [id_text(job) for job in mine]
        foreign = id_text(theirs[0])
        for verb in ("show", "requeue", "drop"):
            refused = cluster.cli("dead", verb, "--tenant", "default", foreign)
            assert refused.returncode == 7 and "no dead letter" in refused.stderr
        assert broker.admin(f"/v1/jobs/{foreign}?tenant=default")[0] == 404
        assert broker.admin("/v1/dead?limit=x")[0] == 400
        assert broker.admin("/v1/dead/requeue", {"rate_per_s": 5})[0] == 400, "all of them must be asked for"
        assert broker.admin("/v1/dead/drop", {"filter": {"colour": "red"}})[0] == 400


@pytest.mark.parametrize("tier", ["standard", "realtime"])
def test_a_requeued_letter_runs_again_and_its_new_conclusion_counts(cluster, tier):
    broker = cluster.start_broker()
    with Client(broker) as client, Worker(broker) as worker:
        job = die(client, worker, tier=tier)
        done = cluster.cli("dead", "requeue", id_text(job))
        assert done.returncode == 0 and "requeued" in done.stdout, done.stderr
        dispatch, payload = worker.dispatched(job)
        assert dispatch.attempt == 2 and payload == b"payload"
        client.ask(job)
        assert client.wait("status", lambda item: item.job_id == job)[0].state == pb.JOB_STATE_LEASED
        worker.answer(dispatch, b"at last")
        assert client.result(job)[1] == b"at last"
        again = cluster.cli("dead", "requeue", id_text(job))
        assert again.returncode == 7 and "no dead letter" in again.stderr
        metrics = broker.metrics()
        assert metrics[f'tiermq_dead_letters_total{{tier="{tier}",code="rejected"}}'] == 1
        assert metrics[f'tiermq_dead_letters_kept{{tier="{tier}",code="rejected"}}'] == 0
        assert metrics[f'tiermq_dead_letters_left_total{{tier="{tier}",how="requeued"}}'] == 1


def test_a_requeued_letter_is_pending_after_the_broker_was_killed(cluster):
    broker = cluster.start_broker()
    with Client(broker) as client, Worker(broker) as worker:
        job = die(client, worker)
        worker.send(pb.WorkerMessage(goodbye=True))
    assert cluster.cli("dead", "requeue", id_text(job)).returncode == 0
    wait_for(lambda: broker.metrics()["tiermq_store_pending_batches"] == 0, "the batch on disk")
    broker.kill()
    broker = cluster.restart_broker()
    assert lines(cluster.cli("dead", "list", "--json")) == []
    with Client(broker) as client, Worker(broker) as worker:
        client.ask(job)
        dispatch, _ = worker.dispatched(job)
        worker.answer(dispatch, b"after all")
        assert client.result(job)[1] == b"after all"
        worker.concluded(job)
    broker.kill()
    broker = cluster.restart_broker()
    with Client(broker) as client:
        client.ask(job)
        assert client.result(job)[0].state == pb.JOB_STATE_SUCCEEDED


def test_dead_letters_survive_the_broker_with_their_history(cluster):
    broker = cluster.start_broker()
    with Client(broker) as client, Worker(broker) as worker:
        jobs = [die(client, worker) for _ in range(3)]
    before = lines(cluster.cli("dead", "list", "--json"))
    broker.kill()
    cluster.restart_broker()
    after = lines(cluster.cli("dead", "list", "--json"))
    volatile = ("dead_for_ms",)
    assert [{k: v for k, v in x.items() if k not in volatile} for x in after] == \
        [{k: v for k, v in x.items() if k not in volatile} for x in before]
    (letter,) = lines(cluster.cli("dead", "show", "--json", id_text(jobs[1])))
    assert letter["history"][0]["error_code"] == "http_400" and letter["provider"] == "p"


def test_a_sweep_keeps_its_rate_shows_how_far_it_is_and_can_be_stopped(cluster):
    broker = cluster.start_broker()
    with Client(broker) as client, Worker(broker, slots=64) as worker:
        for _ in range(30):
            die(client, worker)
        assert cluster.cli("pause", "tier", "standard").returncode == 0
        (sweep,) = lines(cluster.cli("dead", "requeue", "--all", "--rate", "2/s", "--json"))
        assert sweep["action"] == "requeue" and sweep["rate_per_s"] == 2
        assert sweep["done"] <= 1, "whoever asked has left, and it goes on"
        wait_for(lambda: lines(cluster.cli("dead", "sweeps", "--json"))[0]["done"] >= 3, "progress")
        (stopped,) = lines(cluster.cli("dead", "stop", sweep["number"], "--json"))
        assert stopped["state"] == "stopped" and 3 <= stopped["done"] < 20
        left = lines(cluster.cli("dead", "list", "--json"))
        assert len(left) == 30 - stopped["done"]
        done = cluster.cli("dead", "requeue", "--code", "rejected", "--rate", "1000", "--wait")
        assert done.returncode == 0 and f"{len(left)} done" in done.stdout, done.stderr
        assert lines(cluster.cli("dead", "list", "--json")) == []
        assert broker.admin_json("/v1/stats")["jobs"] == 30
        broker.wait_log(lambda line: line.get("message") == "dead letter sweep" and "stopped" in line.get("reason", ""))
        unknown = cluster.cli("dead", "stop", "4711")
        assert unknown.returncode == 7 and "4711" in unknown.stderr


def test_dropped_letters_are_gone_and_others_stay(cluster):
    broker = cluster.start_broker()
    with Client(broker) as client, Worker(broker, slots=64) as worker:
        one, *_ = [die(client, worker) for _ in range(4)]
        kept = die(client, worker, tier="background")
        assert cluster.cli("dead", "drop", id_text(one)).returncode == 0
        done = cluster.cli("dead", "drop", "--tier", "standard", "--wait", "--json")
        assert lines(done)[0]["done"] == 3
        assert [letter["job"] for letter in lines(cluster.cli("dead", "list", "--json"))] == [id_text(kept)]
        assert broker.metrics()['tiermq_dead_letters_left_total{tier="standard",how="dropped"}'] == 4
    broker.stop()
    cluster.restart_broker()
    assert len(lines(cluster.cli("dead", "list", "--json"))) == 1


def test_show_tells_what_was_asked_for(cluster):
    cluster.start_broker()
    with Worker(cluster.broker) as worker:
        for tier in ("standard", "realtime"):
            done = cluster.cli("submit", "--no-wait", "--tier", tier, "Why is the sky blue?")
            dispatch, _ = worker.dispatched()
            worker.answer(dispatch, None, outcome=pb.ATTEMPT_REFUSED, error_code="content_filter", error_text="no")
            worker.concluded(dispatch.job_id)
            job = done.stdout.strip()
            (letter,) = lines(cluster.cli("dead", "show", "--payload", "--json", job))
            assert letter["error_code"] == "refused" and letter["requeuable"]
            assert letter["request"]["operation"] == "chat.completions"
            assert "Why is the sky blue?" in json.dumps(letter["request"]["body"])
            (without,) = lines(cluster.cli("dead", "show", "--json", job))
            assert "request" not in without


def test_a_letter_in_memory_beyond_the_bound_says_that_it_cannot_be_requeued(cluster):
    broker = cluster.start_broker(broker={"results_memory_bytes_max": "1MiB"})
    with Client(broker) as client, Worker(broker) as worker:
        for _ in range(2):
            job = client.submit(b"x" * 200_000, tier="realtime")
            reject(worker, job)
        letters = lines(cluster.cli("dead", "list", "--json"))
        assert [letter["requeuable"] for letter in letters] == [True, False]
        refused = cluster.cli("dead", "requeue", id_text(job))
        assert refused.returncode == 7 and "payload was not kept" in refused.stderr
        swept = cluster.cli("dead", "requeue", "--all", "--wait")
        assert swept.returncode == 7 and "1 done, 1 skipped" in swept.stdout, swept.stderr


def test_a_store_that_is_down_holds_up_an_answer_but_not_the_broker(cluster):
    faults = DiskFaults(cluster)
    broker = cluster.start_broker(environment=faults.environment)
    with Client(broker) as client, Worker(broker) as worker:
        job = die(client, worker)
        faults.fail(errno.ENOSPC)
        client.submit_until("rejected", tier="standard")
        answers = []
        asking = threading.Thread(target=lambda: answers.append(broker.admin(f"/v1/dead/{id_text(job)}")))
        asking.start()
        refused = cluster.cli("dead", "requeue", id_text(job))
        assert refused.returncode == 7 and "cannot write to its disk now" in refused.stderr
        assert client.ping() == 1 and not answers
        faults.heal()
        asking.join()
        status, text = answers[0]
        assert status in (200, 503), text  # 503: healing took longer than whoever asks is made to wait
        wait_for(lambda: broker.admin("/readyz")[0] == 200, "the store's return")
        assert broker.admin_json(f"/v1/dead/{id_text(job)}")["history"]
        assert cluster.cli("dead", "requeue", id_text(job)).returncode == 0


def test_a_sweep_names_what_is_no_filter_beside_what_is(cluster):
    broker = cluster.start_broker(broker={"store": "memory"})
    status, answer = broker.admin("/v1/dead/requeue", {"filter": {"teir": "standard"}})
    assert status == 400 and "teir is no member of a filter; write one of tenant, tier, route," in answer


@pytest.mark.parametrize("arguments", [[], ["bury"], ["requeue"], ["drop"], ["show"], ["stop"], ["stop", "x"], ["list", "more"],
                                       ["requeue", "--all", "--rate", "5/m"], ["show", "17"], ["list", "--older", "long"]])
def test_wrong_arguments_are_refused(cluster, arguments):
    cluster.start_broker(broker={"store": "memory"})
    assert cluster.cli("dead", *arguments).returncode == 2


def test_a_job_that_ends_workers_is_condemned_alone(cluster):
    """Whoever gets the poison is killed; the innocents around it, lost with it, all succeed."""
    innocents = 300
    cluster.start_modelsim("--first-token-ms", "300")
    status, text = http_request(cluster.modelsim.ready["http"], "/control/faults", {"faults": [{"kind": "hang", "model": "sim-large", "hang_ms": 600000}]})
    assert status == 200, text
    broker = cluster.start_broker(broker={"lease": "1s", "heartbeat": "200ms"})
    for _ in range(3):
        cluster.start_worker(worker={"slots": 16})
    path = cluster.directory / "innocents.jsonl"
    path.write_text("".join(json.dumps({"id": f"i-{n}", "text": f"innocent number {n}", "route": "sim-small"}) + "\n" for n in range(innocents)))
    out = cluster.directory / "results.jsonl"
    submission = cluster.cli_start("submit", "--file", path, "--tier", "standard", "--window", "100", "--out", out)
    wait_for(lambda: out.exists() and out.read_text().count("\n") > 0, "the first answer")
    job = cluster.cli("submit", "--no-wait", "--tier", "standard", "--route", "sim-large", "poison").stdout.strip()
    killed = []

    def condemned():
        seen = broker.admin_json(f"/v1/jobs/{job}")
        running = [w for w in cluster.workers if w.is_running() and w.name == seen["worker"]]
        is_new = seen["attempts"] == len(killed) + 1  # else it is where it was when its worker was killed
        if seen["state"] == "leased" and is_new and running:
            running[0].kill()
            killed.append(seen["worker"])
            cluster.start_worker(name=seen["worker"], worker={"slots": 16})
        return seen["state"] == "dead"

    wait_for(condemned, "the end of the poison")
    _, said = submission.communicate(timeout=120)
    assert submission.returncode == 0, said
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(results) == innocents and {result["outcome"] for result in results} == {"succeeded"}
    (letter,) = lines(cluster.cli("dead", "list", "--json"))
    assert (letter["job"], letter["error_code"], letter["losses"]) == (job, "poison", 5)
    (shown,) = lines(cluster.cli("dead", "show", "--json", job))
    assert [entry["worker"] for entry in shown["history"] if entry["lost"]] == killed and len(killed) == 5
    assert broker.metrics()['tiermq_dead_letters_total{tier="standard",code="poison"}'] == 1
