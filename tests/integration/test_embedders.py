"""The embedders of the cache, as a configuration makes them: an endpoint (the simulated one) with its faults, and static files."""

import json
import struct
import subprocess

import pytest

from harness import free_port, http_request, program, wait_for

DIM = 64
EHOSTDOWN, ETIMEDOUT, EBADMSG, EINVAL, EIO, E2BIG = -112, -110, -74, -22, -5, -7


class Drive:
    """tiermq-embed-drive: asks for vectors, a list of calls at a time."""

    def __init__(self, cluster, **embedder):
        path = cluster.write_config("embedder", {"cache": {"mode": "near", "embedder": embedder}})
        self.log = open(cluster.directory / "embed-drive.log", "w+")
        self.process = subprocess.Popen([program("tiermq-embed-drive"), str(path)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)

    def run(self, *calls):
        self.process.stdin.write(json.dumps(calls) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.said()
        answer = json.loads(line)
        self.stats = answer["stats"]
        return answer["results"]

    def one(self, text):
        """The vector of a text, or the error's number."""
        (result,) = self.run([text])
        return result if isinstance(result, int) else result[0]

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(30) == 0, self.said()
        self.log.seek(0, 2)


@pytest.fixture
def sim(cluster):
    return cluster.start_modelsim().ready["http"]


@pytest.fixture
def drive(cluster, sim):
    drives = []

    def start(**changes):
        url = sim if "://" in sim else f"http://{sim}"
        options = {"kind": "http", "base_url": f"{url.rstrip('/')}/v1", "model": "sim-embed", "dim": DIM, "asks_for_dim": "on",
                   "timeout": "10s"}
        drives.append(Drive(cluster, **dict(options, **changes)))
        return drives[-1]

    yield start
    for one in drives:
        one.stop()


def set_faults(sim, *faults):
    assert http_request(sim, "/control/faults", {"faults": list(faults)})[0] == 200


def embedding_requests(sim):
    return json.loads(http_request(sim, "/control/counters")[1])["requests"]["embeddings"]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_vectors_are_of_unit_length_and_similar_texts_are_near(drive):
    ((first, second, third),) = drive().run(["how do I reset my password", "how do I reset my pass word", "rivers move slowly"])
    assert all(abs(dot(v, v) - 1) < 1e-5 for v in (first, second, third))
    assert dot(first, second) > dot(first, third) + 0.2


def test_a_text_is_asked_for_once(sim, drive):
    d = drive()
    results = d.run(["a b", "c"], ["c", "a b", "c"], ["d"])
    assert results[0] == [results[1][1], results[1][0]] and results[1][0] == results[1][2]
    assert d.stats["requests"] == 1 and embedding_requests(sim) == 1
    assert d.run(["d", "c"])[0] == [results[2][0], results[0][1]]
    assert d.stats["requests"] == 1 and d.stats["texts_cached"] == 2 and d.stats["vectors"] == 3


def test_batches_have_their_bound(sim, drive):
    d = drive(batch_max=10)
    texts = [f"text {i}" for i in range(95)]
    (vectors,) = d.run(texts)
    assert len(vectors) == 95 and d.stats["requests"] == 10 == embedding_requests(sim)
    assert d.run(*[[t] for t in texts]) == [[v] for v in vectors]


def test_the_least_recently_used_vectors_go_first(drive):
    d = drive(vectors_max=2)
    d.run(["a"]), d.run(["b"]), d.run(["a"]), d.run(["c"])
    assert d.stats["requests"] == 3 and d.stats["vectors"] == 2
    d.run(["a", "c"])
    assert d.stats["requests"] == 3
    d.run(["b"])
    assert d.stats["requests"] == 4


def test_without_room_for_vectors_it_works_all_the_same(drive):
    d = drive(vectors_max=0)
    assert d.one("a") == d.one("a")
    assert d.stats["requests"] == 2 and d.stats["vectors"] == 0


def test_empty_texts_are_known_to_be_nothing(sim, drive):
    d = drive()
    assert d.one("") == [0] * DIM and d.stats["requests"] == 0


def test_a_cancelled_call_is_not_told_and_others_are(drive):
    d = drive()
    results = d.run(["a", "b", None], ["b", "c"], ["a", None])
    assert results[0] is None and results[2] is None and len(results[1]) == 2
    assert d.stats["texts_waiting"] == 0


def test_vectors_in_another_order_are_placed_by_their_index(sim, drive):
    texts = ["red", "green", "blue"]
    (expected,) = drive().run(texts)
    set_faults(sim, {"kind": "shuffled"})
    assert drive().run(texts) == [expected]


@pytest.mark.parametrize("fault, error, counter", [
    ({"kind": "status", "status": 500}, EIO, "failures_status"),
    ({"kind": "status", "status": 401}, EIO, "failures_status"),
    ({"kind": "reset"}, EIO, "failures"),
    ({"kind": "truncated"}, EIO, "failures"),
    ({"kind": "garbage"}, EBADMSG, "failures_invalid"),
    ({"kind": "empty"}, EBADMSG, "failures_invalid"),
    ({"kind": "error_in_200"}, EBADMSG, "failures_invalid"),
    ({"kind": "dimension"}, EBADMSG, "failures_invalid"),
    ({"kind": "not_a_number"}, EBADMSG, "failures_invalid"),
])
def test_a_failure_is_told_counted_and_not_remembered(sim, drive, fault, error, counter):
    d = drive()
    set_faults(sim, fault)
    assert d.run(["a", "b"], ["b"]) == [error, error]
    assert d.stats["failures"] == 1 and d.stats[counter] == 1 and d.stats["vectors"] == 0 and not d.stats["is_open"]
    set_faults(sim)
    assert len(d.one("a")) == DIM and d.stats["texts_waiting"] == 0


def test_a_server_that_hangs_costs_its_timeout(sim, drive):
    d = drive(timeout="100ms")
    set_faults(sim, {"kind": "hang"})
    assert d.one("a") == ETIMEDOUT and d.stats["failures_timeout"] == 1


def test_another_dimension_than_configured_is_a_failure(drive):
    assert drive(dim=DIM + 1, asks_for_dim="off").one("a") == EBADMSG


def test_a_server_that_is_down_is_left_alone_and_found_again(sim, drive):
    d = drive()
    known = d.one("known")
    set_faults(sim, {"kind": "status", "status": 503})
    assert [d.one(f"text {i}") for i in range(5)] == [EIO] * 3 + [EHOSTDOWN] * 2
    assert d.stats["is_open"] and d.stats["refused"] == 2 and d.stats["requests"] == 4
    assert d.one("known") == known, "what is in memory is still known"
    set_faults(sim)
    back = wait_for(lambda: (lambda r: r if r != EHOSTDOWN else None)(d.one("new")), "the embedder to be asked again")
    assert len(back) == DIM and not d.stats["is_open"]
    assert d.said().count("the embedder fails: exact answers only until it is back") == 1
    assert d.said().count("the embedder is back") == 1


def test_an_outage_is_said_once_however_many_probes_fail_and_so_is_its_end(sim, drive):
    d = drive()
    set_faults(sim, {"kind": "status", "status": 503})
    assert [d.one(f"text {i}") for i in range(3)] == [EIO] * 3
    wait_for(lambda: d.one("probe") in (EIO, EHOSTDOWN) and d.stats["requests"] == 5, "two probes")
    set_faults(sim)
    wait_for(lambda: d.one("new") != EHOSTDOWN, "the embedder to be asked again")
    assert d.said().count("the embedder fails") == 1 and d.said().count("the embedder is back") == 1


def test_another_reason_is_said_while_it_still_fails(sim, drive):
    d = drive()
    set_faults(sim, {"kind": "status", "status": 503})
    assert [d.one(f"text {i}") for i in range(3)] == [EIO] * 3
    set_faults(sim, {"kind": "status", "status": 401})
    wait_for(lambda: d.one("probe") in (EIO, EHOSTDOWN) and d.stats["requests"] == 5, "two probes")
    assert d.said().count("the embedder fails") == 2
    assert d.said().count("status 503") == d.said().count("status 401") == 1


def test_a_server_that_names_a_time_is_not_asked_before(sim, drive):
    d = drive()
    set_faults(sim, {"kind": "status", "status": 429, "retry_after_ms": 60000, "retry_after": "ms_header"})
    assert d.one("a") == EIO and d.one("b") == EHOSTDOWN and d.stats["requests"] == 1


def test_nobody_listens(cluster, sim, drive):
    d = drive(base_url=f"http://127.0.0.1:{free_port()}/v1")
    assert [d.one(t) for t in "abcd"] == [EIO] * 3 + [EHOSTDOWN]


def test_one_text_that_is_refused_does_not_spoil_the_others(sim, drive):
    d = drive()
    set_faults(sim, {"kind": "status", "status": 400, "text": "poison"})
    results = d.run(["one"], ["a poison"], ["two"], ["three"])
    assert [r if isinstance(r, int) else len(r[0]) for r in results] == [DIM, EINVAL, DIM, DIM]
    assert d.stats["requests"] == 5 and not d.stats["is_open"]


def test_refusals_of_texts_are_no_failure_of_the_server_until_it_refuses_all(sim, drive):
    d = drive()
    set_faults(sim, {"kind": "status", "status": 400, "text": "poison"})
    assert [d.one(f"poison {i}") for i in range(8)] == [EINVAL] * 8
    assert len(d.one("a text")) == DIM and not d.stats["is_open"]
    assert [d.one(f"poison {i}") for i in range(12)] == [EINVAL] * 8 + [EIO] * 3 + [EHOSTDOWN]
    assert d.stats["is_open"]


def test_a_credential_goes_out_and_into_no_log(cluster, sim, drive, tmp_path):
    calls = tmp_path / "calls"
    other = cluster.start_modelsim("--calls", str(calls)).ready["http"]
    url = other if "://" in other else f"http://{other}"
    d = drive(base_url=f"{url.rstrip('/')}/v1/", api_key="secret-key-of-this-test")
    set_faults(other, {"kind": "status", "status": 503})
    assert [d.one(t) for t in "abc"] == [EIO] * 3
    assert "the embedder fails" in d.said() and "secret-key-of-this-test" not in d.said()
    assert "secret-key-of-this-test" in calls.read_text()


def test_texts_beyond_the_bounds_are_refused(drive):
    d = drive()
    assert d.one("a" * 32769) == E2BIG and d.run(["a"] * 257) == [E2BIG]
    assert len(d.one("\U0001f600 \\ \"quoted\"")) == DIM


@pytest.fixture
def model(tmp_path):
    """A static model of three words in two dimensions."""
    header = json.dumps({"embeddings": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header +
                                                 struct.pack("<8f", 9, 9, 1, 0, 0, 1, 3, 4))
    (tmp_path / "tokenizer.json").write_text(json.dumps({
        "normalizer": {"type": "BertNormalizer", "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "red": 1, "blue": 2, "sky": 3}}}))
    return tmp_path


def test_a_static_model_is_read_from_its_folder(cluster, model):
    d = Drive(cluster, kind="static", path=str(model))
    assert d.one("Sky, unknown") == pytest.approx([0.6, 0.8], abs=1e-6)
    assert f'"id":"static:{model.name}"' in d.said() and '"dim":2' in d.said()
    d.stop()


def test_a_static_model_that_is_cut_short_is_refused_in_words(cluster, model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    d = Drive(cluster, kind="static", path=str(model))
    assert d.process.wait(30) == 1
    assert "model.safetensors" in d.said() and "outside of the file" in d.said()
