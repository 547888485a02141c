"""Streams from the provider to the client, on real processes: event orders, never times, unless a bound is what is tested."""

import http.server
import json
import os
import queue
import signal
import subprocess
import threading
import time

import pytest
import zmq

from harness import TIMEOUT_S, http_request, merge, program, wait_for
from test_worker import PlayedBroker
from wire import Client, pb

CHAT_HEAD = {"id": "s", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def event(delta=None, finish=None, **members):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return "data: " + json.dumps({**CHAT_HEAD, "choices": choices, **members}) + "\n\n"


ROLE = event({"role": "assistant", "content": ""})
END = event({}, "stop") + event(usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}) + "data: [DONE]\n\n"


class Provider:
    """
    A model server that the test plays. Each request is a `Call`, taken with `next()`; what `say()` is given goes out at once.
    `plays`, if given, is called with each call in its own thread instead.
    """

    class Call:
        def __init__(self, handler, body):
            self.handler, self.body = handler, body
            self.over = threading.Event()  # said by the test
            self.is_cut = threading.Event()  # the caller has gone away
            self.prompt = body["messages"][-1]["content"]

        def say(self, text):
            """False: nobody is there any more."""
            try:
                self.handler.wfile.write(text.encode())
                self.handler.wfile.flush()
                return True
            except OSError:
                self.is_cut.set()
                return False

        def end(self):
            self.over.set()

        def watch(self):
            """Until the caller closes the connection or the test ends the call."""
            connection = self.handler.connection
            connection.settimeout(0.05)
            while not self.over.is_set():
                try:
                    if connection.recv(1) == b"":
                        self.is_cut.set()
                        return
                except TimeoutError:
                    pass
                except OSError:
                    self.is_cut.set()
                    return

    def __init__(self, name, plays=None):
        self.name = name
        self.calls = queue.Queue()
        self.began = 0
        provider = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.flush()
                call = Provider.Call(self, body)
                provider.began += 1
                if plays is not None:
                    plays(call)
                else:
                    provider.calls.put(call)
                    call.watch()
                self.close_connection = True

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 1024
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next(self):
        return self.calls.get(timeout=30)

    def config(self, **changes):
        return {"name": self.name, "type": "openai", "base_url": f"http://127.0.0.1:{self.server.server_port}/v1", **changes}

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def providers():
    """Makes providers; closes them at the end."""
    made = []

    def make(name, plays=None):
        made.append(Provider(name, plays))
        return made[-1]

    yield make
    for provider in made:
        provider.close()


def start(cluster, *providers, worker=None, **changes):
    """One model "m", of the first provider, with the others as failover."""
    names = [p["name"] for p in providers]
    cluster.config = merge(cluster.config, {
        "providers": list(providers), "models": [{"name": "m", "provider": names[0], "failover": names[1:]}],
        "cache": {"mode": "off"}})
    cluster.start_broker(**changes)
    cluster.start_worker(**(worker or {}))


def payload(text="hello"):
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return pb.ModelRequest(operation="chat.completions", model="m", body=json.dumps(body).encode()).SerializeToString()


def submit(client, text="hello", tier="realtime", **fields):
    return client.submit(payload(text), tier=tier, route="m", stream=True, **fields)


def number(head, at):
    return int.from_bytes(head[at:at + 4], "big")


def text_of(data):
    events = (json.loads(line[6:]) for line in data.decode().splitlines() if line.startswith("data: {"))
    return "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])


def next_chunk(client, job):
    """(attempt, index, is last, text)"""
    head, data = client.wait("chunk", lambda item: item[:16] == job)
    return number(head, 16), number(head, 20), bool(number(head, 24) & 1), text_of(data)


def rest_of(client, job):
    """All chunks that came before the result, and the result with its text."""
    result, data = client.result(job)
    chunks = []
    while client.has("chunk", lambda item: item[:16] == job):
        chunks.append(next_chunk(client, job))
    text = None
    if data:
        response = pb.ModelResponse()
        response.ParseFromString(data)
        text = json.loads(response.body)["choices"][0]["message"]["content"]
    return chunks, result, text


