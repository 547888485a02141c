"""`tiermq submit` on real input: every line of the input has exactly one result, whatever happens to it."""

import json
import os
import signal
import socket
import subprocess
import time
import uuid

import pytest

from harness import program, wait_for


@pytest.fixture(name="answering")
def fixture_answering(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    cluster.start_worker()
    return cluster


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def prompts(count, **members):
    return "".join(json.dumps({"id": f"p-{i}", "text": f"prompt number {i}", **members}) + "\n" for i in range(count))


def test_prompt_as_argument_prints_its_answer(answering):
    done = answering.cli("submit", "--tier", "realtime", "What", "is a queue?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and not done.stdout.startswith("{")


def test_prompt_that_waits_says_once_why(cluster):
    cluster.start_broker()
    process = cluster.cli_start("submit", "--timeout", "9s", "What is a queue?")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 8 and not out
    told = [line for line in err.splitlines() if "still waits" in line]
    assert len(told) == 1 and "no worker serves the pool default" in told[0] and "tiermq status 0" in told[0], err


def test_prompt_that_runs_says_nothing(cluster):
    cluster.start_modelsim("--first-token-ms", "6500")
    cluster.start_broker()
    cluster.start_worker()
    done = cluster.cli("submit", "What is a queue?")
    assert done.returncode == 0 and done.stdout.strip() and not done.stderr


def test_prompt_from_standard_input(answering):
    done = answering.cli("submit", "--json", input="What is a queue?\n")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["outcome"] == "succeeded" and result["text"] and result["tier"] == "standard"
    assert result["input_tokens"] > 0 and result["cost_nanousd"] > 0
    uuid.UUID(result["job"])


def test_stream_prints_the_same_answer(answering):
    whole = answering.cli("submit", "--tier", "realtime", "Tell me of streams")
    streamed = answering.cli("submit", "--tier", "realtime", "--stream", "Tell me of streams, please")
    again = answering.cli("submit", "--tier", "realtime", "--stream", "Tell me of streams")
    assert whole.returncode == streamed.returncode == again.returncode == 0, streamed.stderr + again.stderr
    assert streamed.stdout.strip()
    assert again.stdout == whole.stdout


def test_file_of_all_tiers_and_its_summary(answering):
    out = answering.directory / "out.jsonl"
    path = answering.directory / "in.jsonl"
    path.write_text(prompts(300))
    done = answering.cli("submit", "--file", path, "--tiers", "realtime,standard,background", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert {tier["tier"]: tier["jobs"] for tier in summary["tiers"]} == {"realtime": 100, "standard": 100, "background": 100}
    assert summary["all"]["outcomes"] == {"succeeded": 300}
    assert summary["all"]["latency_us"]["p99"] >= summary["all"]["latency_us"]["p50"] > 0
    assert summary["all"]["cost_nanousd"] > 0
    results = lines_of(out.read_text())
    assert sorted(result["line"] for result in results) == list(range(1, 301))
    assert {result["id"] for result in results} == {f"p-{i}" for i in range(300)}
    table = answering.cli("submit", "--file", path, "--tiers", "realtime,standard,background", "--out", out)
    for word in ("realtime", "standard", "background", "all", "p99", "hits", "cost", "saved", "300 jobs"):
        assert word in table.stdout


def test_second_run_is_answered_from_the_cache_and_counted(answering):
    path = answering.directory / "in.jsonl"
    path.write_text(prompts(20))
    first = answering.cli("submit", "--file", path, "--out", os.devnull, "--json")
    second = answering.cli("submit", "--file", path, "--out", os.devnull, "--json")
    first, second = json.loads(first.stdout)["all"], json.loads(second.stdout)["all"]
    assert first["cache"]["hit"] == 0 and second["cache"]["hit"] == 20
    assert second["cost_nanousd"] == 0 and second["saved_nanousd"] > 0


def test_results_in_order_of_the_input(answering):
    done = answering.cli("submit", "--file", "-", "--order", "input", "--window", "16", input=prompts(200))
    assert done.returncode == 0, done.stderr
    assert [result["line"] for result in lines_of(done.stdout)] == list(range(1, 201))


def test_bad_lines_are_told_and_nothing_is_lost(answering):
    text = "\n".join([
        '{"id": "good-1", "text": "one"}',
        "{this is no JSON",
        '{"id": "no-prompt"}',
        "",
        '{"id": "bad-priority", "text": "x", "priority": 12}',
        '{"id": "bad-tier", "text": "x", "tier": "nonesuch"}',
        '{"id": "bad-route", "text": "x", "route": "nonesuch"}',
        '{"id": "bad-body", "body": [1]}',
        '{"id": "late", "text": "x", "deadline": "1ms"}',
        '"a bare string"',
    ])
    done = answering.cli("submit", "--file", "-", "--order", "input", "--json", input=text)
    results = lines_of(done.stdout)
    assert [r["line"] for r in results] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    outcomes = {r["line"]: r["outcome"] for r in results}
    late = outcomes.pop(9)
    assert late in ("expired", "rejected", "succeeded")
    assert outcomes == {1: "succeeded", 2: "invalid", 3: "invalid", 5: "invalid", 6: "rejected", 7: "rejected",
                        8: "invalid", 10: "succeeded"}
    assert all(r["error"]["text"] for r in results if r["outcome"] in ("invalid", "rejected"))
    by_line = {r["line"]: r for r in results}
    assert by_line[3]["id"] == "no-prompt" and "prompt" in by_line[3]["error"]["text"]
    assert "nonesuch" in by_line[6]["error"]["text"]
    assert done.returncode in (7, 8)


def test_openai_bodies_pass_through(answering):
    body = {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}], "temperature": 0}
    done = answering.cli("submit", "--file", "-", "--body", input=json.dumps({"custom_id": "c-1", "body": body}) + "\n")
    result, = lines_of(done.stdout)
    assert result["id"] == "c-1" and result["body"]["choices"][0]["message"]["content"] == result["text"]


def test_embeddings(answering):
    done = answering.cli("submit", "--operation", "embeddings", "--json", "some text")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["body"]["data"][0]["embedding"]


def test_full_queue_slows_down_and_loses_nothing(cluster):
    cluster.config = {"tiers": [{"name": "standard", "jobs_max": 10}]}
    cluster.start_modelsim()
    cluster.start_broker()
    cluster.start_worker()
    done = cluster.cli("submit", "--file", "-", "--json", "--window", "100", input=prompts(150))
    assert done.returncode == 0, done.stderr
    assert len(lines_of(done.stdout)) == 150


def test_full_queue_is_told_with_no_retry(cluster):
    cluster.config = {"tiers": [{"name": "standard", "jobs_max": 5}]}
    cluster.start_modelsim()
    cluster.start_broker()  # no worker: nothing drains
    done = cluster.cli("submit", "--file", "-", "--no-wait", "--no-retry", input=prompts(20))
    outcomes = [r["outcome"] for r in lines_of(done.stdout)]
    assert outcomes.count("accepted") == 5 and outcomes.count("rejected") == 15
    assert done.returncode == 7
    rejected = next(r for r in lines_of(done.stdout) if r["outcome"] == "rejected")
    assert rejected["error"]["code"] == "queue_full" and rejected["error"]["retry_after_ms"] > 0


def test_same_id_is_the_same_job(answering):
    job = str(uuid.UUID(int=(int(time.time() * 1000) << 80) | (7 << 76) | (2 << 62) | 42))
    first = answering.cli("submit", "--no-wait", "--id", job, "once")
    second = answering.cli("submit", "--no-wait", "--id", job, "once")
    assert first.stdout.strip() == second.stdout.strip() == job, first.stderr + second.stderr
    answer = answering.cli("wait", job)
    assert answer.returncode == 0, answer.stderr


def test_idempotency_key_gives_the_first_jobs_answer(answering):
    first = answering.cli("submit", "--json", "--idempotency-key", "order-17", "first wording")
    second = answering.cli("submit", "--json", "--idempotency-key", "order-17", "second wording", timeout_s=20)
    assert json.loads(first.stdout)["outcome"] == "succeeded"
    # The first answer was collected, so what remains of the first job is that it is done.
    assert json.loads(second.stdout)["outcome"] in ("succeeded", "lost")


def test_idempotency_key_names_the_job_that_others_can_wait_for(answering):
    first, second = (answering.cli("submit", "--no-wait", "--idempotency-key", "order-18", "a wording").stdout.strip() for _ in range(2))
    assert first == second
    done = answering.cli("wait", second)
    assert done.returncode == 0, done.stderr


def test_interrupt_cancels_and_prints_the_summary(cluster):
    cluster.start_modelsim()
    cluster.start_broker()  # no worker: nothing is answered
    process = cluster.cli_start("submit", "--file", "-", "--json", input=prompts(50))
    wait_for(lambda: cluster.broker.admin_json("/v1/stats")["jobs"] == 50, "50 jobs in the queue")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 8
    results = lines_of(out)
    assert len(results) == 50 and {r["outcome"] for r in results} == {"cancelled"}
    assert "cancelled" in err
    assert cluster.broker.admin_json("/v1/stats")["jobs"] == 0


def test_interrupt_leaves_jobs_in_the_broker_when_asked_to(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    process = cluster.cli_start("submit", "--file", "-", "--leave", input=prompts(50))
    wait_for(lambda: cluster.broker.admin_json("/v1/stats")["jobs"] == 50, "50 jobs in the queue")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert {r["outcome"] for r in lines_of(out)} == {"pending"} and "stay in the broker" in err
    cluster.start_worker()
    answers = cluster.cli("wait", *[r["job"] for r in lines_of(out)])
    assert answers.returncode == 0, answers.stderr
    assert {r["outcome"] for r in lines_of(answers.stdout)} == {"succeeded"}


def test_interrupt_without_a_broker_ends_at_once_and_claims_no_cancellation(cluster):
    cluster.start_broker()
    process, screen = cluster.cli_on_a_terminal("submit", "--file", "-", input=prompts(5))
    wait_for(lambda: cluster.broker.admin_json("/v1/stats")["jobs"] == 5, "5 jobs in the queue")
    cluster.broker.kill()
    process.send_signal(signal.SIGTERM)
    signalled = time.monotonic()
    assert process.wait(timeout=20) == 8
    assert time.monotonic() - signalled < 0.5
    shown = cluster.shown_on(screen)
    assert "may still run" in shown and "were cancelled" not in shown


def test_broker_killed_in_the_middle_is_waited_for(answering):
    process = answering.cli_start("submit", "--file", "-", "--window", "64", input=prompts(3000))
    wait_for(lambda: answering.broker.admin_json("/v1/stats")["tiers"], "a broker with tiers")
    answering.broker.kill()
    answering.restart_broker()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    results = lines_of(out)
    assert sorted(r["line"] for r in results) == list(range(1, 3001))
    assert {r["outcome"] for r in results} == {"succeeded"}


def test_unknown_tenant_is_refused_in_words(cluster):
    cluster.start_broker()
    done = cluster.cli("submit", "--tenant", "nobody", "x")
    assert done.returncode == 7
    assert done.stderr.count("refused") == 1 and 'tenant "nobody" is not configured; add it under tenants' in done.stderr


def test_no_broker_is_told():
    done = subprocess.run([str(program("tiermq")), "submit", "--brokers", "tcp://127.0.0.1:1", "--timeout", "500ms", "x"],
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 6 and "no broker answered" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.count("tcp://127.0.0.1:1") == 1
    assert "is tiermq-broker running? --brokers or client.brokers names another" in done.stderr


def test_no_broker_before_the_deadline_is_told_with_the_endpoint_and_a_remedy():
    with socket.socket() as silent:  # takes connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run([str(program("tiermq")), "submit", "--brokers", endpoint, "--deadline", "200ms", "x"],
                              capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 8 and f"before its deadline; {endpoint}: no answer yet" in done.stderr
    assert "is tiermq-broker running? --brokers or client.brokers names another" in done.stderr


def test_progress_line_on_a_terminal_only(answering):
    process, screen = answering.cli_on_a_terminal("submit", "--file", "-", "--out", os.devnull, input=prompts(50))
    assert process.wait(timeout=30) == 0
    shown = answering.shown_on(screen)
    assert "in flight" in shown and "\r" in shown
    quiet = answering.cli("submit", "--file", "-", "--out", os.devnull, input=prompts(5))
    assert "in flight" not in quiet.stderr


def test_slow_input_does_not_hold_answers_back(answering):
    """The answer to the first line comes while the input stays open and silent."""
    process = answering.cli_start("submit", "--file", "-")
    process.stdin.write(prompts(1))
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["outcome"] == "succeeded"
    out, err = process.communicate(prompts(1, tier="realtime"), timeout=20)
    assert process.returncode == 0, err
    assert len(lines_of(out)) == 1


@pytest.mark.parametrize("arguments, word", [
    (["--priority", "10", "x"], "priority"),
    (["--deadline", "soon", "x"], "deadline"),
    (["--window", "0", "x"], "window"),
    (["--order", "random", "x"], "order"),
    (["--id", "17", "x"], "id"),
    (["--file", "/nonexistent"], "file"),
    (["--file", "-", "prompt"], "either"),
    (["--nonsense", "x"], "nonsense"),
    (["--tier"], "tier"),
    ([""], "empty"),
    (["--timeout", "-1", "x"], "timeout"),
])
def test_wrong_arguments_are_refused_in_words(arguments, word):
    done = subprocess.run([str(program("tiermq")), "submit", "--brokers", "tcp://127.0.0.1:1", *arguments],
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2, done.stderr
    assert word in done.stderr
