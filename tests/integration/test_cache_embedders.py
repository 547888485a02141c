"""Near hits by dense vectors on real processes: a static model, an endpoint, its failures, restarts, and the change of embedder."""

import json
import pathlib
import random
import re
import struct
import time
import urllib.parse

import pytest
from harness import http_request, wait_for

MODEL = "sim-small"
DIM = 64
VERBS = ("Describe", "Explain", "Draw", "Measure", "Paint")
NOUNS = ("harbour", "library", "bridge", "market", "castle", "garden")
PLACES = ("Lisbon", "Turin", "Bergen", "Ghent")
TOPICS = [f"{verb} the {noun} of {place}" for verb in VERBS for noun in NOUNS for place in PLACES]
LEFT_OUT = ["Porto", "lighthouse"]


def submit(cluster, prompt, *arguments):
    done = cluster.cli("submit", "--json", "--model", MODEL, *arguments, prompt)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def submit_all(cluster, prompts):
    lines = "\n".join(json.dumps({"prompt": prompt}) for prompt in prompts)
    done = cluster.cli("submit", "--file", "-", "--model", MODEL, "--json", input=lines)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def stats(cluster):
    return wait_for(lambda: [w["answer"] for w in cluster.broker.admin_json("/v1/cache/stats")["workers"] if "answer" in w],
                    "a worker that can be asked")[0]


def explain(cluster, a, b, member="answer"):
    query = urllib.parse.urlencode({"a": a, "b": b, "tier": "standard", "tenant": "default"})
    return cluster.broker.admin_json(f"/v1/cache/explain?{query}")["workers"][0][member]


def metric(worker, name, **labels):
    text = worker.admin("/metrics")[1]
    label = "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}" if labels else ""
    found = re.search(rf"^{name}{re.escape(label)} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else 0


def states(cluster):
    return {c["embedder"]: c["state"] for c in cluster.broker.admin_json("/v1/cache/evidence")["classes"]}


def open_class(cluster, embedder):
    """Rewordings that only change case and punctuation are answered alike by the model: that is learned."""
    def is_open():
        return any(name.startswith(embedder) and state == "open" for name, state in states(cluster).items())

    submit_all(cluster, [topic + "." for topic in TOPICS])
    for ending in ("!", "?", "...", " ."):
        submit_all(cluster, [topic.upper() + ending for topic in TOPICS])
        time.sleep(1)  # evidence goes once a second
        if is_open():
            return
    wait_for(is_open, f"the class of {embedder} to open: {states(cluster)}")


def near_hit(cluster, prompt):
    """Each try is another rewording: one that misses is kept, and the next would be an exact hit."""
    tries = iter(range(1, 1000))
    wait_for(lambda: submit(cluster, prompt.upper() + "!" * next(tries))["cache"] == "near_hit", f"a near hit for {prompt}")


def indexed(cluster):
    return wait_for(lambda: (lambda s: s if not s["building"] and s["indexed"] == s["entries"] > 0 else None)(stats(cluster)),
                    "the index to be whole")


@pytest.fixture
def static(tmp_path):
    """A static model of these words, each with a row of its own."""
    words = sorted({word.lower() for topic in TOPICS for word in topic.split()} | {w.lower() for w in LEFT_OUT})
    dice = random.Random(7)
    rows = [[dice.gauss(0, 1) for _ in range(DIM)] for _ in range(len(words) + 1)]
    header = json.dumps({"embeddings": {"dtype": "F32", "shape": [len(rows), DIM],
                                        "data_offsets": [0, 4 * DIM * len(rows)]}}).encode()
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header +
                                               b"".join(struct.pack(f"<{DIM}f", *row) for row in rows))
    (folder / "tokenizer.json").write_text(json.dumps({
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]",
                  "vocab": {"[UNK]": 0, **{word: i + 1 for i, word in enumerate(words)}}}}))
    return {"kind": "static", "path": str(folder)}


