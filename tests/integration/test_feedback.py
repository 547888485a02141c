"""What users say of answers: by the job's id, over restarts, for what answered."""

import json

GRADES = {"small": 40, "medium": 70, "large": 90}
NOBODYS = "01936e2a-7b1c-7def-8a90-123456789abc"


def configure(cluster, **config):
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


def start(cluster, **config):
    configure(cluster, **config)
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
    assert theirs == nobodys and "remembers (of tenant other)" in theirs
    assert "(of tenant default; --tenant NAME for another)" in feedback(cluster, NOBODYS, 1, code=7)
    feedback(cluster, job, 1)
    metrics = cluster.broker.admin("/metrics")[1]
    assert 'tiermq_feedback_total{outcome="accepted"} 1' in metrics
    assert 'tiermq_feedback_total{outcome="unknown"} 3' in metrics
    assert 'tiermq_feedback_score_sum{model="sim-small",tier="standard"} 1' in metrics
    assert 'tiermq_feedback_score_count{model="sim-small",tier="standard"} 1' in metrics


def test_feedback_needs_a_score_and_an_answer(cluster):
    start(cluster)
    cluster.cli("pause", "tier", "standard")
    held = cluster.cli("submit", "--no-wait", "--tier", "standard", "later").stdout.strip()
    assert "not concluded" in feedback(cluster, held, 1, code=7)
    cluster.cli("cancel", held)
    assert "no answer" in feedback(cluster, held, 1, code=7)
    assert "1.5 is out of range; use 0 (wrong) to 1 (right)" in feedback(cluster, held, 1.5, code=2)
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


def submit_all(cluster, lines, *arguments):
    text = "".join(json.dumps({"text": f"Question {i}", **line}) + "\n" for i, line in enumerate(lines))
    done = cluster.cli("submit", "--file", "-", "--order", "input", *arguments, input=text)
    assert done.returncode == 0, done
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_nothing_is_learned_unless_it_is_asked_for(cluster):
    start(cluster)
    usual = submit(cluster, "--complexity", "128", "--task", "sums")["model"]
    for answer in submit_all(cluster, [{"prompt_complexity": 128, "task": "sums"}] * 25):
        feedback(cluster, answer["job"], 0)
    answers = submit_all(cluster, [{"prompt_complexity": 128, "task": "sums"}] * 25)
    assert {answer["model"] for answer in answers} == {usual}
    assert not any("learned" in answer["router_reason"] or "explored" in answer["router_reason"] for answer in answers)
    assert learned(cluster) == {}


def test_what_was_tried_is_never_more_than_the_share(cluster):
    start(cluster, routing={"learn": "on", "explore_share": 0.1})
    sizes = (1, 9, 90, 300)  # whenever one looks
    answers = [answer for size in sizes for answer in submit_all(cluster, [{"prompt_complexity": 128, "task": "sums"}] * size)]
    for n in (sum(sizes[:i + 1]) for i in range(len(sizes))):
        assert sum("explored" in answer["router_reason"] for answer in answers[:n]) <= n / 10
    explored = sum("explored" in answer["router_reason"] for answer in answers)
    usual = max((answer["model"] for answer in answers), key=[answer["model"] for answer in answers].count)
    assert explored == sum(answer["model"] != usual for answer in answers) >= 10
    assert f'tiermq_explored_total{{tier="standard"}} {explored}' in cluster.broker.admin("/metrics")[1]


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def test_what_a_job_needs_holds_whatever_was_learned_and_is_tried(cluster):
    configure(cluster, routing={"learn": "on", "explore_share": 0.5}, tiers=[{"name": "standard"}, {"name": "background", "quality_min": 80}])
    providers, models = cluster.config["providers"], cluster.config["models"]
    providers.append({**providers[0], "name": "eu", "residency": ["eu"]})
    for model in models:
        model.update({"provider": "eu"} if model["name"] == "sim-large" else {"context_tokens": 2000, "abilities": ["json"]})
    cluster.start_broker()
    cluster.start_worker()
    job = {"task": "sums", "prompt_complexity": 250}
    for answer in submit_all(cluster, [{**job, "model": f"sim-{size}"} for size in GRADES for _ in range(40)]):
        feedback(cluster, answer["job"], 0 if answer["model"] == "sim-large" else 1)

    def models_of(need=()):
        return {answer["model"] for answer in submit_all(cluster, [{**job, **dict(need)}] * 20, "--distinct")}

    assert models_of() - {"sim-large"}
    assert models_of({"residency": "eu"}) == {"sim-large"}
    assert models_of({"body": {"messages": [{"role": "user", "content": "2 + 2?"}], "tools": TOOLS}, "text": None}) == {"sim-large"}
    assert models_of({"text": "word " * 5000}) == {"sim-large"}
    assert models_of({"tier": "background"}) == {"sim-large"}
    cluster.broker.stop()
    cluster.restart_broker(tenants=[{"name": "default", "models": ["sim-large"]}])
    assert learned(cluster)["sums", "sim-large"]["grades"] < -5
    assert models_of() == {"sim-large"}


