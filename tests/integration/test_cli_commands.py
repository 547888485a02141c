"""The commands of `tiermq` beside submit, on a real cluster."""

import json
import subprocess
import uuid

import pytest

from harness import http_request, program, wait_for

COMMANDS = ["submit", "wait", "get", "cancel", "stats", "dead", "pause", "resume", "drain", "config", "explain", "feedback", "quality", "route"]


def run(*arguments):
    return subprocess.run([str(program("tiermq")), *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False)


def submit_held(cluster, *arguments):
    """A job that nobody runs, since there is no worker."""
    done = cluster.cli("submit", "--no-wait", *arguments, "hold this")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_examples(command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: tiermq ") and "Examples:" in done.stdout and "Exit codes:" in done.stdout


def test_help_names_every_command():
    done = run("--help")
    assert done.returncode == 0
    assert all(f"  {command} " in done.stdout for command in COMMANDS)
    assert run().returncode == 2 and run("nonsense").returncode == 2
    assert run("--version").stdout.startswith("tiermq ")


def test_help_of_a_command_is_that_command_s():
    assert run("help").stdout == run("--help").stdout
    done = run("help", "submit")
    assert done.returncode == 0 and done.stdout == run("submit", "--help").stdout
    wrong = run("help", "sumbit")
    assert wrong.returncode == 2 and '"sumbit"' in wrong.stderr and not wrong.stdout


@pytest.mark.parametrize("arguments, words", [
    (["config", "chekc"], '"chekc" is none of check, show, reference'),
    (["config", "show", "a.yaml", "b.yaml"], 'show takes no "b.yaml"'),
    (["config"], "needs one of check, show, reference"),
    (["route", "reply", "jobs.jsonl"], '"reply" is none of replay'),
    (["dead", "lsit"], '"lsit" is none of list, show, requeue, drop, sweeps, stop'),
    (["dead"], "needs one of list, show, requeue, drop, sweeps, stop"),
    (["cache", "stat"], '"stat" is none of stats, top,'),
    (["cache"], "needs one of stats, top,"),
    (["upstreams", "rest", "sim/sim-small"], 'takes no "rest", but reset'),
    (["pause", "tier"], "needs a kind and a name, such as tier background"),
    (["pause", "tier", "background", "realtime"], 'takes a kind and a name, and no "realtime"'),
])
def test_what_a_command_does_not_know_is_named_with_what_it_knows(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr, done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1", "7710", "127.0.0.1:", "127.0.0.1:port", "unix:"])
def test_an_admin_address_that_is_none_is_told(address):
    done = run("stats", "--admin", address)
    assert done.returncode == 2
    assert f'--admin: "{address}" is not an address; write HOST:PORT or unix:/PATH' in done.stderr


def test_wait_collects_what_another_process_submitted(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    job = submit_held(cluster, "--tier", "background")
    late = cluster.cli("wait", "--timeout", "300ms", job)
    assert late.returncode == 8 and "300 ms" in late.stderr
    cluster.start_worker()
    done = cluster.cli("wait", job)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    again = cluster.cli("wait", "--json", job)
    assert json.loads(again.stdout)["outcome"] == "collected" and again.returncode == 8


def test_explain_of_a_job_that_waits_says_that_it_waits(cluster):
    cluster.start_broker()
    job = submit_held(cluster)
    done = cluster.cli("explain", job)
    assert done.returncode == 7
    assert "waits and has not been dispatched" in done.stderr and f"tiermq status {job}" in done.stderr


def test_an_unknown_id_comes_with_the_tenant_that_it_was_looked_for_as(cluster):
    cluster.start_broker()
    job = str(uuid.uuid4())
    hint = "(of tenant default; --tenant NAME for another)"
    assert hint in cluster.cli("status", job).stdout
    assert hint in cluster.cli("wait", job).stderr
    assert cluster.cli("status", "--tenant", "default", job).stdout.endswith("unknown (of tenant default)\n")


def test_get_tells_where_a_job_is_and_collects_nothing(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    job = submit_held(cluster)
    status = json.loads(cluster.cli("get", "--json", job).stdout)
    assert status["state"] == "queued" and status["job"] == job
    cluster.start_worker()
    wait_for(lambda: json.loads(cluster.cli("get", "--json", job).stdout)["state"] == "succeeded", "the job's success")
    assert cluster.cli("wait", job).returncode == 0


def test_unknown_job_is_told(cluster):
    cluster.start_broker()
    unknown = str(uuid.uuid4())
    done = cluster.cli("get", unknown)
    assert done.returncode == 8 and "unknown" in done.stdout
    done = cluster.cli("wait", unknown)
    assert done.returncode == 8 and "no broker knows" in done.stderr


def test_cancel_ends_a_waiting_job(cluster):
    cluster.start_broker()
    job = submit_held(cluster)
    done = cluster.cli("cancel", "--json", job)
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == "cancelled"
    waited = cluster.cli("wait", "--json", job)
    assert json.loads(waited.stdout)["outcome"] == "cancelled" and waited.returncode == 8


def test_stats_as_table_and_json(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    cluster.start_worker()
    assert cluster.cli("submit", "--tier", "realtime", "x").returncode == 0
    table = cluster.cli("stats")
    assert table.returncode == 0, table.stderr
    for word in ("realtime", "standard", "background", "queued", "succeeded", "1 workers"):
        assert word in table.stdout
    stats = json.loads(cluster.cli("stats", "--json").stdout)
    realtime = next(t for t in stats["tiers"] if t["name"] == "realtime")
    assert realtime["concluded"]["succeeded"] == 1
    row = next(line for line in table.stdout.splitlines() if line.startswith("realtime"))
    assert row.split()[4] == "1"


def test_pause_holds_a_tier_and_resume_lets_it_go(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    cluster.start_worker()
    done = cluster.cli("pause", "tier", "background", "--reason", "price change")
    assert done.returncode == 0, done.stderr
    job = submit_held(cluster, "--tier", "background")
    assert cluster.cli("submit", "--tier", "standard", "not held").returncode == 0
    status = json.loads(cluster.cli("status", "--json", job).stdout)
    assert status["state"] == "queued"
    assert status["why"] == "the tier background is paused by an operator: price change"
    assert "tier background: paused: price change" in cluster.cli("stats").stdout
    assert status["position"] == 0 and status["starts_in_ms"] is None
    behind = submit_held(cluster, "--tier", "background", "--distinct")
    assert "1 ahead" in cluster.cli("status", behind).stdout
    seen = cluster.broker.admin_json(f"/v1/jobs/{behind}")
    assert seen["position"] == 1 and seen["starts_in_ms"] is None and "paused" in seen["why"]
    assert cluster.cli("resume", "tier", "background").returncode == 0
    assert cluster.cli("wait", "--timeout", "20s", job).returncode == 0


def test_brokers_alone_change_nothing_at_another_broker(cluster):
    cluster.start_broker()
    endpoint = cluster.broker.config["broker"]["listen_clients"]
    done = cluster.cli("pause", "tier", "background", "--brokers", endpoint)
    assert done.returncode == 2 and "--admin" in done.stderr
    assert cluster.broker.admin_json("/v1/pauses") == {"pauses": []}


def test_drained_tenant_is_refused(cluster):
    cluster.start_broker()
    assert cluster.cli("drain", "tenant", "default").returncode == 0
    done = cluster.cli("submit", "--no-retry", "x")
    assert done.returncode == 7 and "paused" in done.stderr


def test_control_of_something_unknown_is_refused(cluster):
    cluster.start_broker()
    done = cluster.cli("pause", "tier", "nonesuch")
    assert done.returncode == 7 and "nonesuch" in done.stderr
    assert cluster.cli("pause", "planet", "mars").returncode == 2
    assert cluster.cli("pause", "tier").returncode == 2


def test_cost_names_what_it_cannot_read_and_what_it_may_be(cluster):
    cluster.start_broker()
    for arguments, words in ((["--by", "day,pool"], 'by is "day,pool"; it must be some of day, tenant, tier, model, provider'),
                             (["--from", "2026-13-01"], 'from is "2026-13-01"; it must be a day such as 2026-01-31'),
                             (["--to", "today"], 'to is "today"; it must be a day'),
                             (["--from", "2026-02-01", "--to", "2026-01-31"],
                              'from is "2026-02-01", which is after to, "2026-01-31"; exchange them')):
        done = cluster.cli("cost", *arguments)
        assert done.returncode == 2 and words in done.stderr, done.stderr


def test_admin_that_does_not_answer_is_told():
    done = run("stats", "--brokers", "tcp://127.0.0.1:1", "--admin", "127.0.0.1:1")
    assert done.returncode == 6 and "127.0.0.1:1" in done.stderr


def test_an_address_of_a_broker_for_others_is_told_as_what_it_is(cluster):
    broker = cluster.start_broker()
    workers = broker.config["broker"]["listen_workers"]
    done = cluster.cli("submit", "--brokers", workers, "--timeout", "5s", "hello")
    assert done.returncode == 6 and f"{workers}: it is a broker's address for workers" in done.stderr, done.stderr
    assert "broker.listen_clients" in done.stderr


def test_a_worker_s_admin_address_is_not_taken_for_a_broker_s(cluster):
    cluster.start_broker()
    worker = cluster.start_worker().ready["admin"]
    for command in ("stats", "cost", "upstreams"):
        done = cluster.cli(command, "--admin", worker)
        assert done.returncode == 6 and f"no broker's admin HTTP at {worker}" in done.stderr, (command, done.stderr)
        assert not done.stdout


def test_wrong_ids_are_refused():
    for command in ("wait", "get", "cancel"):
        assert run(command, "--brokers", "tcp://127.0.0.1:1", "17").returncode == 2
        assert run(command, "--brokers", "tcp://127.0.0.1:1").returncode == 2


def test_config_check_names_every_error(tmp_path):
    path = tmp_path / "tiermq.yaml"
    path.write_text("broker:\n  lease: 5 parsecs\n  leese: 1s\n")
    done = run("config", "check", path)
    assert done.returncode == 3
    assert f"{path}:2" in done.stderr and f"{path}:3" in done.stderr and "2 errors" in done.stderr


def test_config_show_can_be_read_again(tmp_path):
    shown = run("config", "show")
    path = tmp_path / "shown.yaml"
    path.write_text(shown.stdout)
    done = run("config", "check", path)
    assert done.returncode == 0 and "note" not in done.stdout
    assert run("config", "show", path).stdout == shown.stdout
    assert "| `lease` |" in run("config", "reference").stdout


def test_config_check_says_which_default_tiers_are_gone(tmp_path):
    path = tmp_path / "one-tier.yaml"
    path.write_text("tiers:\n  - {name: standard, quality_min: 60}\n")
    done = run("config", "check", path)
    assert done.returncode == 0 and "without realtime, background;" in done.stdout
    path.write_text("tiers: [{name: realtime}, {name: standard, quality_min: 60}, {name: background}]\n")
    assert "note" not in run("config", "check", path).stdout


def test_broken_configuration_stops_a_command(tmp_path):
    path = tmp_path / "tiermq.yaml"
    path.write_text("nonsense: 1\n")
    done = run("submit", "--config", path, "x")
    assert done.returncode == 3 and "nonsense" in done.stderr


def test_reset_ends_a_rest_that_an_upstream_asked_for(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    cluster.start_worker()

    def faults(*list_of):
        assert http_request(cluster.modelsim.ready["http"], "/control/faults", {"faults": list(list_of)})[0] == 200

    def shown(*arguments):
        done = cluster.cli("upstreams", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return {f"{u['provider']}/{u['model']}": u for u in json.loads(done.stdout)["upstreams"]}

    faults({"kind": "status", "status": 429, "retry_after_ms": 86400000})
    process = cluster.cli_start("submit", "--route", "sim-small", "--deadline", "2d", "hello")
    wait_for(lambda: shown()["sim/sim-small"]["blocked_ms"] > 3600000, "a rest of a day")
    faults()
    wrong = cluster.cli("upstreams", "reset", "sim/nonsense")
    assert wrong.returncode == 7 and 'no model "nonsense" at a provider "sim"' in wrong.stderr
    assert cluster.cli("upstreams", "reset").returncode == 2
    assert cluster.cli("upstreams", "reset", "sim").returncode == 2
    assert shown("reset", "sim/sim-small")["sim/sim-small"]["blocked_ms"] == 0
    cluster.broker.wait_log(lambda line: line["message"] == "upstream reset" and line["subject"] == "sim/sim-small")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and out.strip(), err
    assert all(u["blocked_ms"] == 0 for u in shown("reset", "--all").values())