@pytest.fixture
def sim(cluster):
    http = cluster.start_modelsim().ready["http"]
    return (http if "://" in http else f"http://{http}").rstrip("/")


@pytest.fixture
def http(sim):
    return {"kind": "http", "base_url": f"{sim}/v1", "model": "sim-embed", "dim": DIM, "asks_for_dim": "on", "timeout": "10s"}


def embedding_requests(sim):
    return json.loads(http_request(sim, "/control/counters")[1])["requests"]["embeddings"]


def set_faults(sim, *faults):
    assert http_request(sim, "/control/faults", {"faults": list(faults)})[0] == 200


def start(cluster, embedder):
    cluster.config = {"cache": {"mode": "near", "lookup_timeout": "2s", "embedder": embedder}}
    if not cluster.brokers:
        cluster.start_broker()
    return cluster.start_worker("worker")


def test_a_static_model_opens_its_class_by_its_own_labels_and_serves(cluster, sim, static):
    worker = start(cluster, static)
    open_class(cluster, "static:words/")
    submit(cluster, "Describe the lighthouse of Porto.")
    near_hit(cluster, "Describe the lighthouse of Porto")
    assert submit(cluster, "Describe the lighthouse of Ghent.")["cache"] == "miss"
    explained = explain(cluster, "Describe the lighthouse of Porto.", "porto describe the LIGHTHOUSE of")
    assert explained["cosine"] > 0.999 and explained["verdict"] == "near"
    shown = stats(cluster)
    assert shown["embedding"]["texts"] > 0 and not shown["embedding"]["down"]
    assert shown["embedder"].startswith("static:words/") and metric(worker, "tiermq_worker_embedder_texts_total") > 0
    worker.stop()
    worker = start(cluster, static)
    indexed(cluster)
    near_hit(cluster, "Describe the lighthouse of Porto")


def test_a_static_model_that_cannot_be_read_costs_near_hits_alone(cluster, sim, static):
    model = pathlib.Path(static["path"]) / "model.safetensors"
    model.rename(model.with_suffix(".away"))
    worker = start(cluster, static)
    assert submit(cluster, "Draw the bridge of Turin.")["cache"] == "miss"
    wait_for(lambda: stats(cluster)["entries"] == 1, "the fill")
    assert submit(cluster, "Draw the bridge of Turin.")["cache"] == "hit"
    assert stats(cluster)["embedding"]["down"] and metric(worker, "tiermq_worker_embedder_down") == 1
    assert metric(worker, "tiermq_worker_cache_lookups_total", result="embedder") == 1
    worker.wait_log("the embedder's model cannot be read: exact hits only until it can")
    missing = stats(cluster)["embedding"]["error"]
    for said in (explain(cluster, "one text", "another text", "error"), missing):
        assert "model.safetensors" in said, said
    assert "the embedder's model cannot be read" in explain(cluster, "one text", "another text", "error")
    (row,) = [line for line in cluster.cli("cache", "stats").stdout.splitlines() if "embedder down: " in line]
    assert "model.safetensors" in row
    said = len(worker.lines)
    cluster.broker.admin_json("/v1/cache/rebuild", {})
    model.write_bytes(b"{}")
    wait_for(lambda: cluster.broker.admin_json("/v1/cache/rebuild", {}) and stats(cluster)["embedding"]["error"] != missing, "another reason")
    line = worker.wait_log("the embedder's model cannot be read: exact hits only until it can", after=said)
    assert line["error"] != missing, "the first reason is said once"
    model.with_suffix(".away").rename(model)
    cluster.broker.admin_json("/v1/cache/rebuild", {})
    assert indexed(cluster)["indexed"] == 1, "without a restart"
    assert metric(worker, "tiermq_worker_embedder_down") == 0
    assert stats(cluster)["embedder"].startswith("static:words/") and stats(cluster)["embedding"]["error"] == ""


