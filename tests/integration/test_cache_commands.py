"""The commands of `tiermq cache`, and what clients say of caches, against a real broker and workers of the test's own."""

import contextlib
import json
import threading

import pytest

import wire
from harness import wait_for
from wire import Client, Worker, pb

MEMORY = {"broker": {"store": "memory"}}
KEY = bytes(range(16))


class CacheWorker(threading.Thread):
    """A worker that answers questions about its cache as the test says, and applies invalidations."""

    def __init__(self, broker, name, answers=None, removes=(0, 0), confirms=True, **fields):
        super().__init__(daemon=True)
        self.worker = Worker(broker, name=name, **fields)
        self.answers, self.removes, self.confirms = answers or {}, removes, confirms
        self.asked, self.invalidated = [], []
        self.is_stopped = False
        self.start()

    def run(self):
        while not self.is_stopped:
            self.worker._receive(0.02)
            self.worker.heartbeat()
            items, self.worker.items = self.worker.items, []
            for field, item, _ in items:
                if field == "query":
                    self.answer(item)
                elif field == "invalidate":
                    self.apply(item)

    def answer(self, query):
        argument = json.loads(query.argument)
        self.asked.append((query.what, argument))
        said = self.answers.get(query.what, "no such question")
        said = said(argument) if callable(said) else said
        answer = {"error": said} if isinstance(said, str) else {"text": json.dumps(said)}
        self.worker.send(pb.WorkerMessage(answer=[pb.WorkerAnswer(number=query.number, **answer)]))

    def apply(self, invalidation):
        self.invalidated.append(invalidation)
        if self.confirms:
            entries, size = self.removes
            applied = pb.CacheApplied(sequence=invalidation.sequence, entries=entries, bytes=size)
            self.worker.send(pb.WorkerMessage(cache_sequence=invalidation.sequence, cache_applied=[applied]))

    def leave(self):
        self.is_stopped = True
        self.join()
        self.worker.send(pb.WorkerMessage(goodbye=True))


@pytest.fixture
def broker(cluster):
    return cluster.start_broker(**MEMORY)


@contextlib.contextmanager
def workers(broker, **those):
    """Workers by name, each with its options."""
    running = {name: CacheWorker(broker, name, **options) for name, options in those.items()}
    try:
        yield running
    finally:
        for worker in running.values():
            worker.leave()
        wait_for(lambda: not broker.admin_json("/v1/workers")["workers"], "their goodbyes")
        for worker in running.values():
            worker.worker.close()


def refusal(broker, path, body=None):
    """Status and words of a request that is not done."""
    status, text = broker.admin(path, None if body is None else json.dumps(body).encode())
    return status, json.loads(text)["error"]["message"]


# ------------------------------------------------------------------------------------------- invalidate

def test_invalidation_reaches_every_worker_and_tells_what_it_removed(cluster, broker):
    with workers(broker, w1={"removes": (2, 200)}, w2={"removes": (3, 30)}) as running:
        done = cluster.cli("cache", "invalidate", "--tag", "prices", "--tenant", "default", "--namespace", "", "--older-than", "1h",
                           "--reason", "new list")
        assert done.returncode == 0, done.stderr
        assert "invalidation 1 is recorded" in done.stdout
        assert [line.split() for line in done.stdout.splitlines()[2:]] in (
            [["w1", "2", "200"], ["w2", "3", "30"], ["all", "5", "230"]],
            [["w2", "3", "30"], ["w1", "2", "200"], ["all", "5", "230"]])
        for worker in running.values():
            (invalidation,) = worker.invalidated
            selector = invalidation.selector
            assert (invalidation.sequence, invalidation.reason) == (1, "new list")
            assert (selector.tag, selector.tenant, selector.older_than_ms) == ("prices", "default", 3600000)
            assert selector.has_namespace and selector.cache_namespace == ""