def slots_in_use(cluster):
    return cluster.worker.metrics()["tiermq_worker_in_flight"]


# ------------------------------------------------------------------------------------------------ the first token


def test_first_token_is_there_while_the_provider_keeps_the_second(cluster, providers):
    near = providers("near")
    start(cluster, near.config())
    with Client(cluster.broker) as client:
        job = submit(client)
        call = near.next()
        call.say(ROLE + event({"content": "one"}))
        assert next_chunk(client, job)[1:] == (0, False, "one")
        call.say(event({"content": " two"}))  # nothing is said before the first has arrived
        assert next_chunk(client, job)[1:] == (1, False, " two")
        call.say(END)
        call.end()
        chunks, result, text = rest_of(client, job)
        assert text == "one two" and result.usage.first_token_ms > 0
        assert chunks[-1][2] and "".join(c[3] for c in chunks) == ""


def test_times_of_tokens_are_measured(cluster, providers):
    near = providers("near")
    start(cluster, near.config())
    with Client(cluster.broker) as client:
        job = submit(client)
        call = near.next()
        call.say(ROLE)
        time.sleep(0.3)  # a role is no token
        call.say(event({"content": "one"}))
        next_chunk(client, job)
        call.say(event({"content": "two"}) + END)
        call.end()
        _, result, _ = rest_of(client, job)
    assert result.usage.first_token_ms >= 300
    labels = '{gen_ai_operation_name="chat",gen_ai_provider_name="near",gen_ai_request_model="m"}'
    metrics = cluster.worker.metrics()
    first = "gen_ai_client_operation_time_to_first_chunk_seconds"
    assert metrics[f"{first}_count{labels}"] == 1 and 0.3 <= metrics[f"{first}_sum{labels}"] < 30
    assert metrics[f"gen_ai_client_operation_time_per_output_chunk_seconds_count{labels}"] == 3


# ------------------------------------------------------------------------------------------------ failover


def test_stream_that_breaks_before_its_first_token_is_whole_from_another_provider(cluster, providers):
    near, far = providers("near"), providers("far")
    start(cluster, near.config(), far.config())
    with Client(cluster.broker) as client:
        job = submit(client)
        broken = near.next()
        broken.say(ROLE)
        broken.end()
        call = far.next()
        call.say(ROLE + event({"content": "whole"}) + END)
        call.end()
        chunks, result, text = rest_of(client, job)
        assert text == "whole" == "".join(c[3] for c in chunks)
        assert {c[0] for c in chunks} == {2} and [c[1] for c in chunks] == list(range(len(chunks))) and chunks[-1][2]
        assert result.usage.provider == "far"


def test_stalled_stream_fails_over_before_its_first_token(cluster, providers):
    near, far = providers("near"), providers("far")
    start(cluster, near.config(first_token_timeout="300ms"), far.config(first_token_timeout="300ms"))
    with Client(cluster.broker) as client:
        job = submit(client)
        stalled = near.next()
        stalled.say(ROLE + ": still here\n\n")  # neither is a token
        call = far.next()
        assert stalled.is_cut.wait(10)
        call.say(ROLE + event({"content": "quick"}))
        assert next_chunk(client, job)[:2] == (2, 0)
        time.sleep(0.5)  # the first token has come: that bound is over
        call.say(END)
        call.end()
        _, result, text = rest_of(client, job)
        assert text == "quick" and result.usage.provider == "far"
    metrics = cluster.worker.metrics()
    assert metrics['tiermq_worker_provider_calls_total{provider="near",model="m",outcome="unavailable"}'] == 1
    assert [v for k, v in metrics.items() if "duration_seconds_count" in k and 'error_type="first_token_timeout"' in k] == [1]