def test_an_endpoint_serves_near_hits_and_a_restart_asks_it_for_nothing_known(cluster, sim, http):
    worker = start(cluster, http)
    open_class(cluster, "http:sim-embed/")
    submit(cluster, "Describe the lighthouse of Porto.")
    near_hit(cluster, "Describe the lighthouse of Porto")
    assert submit(cluster, "Describe the lighthouse of Ghent.")["cache"] == "miss"
    explained = explain(cluster, "Describe the lighthouse of Porto.", "porto describe the LIGHTHOUSE of")
    assert explained["cosine"] > 0.999 and explained["verdict"] == "near"
    shown = indexed(cluster)["embedding"]
    assert shown["requests"] > 0 and shown["failures"] == 0 and not shown["down"]
    worker.stop()
    before = embedding_requests(sim)
    worker = start(cluster, http)
    indexed(cluster)
    assert embedding_requests(sim) == before and metric(worker, "tiermq_worker_embedder_requests_total") == 0
    near_hit(cluster, "Describe the lighthouse of Porto")
    assert embedding_requests(sim) > before, "a new text"


def test_an_endpoint_that_is_down_costs_near_hits_alone_and_is_made_up_for(cluster, sim, http):
    worker = start(cluster, http)
    set_faults(sim, {"kind": "status", "status": 503, "model": "sim-embed"})
    answers = submit_all(cluster, [topic + "." for topic in TOPICS[:20]])
    assert [a["cache"] for a in answers] == ["miss"] * 20
    wait_for(lambda: stats(cluster)["entries"] == 20, "the fills")
    assert submit(cluster, TOPICS[0] + ".")["cache"] == "hit"
    shown = wait_for(lambda: (lambda s: s if s["embedding"]["down"] else None)(stats(cluster)), "the breaker to open")
    explained = explain(cluster, "one text", "another text", "error")
    assert "the embedder gives no vectors" in explained and "status 503" in explained
    assert shown["embedding"]["error"] == "status 503"
    assert shown["embedding"]["failures"] >= 3 and shown["indexed"] == 0 and shown["wanted"] > 0
    assert metric(worker, "tiermq_worker_embedder_down") == 1
    set_faults(sim)
    wait_for(lambda: stats(cluster)["indexed"] > 0, "vectors for what was filled meanwhile")
    assert not stats(cluster)["embedding"]["down"]


def test_a_text_that_an_endpoint_refuses_is_asked_for_once(cluster, sim, http):
    worker = start(cluster, http)
    set_faults(sim, {"kind": "status", "status": 400, "model": "sim-embed", "text": "lighthouse"})
    submit(cluster, "Describe the lighthouse of Porto.")
    submit(cluster, "Describe " + "a" * 33000)  # longer than any that is asked for
    submit(cluster, TOPICS[0])
    shown = wait_for(lambda: (lambda s: s if s["without_vector"] == 2 and s["indexed"] == 1 else None)(stats(cluster)), "all to be known")
    assert shown["wanted"] == 0 and shown["entries"] == 3 and not shown["embedding"]["down"]
    worker.stop()
    before = embedding_requests(sim)
    start(cluster, http)
    wait_for(lambda: not stats(cluster)["building"], "the index to be whole")
    shown = stats(cluster)
    assert shown["indexed"] == 1 and shown["wanted"] == 0 and embedding_requests(sim) == before
    assert submit(cluster, "Describe the lighthouse of Porto.")["cache"] == "hit"


def test_the_latest_reason_of_a_failing_endpoint_is_shown(cluster, sim, http):
    start(cluster, http)
    wait_for(lambda: stats(cluster)["embedding"]["error"] == "", "the worker")
    for status, words in ((503, "status 503"), (404, "status 404: the server has no such address, or no such model")):
        set_faults(sim, {"kind": "status", "status": status, "model": "sim-embed"})
        assert words in explain(cluster, f"one text of {status}", "another text", "error")
        assert stats(cluster)["embedding"]["error"] == words