def test_each_selector_has_its_field(cluster, broker):
    options = {"--key": "key", "--scope": "scope", "--document": "document", "--route": "route", "--model": "model",
               "--template-version": "template_version", "--text-prefix": "text_prefix", "--near": "near_text"}
    with workers(broker, w={}) as running:
        for option, field in options.items():
            value = KEY.hex() if field in ("key", "scope") else "x"
            assert cluster.cli("cache", "invalidate", option, value).returncode == 0
            selector = running["w"].invalidated[-1].selector
            assert getattr(selector, field) == (KEY if field in ("key", "scope") else "x")
            assert {f.name for f, _ in selector.ListFields()} - {"near_cosine_min"} == {field}
        assert cluster.cli("cache", "invalidate", "--near", "x", "--near-min", "0.55").returncode == 0
        assert running["w"].invalidated[-1].selector.near_cosine_min == 0.55
        assert cluster.cli("cache", "invalidate", "--all").returncode == 0
        assert {f.name for f, _ in running["w"].invalidated[-1].selector.ListFields()} <= {"near_cosine_min"}


def test_dry_run_counts_and_invalidates_nothing(cluster, broker):
    count = {"cache.count": {"entries": 4, "bytes": 44}}
    with workers(broker, w={"answers": count}) as running:
        done = cluster.cli("cache", "invalidate", "--document", "d1", "--dry-run", "--reason", "try")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].split() == ["all", "4", "44"] and "recorded" not in done.stdout
        assert running["w"].asked == [("cache.count", {"document": "d1"})]
        assert running["w"].invalidated == []


def told(broker):
    return broker.admin_json("/v1/cache/invalidate", {"tag": "next"})["sequence"] - 1


def test_several_brokers_are_told_by_their_admin_addresses(cluster, broker):
    other = cluster.start_broker("other", **MEMORY)
    both = f"{broker.ready['admin']},{other.ready['admin']}"
    with workers(broker, w1={"removes": (2, 200)}), workers(other, w2={"removes": (3, 30)}):
        done = cluster.cli("cache", "invalidate", "--tag", "prices", "--admin", both)
        assert done.returncode == 0, done.stderr
        for one, worker, count in ((broker, "w1", "2"), (other, "w2", "3")):
            section = done.stdout.split(f"{one.ready['admin']}: invalidation 1 is recorded")[1].splitlines()
            assert section[2].split()[:2] == [worker, count]
        said = json.loads(cluster.cli("cache", "invalidate", "--tag", "prices", "--admin", both, "--json").stdout)
        assert [(item["admin"], item["answer"]["sequence"]) for item in said] == [(one.ready["admin"], 2) for one in (broker, other)]
    assert (told(broker), told(other)) == (2, 2)


def test_brokers_that_were_not_told_are_counted_and_the_end_says_so(cluster, broker):
    other = cluster.start_broker("other", **MEMORY)
    one = ("--admin", broker.ready["admin"])
    done = cluster.cli("cache", "invalidate", "--tag", "prices", *one)
    assert done.returncode == 8 and "1 of the 2 brokers" in done.stderr and "--admin" in done.stderr
    assert "invalidation 1 is recorded" in done.stdout
    done = cluster.cli("cache", "invalidate", "--tag", "prices", "--dry-run", *one)
    assert done.returncode == 0 and "1 of 2 brokers" in done.stderr
    other.stop()
    done = cluster.cli("cache", "invalidate", "--tag", "prices", "--admin", f"{other.ready['admin']},{broker.ready['admin']}")
    assert done.returncode == 6 and other.ready["admin"] in done.stderr and "invalidation 2 is recorded" in done.stdout


def test_for_a_tenant_all_brokers_are_told_as_a_client_of_it_tells_them(cluster, broker):
    other = cluster.start_broker("other", **MEMORY)
    with workers(other, w={"removes": (1, 1)}) as running:
        one = ("--admin", broker.ready["admin"], "--tenant", "default")
        for selector in (("--tag", "prices", "--namespace", "", "--older-than", "1h"), ("--near", "opening hours", "--near-min", "0.7"), ()):
            done = cluster.cli("cache", "invalidate", *selector, *one)
            assert done.returncode == 0, done.stderr
        # The command does not wait for workers of other brokers.
        wait_for(lambda: len(running["w"].invalidated) == 3, "the third invalidation")
        first, second, third = (item.selector for item in running["w"].invalidated)
        assert {item.tenant for item in (first, second, third)} == {"default"}
        assert (first.tag, first.has_namespace, first.cache_namespace, first.older_than_ms) == ("prices", True, "", 3600000)
        assert (second.near_text, second.near_cosine_min) == ("opening hours", 0.7)
        assert {field.name for field, _ in third.ListFields()} == {"tenant", "near_cosine_min"}
    other.stop()
    done = cluster.cli("cache", "invalidate", "--tag", "prices", *one, "--timeout", "1s")
    assert done.returncode == 8 and "not every broker" in done.stderr


