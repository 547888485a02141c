"""Whole clusters that lose a process in the middle: clients that wait get every outcome, once, without being restarted."""

import json

import pytest

from harness import http_request, wait_for

JOBS = 400


def write_prompts(cluster, count, prefix="prompt"):
    path = cluster.directory / f"{prefix}.jsonl"
    path.write_text("".join(json.dumps({"id": f"{prefix}-{n}", "prompt": f"{prefix} number {n}"}) + "\n"
                            for n in range(count)))
    return path


def read_results(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Submission:
    """A `tiermq submit` of many prompts that runs beside the test."""

    def __init__(self, cluster, tier, count=JOBS, window=64):
        self.count = count
        self.out = cluster.directory / f"results-{tier}.jsonl"
        self.popen = cluster.cli_start("submit", "--file", write_prompts(cluster, count, f"crash-{tier}"), "--tier", tier,
                                       "--window", str(window), "--out", self.out)

    def lines(self):
        return self.out.read_text().count("\n") if self.out.exists() else 0

    def wait_lines(self, count):
        wait_for(lambda: self.lines() >= count or self.popen.poll() is not None, f"{count} results")
        assert self.popen.poll() is None, self.popen.communicate()

    def finish(self):
        """Its results; every line has exactly one, and all succeeded."""
        _, said = self.popen.communicate(timeout=120)
        assert self.popen.returncode == 0, said
        results = read_results(self.out)
        assert sorted(result["line"] for result in results) == list(range(1, self.count + 1))
        assert {result["outcome"] for result in results} == {"succeeded"}, said
        return results


def start(cluster, workers=2, delay_ms=30, **changes):
    cluster.start_modelsim("--first-token-ms", str(delay_ms))
    cluster.start_broker(**changes)
    for _ in range(workers):
        cluster.start_worker(worker={"slots": 16})


@pytest.mark.parametrize("tier", ["standard", "realtime"])
def test_waiting_client_gets_all_outcomes_over_a_killed_broker(cluster, tier):
    start(cluster)
    submission = Submission(cluster, tier)
    submission.wait_lines(JOBS // 8)
    cluster.broker.kill()
    cluster.restart_broker()
    submission.wait_lines(JOBS // 2)
    cluster.broker.kill()
    cluster.restart_broker()
    submission.finish()


def test_waiting_client_gets_all_outcomes_over_a_clean_restart(cluster):
    start(cluster)
    submission = Submission(cluster, "standard")
    submission.wait_lines(JOBS // 8)
    cluster.broker.stop()
    cluster.restart_broker()
    submission.finish()


@pytest.mark.parametrize("tier", ["standard", "realtime"])
def test_jobs_of_a_killed_worker_finish_elsewhere(cluster, tier):
    start(cluster, broker={"lease": "1s", "heartbeat": "200ms"})
    submission = Submission(cluster, tier)
    submission.wait_lines(JOBS // 8)
    cluster.workers[0].kill()
    results = submission.finish()
    assert len(results) == JOBS


def test_jobs_wait_for_a_worker_that_comes_later(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    done = cluster.cli("submit", "--no-wait", "--json", "--tier", "background", "later")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout.splitlines()[0])["job"]
    cluster.broker.kill()
    cluster.restart_broker()
    cluster.start_worker()
    answered = cluster.cli("wait", job)
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip()


def requests_seen(cluster):
    counted = json.loads(http_request(cluster.modelsim.ready["http"], "/control/counters")[1])
    return counted["requests_total"], counted["in_flight"]


def test_answers_that_come_while_the_broker_is_away_are_not_bought_again(cluster):
    """The broker dies with leases out, the calls end meanwhile, and it recovers the jobs: the workers have their answers."""
    count = 24
    cluster.start_modelsim("--first-token-ms", "1500")
    cluster.start_broker()
    for _ in range(2):
        cluster.start_worker(worker={"slots": 16}, cache={"mode": "off"})
    submission = Submission(cluster, "standard", count=count)
    wait_for(lambda: requests_seen(cluster) == (count, count), "all calls")
    cluster.broker.kill()
    wait_for(lambda: requests_seen(cluster) == (count, 0), "their ends")
    wait_for(lambda: sum(worker.metrics()["tiermq_worker_answers_kept"] for worker in cluster.workers) == count, "the answers")
    cluster.restart_broker()
    submission.finish()
    assert requests_seen(cluster)[0] == count