def test_explain_tells_what_was_learned(cluster):
    start(cluster, routing={"learn": "on", "explore_share": 0})
    for answer in submit_all(cluster, [{"model": "sim-medium", "task": "sums", "prompt_complexity": 128}] * 20):
        feedback(cluster, answer["job"], 0)
    job = submit(cluster, "--complexity", "128", "--task", "sums")["job"]
    shown = [line for line in cluster.cli("explain", job).stdout.splitlines() if "learned" in line]
    assert len(shown) == 1 and "sim-medium" in shown[0] and "learned -" in shown[0], shown


def test_feedback_counts_for_what_the_cache_decided(cluster):
    start(cluster, cache={"mode": "exact"})
    jobs = [submit(cluster, "--model", "sim-small") for _ in range(2)]
    assert [job["cache"] for job in jobs] == ["miss", "hit"]
    for job, score in zip(jobs, (1, 0.5)):
        feedback(cluster, job["job"], score)
    assert sums(cluster, "cache") == {"miss": (1, 1, 1), "hit": (1, 0.5, 0.5)}


def test_recorded_jobs_and_what_was_said_of_them_can_be_replayed(cluster, tmp_path):
    start(cluster)
    lines = [{"id": f"q{i}", "task": "sums", "prompt_complexity": 1 + 25 * i} for i in range(10)]
    recorded = {line["id"]: {"prompt_complexity": line["prompt_complexity"], "outcomes": {}} for line in lines}
    for size in GRADES:
        for answer in submit_all(cluster, lines, "--model", f"sim-{size}"):
            score = 1 if size == "large" or int(answer["id"][1:]) < 5 else 0
            feedback(cluster, answer["job"], score)
            recorded[answer["id"]].update({key: answer[key] for key in ("tier", "input_tokens", "output_tokens")})
            recorded[answer["id"]]["outcomes"][answer["model"]] = {**answer, "score": score}
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(json.dumps(job) + "\n" for job in recorded.values()))
    done = cluster.cli("route", "replay", "--json", path)
    assert done.returncode == 0, done
    report = json.loads(done.stdout)
    assert report["jobs"] == 10 and report["left_out"] == 0
    policies = report["policies"]
    assert policies["best"]["models"] == {"sim-large": 10} and policies["best"]["quality"]["mean"] == 1
    assert policies["cheapest"]["models"] == {"sim-small": 10} and policies["cheapest"]["quality"]["mean"] == 0.5
    assert len(policies["configured"]["models"]) > 1
    cost, quality = ({name: policy[what]["mean"] for name, policy in policies.items()} for what in ("cost_usd", "quality"))
    assert cost["cheapest"] < cost["configured"] < cost["best"] and quality["cheapest"] <= quality["configured"] <= quality["best"]
    assert all(policy["latency_ms"]["mean"] > 0 for policy in policies.values())