def test_an_endpoint_that_hangs_costs_its_timeout(cluster, sim, http):
    worker = start(cluster, dict(http, timeout="500ms"))
    open_class(cluster, "http:sim-embed/")
    before = metric(worker, "tiermq_worker_cache_lookups_total", result="embedder")
    set_faults(sim, {"kind": "hang", "model": "sim-embed"})
    answer = submit(cluster, "Describe the lighthouse of Porto.")
    assert (answer["cache"], answer["cache_why"]) == ("miss", "embedder")
    assert metric(worker, "tiermq_worker_cache_lookups_total", result="embedder") == before + 1


def test_nobody_waits_for_an_endpoint_while_there_are_no_near_hits(cluster, sim, http):
    start(cluster, dict(http, timeout="1m"))
    set_faults(sim, {"kind": "hang", "model": "sim-embed", "hang_ms": 600000})
    answer = submit(cluster, TOPICS[0])
    assert (answer["cache"], answer["cache_why"]) == ("miss", "closed")
    wait_for(lambda: embedding_requests(sim) > 0, "a request beside the call")


@pytest.mark.parametrize("residency, why", [(None, "residency"), (["us"], "residency"), (["us", "eu"], "closed")])
def test_text_of_a_labelled_job_goes_to_no_embedder_without_the_label(cluster, sim, http, residency, why):
    cluster.config = {"providers": [{"name": "sim", "base_url": f"{sim}/v1", "residency": ["eu"]}],
                      "models": [{"name": MODEL, "provider": "sim"}],
                      "cache": {"mode": "near", "lookup_timeout": "2s", "embedder": dict(http, **({"residency": residency} if residency else {}))}}
    cluster.start_broker()
    cluster.start_worker()
    answer = submit(cluster, "Describe the lighthouse of Porto.", "--residency", "eu")
    assert (answer["cache"], answer["cache_why"]) == ("miss", why)
    wait_for(lambda: stats(cluster)["entries"] == 1, "the fill")
    assert submit(cluster, "Describe the lighthouse of Porto.", "--residency", "eu")["cache"] == "hit"
    if why == "residency":
        time.sleep(0.5)  # vectors that are wanted are asked for beside
        assert embedding_requests(sim) == 0
    else:
        wait_for(lambda: embedding_requests(sim) > 0, "the vector")
    cluster.cli("cache", "invalidate", "--text-prefix", "Describe")
    wait_for(lambda: submit(cluster, "Describe the lighthouse of Porto.", "--residency", "eu")["cache"] == "miss", "the invalidation")


def test_where_near_hits_are_off_no_vector_is_asked_for_to_look_one_up(cluster, sim, http):
    cluster.config = {"tiers": [{"name": "standard", "cache_max_error": 0}]}
    cluster.start_broker()
    cluster.config = {}
    worker = start(cluster, http)
    config = json.loads((cluster.directory / "worker.yaml").read_text())
    assert submit(cluster, TOPICS[0])["cache"] == "miss"
    wait_for(lambda: indexed(cluster)["entries"] == 1, "the fill, which other tiers may find")
    assert metric(worker, "tiermq_worker_cache_lookups_total", result="embedder") == 0 and config


def test_after_a_change_of_embedder_all_is_embedded_again_and_found(cluster, sim, static, http):
    worker = start(cluster, {"kind": "builtin"})
    submit(cluster, "Describe the lighthouse of Porto.")
    wait_for(lambda: stats(cluster)["entries"] == 1, "the fill")
    for embedder in (static, http):
        before = stats(cluster)["entries"]
        worker.stop()
        worker = start(cluster, embedder)
        assert indexed(cluster)["indexed"] == before
        open_class(cluster, embedder["kind"] + ":")
        near_hit(cluster, "Describe the lighthouse of Porto")
    assert sorted(name.split(":")[0] for name in states(cluster)) == ["http", "static"], "each has a class of its own"
