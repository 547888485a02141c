"""Near hits by vectors of an endpoint, judged by a model or by words: from the first question to whatever breaks."""

import http.server
import json
import re
import threading
import time

import pytest
from harness import http_request, program, wait_for
from test_providers import CHAT_ANSWER

MODEL = "sim-small"
FIRST, MIDDLE, LAST = ("Ba", "Ce", "Di", "Fo", "Gu", "Ha", "Ke", "Lo"), ("ra", "se", "ti", "vo", "mu", "pa", "lu", "do"), ("n", "s")
NAMES = [a + b + c for a in FIRST for b in MIDDLE for c in LAST]


class Court(http.server.ThreadingHTTPServer):
    """A model that judges: yes, if both answers begin with the same word. `says` replaces that; None: it fails."""

    daemon_threads = True
    request_queue_size = 128  # else those who connect at once wait for seconds

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Court.Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked = 0
        self.says = self.judge

    @staticmethod
    def judge(first, second):
        if first.split()[0] == second.split()[0]:
            return "Yes."
        return ("No\u2014they differ.", "Not quite.", "Nope.")[len(first) % 3]

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answers = re.search(r"First answer:\n(.*)\n\nSecond answer:\n(.*)", body["messages"][0]["content"], re.DOTALL)
            self.server.asked += 1
            word = self.server.says(*answers.groups())
            choice = {"index": 0, "message": {"role": "assistant", "content": word}, "finish_reason": "stop"}
            data = json.dumps({**CHAT_ANSWER, "choices": [choice]}).encode()
            self.send_response(200 if word else 500)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass


@pytest.fixture
def court():
    with Court() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def control(cluster, what, body):
    assert http_request(cluster.modelsim.ready["http"], f"/control/{what}", body)[0] == 200


def set_versions(cluster, names, version):
    """From now on answers about these begin with a word that each has for itself."""
    control(cluster, "versions", {"versions": [{"text": f"of {name}", "version": version + i} for i, name in enumerate(names)]})


def start_embedder(cluster, *arguments, listen="127.0.0.1:0"):
    cluster.embedder = cluster.run("embedder", [program("tiermq-modelsim"), "--listen", listen, *arguments])


def url_of(simulator):
    return f"http://{simulator.ready['http'].removeprefix('http://')}/v1"


def start(cluster, judge, court=None, dim=2048):
    """With so many dimensions hardly two names share one."""
    embedder = {"kind": "http", "base_url": url_of(cluster.embedder), "model": "sim-embed", "dim": dim, "asks_for_dim": "on", "timeout": "5s"}
    court_url = "http://127.0.0.1:1" if court is None else court.url
    cluster.config = {
        "tiers": [{"name": "standard", "cache_max_error": 0.05}, {"name": "background", "backoff_first": "100ms", "backoff_max": "200ms"}],
        "providers": [{"name": "sim", "base_url": url_of(cluster.modelsim)}, {"name": "court", "base_url": f"{court_url}/v1"}],
        "models": [{"name": MODEL, "provider": "sim"}, {"name": "judge", "provider": "court"}],
        "cache": {"mode": "near", "lookup_timeout": "2s", "judge": judge, "judge_model": "judge", "audit_share": 1, "audit_share_max": 1,
                  "embedder": embedder}}
    if not cluster.brokers:
        cluster.start_broker()
    return cluster.start_worker("worker")


def ask(cluster, wording, names=NAMES):
    """One question about each, in these words: each word more is as far away as any other."""
    lines = "\n".join(json.dumps({"prompt": f"{wording} the harbour of {name}."}) for name in names)
    done = cluster.cli("submit", "--file", "-", "--model", MODEL, "--json", input=lines)
    assert done.returncode == 0, done.stderr
    return sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda answer: answer["line"])


def why(answers):
    return {(answer["cache"], answer.get("cache_why", "")) for answer in answers}


def classes(cluster):
    return cluster.broker.admin_json("/v1/cache/evidence")["classes"]


def stats(cluster):
    return wait_for(lambda: [w["answer"] for w in cluster.broker.admin_json("/v1/cache/stats")["workers"] if "answer" in w],
                    "a worker that can be asked")[0]


def wait_indexed(cluster):
    wait_for(lambda: (lambda s: not s["building"] and s["indexed"] == s["entries"] > 0)(stats(cluster)), "vectors of all entries")


def wait_state(cluster, *states):
    """Also at the worker, which is told."""
    name = stats(cluster)["embedder"]
    wait_for(lambda: [known for known in classes(cluster) if known["embedder"].startswith(name) and known["state"] in states], f"a class that is {states}")
    wait_for(lambda: (stats(cluster)["classes"][0]["threshold"] is not None) == ("open" in states), "the worker to know")


def explain(cluster, a, b):
    done = cluster.cli("cache", "explain", "--json", a, b, "--tier", "standard")
    return json.loads(done.stdout)["answer"] if done.returncode == 0 else done.stderr


def checks(worker, why, result):
    return worker.metrics().get(f'tiermq_worker_cache_checks_total{{why="{why}",result="{result}"}}', 0)


