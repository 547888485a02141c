"""Which model a job is given to, and what is told of it: broker, worker and command line together."""
import json
import signal
import subprocess
import time

import pytest

from harness import http_request, program, wait_for

USD = {"small": (0.15, 0.60), "medium": (2.5, 10), "large": (10, 30)}
GRADES = {"small": 40, "medium": 70, "large": 90}


def configure(cluster, **changes):
    """Three models of the simulator, as its default ones are; `changes` are members of a model, by its size."""
    cluster.start_modelsim()
    http = cluster.modelsim.ready["http"]
    url = (http if "://" in http else f"http://{http}").rstrip("/")
    cluster.config = {
        "providers": [{"name": "here", "base_url": f"{url}/v1", "residency": ["eu"]}, {"name": "there", "base_url": f"{url}/v1"}],
        "models": [{"name": f"sim-{size}", "provider": "there" if size == "large" else "here", "quality": GRADES[size], "input_usd_per_mtok": USD[size][0],
                    "output_usd_per_mtok": USD[size][1], **changes.get(size, {})} for size in USD],
        "cache": {"mode": "off"},
    }


def start(cluster, **changes):
    configure(cluster, **changes)
    cluster.start_broker()
    cluster.start_worker()


def submit(cluster, *arguments, prompt="Why is the sky blue?", code=0):
    done = cluster.cli("submit", "--json", *arguments, prompt)
    assert done.returncode == code, done
    return json.loads(done.stdout)


def explain(cluster, answer):
    done = cluster.cli("explain", answer["job"], "--json")
    assert done.returncode == 0, done
    return json.loads(done.stdout)["decision"]


def fault(cluster, *script):
    status, text = http_request(cluster.modelsim.ready["http"], "/control/faults", {"faults": list(script)})
    assert status == 200, text


def test_model_goes_by_complexity(cluster):
    start(cluster)
    assert submit(cluster, "--complexity", "10")["model"] == "sim-small"
    assert submit(cluster, "--complexity", "128")["model"] == "sim-medium"
    hard = submit(cluster, "--complexity", "250")
    assert hard["model"] == "sim-large"
    assert "there/sim-large" in hard["router_reason"] and "chosen" in hard["router_reason"]
    assert explain(cluster, hard) == hard["router_reason"]
    shown = cluster.cli("explain", hard["job"])
    assert "lost by quality" in shown.stdout and len(shown.stdout.splitlines()) == 4, shown.stdout


def test_complexity_and_abilities_are_read_from_the_prompt(cluster):
    start(cluster, small={"abilities": ["tools"]}, medium={"abilities": ["tools"]})
    simple = submit(cluster, prompt="Translate to French: cheese")
    hard = submit(cluster, prompt="Prove, step by step, that for all integers n > 2 the equation a^n + b^n = c^n has no solution. " * 8)
    assert simple["model"] == "sim-small" and hard["model"] == "sim-large", (simple["router_reason"], hard["router_reason"])
    image = {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]}
    done = cluster.cli("submit", "--json", "--file", "-", input=json.dumps({"body": image}) + "\n")
    answer = json.loads(done.stdout)
    assert answer["model"] == "sim-large" and "sim-small: cannot do images" in answer["router_reason"]


def test_explain_says_what_it_does_not_know(cluster):
    start(cluster)
    wrong = cluster.cli("explain", "no-id")
    assert wrong.returncode == 2 and "no-id" in wrong.stderr
    unknown = cluster.cli("explain", "01a2b3c4-0000-7000-8000-000000000000")
    assert unknown.returncode != 0 and "router_reason" in unknown.stderr
    named = submit(cluster, "--model", "sim-small")
    collected = cluster.cli("explain", named["job"])  # there was no choice
    assert collected.returncode != 0 and "whoever has collected it has, and until then gives: tiermq wait --json" in collected.stderr


