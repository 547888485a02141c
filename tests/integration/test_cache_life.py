"""What becomes of cached answers, on real processes: which invalidation takes which, what is dropped, evicted, moved, rebuilt, and a full disk."""

import errno
import itertools
import json

import pytest
import wire
from harness import DiskFaults, http_request, wait_for

MODEL = "sim-small"


@pytest.fixture(name="cluster")
def _cluster(cluster):
    cluster.config = {"cache": {"mode": "near"}}
    cluster.start_modelsim()
    cluster.start_broker()
    return cluster


def submit(cluster, prompt, *arguments, model=MODEL):
    done = cluster.cli("submit", "--json", "--model", model, *arguments, prompt)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def cache(cluster, *arguments, **options):
    done = cluster.cli("cache", *arguments, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def top(cluster):
    """Entries by their text."""
    return {entry["text"]: entry for entry in json.loads(cache(cluster, "top", "--json", "--limit", "1000"))}


def stats(cluster):
    return json.loads(cache(cluster, "stats", "--json"))["workers"][0]["answer"]


def filled(cluster, *texts):
    return wait_for(lambda: (lambda found: found if set(found) == set(texts) else None)(top(cluster)), f"the entries {texts}")


MUSEUM, TRAINS = "Opening hours of the museum in Lisbon?", "Which trains run at night?"


def fill_museum(cluster):
    submit(cluster, MUSEUM, "--cache-namespace", "shop", "--cache-tag", "prices", "--cache-document", "d1", "--template-version", "v1")
    return filled(cluster, MUSEUM, TRAINS)


def takes_the_museum_alone(cluster, *selector):
    """First counted, then done."""
    dry = cache(cluster, "invalidate", *selector, "--dry-run")
    assert dry.splitlines()[-1].split()[1] == "1", (selector, dry)
    assert set(top(cluster)) == {MUSEUM, TRAINS}
    done = cache(cluster, "invalidate", *selector)
    assert done.splitlines()[-1].split()[1] == "1", (selector, done)
    assert set(top(cluster)) == {TRAINS}, selector


def test_each_selector_takes_what_it_fits_and_nothing_else(cluster):
    cluster.start_worker()
    submit(cluster, TRAINS, "--cache-tag", "trains", "--cache-document", "d2", "--template-version", "v2", model="sim-medium")
    museum = fill_museum(cluster)[MUSEUM]
    for selector in (("--key", museum["key"]), ("--scope", museum["scope"]), ("--tag", "prices"), ("--document", "d1"), ("--namespace", "shop"),
                     ("--route", MODEL), ("--model", MODEL), ("--template-version", "v1"), ("--text-prefix", "Opening"),
                     ("--near", "opening hours of the Museum in lisbon", "--near-min", "0.7"),
                     ("--tag", "prices", "--tenant", "default", "--namespace", "shop")):
        takes_the_museum_alone(cluster, *selector)
        fill_museum(cluster)
    cache(cluster, "invalidate", "--tag", "trains")
    wait_for(lambda: top(cluster)[MUSEUM]["age_ms"] > 3000, "the museum's entry to be old")
    submit(cluster, TRAINS, model="sim-medium")
    entries = filled(cluster, MUSEUM, TRAINS)
    takes_the_museum_alone(cluster, "--older-than", f"{entries[MUSEUM]['age_ms']}ms")
    cache(cluster, "invalidate", "--all")
    assert not top(cluster)


def test_with_exact_hits_alone_entries_are_found_by_their_text_too(cluster):
    cluster.start_worker(cache={"mode": "exact"})
    submit(cluster, TRAINS, "--cache-tag", "trains", "--cache-document", "d2", model="sim-medium")
    for selector in (("--text-prefix", "Opening"), ("--near", "opening hours of the Museum in lisbon"), ("--scope", fill_museum(cluster)[MUSEUM]["scope"])):
        fill_museum(cluster)
        takes_the_museum_alone(cluster, *selector)
    said = json.loads(cache(cluster, "explain", "--json", "How do I cancel my plan?", "How can I cancel my plan?"))["answer"]
    assert said["verdict"] == "off"
    assert "near hits are off" in cache(cluster, "explain", "How do I cancel my plan?", "How can I cancel my plan?")


def test_what_was_under_way_when_it_was_invalidated_is_answered_and_not_kept(cluster):
    cluster.start_worker()
    sim = cluster.modelsim.ready["http"]
    assert http_request(sim, "/control/latency", {"first_token_ms": 1500})[0] == 200
    job = cluster.cli_start("submit", "--json", "--model", MODEL, "--cache-document", "d1", MUSEUM)
    wait_for(lambda: json.loads(http_request(sim, "/control/counters")[1])["in_flight"] == 1, "the call")
    cache(cluster, "invalidate", "--document", "d1")
    answer, _ = job.communicate()
    assert json.loads(answer)["cache"] == "miss" and job.returncode == 0
    wait_for(lambda: stats(cluster)["dropped_fills"] == 1, "the fill to be dropped")
    assert not top(cluster)


def test_an_export_brings_all_back_to_an_emptied_cache(cluster):
    cluster.start_worker()
    asked = [f"Describe the harbour of town {i}." for i in range(40)]
    lines = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in asked)
    assert cluster.cli("submit", "--file", "-", "--model", MODEL, input=lines).returncode == 0
    before = filled(cluster, *asked)
    exported = cache(cluster, "export", "-")
    cache(cluster, "invalidate", "--all")
    assert submit(cluster, asked[0])["cache"] == "miss"
    cache(cluster, "invalidate", "--all")
    cache(cluster, "import", "-", input=exported)
    after = filled(cluster, *asked)
    assert {text: entry["key"] for text, entry in after.items()} == {text: entry["key"] for text, entry in before.items()}
    for prompt in asked:
        assert submit(cluster, prompt)["cache"] == "hit"
    wait_for(lambda: stats(cluster)["indexed"] == len(asked), "near hits to find them")


