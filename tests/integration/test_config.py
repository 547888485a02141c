"""Every program refuses a wrong configuration in the same words, with exit code 3, and says everything at once; a reload
changes what is safe to change."""

import json
import os
import signal
import subprocess

import pytest

yaml = pytest.importorskip("yaml", reason="python3-yaml is not installed")

from harness import EXIT_CONFIG, ROOT, program  # noqa: E402

WRONG = """\
broker:
  lease: soon
  leese: 15s
tiers:
  - {name: a, pool: nowhere, share_min_percent: 70}
  - {name: b, durability: paper}
client:
  tenant: ${TIERMQ_TEST_UNSET}
"""
MISTAKES = [
    '2:10: broker.lease: "soon" is not a duration',
    '3:3: broker: "leese" is not a key; did you mean lease?',
    '5:21: tiers[0].pool: "nowhere" is not a pool',
    '6:27: tiers[1].durability: "paper" is not one of its words',
    '8:11: client.tenant: "${TIERMQ_TEST_UNSET}" needs the environment variable TIERMQ_TEST_UNSET',
]
COMMANDS = [
    ("tiermq-broker", ["--config"]),
    ("tiermq-worker", ["--config"]),
    ("tiermq", ["config", "check"]),
    ("tiermq", ["config", "show"]),
    ("tiermq", ["submit", "Hello.", "--config"]),
]
by_command = pytest.mark.parametrize("name,arguments", COMMANDS, ids=[f"{name} {words[0]}" for name, words in COMMANDS])


def run(name, *arguments, cwd=None, **environment):
    return subprocess.run([program(name), *map(str, arguments)], capture_output=True, text=True, timeout=30, cwd=cwd,
                          stdin=subprocess.DEVNULL, env={**os.environ, **environment}, check=False)


@by_command
def test_all_mistakes_are_said_at_once(tmp_path, name, arguments):
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    done = run(name, *arguments, path)
    assert done.returncode == EXIT_CONFIG, done.stderr
    said = done.stderr.replace('\\"', '"')  # daemons say it in a JSON log
    for mistake in MISTAKES:
        assert f"{path}:{mistake}" in said
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr


@by_command
def test_a_missing_file_is_named(tmp_path, name, arguments):
    path = tmp_path / "absent.yaml"
    done = run(name, *arguments, path)
    assert done.returncode == EXIT_CONFIG
    assert f"{path}: cannot be read: No such file or directory" in done.stderr


def test_the_file_is_found_without_being_named(tmp_path):
    (tmp_path / "tiermq.yaml").write_text("client: {tenant: from-here}\n")
    other = tmp_path / "other.yaml"
    other.write_text("client: {tenant: from-the-environment}\n")
    environment = {key: value for key, value in os.environ.items() if key != "TIERMQ_CONFIG"}
    show = [program("tiermq"), "config", "show"]
    found = subprocess.run(show, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert "tenant: from-here" in found.stdout
    assert "tenant: from-the-environment" in run("tiermq", "config", "show", cwd=tmp_path, TIERMQ_CONFIG=str(other)).stdout
    named = run("tiermq", "config", "show", ROOT / "deploy" / "tiermq.yaml", cwd=tmp_path, TIERMQ_CONFIG=str(other))
    assert "tenant: default" in named.stdout


def test_what_is_shown_is_a_configuration_again_and_hides_secrets(tmp_path):
    path = tmp_path / "tiermq.yaml"
    path.write_text("providers: [{name: p, base_url: 'https://x/v1', api_key: '${TIERMQ_TEST_KEY}'}]\n"
                    "models: [{name: m, provider: p}]\n")
    shown = run("tiermq", "config", "show", path, TIERMQ_TEST_KEY="sk-very-secret")
    assert shown.returncode == 0, shown.stderr
    assert "sk-very-secret" not in shown.stdout
    path.write_text(shown.stdout)
    assert run("tiermq", "config", "show", path).stdout == shown.stdout


def in_force(process):
    """The effective configuration that a daemon shows."""
    status, text = process.admin("/v1/config")
    assert status == 200
    return yaml.safe_load(text)


def reload(process, path, text, done):
    seen = len(process.lines)
    path.write_text(text)
    process.signal(signal.SIGHUP)
    process.wait_log(done, after=seen)
    return [line for line in process.lines[seen:] if isinstance(line, dict)]


@pytest.mark.parametrize("name,done", [("broker", "reloaded"), ("worker-1", "configuration reloaded")])
def test_a_reload_takes_what_is_live_and_leaves_the_rest_in_force(cluster, name, done):
    cluster.start_broker()
    cluster.start_worker()
    process = next(process for process in cluster.processes if process.name == name)
    before = in_force(process)
    changed = json.loads((cluster.directory / f"{name}.yaml").read_text())
    changed["broker"] = {**changed.get("broker", {}), "lease": "7s", "heartbeat": "1s", "result_ttl": "2h"}
    changed["tiers"] = [{"name": "realtime", "durability": "fsync", "weight": 55}, {"name": "standard"},
                        {"name": "background"}]
    changed["tenants"] = [{"name": "default"}, {"name": "acme"}]
    lines = reload(process, cluster.directory / f"{name}.yaml", json.dumps(changed), done)
    after = in_force(process)
    assert after["broker"]["lease"] == before["broker"]["lease"] == "15s"
    assert after["tiers"][0]["durability"] == "none" and after["tiers"][0]["weight"] == 55
    assert after["broker"]["result_ttl"] == "2h"
    assert [tenant["name"] for tenant in after["tenants"]] == ["default", "acme"]
    named = " ".join(str(line) for line in lines)
    for key in ("broker.lease", "broker.heartbeat", "tiers[0].durability"):
        assert key in named
    # What was there before is in force again, and needs no restart any more.
    changed["broker"].update(lease="15s", heartbeat="3s")
    changed["tiers"][0]["durability"] = "none"
    lines = reload(process, cluster.directory / f"{name}.yaml", json.dumps(changed), done)
    assert "broker.lease" not in " ".join(str(line) for line in lines)