def test_worker_that_does_not_confirm_is_named(cluster, broker):
    with workers(broker, quick={"removes": (1, 1)}, slow={"confirms": False}):
        done = cluster.cli("cache", "invalidate", "--tag", "x")
        assert done.returncode == 8
        assert "worker slow" in done.stderr and "not confirmed within 5 s" in done.stderr and "quick" not in done.stderr
        assert "quick" in done.stdout


def test_without_workers_it_is_recorded_and_told_to_who_joins(cluster, broker):
    done = cluster.cli("cache", "invalidate", "--tag", "x")
    assert done.returncode == 0 and "no worker is joined" in done.stderr
    with Worker(broker) as worker:
        (invalidation,) = worker.welcome.invalidate
        assert invalidation.selector.tag == "x" and not worker.welcome.cache_is_behind


@pytest.mark.parametrize("arguments, word", [
    (["invalidate"], "--all"), (["invalidate", "--all", "--tag", "x"], "--all"), (["invalidate", "x"], "selectors"),
    (["invalidate", "--near-min", "0.5", "--tag", "x"], "--near"), (["invalidate", "--near", "x", "--near-min", "2"], "--near-min"),
    (["invalidate", "--older-than", "soon"], "--older-than"), (["stats", "--tag", "x"], "selectors"), (["top", "--tag", "x"], "selectors"),
    (["stats", "--namespace", "x"], "selectors"), (["rebuild", "--route", "x"], "selectors"), (["top", "--by", "age"], "--by"),
    (["top", "--limit", "0"], "--limit"), (["explain", "one"], "two prompts"), (["get"], "a key"), (["export"], "a file"), (["melt"], "melt"),
    ([], "needs one of"), (["get", "12"], "KEY"), (["get", KEY.hex().upper()], "KEY"), (["explain", "", "b"], "PROMPT A"),
    (["explain", "a", ""], "PROMPT B"), (["rebuild", "--scope", "12"], "--scope"), (["invalidate", "--key", "12"], "--key"),
])
def test_wrong_arguments_are_refused_before_anything_happens(cluster, broker, arguments, word):
    done = cluster.cli("cache", *arguments)
    assert done.returncode == 2 and word in done.stderr, done.stderr


@pytest.mark.parametrize("path, body, words", [
    ("get", None, ["key is missing", "32 hexadecimal"]), ("get?key=12", None, ['key is "12"', "32 hexadecimal"]),
    ("explain?a=x", None, ["b is missing"]), ("explain?a=x&b=y&tier=nix", None, ['there is no tier "nix" here, but realtime, standard, background']),
    ("explain?a=x&b=y&tenant=nix", None, ['there is no tenant "nix" here, but default']), ("explain?a=&b=x", None, ['a is ""']), ("export?from=x", None, ['from is "x"']),
    ("top?by=age", None, ['by is "age"', "saved, hits or bytes"]), ("rebuild", {"scope": "12"}, ['scope is "12"', "32 hexadecimal"]),
    ("rebuild", {"scope": 12}, ["scope is 12"]), ("rebuild", {"tag": "x"}, ["tag is no field", "scope"]),
])
def test_wrong_arguments_over_http_are_refused_with_their_name_and_no_worker_is_asked(broker, path, body, words):
    with workers(broker, w={}) as running:
        status, text = refusal(broker, f"/v1/cache/{path}", body)
        assert status == 400 and all(word in text for word in words), text
        assert running["w"].asked == []


