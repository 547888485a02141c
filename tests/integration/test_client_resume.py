"""The client library, behind `tiermq submit`, through restarts and shutdowns of real brokers."""

import json
import os
import pathlib
import signal
import time

from harness import free_port, program, wait_for


def prompts(count, **members):
    return "".join(json.dumps({"id": i, "text": f"prompt number {i}", **members}) + "\n" for i in range(count))


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def pending(broker):
    return broker.admin_json("/v1/stats")["jobs"]


def finish(process, count):
    out, err = process.communicate(timeout=60)
    results = lines_of(out)
    assert process.returncode == 0, err
    assert sorted(r["id"] for r in results) == list(range(count))
    assert {r["outcome"] for r in results} == {"succeeded"}
    return results


def test_jobs_of_a_tier_in_memory_outlive_their_broker(cluster):
    """The broker forgot them; the client did not, and nobody notices."""
    cluster.start_modelsim()
    cluster.start_broker()
    process = cluster.cli_start("submit", "--file", "-", "--tier", "realtime", "--deadline", "60s", input=prompts(100))
    wait_for(lambda: pending(cluster.broker) == 100, "100 jobs in the queue")
    cluster.broker.kill()
    cluster.restart_broker()
    wait_for(lambda: pending(cluster.broker) == 100, "the same 100 jobs in the queue")
    cluster.start_worker()
    finish(process, 100)


def test_jobs_of_a_durable_tier_outlive_broker_and_workers(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    process = cluster.cli_start("submit", "--file", "-", "--tier", "background", input=prompts(100))
    wait_for(lambda: pending(cluster.broker) == 100, "100 jobs in the queue")
    cluster.broker.kill()
    cluster.restart_broker()
    cluster.start_worker()
    finish(process, 100)
    # They were accepted once: what the client asked for again was the same jobs.
    tiers = cluster.broker.admin_json("/v1/stats")["tiers"]
    assert sum(tier["concluded"].get("succeeded", 0) for tier in tiers) == 100


def test_broker_that_comes_late_is_waited_for(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    cluster.broker.stop()
    process = cluster.cli_start("submit", "--file", "-", input=prompts(10))
    cluster.restart_broker()
    cluster.start_worker()
    finish(process, 10)


def test_tenant_has_one_home_and_moves_when_it_drains(cluster):
    cluster.start_modelsim()
    brokers = [cluster.start_broker("broker-1"), cluster.start_broker("broker-2")]
    cluster.start_worker()

    def accepted(broker):
        return sum(tier["accepted"] for tier in broker.admin_json("/v1/stats")["tiers"])

    done = cluster.cli("submit", "--file", "-", input=prompts(50))
    assert done.returncode == 0, done.stderr
    assert sorted(accepted(broker) for broker in brokers) == [0, 50]
    home = max(brokers, key=accepted)
    other = min(brokers, key=accepted)
    home.stop()
    done = cluster.cli("submit", "--file", "-", input=prompts(50), timeout_s=40)
    assert done.returncode == 0, done.stderr
    assert accepted(other) == 50


def test_job_at_another_broker_is_found(cluster):
    """Submitted while its home was away: whoever asks later asks them all."""
    cluster.start_modelsim()
    brokers = [cluster.start_broker("broker-1"), cluster.start_broker("broker-2")]
    for away in brokers:
        away.stop()
        job = cluster.cli("submit", "--no-wait", "--tier", "background", "find me", timeout_s=40).stdout.strip()
        cluster.restart_broker(away)
        brokers = cluster.brokers
        status = json.loads(cluster.cli("get", "--json", job).stdout)
        assert status["state"] == "queued"


def test_memory_follows_the_window_and_not_the_input(cluster, monkeypatch):
    """Ten times the lines take no more of it."""
    # AddressSanitizer keeps what was freed, 256 MiB of it, so that its use is found.
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1")
    cluster.start_modelsim()
    cluster.start_broker()
    cluster.start_worker(cache={"mode": "off"})

    def peak(count):
        path = cluster.directory / "in.jsonl"
        path.write_text(prompts(count, tier="realtime"))
        process = cluster.cli_start("submit", "--file", path, "--out", "/dev/null", "--order", "input")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, process.stderr.read()
        return usage.ru_maxrss

    small, large = peak(2000), peak(20000)
    assert large < small * 1.5 + 8192, f"{small} KiB for 2000 lines, {large} KiB for 20000"


def wakes(process):
    """How often its main thread has slept."""
    status = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/status").read_text()
    return int(status.split("voluntary_ctxt_switches:")[1].split()[0])


def accepted_jobs(count):
    """The history of a load client whose jobs were all accepted, and their deadlines have passed."""
    for number in range(count):
        job = {"id": f"01900000-0000-7000-8000-{number:012x}", "number": number}
        yield {"event": "submit", "deadline_at_ms": 1, **job}
        yield {"event": "accepted", "duplicate": False, **job}


def test_crowd_of_jobs_without_a_broker_is_quiet_and_ends_when_told(cluster):
    history = cluster.directory / "history"
    history.write_text("".join(json.dumps(event) + "\n" for event in accepted_jobs(3000)))
    load = cluster.run("load", [program("tiermq-chaos-load"), "--broker", f"tcp://127.0.0.1:{free_port()}", "--name", "crowd",
                                "--history", history, "--open", 3000], ready=False)
    wait_for(lambda: '"event":"lost_sight"' in history.read_text(), "jobs whose broker cannot be asked")
    wait_for(lambda: history.stat().st_mtime < time.time() - 1, "nothing more to be said", timeout_s=10)
    before, measured_s = wakes(load), 2
    time.sleep(measured_s)  # a rate needs some time
    assert (wakes(load) - before) / measured_s < 20
    load.signal(signal.SIGTERM)
    signalled = time.monotonic()
    assert load.wait() == 0
    assert time.monotonic() - signalled < 1
