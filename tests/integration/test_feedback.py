"""What users say of answers: by the job's id, over restarts, for what answered."""

import json

GRADES = {"small": 40, "medium": 70, "large": 90}
NOBODYS = "01936e2a-7b1c-7def-8a90-123456789abc"


def start(cluster, **config):
    cluster.start_modelsim()
    http = cluster.modelsim.ready["http"]
    url = (http if "://" in http else f"http://{http}").rstrip("/")
    usd = {"small": 0.15, "medium": 2.5, "large": 10}
    cluster.config = {
        "providers": [{"name": "sim", "type": "openai", "base_url": f"{url}/v1"}],
        "models": [{"name": f"sim-{size}", "provider": "sim", "quality": GRADES[size], "input_usd_per_mtok": usd[size],
                    "output_usd_per_mtok": 4 * usd[size]} for size in usd],
        "tenants": [{"name": "default"}, {"name": "other"}],
        "cache": {"mode": "off"},
        **config,
    }
    cluster.start_broker()
    cluster.start_worker()


def submit(cluster, *arguments, prompt="Why is the sky blue?"):
    done = cluster.cli("submit", "--json", *arguments, prompt)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def feedback(cluster, job, score, *arguments, code=0):
    done = cluster.cli("feedback", job, "--score", score, *arguments)
    assert done.returncode == code, done
    return done.stderr


def sums(cluster, key):
    done = cluster.cli("quality", "--json")
    assert done.returncode == 0, done
    return {s[key]: (s["count"], round(s["mean"], 6), s["last"]) for s in json.loads(done.stdout)["sums"]}


def test_feedback_counts_for_the_model_that_answered_over_a_restart(cluster):
    start(cluster)
    small = submit(cluster, "--model", "sim-small", "--tier", "standard", "--task", "sums")
    large = [submit(cluster, "--model", "sim-large", "--tier", "standard", "--task", "sums")["job"] for _ in range(2)]
    volatile = submit(cluster, "--model", "sim-medium", "--tier", "realtime")["job"]
    feedback(cluster, small["job"], 0.2)
    feedback(cluster, large[0], 1, "--comment", "Gut ✓")
    assert sums(cluster, "model") == {"sim-small": (1, 0.2, 0.2), "sim-large": (1, 1, 1)}
    comments = json.loads(cluster.cli("quality", "--comments", "--json").stdout)["comments"]
    assert [(c["id"], c["comment"], c["model"], c["tenant"]) for c in comments] == [(large[0], "Gut ✓", "sim-large", "default")]

    cluster.broker.stop()
    cluster.restart_broker()
    feedback(cluster, small["job"], 0.2)  # the same again is taken, and not counted
    assert "given before" in feedback(cluster, small["job"], 1, code=7)
    assert "remembers" in feedback(cluster, volatile, 1, code=7)
    feedback(cluster, large[1], 0.5)
    assert sums(cluster, "model") == {"sim-large": (1, 0.5, 0.5)}
    assert sums(cluster, "task") == {"sums": (1, 0.5, 0.5)}
    assert sums(cluster, "tier") == {"standard": (1, 0.5, 0.5)}
    assert sums(cluster, "route") == {"sim-large": (1, 0.5, 0.5)}
    shown = cluster.cli("quality").stdout
    assert "sim-large" in shown and "1 accepted, 1 repeated, 1 unknown, 1 refused" in shown, shown


def test_whose_job_it_is_matters(cluster):
    start(cluster)
    job = submit(cluster, "--model", "sim-small")["job"]
    theirs = feedback(cluster, job, 1, "--tenant", "other", code=7)
    nobodys = feedback(cluster, NOBODYS, 1, "--tenant", "other", code=7)
    assert theirs == nobodys and "remembers" in theirs
    feedback(cluster, job, 1)
    metrics = cluster.broker.admin("/metrics")[1]
    assert 'tiermq_feedback_total{outcome="accepted"} 1' in metrics
    assert 'tiermq_feedback_total{outcome="unknown"} 2' in metrics
    assert 'tiermq_feedback_score_sum{model="sim-small",tier="standard"} 1' in metrics
    assert 'tiermq_feedback_score_count{model="sim-small",tier="standard"} 1' in metrics


def test_feedback_needs_a_score_and_an_answer(cluster):
    start(cluster)
    cluster.cli("pause", "tier", "standard")
    held = cluster.cli("submit", "--no-wait", "--tier", "standard", "later").stdout.strip()
    assert "not concluded" in feedback(cluster, held, 1, code=7)
    cluster.cli("cancel", held)
    assert "no answer" in feedback(cluster, held, 1, code=7)
    assert "0 (wrong) to 1 (right)" in feedback(cluster, held, 1.5, code=2)
    assert "no number" in feedback(cluster, held, "good", code=2)
    assert "512 bytes" in feedback(cluster, held, 1, "--comment", "x" * 513, code=2)
    assert cluster.cli("feedback", held).returncode == 2
    assert cluster.cli("feedback", "no-id", "--score", "1").returncode == 2


def test_a_wrong_near_hit_is_given_no_more(cluster):
    start(cluster)
    job = submit(cluster, "--model", "sim-small")
    near = ("--near-key", "00" * 16, "--embedder", "builtin/1", "--near-score", "1")
    assert "near_key" in feedback(cluster, job["job"], 0, "--near-key", "00", "--embedder", "e", code=2)
    feedback(cluster, job["job"], 0, *near)
    cluster.broker.wait_log(lambda line: line.get("message") == "cache invalidated" and "wrong" in line.get("reason", ""))


def learned(cluster):
    return {(lesson["task"], lesson["model"]): lesson for lesson in cluster.broker.admin_json("/v1/quality")["learned"]}


def test_what_is_learned_of_a_task_changes_its_model_over_a_restart(cluster):
    start(cluster, routing={"learn": "on", "explore_share": 0})
    usual = submit(cluster, "--complexity", "128", "--task", "sums")["model"]
    for _ in range(25):
        job = submit(cluster, "--complexity", "128", "--task", "sums")
        feedback(cluster, job["job"], 0 if job["model"] == usual else 1)
    assert learned(cluster)["sums", usual]["grades"] < -5

    cluster.broker.stop()
    cluster.restart_broker()
    assert learned(cluster)["sums", usual]["mean"] == 0
    other = submit(cluster, "--complexity", "128", "--task", "sums")
    assert other["model"] != usual and "learned -" in other["router_reason"], other
    assert submit(cluster, "--complexity", "128", "--task", "rhymes")["model"] == usual
    assert submit(cluster, "--complexity", "128")["model"] == usual
    assert submit(cluster, "--complexity", "128", "--task", "sums", "--tenant", "other")["model"] == usual


def test_some_jobs_of_a_task_try_other_models_and_say_so(cluster):
    start(cluster, routing={"learn": "on", "explore_share": 0.5})
    usual = submit(cluster, "--complexity", "128")["model"]
    answers = [submit(cluster, "--complexity", "128", "--task", "sums") for _ in range(20)]
    explored = [answer for answer in answers if "explored" in answer["router_reason"]]
    assert 0 < len(explored) <= 10 and all(answer["model"] != usual for answer in explored)
    assert all(answer["model"] == usual for answer in answers if answer not in explored)
    assert f'tiermq_explored_total{{tier="standard"}} {len(explored)}' in cluster.broker.admin("/metrics")[1]
