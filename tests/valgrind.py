"""What tests/valgrind.sh runs: a cluster whose programs all run under valgrind."""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

parser = argparse.ArgumentParser(prog="tests/valgrind.sh")
parser.add_argument("--quick", action="store_true", help="a fifth of the jobs")
parser.add_argument("--keep", action="store_true", help="keep the logs")
parser.add_argument("build", nargs="?", default="build")
options = parser.parse_args()
os.environ["TIERMQ_BUILD"] = os.path.abspath(options.build)

from harness import Cluster, http_request, wait_for  # noqa: E402  it reads the environment

FOUND = 99  # the exit code by which valgrind tells that it found something
JOBS = 60 if options.quick else 300
SUPPRESSIONS = pathlib.Path(__file__).resolve().parent / "valgrind.supp"
DOWN = {"faults": [{"kind": "status", "status": 503}]}
REFUSES = {"faults": [{"kind": "status", "status": 400}]}
# RocksDB tells the kernel how long a file will live (F_SET_RW_HINT), which valgrind 3.19 passes on without knowing it.
HARMLESS = "Warning: unimplemented fcntl command: 1036"
# One provider, and no patience: an outage and its end shall not take long.
CONFIG = {
    "tiers": [{"name": name, "durability": "none" if name == "realtime" else "fsync", "deadline": "10m", "attempts_max": 20}
              for name in ("realtime", "standard", "background")],
    "breaker": {"failures": 3, "open_first": "300ms", "open_max": "500ms"},
}