def test_data_stay_where_they_must(cluster):
    start(cluster)
    assert submit(cluster, "--complexity", "250", "--residency", "eu")["model"] == "sim-medium"
    refused = submit(cluster, "--residency", "mars", code=7)
    assert refused["outcome"] == "rejected" and "residency" in refused["error"]["text"] and "mars" in refused["error"]["text"]
    named = submit(cluster, "--residency", "eu", "--model", "sim-large", code=7)
    assert "has not the residency label eu" in named["error"]["text"]


def dispatched(cluster, provider, model):
    return cluster.broker.metrics().get(f'tiermq_upstream_dispatched_total{{provider="{provider}",model="{model}"}}', 0)


def test_labelled_job_is_answered_by_no_entry_of_an_unlabelled_one(cluster):
    configure(cluster)
    cluster.config["cache"] = {"mode": "exact"}
    cluster.start_broker()
    cluster.start_worker()
    free, bound = ("--complexity", "250"), ("--complexity", "250", "--residency", "eu")
    assert submit(cluster, *free)["model"] == "sim-large"
    wait_for(lambda: submit(cluster, *free)["cache"] == "hit", "the entry")
    first = submit(cluster, *bound)
    assert (first["model"], first["cache"]) == ("sim-medium", "miss")
    wait_for(lambda: submit(cluster, *bound)["cache"] == "hit", "the labelled entry")
    assert submit(cluster, *bound)["model"] == "sim-medium"
    assert submit(cluster, *free)["model"] == "sim-large"


def test_label_of_a_tenant_keeps_its_answers_apart_from_those_before(cluster):
    configure(cluster)
    cluster.config["cache"] = {"mode": "exact"}
    cluster.config["tenants"] = [{"name": "default"}]
    cluster.start_broker()
    cluster.start_worker()
    assert submit(cluster, "--complexity", "250")["model"] == "sim-large"
    wait_for(lambda: submit(cluster, "--complexity", "250")["cache"] == "hit", "the entry")
    cluster.write_config(cluster.broker.name, dict(cluster.broker.config, tenants=[{"name": "default", "residency": "eu"}]))
    cluster.broker.signal(signal.SIGHUP)
    wait_for(lambda: submit(cluster, "--complexity", "250")["model"] == "sim-medium", "the tenant's label to count")


def test_job_that_refreshes_an_answer_stays_where_the_job_had_to(cluster):
    configure(cluster)
    cluster.config["cache"] = {"mode": "exact"}
    cluster.config["tiers"] = [{"name": "standard", "cache_ttl": "1ms", "cache_stale_while_revalidate": "1h"},
                               {"name": "background", "weight_quality": 100, "weight_price": 0, "weight_latency": 0}]
    cluster.start_broker()
    cluster.start_worker()
    bound = ("--complexity", "250", "--residency", "eu")
    assert submit(cluster, *bound)["model"] == "sim-medium"
    wait_for(lambda: submit(cluster, *bound)["cache"] == "stale_hit", "a stale hit")
    wait_for(lambda: dispatched(cluster, "here", "sim-medium") + dispatched(cluster, "there", "sim-large") + dispatched(cluster, "here", "sim-small")
             > submits_of(cluster), "the refresh")
    assert dispatched(cluster, "there", "sim-large") == 0


def submits_of(cluster):
    """Jobs of the tier of which a client has asked."""
    return next(t for t in json.loads(cluster.cli("stats", "--json").stdout)["tiers"] if t["name"] == "standard")["accepted"]


def test_worker_calls_no_provider_that_has_not_the_label_in_its_own_configuration(cluster):
    configure(cluster)
    cluster.start_broker()
    cluster.start_worker(providers=[dict(provider, residency=[]) for provider in cluster.config["providers"]])
    free = submit(cluster, "--complexity", "250")
    assert free["model"] == "sim-large"
    assert cluster.cli("submit", "--no-wait", "--residency", "eu", "Why?").returncode == 0
    wait_for(lambda: cluster.broker.output().count("has at this worker not the residency labels") >= 2, "both to be refused")
    counters = json.loads(http_request(cluster.modelsim.ready["http"], "/control/counters")[1])
    assert counters["requests_total"] == 1