@pytest.mark.parametrize("selector, words", [
    ({"tag": 5}, ["tag is 5", "a text"]), ({"key": "12"}, ['key is "12"', "32 hexadecimal"]), ({"scope": None}, ["scope is null", "32"]),
    ({"older_than_ms": -1}, ["older_than_ms is -1", "from 0"]), ({"older_than_ms": "1h"}, ['older_than_ms is "1h"', "milliseconds"]),
    ({"older_than_ms": 1 << 41}, ["older_than_ms is 2199023255552", "from 0 to"]), ({"near_text": "x", "near_cosine_min": 2}, ["near_cosine_min is 2", "0.1 to 1"]),
    ({"namespace": ["a"]}, ['namespace is ["a"]', "a text"]), ({"tags": "x"}, ["tags is no field", "tag,"]), ({"all": 1}, ["all is 1", "true or false"]),
    ({"all": True, "tag": "x"}, ["all is true", "leave it out"]), ({"tag": "é" * 5000}, ['tag is "éé', "8192 bytes"]), ({"dry_run": "yes", "tag": "x"}, ["dry_run is"]),
])
def test_wrong_selectors_over_http_are_refused_with_field_value_and_remedy(broker, selector, words):
    with workers(broker, w={}) as running:
        status, text = refusal(broker, "/v1/cache/invalidate", selector)
        assert status == 400 and all(word in text for word in words), text
        assert running["w"].asked == [] and running["w"].invalidated == []


# -------------------------------------------------------------------------------------------------- asking

def stats(entries):
    lookup = {"tenant": "default", "tier": "standard", "route": "auto", "namespace": "", "exact": entries, "near": 0, "stale": 0, "miss": 1,
              "bypass": {"variety": 2}, "saved_usd": 0.5, "saved_seconds": 1.0}
    return {"entries": entries, "bytes": 10, "building": False, "broken": False, "lookups": [lookup], "classes": []}


def test_stats_are_added_up_over_the_workers(cluster, broker):
    with workers(broker, w1={"answers": {"cache.stats": stats(3)}}, w2={"answers": {"cache.stats": stats(4)}}):
        table = cluster.cli("cache", "stats")
        assert table.returncode == 0, table.stderr
        assert {line.split()[0]: line.split()[1] for line in table.stdout.splitlines()[:4]} == {
            "worker": "entries", "w1": "3", "w2": "4", "all": "7"}
        said = json.loads(cluster.cli("cache", "stats", "--json").stdout)
        assert said["all"]["entries"] == 7 and said["complete"] is True and len(said["workers"]) == 2
        (lookup,) = said["all"]["lookups"]
        assert lookup["exact"] == 7 and lookup["bypass"] == {"variety": 4} and lookup["saved_usd"] == 1.0


COLUMNS = [
    ["worker", "entries", "bytes", "memory", "indexed", "fills", "failed", "late", "evicted", "expired", "invalidated", "pending"],
    ["tenant", "tier", "route", "namespace", "exact", "near", "stale", "miss", "bypass", "hits", "saved USD", "saved s", "checks USD", "mean age"],
    ["tenant", "tier", "embedder", "threshold", "wrong hits", "95 % between", "evidence", "why closed"],
]


def test_each_column_of_stats_is_explained_in_a_line(cluster, broker):
    said = stats(3) | {"classes": [{"tenant": "default", "tier": "standard", "embedder": "builtin/1"}]}
    with workers(broker, w={"answers": {"cache.stats": said}}):
        table = cluster.cli("cache", "stats").stdout
    headers = [line for line in table.splitlines() if line.startswith(("worker", "tenant"))]
    assert [" ".join(line.split()) for line in headers] == [" ".join(names) for names in COLUMNS]
    of_help = cluster.cli("cache", "stats", "--help").stdout.split("Columns of stats", 1)[1]
    of_docs = (wire.ROOT / "docs" / "cache.md").read_text().split("### The columns of stats", 1)[1].split("\n## ")[0]
    for name in {name for names in COLUMNS for name in names}:
        assert f"`{name}`" in of_docs, name
        assert f"\n  {name} " in of_help or name in ("tier", "route", "namespace"), name
    assert "\n  tenant … namespace " in of_help


def test_worker_that_cannot_answer_is_named_beside_the_others(cluster, broker):
    with workers(broker, w1={"answers": {"cache.stats": stats(3)}}, w2={"answers": {"cache.stats": "the cache is off"}}):
        done = cluster.cli("cache", "stats")
        assert done.returncode == 8 and "w2: the cache is off" in done.stderr and "w1" in done.stdout


def test_without_workers_there_is_nobody_to_ask(cluster, broker):
    done = cluster.cli("cache", "stats")
    assert done.returncode == 8 and "no worker" in done.stderr