def test_hanging_simulator_fails_over_by_its_first_token(cluster, providers):
    cluster.start_modelsim()
    url = cluster.modelsim.ready["http"]
    far = providers("far", lambda call: call.say(ROLE + event({"content": "far"}) + END))
    http_request(url, "/control/faults", {"faults": [{"kind": "hang"}]})
    cluster.config = {"models": [{"name": "m", "provider": "sim", "provider_model": "sim-small", "failover": ["far"]}],
                      "providers": [{"name": "sim", "type": "openai", "base_url": f"{url}/v1", "first_token_timeout": "200ms"},
                                    far.config()], "cache": {"mode": "off"}}
    cluster.start_broker()
    cluster.start_worker()
    with Client(cluster.broker) as client:
        _, result, text = rest_of(client, submit(client))
        assert text == "far" and result.usage.provider == "far"
    wait_for(lambda: json.loads(http_request(url, "/control/counters")[1])["aborted"] == 1, "the simulator to see the cut")


def test_stream_that_breaks_after_tokens_is_never_spliced(cluster, providers):
    near, far = providers("near"), providers("far")
    start(cluster, near.config(), far.config())
    process = cluster.cli_start("submit", "--tier", "realtime", "--route", "m", "--stream", "tell")
    broken = near.next()
    broken.say(ROLE + event({"content": "one "}))
    assert os.read(process.stdout.fileno(), 4) == b"one "
    broken.end()
    call = far.next()
    call.say(ROLE + event({"content": "two"}) + END)
    call.end()
    output, errors = process.communicate(timeout=60)
    # What came of the second attempt is the whole answer, after the reader was told; nothing of its stream was shown.
    assert process.returncode == 0 and "broke off" in errors and output.strip() == "two"


def test_stream_that_stalls_after_tokens_ends_and_the_answer_is_whole(cluster, providers):
    near, far = providers("near"), providers("far")
    start(cluster, near.config(idle_timeout="300ms"), far.config())
    with Client(cluster.broker) as client:
        job = submit(client)
        stalled = near.next()
        stalled.say(ROLE + event({"content": "one"}))
        first = next_chunk(client, job)
        assert first[:2] == (1, 0)
        call = far.next()
        assert stalled.is_cut.wait(10)
        call.say(ROLE + event({"content": "other"}) + END)
        call.end()
        chunks, result, text = rest_of(client, job)
        assert text == "other" and result.usage.provider == "far"
        # No end mark for the first attempt, and the second is numbered as such, from its own beginning.
        assert not [c for c in chunks if c[0] == 1] and [c[1] for c in chunks] == list(range(len(chunks)))
    assert [v for k, v in cluster.worker.metrics().items()
            if "duration_seconds_count" in k and 'error_type="idle_timeout"' in k] == [1]


# ------------------------------------------------------------------------------------------------ the end of the reader


def wait_cut(cluster, call):
    assert call.is_cut.wait(30), "the provider's connection is still open"
    wait_for(lambda: slots_in_use(cluster) == 0, "the slot to be free")


def test_cancelled_stream_closes_the_providers_connection(cluster, providers):
    near = providers("near")
    start(cluster, near.config())
    with Client(cluster.broker) as client:
        job = submit(client)
        call = near.next()
        call.say(ROLE + event({"content": "one"}))
        next_chunk(client, job)
        client.send(pb.ClientMessage(cancel=[pb.Cancel(job_id=job)]))
        wait_cut(cluster, call)
        assert client.result(job)[0].state == pb.JOB_STATE_CANCELLED


def test_stream_of_a_client_that_died_is_cancelled_on_a_tier_in_memory(cluster, providers):
    near = providers("near")
    start(cluster, near.config(), broker={"heartbeat": "200ms"})
    process = cluster.cli_start("submit", "--tier", "realtime", "--route", "m", "--stream", "tell")
    call = near.next()
    call.say(ROLE + event({"content": "one"}))
    assert os.read(process.stdout.fileno(), 3) == b"one"
    process.kill()
    process.communicate()
    wait_cut(cluster, call)  # although the provider says nothing more
    assert near.began == 1


def test_stream_of_a_client_that_left_goes_on_on_a_durable_tier(cluster, providers):
    near = providers("near")
    start(cluster, near.config(), broker={"heartbeat": "100ms"})
    with Client(cluster.broker) as client:
        job = submit(client, tier="standard")
        call = near.next()
        call.say(ROLE + event({"content": "one"}))
        next_chunk(client, job)
    time.sleep(1.5)  # longer than it takes to be forgotten, and abandoned
    assert call.say(event({"content": " kept"}) + END) and not call.is_cut.is_set()
    call.end()
    with Client(cluster.broker) as client:
        client.send(pb.ClientMessage(wait=[pb.Wait(job_id=job)]))
        assert rest_of(client, job)[2] == "one kept"


