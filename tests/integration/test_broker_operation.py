"""What an operator does to a broker: signals, reload, pause and drain, the admin interface, wrong starts."""

import json
import re
import signal
import subprocess

import pytest

import wire
from harness import EXIT_ADDRESS, EXIT_CONFIG, http_request, program, wait_for
from wire import Client, Worker, pb

MEMORY = {"broker": {"store": "memory"}}


def test_help_and_version():
    for option, word in (("--help", "usage: tiermq-broker"), ("--version", "tiermq-broker ")):
        done = subprocess.run([program("tiermq-broker"), option], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and word in done.stdout
    for arguments in (["--nonsense"], ["nonsense"], ["--config"]):
        done = subprocess.run([program("tiermq-broker"), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "--help" in done.stderr


def test_every_configuration_error_is_printed(cluster):
    path = cluster.directory / "wrong.yaml"
    path.write_text("broker:\n  lease: 5 parsecs\n  stroe: memory\ntiers: 7\n")
    done = subprocess.run([program("tiermq-broker"), "--config", path], capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_CONFIG
    assert all(word in done.stderr for word in ("wrong.yaml:2", "wrong.yaml:3", "wrong.yaml:4", "parsecs"))


def test_a_missing_configuration_file_is_an_error(cluster):
    done = subprocess.run([program("tiermq-broker"), "--config", cluster.directory / "none.yaml"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_CONFIG and "none.yaml" in done.stderr


@pytest.mark.parametrize("key", ["listen_clients", "listen_workers", "listen_events", "admin"])
def test_an_address_in_use_ends_the_start_with_words(cluster, key):
    first = cluster.start_broker(**MEMORY)
    second = cluster.start_broker(name="second", ready=False,
                                  broker={"store": "memory", key: first.config["broker"][key]})
    second.was_killed = True  # it is to end with an error of its own
    assert second.wait() == EXIT_ADDRESS
    assert first.config["broker"][key].split(":")[-1] in second.output()


def test_sigterm_without_work_ends_at_once(cluster):
    broker = cluster.start_broker(**MEMORY)
    broker.stop(expect=0, timeout_s=8)


def test_sigterm_waits_for_leases_and_gives_their_results(cluster):
    broker = cluster.start_broker(**MEMORY)
    with Client(broker) as client, Worker(broker) as worker:
        job = client.submit(b"abc", tier="realtime")
        dispatch, payload = worker.dispatched(job)
        broker.signal(signal.SIGTERM)
        broker.wait_log("draining")
        status, text = broker.admin("/readyz")
        assert status == 503 and "shutting down" in text
        late = client.submit(b"late", tier="realtime")
        assert client.rejected(late).reason == pb.REJECT_DRAINING
        worker.answer(dispatch, payload[::-1])
        assert client.result(job)[1] == b"cba"
        assert broker.wait() == 0


def test_sigterm_gives_up_on_leases_after_the_timeout(cluster):
    broker = cluster.start_broker(broker={"store": "memory", "drain_timeout": "300ms"})
    with Client(broker) as client, Worker(broker) as worker:
        worker.dispatched(client.submit(b"abc", tier="realtime"))
        broker.stop(expect=0)


def test_peers_are_told_that_it_stops(cluster):
    broker = cluster.start_broker(**MEMORY)
    with Client(broker) as client, Worker(broker) as worker:
        broker.stop(expect=0)
        for peer in (client, worker):
            error = peer.error()
            assert error.code == pb.ProtocolError.ERROR_HELLO_REQUIRED and "shuts down" in error.text


def test_a_second_signal_ends_it_at_once(cluster):
    broker = cluster.start_broker(broker={"store": "memory", "drain_timeout": "10m"})
    with Client(broker) as client, Worker(broker) as worker:
        worker.dispatched(client.submit(b"abc", tier="realtime"))
        broker.signal(signal.SIGTERM)
        broker.wait_log("draining")
        broker.signal(signal.SIGINT)
        assert broker.wait() == 0


def reload(cluster, broker, text):
    (cluster.directory / "broker.yaml").write_text(text)
    seen = len(broker.lines)
    broker.signal(signal.SIGHUP)
    return seen


def test_sighup_applies_what_is_safe_and_names_what_is_not(cluster):
    broker = cluster.start_broker(**MEMORY)
    changed = json.loads(json.dumps(broker.config))
    changed["log"] = {"level": "info"}
    changed["broker"]["listen_clients"] = "tcp://127.0.0.1:1"
    seen = reload(cluster, broker, json.dumps(changed))
    line = broker.wait_log("a change takes effect at the next start", after=seen)
    assert "listen_clients" in line["key"]
    broker.wait_log("reloaded", after=seen)
    with Client(broker) as client:
        assert client.ping() == 1


def test_sighup_with_errors_keeps_the_old_configuration(cluster):
    broker = cluster.start_broker(**MEMORY)
    seen = reload(cluster, broker, "broker: [1, 2")
    line = broker.wait_log("configuration error; the old configuration holds", after=seen)
    assert "broker.yaml" in line["reason"]
    with Client(broker) as client:
        assert client.ping() == 1


def command(broker, what, **body):
    return broker.admin(f"/v1/{what}", body)


def test_a_paused_route_holds_jobs_until_it_is_resumed(cluster):
    broker = cluster.start_broker(**MEMORY)
    assert command(broker, "pause", kind="route", name="auto", reason="maintenance")[0] == 200
    (pause,) = broker.admin_json("/v1/pauses")["pauses"]
    assert (pause["kind"], pause["name"], pause["mode"], pause["reason"]) == ("route", "auto", "paused", "maintenance")
    with Client(broker) as client, Worker(broker) as worker:
        job = client.submit(b"abc", tier="realtime")
        client.accepted(job)
        worker.heartbeat()
        client.ping()
        assert not worker.has("dispatch")
        assert command(broker, "resume", kind="route", name="auto")[0] == 200
        worker.serve(1)
        assert client.result(job)[1] == b"cba"
    assert broker.admin_json("/v1/pauses")["pauses"] == []


def test_a_draining_tier_refuses_new_jobs_and_finishes_the_others(cluster):
    broker = cluster.start_broker(**MEMORY)
    with Client(broker) as client:
        job = client.submit(b"abc", tier="realtime")
        client.accepted(job)
        assert command(broker, "drain", kind="tier", name="realtime")[0] == 200
        late = client.submit(b"late", tier="realtime")
        assert client.rejected(late).reason == pb.REJECT_PAUSED
        with Worker(broker) as worker:
            worker.serve(1)
            assert client.result(job)[1] == b"cba"


def test_a_drained_worker_is_told_and_gets_no_more(cluster):
    broker = cluster.start_broker(**MEMORY)
    with Client(broker) as client, Worker(broker, name="w") as worker:
        assert command(broker, "drain", kind="worker", name="w")[0] == 200
        worker.wait("drain")
        client.accepted(client.submit(b"abc", tier="realtime"))
        client.ping()
        assert not worker.has("dispatch")
        assert command(broker, "resume", kind="worker", name="w")[0] == 200
        worker.serve(1)


@pytest.mark.parametrize("body,status,word", [
    (b"{", 400, "JSON"),
    (b"[]", 400, "kind"),
    ({"kind": "planet", "name": "x"}, 400, "planet"),
    ({"kind": "route"}, 400, "name"),
    ({"kind": "route", "name": 7}, 400, "name"),
    ({"kind": "route", "name": ""}, 400, "name"),
    ({"kind": "route", "name": "r" * 100}, 400, "name"),
    ({"kind": "route", "name": "auto", "reason": "r" * 300}, 400, "reason"),
    ({"kind": "route", "name": "nowhere"}, 404, "nowhere"),
    ({"kind": "tier", "name": "nowhere"}, 404, "nowhere"),
    ({"kind": "tenant", "name": "nobody"}, 404, "nobody"),
    ({"kind": "worker", "name": "nobody"}, 404, "nobody"),
])
def test_wrong_commands_are_answered_with_words(cluster, body, status, word):
    broker = cluster.start_broker(**MEMORY)
    got, text = broker.admin("/v1/pause", body)
    assert got == status and word in json.loads(text)["error"]["message"]
    assert broker.admin_json("/v1/pauses")["pauses"] == []


def test_a_name_that_is_not_there_is_answered_with_those_that_are(cluster):
    config = {"tenants": [{"name": "default"}] + [{"name": f"t{number}"} for number in range(11)],
              "providers": [{"name": "p", "base_url": "http://127.0.0.1:1"}], "models": [{"name": "m", "provider": "p"}],
              "routes": [{"name": "r", "models": ["m"]}]}
    broker = cluster.start_broker(**config)
    with Worker(broker, name="w1"):
        said = {kind: json.loads(broker.admin("/v1/pause", {"kind": kind, "name": "nix"})[1])["error"]["message"]
                for kind in ("tier", "tenant", "route", "worker")}
    assert said == {"tier": 'there is no tier "nix" here, but realtime, standard, background',
                    "tenant": 'there is no tenant "nix" here, but default, t0, t1, t2, t3, t4, t5, t6, t7, t8, …',
                    "route": 'there is no route "nix" here, but auto, m, r', "worker": 'there is no worker "nix" here, but w1'}
    wait_for(lambda: broker.admin("/v1/pause", {"kind": "worker", "name": "nix"})[1].count("but") == 0, "the worker to be gone")


def test_changes_are_not_taken_from_web_pages(cluster):
    broker = cluster.start_broker(**MEMORY)
    status, _ = http_request(broker.ready["admin"], "/v1/pause", {"kind": "route", "name": "auto"},
                             headers={"Origin": "http://example.org"})
    assert status == 403
    assert broker.admin_json("/v1/pauses")["pauses"] == []


def test_a_job_is_seen_and_cancelled_by_its_id(cluster):
    broker = cluster.start_broker(**MEMORY)
    with Client(broker) as client:
        job = client.submit(b"abc", tier="standard", priority=7)
        client.accepted(job)
        path = f"/v1/jobs/{wire.id_text(job)}"
        seen = broker.admin_json(path)
        assert (seen["state"], seen["tier"], seen["priority"], seen["payload_bytes"]) == ("queued", "standard", 7, 3)
        status, text = broker.admin(path + "/cancel", b"", method="POST")
        assert status == 202 and wire.id_text(job) in text
        assert client.result(job)[0].state == pb.JOB_STATE_CANCELLED
        assert broker.admin(path)[0] == 404
    assert broker.admin("/v1/jobs/nonsense")[0] == 400
    assert broker.admin("/v1/jobs/")[0] == 400
    assert broker.admin(f"/v1/jobs/{wire.id_text(wire.make_id())}/cancel", b"", method="POST")[0] == 404


def test_numbers_agree_with_what_happened(cluster):
    broker = cluster.start_broker(**MEMORY)
    with Client(broker) as client, Worker(broker, slots=8) as worker:
        jobs = [client.submit(b"abc", tier="realtime") for _ in range(5)]
        for _ in jobs:
            dispatch, _ = worker.dispatched()
            usage = pb.Usage(input_tokens=10, output_tokens=20, cost_nanousd=1_000_000, cache=pb.CACHE_MISS)
            worker.answer(dispatch, b"x", usage=usage)
        for job in jobs:
            client.result(job)
        rejected = client.submit(b"abc", tier="nope")
        client.rejected(rejected)
        metrics = broker.metrics()
        stats = {tier["name"]: tier for tier in broker.admin_json("/v1/stats")["tiers"]}["realtime"]
        assert stats["submitted"] == stats["accepted"] == stats["dispatched"] == 5
        assert stats["concluded"] == {"succeeded": 5} and stats["output_tokens"] == 100
        assert abs(stats["cost_usd"] - 0.005) < 1e-9
        assert metrics['tiermq_jobs_total{tier="realtime",outcome="succeeded"}'] == 5
        assert metrics['tiermq_queue_wait_seconds_count{tier="realtime"}'] == 5
        assert metrics['tiermq_rejected_total{tier="unknown",reason="unknown_tier"}'] == 1
        assert abs(metrics['tiermq_cost_usd_total{tier="realtime"}'] - 0.005) < 1e-9
        assert metrics["tiermq_clients"] == metrics["tiermq_workers"] == 1
        assert metrics["tiermq_slots"] == 8
        assert metrics["process_resident_memory_bytes"] > 1 << 20 and metrics["process_open_fds"] > 3
        (seen,) = broker.admin_json("/v1/workers")["workers"]
        assert seen["name"] == "raw-worker" and seen["slots"] == 8
        assert any(queue["route"] == "auto" for queue in broker.admin_json("/v1/queues")["queues"])


def test_the_effective_configuration_hides_keys(cluster):
    cluster.config = {"providers": [{"name": "p", "type": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "sk-secret"}],
                      "models": [{"name": "m", "provider": "p", "input_usd_per_mtok": 1, "output_usd_per_mtok": 1}]}
    broker = cluster.start_broker(**MEMORY)
    status, text = broker.admin("/v1/config")
    assert status == 200 and "127.0.0.1:9" in text and "sk-secret" not in text


def test_health_and_readiness(cluster):
    broker = cluster.start_broker(**MEMORY)
    assert broker.admin("/healthz")[0] == 200
    wait_for(lambda: broker.admin("/readyz")[0] == 200, "readiness")
    assert broker.admin("/nowhere")[0] == 404


def test_every_metric_is_documented_and_no_other(cluster):
    broker = cluster.start_broker(**MEMORY)
    worker = cluster.start_worker()
    of_broker, of_worker = (wire.ROOT / "docs" / "metrics.md").read_text().split("\n## Worker\n")
    for daemon, text in ((broker, of_broker), (worker, of_worker)):
        shown = {line.split()[2] for line in daemon.admin("/metrics")[1].splitlines() if line.startswith("# TYPE")}
        rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
        documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
        assert shown == documented, f"not in docs/metrics.md: {shown - documented}; only there: {documented - shown}"