def test_top_is_merged_and_limited(cluster, broker):
    def entry(key, hits):
        return {"key": key * 32, "tenant": "default", "namespace": "", "route": "auto", "model": "m", "text": "a\nb" * 40, "hits": hits,
                "saved_usd": 0.1, "bytes": 5, "age_ms": 1000, "served_ms_ago": 5}
    one = {"cache.top": {"entries": [entry("a", 5), entry("b", 1)]}}
    two = {"cache.top": {"entries": [entry("b", 6)]}}
    with workers(broker, w1={"answers": one}, w2={"answers": two}) as running:
        done = cluster.cli("cache", "top", "--by", "hits", "--limit", "1", "--json")
        assert done.returncode == 0, done.stderr
        (first,) = json.loads(done.stdout)
        assert first["key"] == "b" * 32 and first["hits"] == 7 and first["workers"] == 2
        assert running["w1"].asked == [("cache.top", {"by": "hits", "limit": 1})]
        assert cluster.cli("cache", "top", "--namespace", "", "--route", "big", "--tenant", "default").returncode == 0
        assert running["w1"].asked[-1] == ("cache.top", {"by": "saved", "limit": 20, "namespace": "", "route": "big", "tenant": "default"})
        table = cluster.cli("cache", "top").stdout.splitlines()
        assert len(table) == 3 and table[1].endswith("…")


def test_get_shows_an_entry_and_where_it_is(cluster, broker):
    found = {"key": KEY.hex(), "tenant": "default", "route": "auto", "text": "why?", "hits": 2, "body": '{"choices":[]}'}
    missing = {"cache.get": "there is no such entry"}
    with workers(broker, w1={"answers": {"cache.get": found}}, w2={"answers": missing}):
        done = cluster.cli("cache", "get", KEY.hex())
        assert done.returncode == 0 and "at worker w1" in done.stdout and 'body: {"choices":[]}' in done.stdout
    with workers(broker, w1={"answers": missing}, w2={"answers": missing}):
        done = cluster.cli("cache", "get", KEY.hex())
        assert done.returncode == 7 and "no such entry" in done.stderr


def test_explain_shows_features_score_threshold_and_verdict(cluster, broker):
    explanation = {"features": {"numbers_differ": 1, "overlap": 0.75}, "cosine": 0.9, "score": 1.25, "threshold": 2.5,
                   "forbidden": None, "verdict": "unsure"}
    with workers(broker, w={"answers": {"cache.explain": explanation}}) as running:
        long_text = "how? & why? " * 200
        done = cluster.cli("cache", "explain", long_text, "why?", "--tier", "realtime", "--tenant", "default")
        assert done.returncode == 0, done.stderr
        for word in ("numbers_differ", "0.7500", "cosine", "1.2500", "2.5000", "unsure: ", "worker w"):
            assert word in done.stdout
        assert running["w"].asked == [("cache.explain", {"a": long_text, "b": "why?", "tier": "realtime", "tenant": "default"})]
        explanation.update(threshold=None, forbidden="negation", verdict="forbidden")
        done = cluster.cli("cache", "explain", "a", "b")
        assert "closed" in done.stdout and "forbidden by" in done.stdout and "negation" in done.stdout
        assert json.loads(cluster.cli("cache", "explain", "a", "b", "--json").stdout)["answer"]["verdict"] == "forbidden"


def test_prompt_that_no_worker_can_compare_is_a_wrong_argument(cluster, broker):
    long = {"cache.explain": "b: cannot be compared; write less"}
    with workers(broker, w1={"answers": long}, w2={"answers": long}):
        done = cluster.cli("cache", "explain", "x", "y " * 200)
        assert done.returncode == 2 and "b: cannot be compared" in done.stderr
    with workers(broker, w1={"answers": long}, w2={"answers": {"cache.explain": "out of memory"}}):
        assert cluster.cli("cache", "explain", "x", "y " * 200).returncode == 8


def test_rebuild_is_started_everywhere(cluster, broker):
    started = {"cache.rebuild": {"started": True}}
    with workers(broker, w1={"answers": started}, w2={"answers": started}):
        done = cluster.cli("cache", "rebuild")
        assert done.returncode == 0 and done.stdout.count("started") == 2