def test_job_of_a_tenant_that_is_configured_no_more_is_given_to_nobody(cluster):
    configure(cluster)
    cluster.config["tenants"] = [{"name": "default"}, {"name": "clinic", "residency": "eu"}]
    cluster.start_broker()
    done = cluster.cli("submit", "--json", "--no-wait", "--tenant", "clinic", "--complexity", "250", "Why?")
    job = json.loads(done.stdout)["job"]
    cluster.broker.kill()
    cluster.restart_broker(tenants=[{"name": "default"}])
    cluster.start_worker()
    letter = json.loads(wait_for(lambda: cluster.cli("dead", "list", "--json").stdout, "the dead letter"))
    assert letter["job"] == job and letter["error_code"] == "no_model" and "its tenant is configured no more" in letter["error_text"], letter
    cluster.broker.stop()
    cluster.restart_broker(tenants=[{"name": "default"}, {"name": "clinic", "residency": "eu"}])
    assert cluster.cli("dead", "requeue", job).returncode == 0
    answer = json.loads(cluster.cli("wait", "--json", "--tenant", "clinic", job).stdout)
    assert answer["model"] == "sim-medium"


def test_what_an_outage_costs_in_quality_is_told(cluster):
    start(cluster)
    fault(cluster, {"kind": "status", "status": 503, "model": "sim-large"})
    answer = submit(cluster, "--complexity", "250")
    assert answer["model"] == "sim-medium" and answer["quality_lost"] == 20
    stats = json.loads(cluster.cli("stats", "--json").stdout)
    tier = next(t for t in stats["tiers"] if t["name"] == "standard")
    assert tier["quality_lost"]["model"] == {"jobs": 1, "grades": 20}
    _, metrics = http_request(cluster.broker.ready["admin"], "/metrics")
    assert 'tiermq_quality_lost_grades_total{tier="standard",step="model"} 20' in metrics


def test_what_it_needs_survives_a_restart(cluster):
    configure(cluster)
    cluster.start_broker()
    done = cluster.cli("submit", "--json", "--no-wait", "--complexity", "250", "--residency", "eu", "Why?")
    job = json.loads(done.stdout)["job"]
    cluster.broker.kill()
    cluster.restart_broker()
    cluster.start_worker()
    answer = json.loads(cluster.cli("wait", "--json", job).stdout)
    assert answer["model"] == "sim-medium"