# ------------------------------------------------------------------------------------------------ readers that do not read


def test_reader_without_credit_bounds_the_log_and_holds_up_nobody(cluster, providers):
    near = providers("near")
    start(cluster, near.config(), broker={"stream_log_bytes_max": "64KiB"})
    with Client(cluster.broker) as lazy, Client(cluster.broker) as other:
        job = submit(lazy)
        lazy.send(pb.ClientMessage(stream_credit=[pb.StreamCredit(job_id=job, chunks=1)]))
        call = near.next()
        call.say(ROLE + event({"content": "one"}))
        assert next_chunk(lazy, job)[3] == "one"
        call.say(event({"content": " two"}))
        call.say(event({"content": " three"}))
        second = submit(other, "another")
        quick = near.next()
        quick.say(ROLE + event({"content": "quick"}) + END)
        quick.end()
        assert rest_of(other, second)[2] == "quick"
        assert not lazy.has("chunk")
        lazy.send(pb.ClientMessage(stream_credit=[pb.StreamCredit(job_id=job, chunks=100)]))
        text = ""
        while text != " two three":  # what it could not take comes out of the log, whole
            text += next_chunk(lazy, job)[3]
        call.say(END)
        call.end()
        assert rest_of(lazy, job)[2] == "one two three"


class Reader:
    """tiermq-stream-reader: what it says, as it says it."""

    def __init__(self, cluster):
        self.process = subprocess.Popen([program("tiermq-stream-reader"), cluster.broker.ready["clients"]],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        self.read = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self.process.stdout:
            self.lines.put(line.split())

    def tell(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def answer(self, name, timeout_s=60):
        """(state, code, whole or cut); notes how far each stream was read."""
        while True:
            what, of, *rest = self.lines.get(timeout=timeout_s)
            if what == "chunk":
                self.read[of] = int(rest[0])
            elif of == name:
                return tuple(rest)

    def read_until(self, name, count):
        while self.read.get(name, 0) < count:
            what, of, *rest = self.lines.get(timeout=30)
            assert what == "chunk", (what, of, rest)
            self.read[of] = int(rest[0])

    def is_silent(self, name, for_s):
        """Nothing comes for that stream any more."""
        before = self.read.get(name, 0)
        until = time.monotonic() + for_s
        while (left := until - time.monotonic()) > 0:
            try:
                what, of, *rest = self.lines.get(timeout=left)
            except queue.Empty:
                break
            if what == "chunk":
                self.read[of] = int(rest[0])
        return self.read.get(name, 0) == before

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=30) == 0


@pytest.fixture
def reader():
    made = []

    def make(cluster):
        made.append(Reader(cluster))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.close()


PIECE = "y" * 3000


class Flood:
    """An answer of so many pieces, said as fast as it is read; counts those that were taken."""

    def __init__(self, call, pieces):
        self.call, self.pieces, self.said = call, pieces, 0

    def run(self):
        self.call.say(ROLE)
        for _ in range(self.pieces):
            if not self.call.say(event({"content": PIECE})):
                return
            self.said += 1
        self.call.say(END)


class Floods:
    """What a provider plays: floods, which are taken with `next()`, and a short answer to "quick"."""

    def __init__(self, pieces=10000):
        self.pieces, self.begun = pieces, queue.Queue()

    def __call__(self, call):
        if call.prompt == "quick":
            call.say(ROLE + event({"content": "there"}) + END)
            return
        flood = Flood(call, self.pieces)
        self.begun.put(flood)
        flood.run()

    def next(self):
        return self.begun.get(timeout=30)


def still(flood):
    """How many pieces were taken when no more are."""
    said = -1
    while said != flood.said:
        said = flood.said
        time.sleep(0.5)
    return said


def begin_paused(floods, reads, name, deadline_ms=0):
    """A stream that was paused after its first pieces, and goes no further."""
    reads.tell(f"submit {name} {deadline_ms}")
    flood = floods.next()
    reads.read_until(name, 1)
    reads.tell(f"pause {name}")
    said = still(flood)
    reads.is_silent(name, 0.1)  # what it had said before
    assert reads.is_silent(name, 0.5)
    return flood, said


def test_paused_stream_holds_its_provider_and_nobody_else(cluster, providers, reader):
    floods = Floods()
    near = providers("near", floods)
    start(cluster, near.config())
    reads = reader(cluster)
    before = cluster.broker.memory_bytes(), cluster.worker.memory_bytes()
    flood, said = begin_paused(floods, reads, "slow")
    # 30 MB in all; what is under way is in the sockets, 256 KiB at the broker, and at the client.
    assert said < 6000, said
    assert cluster.broker.memory_bytes() - before[0] < 16 << 20
    assert cluster.worker.memory_bytes() - before[1] < 64 << 20  # the answer so far, to be returned whole
    metrics = cluster.broker.metrics()
    assert metrics["tiermq_streams"] == metrics["tiermq_streams_held"] == 1
    assert 0 < metrics['tiermq_stream_bytes{of="log"}'] < 512 << 10
    reads.tell("submit quick 0")
    assert reads.answer("quick") == ("2", "-", "whole")
    time.sleep(11)  # longer than a worker waits for a broker that takes nothing
    assert flood.said == said
    reads.tell("resume slow")
    reads.read_until("slow", 1 + said * len(PIECE))
    assert near.began == 2


def test_paused_stream_is_read_to_its_end_in_order(cluster, providers, reader):
    floods = Floods(2200)
    near = providers("near", floods)
    start(cluster, near.config())
    reads = reader(cluster)
    begin_paused(floods, reads, "slow")
    reads.tell("resume slow")
    assert reads.answer("slow") == ("2", "-", "whole")
    assert reads.read["slow"] == 2200 * len(PIECE) and near.began == 1
    labels = 'gen_ai_operation_name="chat",gen_ai_provider_name="near",gen_ai_request_model="m"'
    gaps, metrics = "gen_ai_client_operation_time_per_output_chunk_seconds", cluster.worker.metrics()
    assert metrics[f'{gaps}_bucket{{{labels},le="1"}}'] == metrics[f"{gaps}_count{{{labels}}}"], "its pause was its reader's"


def test_paused_stream_is_read_to_its_end_though_its_worker_joined_again(cluster, providers, reader):
    floods = Floods(2200)
    near = providers("near", floods)
    start(cluster, near.config(), broker={"heartbeat": "300ms"})
    reads = reader(cluster)
    begin_paused(floods, reads, "slow")
    before = len(cluster.worker.lines)
    cluster.worker.signal(signal.SIGSTOP)
    time.sleep(2)  # more than four heartbeats: it takes the broker for gone
    cluster.worker.signal(signal.SIGCONT)
    cluster.worker.wait_log("joined a broker", after=before)
    assert reads.is_silent("slow", 1)
    reads.tell("resume slow")
    assert reads.answer("slow") == ("2", "-", "whole")
    assert near.began == 1


def test_answer_that_is_whole_before_its_stream_was_read_waits_for_its_reader(cluster, providers, reader):
    near = providers("near")
    start(cluster, near.config())
    reads = reader(cluster)
    reads.tell("submit slow")
    call = near.next()
    call.say(ROLE + event({"content": "a"}))
    reads.read_until("slow", 1)
    reads.tell("pause slow")
    time.sleep(0.2)
    for index in range(150):  # more than the client takes unread, less than the broker keeps
        call.say(event({"content": "b"}))
        time.sleep(0.007)
    call.say(END)
    call.end()
    wait_for(lambda: slots_in_use(cluster) == 0, "the answer to be whole")
    assert reads.is_silent("slow", 1)
    reads.tell("resume slow")
    assert reads.answer("slow") == ("2", "-", "whole")
    assert reads.read["slow"] == 151


def wait_abandoned(cluster, flood):
    wait_for(flood.call.is_cut.is_set, "the provider's connection to be closed")
    wait_for(lambda: slots_in_use(cluster) == 0, "the slot to be free")


def test_cancelled_while_it_is_paused_the_call_is_closed(cluster, providers, reader):
    floods = Floods()
    start(cluster, providers("near", floods).config())
    reads = reader(cluster)
    flood, _ = begin_paused(floods, reads, "slow")
    reads.tell("cancel slow")
    assert reads.answer("slow")[:2] == ("4", "cancelled")
    wait_abandoned(cluster, flood)


def test_pause_beyond_the_deadline_ends_as_expired(cluster, providers, reader):
    floods = Floods()
    start(cluster, providers("near", floods).config())
    reads = reader(cluster)
    flood, _ = begin_paused(floods, reads, "slow", deadline_ms=6000)
    assert reads.answer("slow")[:2] == ("5", "deadline")
    wait_abandoned(cluster, flood)


def test_pause_beyond_what_its_call_may_last_costs_the_stream_and_no_second_call(cluster, providers, reader):
    floods = Floods(2200)
    near = providers("near", floods)
    start(cluster, near.config(timeout="12s"))
    reads = reader(cluster)
    begin_paused(floods, reads, "slow")
    wait_for(lambda: slots_in_use(cluster) == 0, "the answer to be whole")
    reads.tell("resume slow")
    assert reads.answer("slow") == ("2", "-", "cut")
    assert near.began == 1


def test_paused_reader_that_goes_holds_nobody(cluster, providers, reader):
    floods = Floods()
    start(cluster, providers("near", floods).config(), broker={"heartbeat": "200ms"})
    reads = reader(cluster)
    flood, _ = begin_paused(floods, reads, "slow")
    reads.process.kill()
    reads.process.wait()
    wait_abandoned(cluster, flood)


def test_client_that_was_stopped_in_mid_stream_reads_all_of_it(cluster, providers):
    near = providers("near")
    start(cluster, near.config(), broker={"heartbeat": "500ms"})
    process = cluster.cli_start("submit", "--tier", "standard", "--route", "m", "--stream", "tell")
    call = near.next()
    call.say(ROLE + event({"content": "one"}))
    assert os.read(process.stdout.fileno(), 3) == b"one"
    process.send_signal(signal.SIGSTOP)
    for index in range(200):
        call.say(event({"content": f" {index}"}))
    time.sleep(4)  # it is forgotten meanwhile
    process.send_signal(signal.SIGCONT)
    read = b""
    while not read.endswith(b" 199"):
        read += os.read(process.stdout.fileno(), 4096)
    call.say(END)
    call.end()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "broke off" not in errors, errors
    assert read.decode() + output == "".join(f" {i}" for i in range(200)) + "\n"


@pytest.fixture
def played(cluster):
    """A broker that the test plays."""
    broker = PlayedBroker()
    cluster.brokers.append(broker)
    yield broker
    cluster.brokers.remove(broker)
    cluster.worker.signal(signal.SIGTERM)
    while cluster.worker.is_running():
        broker.turn(0.05)
    broker.close()


def chunk_bytes(broker):
    """What all chunks counted that came until no more did."""
    counted, heard = 0, time.monotonic()
    while time.monotonic() < heard + 1:
        broker.turn(0.1)
        chunks = [data for kind, _, data in broker.items if kind == "chunk"]
        if chunks:
            counted, heard = counted + sum(64 + len(data) for data in chunks), time.monotonic()
            broker.items = [item for item in broker.items if item[0] != "chunk"]
    return counted


def test_held_stream_stays_held_when_its_worker_joins_again(cluster, providers, played):
    floods = Floods(200)
    near = providers("near", floods)
    cluster.config = {"providers": [near.config()], "models": [{"name": "m", "provider": "near"}], "cache": {"mode": "off"}}
    cluster.start_worker()
    played.wait("hello")
    allowed = 1 << 16
    job = played.dispatch(payload("slow"), route="m", tier="realtime", stream=True, stream_bytes=allowed)
    assert allowed <= chunk_bytes(played) < 2 * allowed
    played.known.clear()
    hello, _ = played.wait("hello")
    assert [held.job_id for held in hello.held] == [job] and len(hello.held_chunks) == 1 and hello.held_chunks[0] > 0
    assert chunk_bytes(played) == 0
    played.send(pb.BrokerToWorker(stream_allowance=[pb.StreamAllowance(
        lease=pb.LeaseRef(job_id=job, attempt=1), bytes_total=3 * allowed)]))
    assert allowed <= chunk_bytes(played) < 3 * allowed
    played.incarnation += 1  # it knows nothing of an allowance any more
    played.known.clear()
    played.wait("hello")
    assert played.result(job)[0].outcome == pb.ATTEMPT_ANSWERED
    assert near.began == 1


def test_piece_that_its_broker_does_not_take_ends_the_stream(cluster, providers, played):
    near = providers("near")
    cluster.config = {"providers": [near.config()], "models": [{"name": "m", "provider": "near"}], "cache": {"mode": "off"}}
    played.answer_bytes_max = 4000
    cluster.start_worker()
    played.wait("hello")
    job = played.dispatch(payload(), route="m", tier="realtime", stream=True)
    call = near.next()
    call.say(ROLE + event({"content": "one"}))
    assert text_of(played.wait("chunk")[1]) == "one"
    call.say(event({"content": "z" * 5000}) + END)
    call.end()
    assert played.result(job)[0].error_code == "answer_too_large"
    assert not [item for item in played.items if item[0] == "chunk"]
    assert cluster.worker.metrics()["tiermq_worker_chunks_dropped_total"] == 1


class DeafBroker(PlayedBroker):
    """Reads nothing while `is_deaf`, and has little room for what nobody reads."""

    def __init__(self):
        super().__init__(heartbeat_ms=60000)

    def _bind(self, endpoint):
        self.socket.setsockopt(zmq.RCVHWM, 10)
        self.socket.setsockopt(zmq.RCVBUF, 4096)
        super()._bind(endpoint)


STREAMS, TOKENS = 30, 1000


def tokens_read(cluster):
    return sum(v for k, v in cluster.worker.metrics().items() if "_chunk_seconds_count" in k)


def test_broker_that_reads_nothing_makes_the_provider_wait(cluster, providers, monkeypatch):
    """The worker's queue to its broker is full: nothing is lost, and it reads no more of what comes, until there is room."""
    # AddressSanitizer keeps what was freed, 256 MiB of it, so that its use is found.
    monkeypatch.setenv("ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1")

    def play(call):
        call.say(ROLE)
        for token in range(TOKENS):
            call.say(event({"content": f"{token} {'x' * 2000}"}))
        call.say(END)

    near = providers("near", play)
    broker = DeafBroker()
    cluster.brokers.append(broker)
    cluster.config = {"providers": [near.config()], "models": [{"name": "m", "provider": "near"}], "cache": {"mode": "off"}}
    cluster.start_worker()
    broker.wait("hello")
    jobs = [broker.dispatch(payload(str(i)), route="m", tier="realtime", stream=True) for i in range(STREAMS)]
    before = -1
    while before != (before := tokens_read(cluster)) or before == 0:
        time.sleep(0.3)
    memory = cluster.worker.memory_bytes()
    chunks, results = {job: [] for job in jobs}, set()
    end = time.monotonic() + TIMEOUT_S
    while len(results) < STREAMS:
        assert time.monotonic() < end, f"{len(results)} results"
        broker.turn(0.1)
        for kind, item, _ in broker.items:
            if kind == "chunk":
                chunks[item[:16]].append((number(item, 20), number(item, 24) & 1))
            elif kind == "result":
                assert item.outcome == pb.ATTEMPT_ANSWERED, item
                results.add(item.job_id)
        broker.items.clear()
    dropped = cluster.worker.metrics()["tiermq_worker_chunks_dropped_total"]
    whole = [job for job in jobs if [c[0] for c in chunks[job]] == list(range(len(chunks[job]))) and chunks[job][-1][1]]
    cluster.brokers.remove(broker)
    cluster.worker.signal(signal.SIGTERM)
    while cluster.worker.is_running():
        broker.turn(0.05)
    broker.close()
    assert 0 < before < STREAMS * TOKENS
    assert memory < 128 << 20
    assert dropped == 0 and len(whole) == STREAMS