def test_rebuild_of_one_scope_names_it(cluster, broker):
    with workers(broker, w1={"answers": {"cache.rebuild": {"started": True}}}) as running:
        assert cluster.cli("cache", "rebuild", "--scope", KEY.hex()).returncode == 0
        assert running["w1"].asked == [("cache.rebuild", {"scope": KEY.hex()})]
        assert cluster.cli("cache", "rebuild", "--tag", "x").returncode == 2


# ---------------------------------------------------------------------------------------------- export, import

def shelf(keys):
    """Answers of a worker that holds these entries, and takes others."""
    held = {f"{key:032x}": {"key": f"{key:032x}", "tenant": "default", "body": "x" * 500} for key in keys}

    def export(argument):
        rest = sorted(key for key in held if key >= argument.get("from", ""))
        page = rest[:min(argument["limit"], 30)]
        return {"entries": [held[key] for key in page], "next": rest[len(page)] if len(rest) > len(page) else None}

    def take(argument):
        new = [entry for entry in argument["entries"] if entry["key"] not in held]
        held.update({entry["key"]: entry for entry in new})
        return {"taken": len(new), "refused": len(argument["entries"]) - len(new)}

    return held, {"cache.export": export, "cache.import": take}


def test_export_has_each_entry_of_all_workers_once_and_import_brings_them_back(cluster, broker):
    held1, answers1 = shelf(range(0, 300, 2))
    held2, answers2 = shelf(range(100, 400))
    path = cluster.directory / "cache.jsonl"
    with workers(broker, w1={"answers": answers1}, w2={"answers": answers2}):
        done = cluster.cli("cache", "export", path)
        assert done.returncode == 0, done.stderr
        keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
        assert keys == sorted(set(held1) | set(held2))
        assert f"{len(keys)} entries exported" in done.stderr
    held, answers = shelf([])
    with workers(broker, w3={"answers": answers}) as running:
        done = cluster.cli("cache", "import", path, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"sent": len(keys), "malformed": 0, "taken": len(keys), "refused": 0}
        assert sorted(held) == keys and len(running["w3"].asked) > 3


def test_export_says_what_no_page_can_hold(cluster, broker):
    _, answers = shelf(range(3))
    page = answers["cache.export"]
    answers["cache.export"] = lambda argument: page(argument) | {"left_out": 2}
    with workers(broker, w1={"answers": answers}):
        done = cluster.cli("cache", "export", "-")
        assert done.returncode == 0 and "w1: entries of more than 1 MiB are left out: 2" in done.stderr
        assert len(done.stdout.splitlines()) == 3


def test_export_that_is_not_whole_leaves_no_file(cluster, broker):
    _, answers = shelf(range(10))
    path = cluster.directory / "cache.jsonl"
    with workers(broker, w1={"answers": answers}, w2={"answers": {"cache.export": "the cache is broken"}}):
        done = cluster.cli("cache", "export", path)
        assert done.returncode == 8 and "w2: the cache is broken" in done.stderr
    assert not list(cluster.directory.glob("cache.jsonl*"))


def test_lines_that_are_no_entries_are_named_and_the_others_imported(cluster, broker):
    held, answers = shelf([])
    large = {"key": "f" * 32, "body": "x" * (64 << 10)}
    lines = ['{"key": "' + "0" * 32 + '"}', "nonsense", "{}", json.dumps(large), '{"key": "' + "1" * 32 + '"}']
    with workers(broker, w={"answers": answers}):
        done = cluster.cli("cache", "import", "-", input="\n".join(lines) + "\n")
        assert done.returncode == 7
        assert all(f"line {n}:" in done.stderr for n in (2, 3, 4)) and "larger" in done.stderr
        assert sorted(held) == ["0" * 32, "1" * 32]


# ----------------------------------------------------------------------------------------------- from clients

def invalidate(client, number, reason="r", **selector):
    client.send(pb.ClientMessage(cache_invalidate=[pb.CacheInvalidate(number=number, selector=pb.CacheSelector(**selector), reason=reason)]))
    return client.wait("cache_invalidated", lambda item: item.number == number)[0]


