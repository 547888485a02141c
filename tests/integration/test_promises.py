"""
What the system promises, on real processes: every prompt gets one outcome; a killed worker's jobs finish elsewhere; a killed
broker keeps every acknowledged job of a durable tier, and clients that wait get their answers without being restarted.
"""

import collections
import json
import os
import pathlib

import pytest

from harness import http_request, wait_for

TIERS = ("realtime", "standard", "background")
PROMPTS = pathlib.Path(os.environ.get("TIERMQ_TEST_DATA", "/nowhere")) / "prompts.jsonl"


def write_jobs(cluster, count, tier=None):
    """A file of jobs with ids of their own; their prompts all differ, so no cache answers them."""
    path = cluster.directory / "jobs.jsonl"
    lines = ({"id": f"job-{i}", "prompt": f"Question number {i}: why?", "tier": tier or TIERS[i % 3], "deadline": "5m"} for i in range(count))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read_results(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_one_outcome_each(results, ids):
    counts = collections.Counter(r["id"] for r in results)
    assert set(counts) == set(ids) and set(counts.values()) == {1}
    unexplained = [r for r in results if r["outcome"] != "succeeded" and not r.get("error", {}).get("text")]
    assert not unexplained, unexplained[:3]


def start_all(cluster, *modelsim, workers=2, **broker):
    cluster.start_modelsim(*modelsim)
    cluster.start_broker(**broker)
    for _ in range(workers):
        cluster.start_worker()


def submit(cluster, path, *arguments):
    out = cluster.directory / "results.jsonl"
    return cluster.cli_start("submit", "--file", path, "--out", out, "--window", "200", *arguments), out


def finish(process, timeout_s=120):
    """Its exit code, once it has ended."""
    _, errors = process.communicate(timeout=timeout_s)
    return process.returncode, errors


def counted(cluster, what):
    return json.loads(http_request(cluster.modelsim.ready["http"], "/control/counters")[1])[what]


@pytest.mark.skipif(not PROMPTS.is_file(), reason="real prompts are not here: set TIERMQ_TEST_DATA to the folder with prompts.jsonl")
def test_every_real_prompt_gets_exactly_one_outcome(cluster):
    start_all(cluster)
    ids = [json.loads(line)["id"] for line in PROMPTS.read_text().splitlines()]
    process, out = submit(cluster, PROMPTS, "--tiers", ",".join(TIERS), "--deadline", "5m")
    code, errors = finish(process)
    results = read_results(out)
    assert_one_outcome_each(results, ids)
    outcomes = collections.Counter(r["outcome"] for r in results)
    print(f"{len(ids)} prompts: {dict(outcomes)}; resident MB: broker {cluster.broker.memory_bytes() >> 20}, "
          f"workers {[w.memory_bytes() >> 20 for w in cluster.workers]}")
    assert code == 0 and outcomes == {"succeeded": len(ids)}, errors
    # Both workers took part, and each real prompt was paid at most once.
    assert all(r["worker"] in ("worker-1", "worker-2") for r in results)
    assert len({r["worker"] for r in results}) == 2
    assert counted(cluster, "repeated_keys") == 0


def test_jobs_of_a_killed_worker_finish_elsewhere(cluster):
    start_all(cluster, "--first-token-ms", "150", broker={"lease": "2s", "heartbeat": "500ms"})
    path = write_jobs(cluster, 600)
    process, out = submit(cluster, path)
    wait_for(lambda: counted(cluster, "answered") >= 100, "the first answers")
    cluster.workers[0].kill()
    code, errors = finish(process)
    results = read_results(out)
    assert_one_outcome_each(results, [f"job-{i}" for i in range(600)])
    assert code == 0, errors
    assert any(r["attempts"] > 1 for r in results), "the killed worker held no job: the test proves nothing"
    assert {r["worker"] for r in results if r["attempts"] > 1} == {"worker-2"}


def test_a_killed_broker_keeps_what_it_acknowledged_and_clients_wait_on(cluster):
    start_all(cluster, "--first-token-ms", "100")
    path = write_jobs(cluster, 600)
    process, out = submit(cluster, path)
    for answered in (100, 300):
        wait_for(lambda: counted(cluster, "answered") >= answered, f"{answered} answers")
        cluster.broker.kill()
        cluster.restart_broker()
    code, errors = finish(process)
    results = read_results(out)
    assert_one_outcome_each(results, [f"job-{i}" for i in range(600)])
    assert code == 0, errors


def test_acknowledged_jobs_outlive_broker_and_client(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    path = write_jobs(cluster, 300, tier="standard")
    process, out = submit(cluster, path, "--no-wait")
    code, errors = finish(process)
    accepted = read_results(out)
    assert code == 0 and len(accepted) == 300 and {r["outcome"] for r in accepted} == {"accepted"}, errors
    cluster.broker.kill()
    cluster.restart_broker()
    cluster.start_worker()
    for job in accepted[::30]:
        done = cluster.cli("wait", "--json", job["job"])
        assert done.returncode == 0 and json.loads(done.stdout)["outcome"] == "succeeded", done.stderr
    wait_for(lambda: counted(cluster, "answered") >= 300, "all jobs to be worked")
    assert counted(cluster, "repeated_keys") == 0


def test_requests_that_end_their_server_do_not_keep_it_from_others(cluster):
    cluster.start_modelsim()
    faults = {"faults": [{"kind": "status", "status": 500, "text": "MARK"}]}
    assert http_request(cluster.modelsim.ready["http"], "/control/faults", faults)[0] == 200
    cluster.start_broker(breaker={"open_first": "200ms", "open_max": "1s"},
                         tiers=[{"name": "background", "backoff_first": "1ms", "backoff_max": "1ms"}])
    cluster.start_worker()
    bad = [cluster.cli("submit", "--no-wait", "--tier", "background", "--distinct", "MARK").stdout.strip() for _ in range(6)]

    def probes():
        return sum(u["probes"] for u in cluster.broker.admin_json("/v1/upstreams")["upstreams"])

    wait_for(lambda: probes() >= 4, "some of them to be probes")
    done = cluster.cli("submit", "--tier", "background", "--timeout", "30s", "fine")
    assert done.returncode == 0, done.stderr
    assert all(json.loads(cluster.cli("status", "--json", job).stdout)["state"] != "succeeded" for job in bad)


def test_an_absent_model_server_backs_off_and_then_answers(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    cluster.start_worker()
    sim = cluster.modelsim
    address = sim.ready["http"].removeprefix("http://")
    sim.stop()
    process, out = submit(cluster, write_jobs(cluster, 20, tier="standard"))
    cluster.broker.wait_log(lambda line: "attempt" in line.get("message", ""))
    cluster.start_modelsim("--listen", address)
    code, errors = finish(process)
    assert code == 0, errors
    assert_one_outcome_each(read_results(out), [f"job-{i}" for i in range(20)])
