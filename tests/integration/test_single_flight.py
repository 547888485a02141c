"""Identical jobs, on real processes: one call to the provider, an answer for each; streams from the start for who joins late."""

import json
import os
import uuid

from harness import http_request, wait_for
from wire import Client, make_id, pb

PROMPT = "Tell me at length how a queue differs from a stack, and why anybody should care about that at all"


def counted(cluster, what):
    return json.loads(http_request(cluster.modelsim.ready["http"], "/control/counters")[1])[what]


def calls(cluster):
    return sum(counted(cluster, "requests").values())


def set_first_token_ms(cluster, ms):
    assert http_request(cluster.modelsim.ready["http"], "/control/latency", {"first_token_ms": ms})[0] == 200


def tier_stats(cluster, tier):
    return {t["name"]: t for t in cluster.broker.admin_json("/v1/stats")["tiers"]}[tier]


def following(cluster, tier):
    return tier_stats(cluster, tier)["states"].get("following", 0)


def start_submits(cluster, count, *arguments):
    return [cluster.cli_start("submit", "--json", *arguments, PROMPT) for _ in range(count)]


def answers(processes):
    found = []
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        found.append(json.loads(output))
    return found


def assert_one_ran_for_all(results):
    leaders = [r for r in results if "led_by" not in r]
    assert len(leaders) == 1
    assert {r["led_by"] for r in results if "led_by" in r} <= {leaders[0]["job"]}
    assert len({r["text"] for r in results}) == 1
    assert leaders[0]["cost_nanousd"] > 0
    for result in results:
        if result is not leaders[0]:
            assert result["cost_nanousd"] == 0 and result["saved_nanousd"] == leaders[0]["cost_nanousd"]
            assert result["attempts"] == 0