def test_a_rebuild_finds_all_again_while_exact_hits_are_served(cluster):
    cluster.start_worker()
    asked = [MUSEUM, TRAINS]
    submit(cluster, MUSEUM, "--cache-namespace", "shop")
    submit(cluster, TRAINS)
    entries = filled(cluster, *asked)
    for arguments in ((), ("--scope", entries[TRAINS]["scope"])):
        assert "started" in cache(cluster, "rebuild", *arguments)
        assert submit(cluster, TRAINS)["cache"] == "hit"
        wait_for(lambda: not stats(cluster)["building"] and stats(cluster)["indexed"] == len(asked), "the index")
        count = cache(cluster, "invalidate", "--dry-run", "--near", TRAINS)
        assert count.splitlines()[-1].split()[1] == "1"


def test_explain_says_of_two_prompts_what_would_be_done(cluster):
    cluster.start_worker(cache={"strict": "on"})
    wait_for(lambda: cluster.cli("cache", "stats").returncode == 0, "a worker that can be asked")
    said = json.loads(cache(cluster, "explain", "--json", "How do I cancel my plan?", "How can I cancel my plan?"))["answer"]
    assert said["verdict"] == "closed" and said["threshold"] is None and said["forbidden"] is None
    other = json.loads(cache(cluster, "explain", "--json", "Turn the lights on at 7.", "Turn the lights on at 8."))["answer"]
    assert other["verdict"] == "forbidden" and other["forbidden"] and other["score"] < said["score"]


def ask_all(cluster, prompts, *arguments):
    lines = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
    done = cluster.cli("submit", "--file", "-", "--model", MODEL, *arguments, input=lines)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["cache"] for line in done.stdout.splitlines()]


def class_of(cluster, tenant):
    return next((item for item in cluster.broker.admin_json("/v1/cache/evidence")["classes"] if item["tenant"] == tenant), {"state": "none"})


def reworded(topics):
    """Alike in all but what the simulated model does not see; without end."""
    return ([change(topic) + ending * n for topic in topics] for n in itertools.count(1) for ending in ".!?" for change in (str, str.upper, str.lower))


def test_near_hits_open_by_right_ones_and_close_when_answers_change(cluster):
    """Of two tenants, one has them off. What the audits cost is told."""
    cluster.config["tenants"] = [{"name": "default"}, {"name": "wary", "cache_max_error": 0}]
    cluster.config["cache"]["lookup_timeout"] = "2s"
    cluster.brokers.pop().stop()
    broker = cluster.start_broker("open")
    cluster.start_worker()
    topics = [f"{verb} the {noun} of {place}" for verb in ("Describe", "Explain", "Draw", "Measure") for noun in ("harbour", "library", "bridge", "market", "castle")
              for place in ("Lisbon", "Turin", "Bergen", "Ghent", "Porto")]
    rounds = reworded(topics)
    wait_for(lambda: "near_hit" in ask_all(cluster, next(rounds)), "near hits")
    assert class_of(cluster, "default")["state"] == "open"
    for ending in (".", "!"):
        assert set(ask_all(cluster, [topic.upper() + ending for topic in topics], "--tenant", "wary")) == {"miss"}
    versions = {"versions": [{"text": f"the {noun}", "version": 2} for noun in ("harbour", "library", "bridge", "market", "castle")]}
    assert http_request(cluster.modelsim.ready["http"], "/control/versions", versions)[0] == 200

    def closed():
        ask_all(cluster, next(rounds))
        return class_of(cluster, "default")["state"] != "open"

    wait_for(closed, "the class to close")
    assert class_of(cluster, "default")["audits_wrong"] > 0
    rate = {name.split("{")[0]: value for name, value in broker.metrics().items() if name.startswith("tiermq_cache_false_hit_rate")}
    assert rate["tiermq_cache_false_hit_rate_low"] > rate["tiermq_cache_false_hit_rate_max"] == 0.02, "as the alert looks at it"
    (row,) = [row for row in stats(cluster)["lookups"] if row["tier"] == "standard" and row["tenant"] == "default"]
    assert row["near"] > 0 and row["checks_usd"] > 0