def test_a_model_judges_near_hits_from_the_first_question_to_whatever_breaks(cluster, court):
    cluster.start_modelsim("--first-token-ms", "30")
    start_embedder(cluster)
    worker = start(cluster, "model", court)
    set_versions(cluster, NAMES, 100)

    # Evidence: the simulator says something else to each wording, and the judge is asked.
    assert why(ask(cluster, "Describe")) == {("miss", "closed")}
    wait_indexed(cluster)
    ask(cluster, "Please describe")
    wait_state(cluster, "open")
    assert checks(worker, "miss", "same") >= 100 and court.asked >= 100

    # It serves, and says why.
    answers = ask(cluster, "Kindly describe")
    assert why(answers) == {("near_hit", "")}
    assert [answer["text"].split()[0] for answer in answers] == [f"v{100 + i}" for i in range(len(NAMES))]
    assert why(ask(cluster, "Kindly describe", ["Zutphen"])) == {("miss", "unsure")}
    near = answers[0]["near"]
    told = explain(cluster, f"Describe the harbour of {NAMES[0]}.", f"Kindly describe the harbour of {NAMES[0]}.")
    assert told["verdict"] == "near" and told["features"]["shared"] == 1 and told["features"]["names_both"] == 0
    assert abs(told["score"] - near["score"]) < 0.1 and abs(told["score"] - 20 * (told["cosine"] - 0.8)) < 1e-6
    assert told["threshold"] == pytest.approx(near["threshold"]) and told["threshold"] <= near["score"]
    other = explain(cluster, f"Describe the harbour of {NAMES[0]}.", f"Describe the harbour of {NAMES[1]}.")
    assert other["verdict"] == "unsure" and other["features"]["names_both"] == 1 and other["score"] < told["score"]
    wait_for(lambda: checks(worker, "audit", "same") == len(NAMES), "the audits")

    # The embedder goes, and comes back.
    address = cluster.embedder.ready["http"].removeprefix("http://")
    cluster.embedder.kill()
    assert why(ask(cluster, "Sometimes describe", NAMES[:8])) == {("miss", "embedder")}
    assert why(ask(cluster, "Describe", NAMES[:8])) == {("hit", "")}
    assert "the embedder gives no vectors" in explain(cluster, "one text", "another text")
    assert stats(cluster)["embedding"]["down"]
    start_embedder(cluster, listen=address)
    tries = iter(range(1, 10**6))  # one that misses is kept, and would be an exact hit
    wait_for(lambda: why(ask(cluster, f"A{'h' * next(tries)} describe", NAMES[-1:])) == {("near_hit", "")}, "near hits again")

    # Other vectors: none is compared with what was there, and all are made anew; so they are when it is the former ones again.
    for dim, wording, state in ((1024, "Firstly", {("miss", "closed")}), (2048, "Secondly", {("near_hit", "")})):
        before = stats(cluster)
        worker.stop()
        worker = start(cluster, "model", court, dim=dim)
        wait_indexed(cluster)
        after = stats(cluster)
        assert after["entries"] == before["entries"] and after["embedder"] != before["embedder"]
        assert why(ask(cluster, f"{wording} describe", NAMES[-8:])) == state
    assert sorted(known["state"] for known in classes(cluster)) == ["closed_thin", "open"]

    # Its answers become wrong ones.
    set_versions(cluster, NAMES, 500)
    answers = why(ask(cluster, "Quickly describe", NAMES[8:]))
    assert ("near_hit", "") in answers and answers <= {("near_hit", ""), ("miss", "unsure"), ("miss", "closed")}  # the first audits may be told meanwhile
    wait_state(cluster, "closed_turned", "closed_wrong", "closed_thin")
    assert why(ask(cluster, "Slowly describe", NAMES[8:])) == {("miss", "closed")}
    assert checks(worker, "audit", "different") >= 100


def test_words_judge_near_hits_of_an_endpoint(cluster):
    """Their answers are the same but for the number in front, which a guard sees."""
    cluster.start_modelsim("--ignore", "please,kindly,quickly")
    start_embedder(cluster)
    worker = start(cluster, "embedding")
    ask(cluster, "Describe")
    wait_indexed(cluster)
    ask(cluster, "Please describe")
    wait_state(cluster, "open")
    set_versions(cluster, NAMES, 500)
    assert why(ask(cluster, "Quickly describe")) == {("near_hit", "")}
    wait_state(cluster, "closed_turned", "closed_wrong", "closed_thin")
    assert checks(worker, "audit", "different") >= 100


def test_a_model_judges_where_the_vector_comes_after_the_answer(cluster, court):
    cluster.start_modelsim()
    start_embedder(cluster, "--first-token-ms", "200")
    worker = start(cluster, "model", court)
    set_versions(cluster, NAMES, 100)
    ask(cluster, "Describe")
    wait_indexed(cluster)
    ask(cluster, "Please describe")
    wait_state(cluster, "open")
    assert checks(worker, "miss", "same") >= 100
    assert stats(cluster)["judging"]["share"] > 0.5 and "silent" not in cluster.cli("cache", "stats").stdout


@pytest.mark.parametrize("word", [None, "Perhaps.", "Nothing is said that differs.", "Yesterday they did."])
def test_a_judge_that_gives_no_word_leaves_no_right_answers_alone(cluster, court, word):
    """Half of the answers are others by now, which it alone could say; the other half are equal, and it is not asked."""
    court.says = lambda *_: word
    cluster.start_modelsim("--first-token-ms", "30", "--ignore", "please,kindly")
    start_embedder(cluster)
    worker = start(cluster, "model", court)
    ask(cluster, "Describe")
    wait_indexed(cluster)
    set_versions(cluster, NAMES[::2], 500)
    for wording in ("Please describe", "Kindly describe"):
        ask(cluster, wording)
    time.sleep(2)  # evidence goes once a second
    assert [known["state"] for known in classes(cluster)] == ["closed_thin"]
    assert court.asked > 0 and 0 < checks(worker, "miss", "same") < 64
    row = next(line for line in cluster.cli("cache", "stats").stdout.splitlines() if "judge judge" in line)
    assert row.endswith("  judge judge silent: 0 % of what it was asked lately has an answer")