def test_invalidation_of_a_client_reaches_workers_for_its_tenant_before_later_jobs(cluster):
    broker = cluster.start_broker()
    with Client(broker) as client, Worker(broker) as worker:
        answer = invalidate(client, 7, document="d1", near_text="prices")
        assert (answer.sequence, answer.error) == (1, "")
        client.submit(b"after")
        fields = []
        while "dispatch" not in fields:
            worker._receive(5)
            fields = [field for field, _, _ in worker.items]
        assert fields.index("invalidate") < fields.index("dispatch")
        selector = worker.wait("invalidate")[0].selector
        assert (selector.tenant, selector.document, selector.near_cosine_min) == ("default", "d1", 0.8)
    cluster.broker.kill()
    broker = cluster.restart_broker()
    with Worker(broker) as worker:
        assert [i.selector.document for i in worker.welcome.invalidate] == ["d1"]


@pytest.mark.parametrize("selector, word", [
    ({"tenant": "other", "tag": "x"}, "tenant"), ({}, "nothing says"), ({"key": b"short"}, "16 bytes"), ({"tag": "x" * 8193}, "8192"),
    ({"near_text": "x", "near_cosine_min": 3}, "near_cosine_min"), ({"older_than_ms": 1 << 41}, "older_than_ms"),
])
def test_wrong_invalidations_are_refused_one_by_one(broker, selector, word):
    with Client(broker) as client, Worker(broker) as worker:
        answer = invalidate(client, 3, **selector)
        assert answer.sequence == 0 and word in answer.error
        assert invalidate(client, 4, tenant="default").sequence == 1
        assert worker.wait("invalidate")[0].selector.tenant == "default" and not worker.has("invalidate")


def feedback(**fields):
    return pb.ClientMessage(cache_feedback=[pb.CacheFeedback(**{"tier": "standard", "embedder": "builtin/1", "near_score": 2.0, "near_key": KEY, **fields})])


def test_entry_that_was_wrong_is_invalidated_for_the_tenant_and_one_that_was_right_is_not(broker):
    with Client(broker) as client, Worker(broker) as worker:
        client.send(feedback(is_right=True))
        client.ping()
        assert not worker.has("invalidate")
        client.send(feedback(is_right=False))
        selector = worker.wait("invalidate")[0].selector
        assert (selector.key, selector.tenant) == (KEY, "default")
        assert not client.has("cache_invalidated")
        counted = {outcome: broker.metrics()[f'tiermq_cache_feedback_total{{outcome="{outcome}"}}'] for outcome in ("right", "wrong", "unclassed")}
        assert counted == {"right": 1, "wrong": 0, "unclassed": 1}


@pytest.mark.parametrize("fields", [{"near_key": b"x"}, {"tier": "x" * 256}, {"near_score": float("nan")}])
def test_wrong_feedback_is_refused_in_words(broker, fields):
    with Client(broker) as client, Worker(broker) as worker:
        client.send(feedback(**fields))
        error = client.error()
        assert error.code == pb.ProtocolError.ERROR_MALFORMED and "cache_feedback" in error.text
        client.ping()
        assert not worker.has("invalidate")


def test_options_of_submit_travel_with_the_job(cluster, broker):
    with Worker(broker) as worker:
        process = cluster.cli_start("submit", "--no-wait", "--cache-use", "refresh", "--cache-namespace", "docs", "--cache-tag", "a", "--cache-tag", "b",
                                    "--cache-document", "d1", "--cache-ttl", "5m", "--template-version", "v2", "why?")
        dispatch, payload = worker.dispatched()
        process.communicate()
        request = pb.ModelRequest.FromString(payload)
        cache = request.cache
        assert (cache.use, cache.cache_namespace, list(cache.tags), list(cache.documents), cache.template_version, cache.ttl_ms) == (
            pb.CacheControl.USE_REFRESH, "docs", ["a", "b"], ["d1"], "v2", 300000)
        assert dispatch.canonical_key == b""  # it shares no answer with an identical job
        assert not cache.allow_variety
        worker.answer(dispatch, b"")
        process = cluster.cli_start("submit", "--no-wait", "--allow-variety", "why?")
        dispatch, payload = worker.dispatched()
        process.communicate()
        assert pb.ModelRequest.FromString(payload).cache.allow_variety
        worker.answer(dispatch, b"")
    done = cluster.cli("submit", "--cache-use", "never", "x")
    assert done.returncode == 2 and "--cache-use" in done.stderr
    done = cluster.cli("submit", *[word for i in range(18) for word in ("--cache-tag", str(i))], "x")
    assert done.returncode == 2 and "--cache-tag" in done.stderr