class Watched(Cluster):
    """A cluster under valgrind. A program that valgrind has something to say about ends with FOUND."""

    def __init__(self, directory):
        super().__init__(CONFIG)
        self.logs = directory

    def _watched(self, name, argv):
        # Of some ioctls, such as SIOCOUTQNSD, it does not know what they read and write.
        return ["valgrind", "--quiet", "--sim-hints=lax-ioctls", "--leak-check=full", "--show-leak-kinds=definite,possible",
                "--errors-for-leak-kinds=definite,possible", f"--error-exitcode={FOUND}", "--num-callers=30", "--child-silent-after-fork=yes",
                f"--suppressions={SUPPRESSIONS}", f"--log-file={self.logs}/{name}-%p.log", *argv]

    def run(self, name, argv, ready=True, environment=None):
        return super().run(name, self._watched(name, argv), ready, environment)

    def _cli_argv(self, arguments):
        argv, environment = super()._cli_argv(arguments)
        return self._watched(f"cli-{arguments[0]}", argv), environment

    def tell(self, *arguments, expect=0):
        """What a command printed, JSON by lines."""
        done = self.cli(*arguments, "--json")
        assert done.returncode == expect, (f"tiermq {' '.join(map(str, arguments))} ended with {done.returncode}: "
                                           f"{done.stderr}{done.stdout}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def set_faults(self, faults):
        status, text = http_request(self.modelsim.ready["http"], "/control/faults", faults)
        assert status == 200, text


def write_jobs(cluster, count):
    """Every third is identical to the one before it."""
    path = cluster.directory / "jobs.jsonl"
    tiers = ("realtime", "standard", "background")
    path.write_text("".join(json.dumps({"id": n, "prompt": f"prompt {n - (n % 3 == 2)}", "tier": tiers[n // 3 % 3]}) + "\n"
                            for n in range(count)))
    return path


def submit_detached(cluster, tier, text):
    return cluster.tell("submit", "--no-wait", "--tier", tier, text)[0]["job"]


def answers(cluster, jobs):
    results = cluster.tell("wait", *jobs)
    assert [r["outcome"] for r in results] == ["succeeded"] * len(jobs), results


def a_day(cluster):
    """Jobs of all tiers, identical ones, a stream."""
    out = cluster.directory / "answers.jsonl"
    cluster.tell("submit", "--file", write_jobs(cluster, JOBS), "--out", out, "--window", "32")
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(results) == JOBS and {r["outcome"] for r in results} == {"succeeded"}
    joined = sum(tier["flights"]["followers_joined"] for tier in cluster.broker.admin_json("/v1/stats")["tiers"])
    hits = sum(r.get("cache") in ("hit", "near_hit") for r in results)
    assert joined + hits > 0, "nothing was shared"
    done = cluster.cli("submit", "--stream", "--distinct", "--tier", "realtime", "a stream")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    return f"{JOBS} jobs, {joined} joined another, {hits} from the cache, a stream"


def an_outage(cluster):
    """The provider is down: jobs wait, and are answered when it is back."""
    cluster.set_faults(DOWN)
    jobs = [submit_detached(cluster, tier, f"outage {tier}") for tier in ("realtime", "standard", "background")]
    wait_for(lambda: any(u["state"] != "closed" for u in cluster.broker.admin_json("/v1/upstreams")["upstreams"]), "an open breaker")
    cluster.tell("status", *jobs)
    cluster.cli("upstreams")
    cluster.set_faults({"faults": []})
    answers(cluster, jobs)
    return f"{len(jobs)} jobs waited for the provider"


def a_death(cluster):
    """Dead letters: seen, requeued, dropped; a job that is cancelled."""
    cluster.set_faults(REFUSES)
    jobs = [submit_detached(cluster, tier, f"refused {tier}") for tier in ("realtime", "standard", "background")]
    wait_for(lambda: len(cluster.broker.admin_json("/v1/dead")["dead_letters"]) == len(jobs), "dead letters")
    assert len(cluster.tell("dead", "list")) == len(jobs)
    cluster.tell("dead", "show", "--payload", jobs[0])
    cluster.set_faults({"faults": []})
    cluster.tell("dead", "drop", jobs[2])
    cluster.tell("dead", "requeue", "--all", "--wait")
    answers(cluster, jobs[:2])
    cancelled = cluster.tell("submit", "--no-wait", "--tier", "background", "--delay", "5m", "never")[0]["job"]
    cluster.tell("cancel", cancelled)
    return f"{len(jobs)} dead letters"


def a_restart(cluster):
    """The broker restarts with jobs that wait."""
    cluster.worker.stop()
    jobs = [submit_detached(cluster, tier, f"restart {tier}") for tier in ("standard", "background")]
    cluster.broker.stop()
    cluster.restart_broker()
    cluster.start_worker()
    answers(cluster, jobs)
    return f"{len(jobs)} jobs over a restart"


def report_of(log):
    """What valgrind found, without what is harmless."""
    lines = log.read_text().splitlines(keepends=True)
    return "".join(line for line in lines if HARMLESS not in line and line.rsplit("==", 1)[-1].strip())


def main():
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tiermq-valgrind-") as directory:
        logs = pathlib.Path(directory if not options.keep else tempfile.mkdtemp(prefix="tiermq-valgrind-"))
        failure = None
        try:
            with Watched(logs) as cluster:
                cluster.start_modelsim("--first-token-ms", "20")
                cluster.start_broker()
                cluster.start_worker()
                for part in (a_day, an_outage, a_death, a_restart):
                    print(f"==> {part(cluster)}", flush=True)
        except AssertionError as error:
            failure = str(error)
        found = {log.name: report for log in sorted(logs.iterdir()) if (report := report_of(log))}
        for name, text in found.items():
            print(f"---- {name}\n{text}", file=sys.stderr)
        if failure:
            print(f"tests/valgrind.sh: {failure[-4000:]}", file=sys.stderr)
        if options.keep:
            print(f"kept: {logs}")
        programs = len(list(logs.iterdir()))
    if found or failure:
        print(f"tests/valgrind.sh: {len(found)} of {programs} programs have a report", file=sys.stderr)
        return 1
    print(f"valgrind: no findings in {programs} programs, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