@pytest.mark.parametrize("member, value, words", [("abilities", ["juggling"], "juggling"), ("context_tokens", -1, "context_tokens")])
def test_wrong_configuration_is_refused(tmp_path, member, value, words):
    path = tmp_path / "tiermq.yaml"
    path.write_text(json.dumps({"providers": [{"name": "p", "base_url": "http://x/v1"}], "models": [{"name": "m", "provider": "p", member: value}]}))
    done = subprocess.run([program("tiermq"), "config", "check", path], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 3 and words in done.stderr


def test_reload_changes_the_choice(cluster):
    start(cluster)
    assert submit(cluster, "--complexity", "10")["model"] == "sim-small"
    config = dict(cluster.broker.config, models=[dict(model, quality=5) if model["name"] == "sim-small" else model for model in cluster.config["models"]])
    cluster.write_config(cluster.broker.name, config)
    cluster.broker.signal(signal.SIGHUP)
    wait_for(lambda: submit(cluster, "--complexity", "10")["model"] == "sim-medium", "the new grade to count")


# ---- prompts that begin alike ----

BEGINNINGS, ROUNDS, BEGINNING_BYTES = 41, 5, 5000
A_SECOND, KEYS_A_SECOND = 40, 30  # jobs that come, and calls that a key allows: more than one can take, and less than both


def keyed(cluster, weight, *arguments):
    """One model with two keys, each of which has a prompt cache and a limit of its own."""
    cluster.start_modelsim("--prefix-cache", "300", "--first-token-ms", "5", *arguments)
    cluster.config = {
        "providers": [{"name": key, "base_url": cluster.modelsim.ready["http"] + "/v1", "api_key": key, "requests_per_min": KEYS_A_SECOND * 60}
                      for key in ("key-a", "key-b")],
        "models": [{"name": "sim-small", "provider": "key-a", "failover": ["key-b"], "input_usd_per_mtok": 1.0, "cached_input_usd_per_mtok": 0.1,
                    "output_usd_per_mtok": 2.0}],
        "routes": [{"name": "both", "models": ["sim-small"]}],
        "routing": {"prefix_weight": weight},
        "cache": {"mode": "off"},
    }
    cluster.start_broker(broker={"store": "memory"})
    cluster.start_worker()


def line_of(beginning, number):
    system = f"You are clerk number {beginning}. ".ljust(BEGINNING_BYTES, "x")
    return json.dumps({"body": {"messages": [{"role": "system", "content": system}, {"role": "user", "content": f"Question {number}?"}], "max_tokens": 8}})


def ask_in_turns(cluster):
    """Each beginning once, then each of them again …; the answers in that order, and how many beginnings had one key alone."""
    out = cluster.directory / "answers.jsonl"
    process = cluster.cli_start("submit", "--file", "-", "--order", "input", "--route", "both", "--out", out)
    begin = time.monotonic()
    for at in range(BEGINNINGS * ROUNDS):
        time.sleep(max(0, begin + at / A_SECOND - time.monotonic()))
        process.stdin.write(line_of(at % BEGINNINGS, at // BEGINNINGS) + "\n")
        process.stdin.flush()
    process.communicate(timeout=60)
    done = [json.loads(text) for text in out.read_text().splitlines()]
    assert process.returncode == 0 and len(done) == BEGINNINGS * ROUNDS and all(answer["outcome"] == "succeeded" for answer in done)
    return done, sum(len({answer["provider"] for answer in done[beginning::BEGINNINGS]}) == 1 for beginning in range(BEGINNINGS))


def cached_share(cluster):
    total = cluster.broker.admin_json("/v1/cost?by=model")["total"]
    counted = json.loads(http_request(cluster.modelsim.ready["http"], "/control/bill")[1])["models"]["sim-small"]["answered"]
    assert counted["cached_tokens"] == total["cached_input_tokens"]
    assert total["saved_prompt_cache_nanousd"] == counted["cached_tokens"] * 900
    return counted["cached_tokens"] / counted["input_tokens"]


def ask_both_keys(cluster, weight):
    """The answers, how many beginnings had one key alone, and which share of the prompts' tokens was cached."""
    keyed(cluster, weight)
    done, stayed = ask_in_turns(cluster)
    share = cached_share(cluster)
    print(f"{stayed} of {BEGINNINGS} beginnings stayed with one key; {share:.0%} of the prompts' tokens were cached")
    assert {answer["provider"] for answer in done} == {"key-a", "key-b"}
    return done, stayed, share


def test_prompts_that_begin_alike_find_their_beginning_in_the_cache_of_one_key(cluster):
    done, stayed, share = ask_both_keys(cluster, 0.05)
    assert stayed > 0.6 * BEGINNINGS and share > 0.65  # 0.73 is all: each is new once, and kept in steps
    told = [answer for answer in done if "chosen: prompts go there that begin like this one" in answer["router_reason"]]
    assert len(told) > 0.6 * len(done)
    assert "as good, but not where prompts go" in explain(cluster, told[-1])


def test_without_a_weight_for_beginnings_they_pay_at_each_key(cluster):
    done, stayed, share = ask_both_keys(cluster, 0)
    assert stayed < 0.4 * BEGINNINGS and share < 0.62
    assert not any("begin like" in answer["router_reason"] for answer in done)


def test_beginnings_of_a_key_that_is_refused_go_to_the_other(cluster):
    keyed(cluster, 0.05, "--api-key", "key-b")
    done, _ = ask_in_turns(cluster)
    assert {answer["provider"] for answer in done} == {"key-b"}