def test_identical_prompts_that_wait_are_one_call(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    processes = start_submits(cluster, 6, "--tier", "standard")
    wait_for(lambda: following(cluster, "standard") == 5, "five followers")
    cluster.start_worker()
    assert_one_ran_for_all(answers(processes))
    assert calls(cluster) == 1
    stats = tier_stats(cluster, "standard")
    assert stats["flights"] == {"followers_joined": 5, "followers_concluded": 5, "followers_promoted": 0, "split": 0}
    assert cluster.broker.metrics()['tiermq_followers_concluded_total{tier="standard"}'] == 5


def test_prompts_that_join_a_running_one_are_one_call(cluster):
    cluster.start_modelsim("--first-token-ms", "4000")
    cluster.start_broker()
    cluster.start_worker()
    first = start_submits(cluster, 1, "--tier", "realtime")
    wait_for(lambda: counted(cluster, "in_flight") == 1, "a call under way")
    others = start_submits(cluster, 4, "--tier", "realtime")
    wait_for(lambda: following(cluster, "realtime") == 4, "four followers")
    assert_one_ran_for_all(answers(first + others))
    assert calls(cluster) == 1


def test_distinct_jobs_are_calls_of_their_own(cluster):
    cluster.start_modelsim("--first-token-ms", "1000")
    cluster.start_broker()
    processes = start_submits(cluster, 3, "--tier", "standard", "--distinct")
    wait_for(lambda: tier_stats(cluster, "standard")["states"].get("queued", 0) == 3, "three jobs")
    cluster.start_worker()
    assert not [r for r in answers(processes) if "led_by" in r]
    assert calls(cluster) == 3


def test_follower_of_a_cancelled_leader_is_answered(cluster):
    cluster.start_modelsim("--first-token-ms", "600000")
    cluster.start_broker()
    cluster.start_worker()
    first = cluster.cli_start("submit", "--json", "--tier", "realtime", PROMPT)
    wait_for(lambda: counted(cluster, "in_flight") == 1, "a call under way")
    second = cluster.cli_start("submit", "--json", "--tier", "realtime", PROMPT)
    wait_for(lambda: following(cluster, "realtime") == 1, "a follower")
    set_first_token_ms(cluster, 0)
    first.send_signal(2)  # Ctrl-C: cancels what is pending
    result, = answers([second])
    assert result["outcome"] == "succeeded" and "led_by" not in result and result["attempts"] == 1
    output, _ = first.communicate(timeout=60)
    assert json.loads(output)["outcome"] == "cancelled"
    assert calls(cluster) == 2
    assert tier_stats(cluster, "realtime")["flights"]["followers_promoted"] == 1


def chunk_fields(head):
    return head[:16], *(int.from_bytes(head[i:i + 4], "big") for i in (16, 20, 24))


def text_of(payload):
    events = (json.loads(line[5:]) for line in payload.decode().splitlines() if line.startswith("data: {"))
    return "".join(c["delta"].get("content") or "" for e in events for c in e["choices"][:1])


def start_stream(cluster):
    """A job whose answer is being printed: (the process, what it has printed)."""
    process = cluster.cli_start("submit", "--tier", "realtime", "--stream", PROMPT)
    return process, os.read(process.stdout.fileno(), 1).decode()


def streamed(process, begun=""):
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "broke off" not in errors, errors
    return begun + output


def test_late_joiner_of_a_stream_gets_all_of_it(cluster):
    cluster.start_modelsim("--tokens-per-s", "12")
    cluster.start_broker()
    cluster.start_worker()
    first, begun = start_stream(cluster)
    second = cluster.cli_start("submit", "--tier", "realtime", "--stream", PROMPT)
    wait_for(lambda: following(cluster, "realtime") == 1, "a follower")
    assert streamed(second) == streamed(first, begun)
    assert calls(cluster) == 1


def test_chunks_of_a_follower_name_its_own_job_from_the_first_on(cluster):
    cluster.start_modelsim("--tokens-per-s", "12")
    cluster.start_broker()
    cluster.start_worker()
    first, begun = start_stream(cluster)
    job = make_id()
    second = cluster.cli_start("submit", "--tier", "realtime", "--json", "--id", str(uuid.UUID(bytes=job)), PROMPT)
    wait_for(lambda: following(cluster, "realtime") == 1, "a follower")
    with Client(cluster.broker) as late:
        late.send(pb.ClientMessage(wait=[pb.Wait(job_id=job, stream=True)]))
        status, _ = late.wait("status", lambda item: item.job_id == job)
        assert status.state == pb.JOB_STATE_FOLLOWING and "an identical job leads" in status.why
        view = cluster.broker.admin_json(f"/v1/jobs/{uuid.UUID(bytes=job)}")
        assert view["state"] == "following" and str(uuid.UUID(view["led_by"])) in status.why
        result, _ = late.result(job)
        assert result.led_by == uuid.UUID(view["led_by"]).bytes
        chunks = [(chunk_fields(head), payload) for name, head, payload in late.items if name == "chunk"]
    assert {fields[0] for fields, _ in chunks} == {job}
    assert len({fields[1] for fields, _ in chunks}) == 1
    assert [fields[2] for fields, _ in chunks] == list(range(len(chunks)))
    assert chunks[-1][0][3] & 1 and not [f for f, _ in chunks[:-1] if f[3] & 1]
    result, = answers([second])
    assert "".join(text_of(payload) for _, payload in chunks) == result["text"]
    assert streamed(first, begun) == result["text"] + "\n"


def test_followers_on_disk_are_answered_after_a_crash(cluster):
    cluster.start_modelsim()
    cluster.start_broker()
    processes = start_submits(cluster, 5, "--tier", "background", "--no-wait")
    jobs = [a["job"] for a in answers(processes)]
    wait_for(lambda: following(cluster, "background") == 4, "four followers")
    cluster.broker.kill()
    cluster.restart_broker()
    cluster.start_worker()
    results = [json.loads(cluster.cli("wait", "--json", job).stdout) for job in jobs]
    assert_one_ran_for_all(results)
    assert calls(cluster) == 1