def test_beyond_its_bound_what_was_served_stays_and_its_statistics_are_told(cluster):
    cluster.start_worker(cache={"entries_max": 20})
    asked = [f"Describe the harbour of town {i}." for i in range(20)]
    for prompt in asked:
        submit(cluster, prompt)
    filled(cluster, *asked)
    for prompt in asked[:5] * 4:
        assert submit(cluster, prompt)["cache"] == "hit"
    wait_for(lambda: [top(cluster)[prompt]["hits"] for prompt in asked[:5]] == [4] * 5, "the hits to be written down")
    for i in range(15):
        submit(cluster, f"Describe the market of town {i}.")
    wait_for(lambda: stats(cluster)["evictions"] == 15, "what is worth least to go")
    entries = top(cluster)
    assert len(entries) == 20 and set(asked[:5]) <= set(entries)
    for prompt in asked[:5]:
        entry = entries[prompt]
        assert entry["saved_usd"] > 0 and 0 <= entry["served_ms_ago"] <= entry["age_ms"] and entry["bytes"] > 0
    assert [entry["text"] in asked[:5] for entry in json.loads(cache(cluster, "top", "--json", "--by", "hits", "--limit", "6"))] == [True] * 5 + [False]


def test_what_must_not_be_cached_says_why(cluster):
    cluster.start_worker()
    client = wire.Client(cluster.broker)

    def why(message, cache=None, **fields):
        body = {"model": MODEL, "messages": [{"role": "user", "content": MUSEUM}, *message], **fields}
        request = wire.pb.ModelRequest(operation="chat.completions", model=MODEL, body=json.dumps(body).encode(), cache=cache)
        result, packed = client.result(client.submit(request.SerializeToString(), route=MODEL))
        assert result.state == wire.pb.JOB_STATE_SUCCEEDED, result
        return wire.pb.ModelResponse.FromString(packed).cache_why

    off = wire.pb.CacheControl(use=wire.pb.CacheControl.USE_OFF)
    tool = [{"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "17"}]
    for _ in range(2):
        assert [why([], temperature=0.9), why(tool), why([], cache=off)] == ["variety", "tool_result", "opted_out"]
    said = stats(cluster)
    (row,) = said["lookups"]
    assert row["bypass"] == {"variety": 2, "tool_result": 2, "opted_out": 2} and row["miss"] == row["exact"] == 0
    assert said["entries"] == 0


def test_lookups_that_come_too_late_are_misses_and_counted(cluster):
    """A burst: the last of them wait for hundreds of others."""
    worker = cluster.start_worker(cache={"lookup_timeout": "1ms"})
    prompts = [f"Describe the {noun} of town {i}." for i in range(200) for noun in ("harbour", "market", "castle")]
    ask_all(cluster, prompts, "--window", "600")
    again = ask_all(cluster, prompts, "--window", "600")
    assert "none" in again and len(again) == len(prompts)
    said, late = stats(cluster), worker.metrics()['tiermq_worker_cache_lookups_total{result="timeout"}']
    assert late >= again.count("none")
    (row,) = [row for row in said["lookups"] if row["tier"] == "standard"]
    assert row["bypass"]["late"] == late
    wait_for(lambda: submit(cluster, prompts[0])["cache"] == "hit", "a hit in time")


def test_a_full_disk_costs_hits_alone_and_heals_by_itself(cluster):
    """Every job is answered; it is said once; nothing is set aside; and what was kept is there again."""
    faults = DiskFaults(cluster)
    worker = cluster.start_worker(environment=faults.environment)
    submit(cluster, TRAINS)
    filled(cluster, TRAINS)
    faults.fail(errno.ENOSPC, "write")
    said = [submit(cluster, f"Describe the harbour of town {i}.")["cache"] for i in range(10)]
    assert set(said) <= {"miss", "none"} and "none" in said
    metrics = worker.metrics()
    assert metrics["tiermq_worker_cache_broken"] == 1 and metrics['tiermq_worker_cache_lookups_total{result="broken"}'] >= 1
    told = [line for line in worker.lines if isinstance(line, dict) and line["message"].startswith("cache is broken")]
    assert len(told) == 1 and "space" in told[0]["error"]
    faults.heal()
    wait_for(lambda: worker.metrics()["tiermq_worker_cache_broken"] == 0, "the cache to open again", timeout_s=90)
    assert submit(cluster, TRAINS)["cache"] == "hit"
    assert worker.metrics()["tiermq_worker_cache_set_aside_total"] == 0
