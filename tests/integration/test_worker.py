"""The worker, opposite a broker that is played by the test and a simulated model server."""

import json
import signal
import socket
import subprocess
import time

import pytest
import zmq

from harness import EXIT_ADDRESS, EXIT_CONFIG, TIMEOUT_S, free_port, http_answering, http_request, program, wait_for
from wire import BROKER_TO_WORKER, CHUNK, EVENT, VERSION, WORKER_TO_BROKER, context, make_id, pb


def request(text="hello", operation="chat.completions", model="sim-small", **members):
    body = {"model": model, **members}
    if operation == "chat.completions":
        body.setdefault("messages", [{"role": "user", "content": text}])
    elif operation == "completions":
        body.setdefault("prompt", text)
    else:
        body.setdefault("input", text)
    return pb.ModelRequest(operation=operation, model=model, body=json.dumps(body).encode()).SerializeToString()


class PlayedBroker:
    """A ROUTER that keeps what workers sent, item by item, and answers heartbeats."""

    def __init__(self, endpoint="tcp://127.0.0.1:*", heartbeat_ms=200, incarnation=1):
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self._bind(endpoint)
        self.endpoint = self.socket.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        self.events = context.socket(zmq.XPUB)  # it hears of subscriptions
        self.events.setsockopt(zmq.LINGER, 0)
        self.events.bind("tcp://127.0.0.1:*")
        events = self.events.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        self.config = {"broker": {"listen_workers": self.endpoint, "listen_events": events}}
        self.sequence = 0
        self.snapshot = []
        self.heartbeat_ms, self.incarnation = heartbeat_ms, incarnation
        self.items = []  # (kind, item, payload)
        self.peer = None  # who spoke last
        self.known = set()
        self.credit = 0
        self.dispatched = 0
        self.concludes = True
        self.welcomes = True
        self.answer_bytes_max = 0

    def _bind(self, endpoint):
        def bind():  # a socket closed a moment ago still has the address
            try:
                self.socket.bind(endpoint)
                return True
            except zmq.ZMQError:
                return False
        wait_for(bind, f"{endpoint} to be free")

    def close(self):
        self.socket.close()
        self.events.close()

    def wait_subscription(self):
        assert self.events.poll(TIMEOUT_S * 1000), "nobody listens to the events"
        assert self.events.recv() == b"\x01"

    def publish(self, event):
        self.sequence += 1
        event.sequence = self.sequence
        self.events.send(b"TQ" + bytes([VERSION, EVENT]) + event.SerializeToString())

    def send(self, message, *payloads):
        head = b"TQ" + bytes([VERSION, BROKER_TO_WORKER]) + message.SerializeToString()
        self.socket.send_multipart([self.peer, head, *payloads])

    def refuse_unknown(self):
        error = pb.ProtocolError(code=pb.ProtocolError.ERROR_HELLO_REQUIRED, text="who are you?")
        self.send(pb.BrokerToWorker(error=error))

    def _take(self, message, payloads):
        if not message.HasField("hello") and self.peer not in self.known:
            self.refuse_unknown()
            return
        if message.HasField("hello"):
            self.known = {self.peer}
            self.items.append(("hello", message.hello, None))
            self.credit = 0
            self.dispatched = 0
            if self.welcomes:
                self.send(pb.BrokerToWorker(welcome=pb.WorkerWelcome(
                    broker="played", incarnation=self.incarnation, lease_ms=10000, heartbeat_ms=self.heartbeat_ms,
                    event_sequence=self.sequence, snapshot=self.snapshot, answer_bytes_max=self.answer_bytes_max)))
        if message.credit_total:
            self.credit = message.credit_total
        if message.heartbeat:
            self.items.append(("heartbeat", message, None))
            if self.welcomes:
                self.send(pb.BrokerToWorker())
        if message.draining:
            self.items.append(("draining", message, None))
        if message.goodbye:
            self.items.append(("goodbye", message, None))
        payloads = list(payloads)
        for result in message.result:
            payload = payloads.pop(0) if result.has_payload else None
            self.items.append(("result", result, payload))
            if self.concludes:
                self.send(pb.BrokerToWorker(concluded=[pb.LeaseRef(job_id=result.job_id, attempt=result.attempt)]))

    def turn(self, timeout_s):
        if not self.socket.poll(max(0, int(timeout_s * 1000))):
            return False
        self.peer, head, *payloads = self.socket.recv_multipart()
        assert head[:2] == b"TQ" and head[2] == VERSION
        if head[3] == CHUNK:
            self.items.append(("chunk", head[4:], payloads[0]))
            return True
        assert head[3] == WORKER_TO_BROKER
        message = pb.WorkerMessage()
        message.ParseFromString(head[4:])
        self._take(message, payloads)
        return True

    def wait(self, kind, matches=lambda item: True, timeout_s=TIMEOUT_S):
        end = time.monotonic() + timeout_s
        while True:
            for at, (name, item, payload) in enumerate(self.items):
                if name == kind and matches(item):
                    del self.items[at]
                    return item, payload
            left = end - time.monotonic()
            assert left > 0, f"no {kind} came; but {self.items}"
            self.turn(min(left, 0.1))

    def wait_credit(self):
        end = time.monotonic() + TIMEOUT_S
        while self.credit <= self.dispatched:
            assert time.monotonic() < end, "no credit came"
            self.turn(0.1)

    def dispatch(self, payload, job=None, attempt=1, tier="standard", route="sim-small", tenant="default", upstream=None,
                 **fields):
        """`upstream` is "provider/model"."""
        if upstream:
            provider, model = upstream.split("/")
            fields["upstream"] = pb.Upstream(provider=provider, model=model)
        self.wait_credit()
        job = job or make_id()
        self.dispatched += 1
        self.send(pb.BrokerToWorker(dispatch=[pb.Dispatch(
            job_id=job, attempt=attempt, tenant=tenant, route=route, tier=tier, has_payload=True, **fields)]), payload)
        return job

    def result(self, job, timeout_s=TIMEOUT_S):
        """(AttemptResult, ModelResponse or None)"""
        result, payload = self.wait("result", lambda item: item.job_id == job, timeout_s)
        response = None
        if payload is not None:
            response = pb.ModelResponse()
            response.ParseFromString(payload)
        return result, response

    def run(self, payload, **fields):
        return self.result(self.dispatch(payload, **fields))


def outcome(result):
    return pb.AttemptOutcome.Name(result.outcome)


@pytest.fixture
def broker(cluster):
    played = PlayedBroker()
    cluster.brokers.append(played)
    cluster.start_modelsim()
    yield played
    cluster.brokers.remove(played)
    # The worker leaves first, and it waits until its answers are concluded.
    for worker in cluster.workers:
        if worker.is_running() and not worker.was_killed:
            worker.signal(signal.SIGTERM)
            while worker.is_running():
                played.turn(0.05)
    played.close()


def start(cluster, broker, **changes):
    worker = cluster.start_worker(**changes)
    broker.wait("hello")
    if changes.get("cache", {}).get("mode") != "off":
        worker.wait_log(lambda line: line["message"].startswith("cache is"))
    worker.wait_log("joined a broker")
    return worker


def faults(cluster, *script):
    status, text = http_request(cluster.modelsim.ready["http"], "/control/faults", {"faults": list(script)})
    assert status == 200, text


# ------------------------------------------------------------------------------------------------ answers


def test_each_operation_is_answered_in_openai_form(cluster, broker):
    start(cluster, broker)
    result, response = broker.run(request("What is the capital of France?"))
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    answer = json.loads(response.body)
    assert answer["choices"][0]["message"]["content"]
    assert result.usage.input_tokens == answer["usage"]["prompt_tokens"] > 0
    assert result.usage.output_tokens == answer["usage"]["completion_tokens"] > 0
    assert result.usage.cache == pb.CACHE_MISS
    assert (result.usage.provider, result.usage.model) == ("sim", "sim-small")
    # USD 0.15 and 0.60 a million tokens are 150 and 600 nano-dollars a token.
    assert result.usage.cost_nanousd == result.usage.input_tokens * 150 + result.usage.output_tokens * 600
    assert response.http_status == 200 and response.router_reason
    result, response = broker.run(request("Once upon", operation="completions"))
    assert outcome(result) == "ATTEMPT_ANSWERED" and json.loads(response.body)["choices"][0]["text"]
    result, response = broker.run(request("words", operation="embeddings"))
    assert outcome(result) == "ATTEMPT_ANSWERED" and json.loads(response.body)["data"][0]["embedding"]


def test_answer_that_its_broker_does_not_take_is_given_up(cluster, broker):
    broker.answer_bytes_max = 300
    worker = start(cluster, broker)
    result, _ = broker.run(request("a long one", max_tokens=200))
    assert (outcome(result), result.error_code) == ("ATTEMPT_REJECTED", "answer_too_large"), result
    assert "its broker takes 300; raise broker.payload_bytes_max" in result.error_text
    assert result.usage.cost_nanousd > 0  # it was paid for
    assert worker.metrics()['tiermq_worker_protocol_errors_total{kind="answer_too_large"}'] == 1


def test_alias_auto_is_routed(cluster, broker):
    start(cluster, broker)
    result, response = broker.run(request(model="auto"), route="auto")
    assert outcome(result) == "ATTEMPT_ANSWERED" and result.usage.model == "sim-small"
    assert "auto" in response.router_reason


def test_the_second_asking_is_free(cluster, broker):
    start(cluster, broker)
    first, one = broker.run(request("same", temperature=0.2))
    again, two = broker.run(request("same", temperature=0.2))
    assert again.usage.cache == pb.CACHE_HIT, again
    assert again.usage.cost_nanousd == 0 and again.usage.saved_nanousd == first.usage.cost_nanousd > 0
    assert two.body == one.body and again.usage.provider == "" and again.usage.model == "sim-small"
    other, _ = broker.run(request("same", temperature=0.3))
    assert other.usage.cache == pb.CACHE_MISS
    stranger, _ = broker.run(request("same", temperature=0.2), tenant="another")
    assert stranger.usage.cache == pb.CACHE_MISS


def test_the_cache_outlives_the_worker(cluster, broker):
    worker = start(cluster, broker)
    broker.run(request("keep"))
    wait_for(lambda: worker.metrics().get("tiermq_worker_cache_fills_total"), "the fill")
    worker.signal(signal.SIGTERM)
    broker.wait("goodbye")
    assert worker.wait() == 0
    worker.was_killed = True
    start(cluster, broker, name="worker-1")
    assert broker.run(request("keep"))[0].usage.cache == pb.CACHE_HIT


def test_a_broken_cache_is_a_miss(cluster, broker):
    directory = cluster.directory / "broken"
    directory.mkdir()
    (directory / "cache").write_text("in the way")
    worker = start(cluster, broker, worker={"data_dir": str(directory)})
    for _ in range(2):
        result, _ = broker.run(request("again"))
        assert outcome(result) == "ATTEMPT_ANSWERED" and result.usage.cache == pb.CACHE_NONE
    metrics = worker.metrics()
    assert metrics['tiermq_worker_cache_lookups_total{result="broken"}'] == 2
    assert metrics["tiermq_worker_cache_broken"] == 1


# ------------------------------------------------------------------------------------------------ streams


def chunks_until_last(broker, job):
    texts, index = [], 0
    while True:
        head, data = broker.wait("chunk", lambda item: item[:16] == job)
        assert int.from_bytes(head[20:24], "big") == index
        index += 1
        texts += [json.loads(event[6:]) for event in data.decode().split("\n\n") if event]
        if int.from_bytes(head[24:28], "big") & 1:
            return texts


def content_of(chunks):
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


def test_a_stream_comes_in_pieces_and_whole(cluster, broker):
    start(cluster, broker)
    job = broker.dispatch(request("stream this", max_tokens=50), stream=True)
    chunks = chunks_until_last(broker, job)
    result, response = broker.result(job)
    answer = json.loads(response.body)
    assert outcome(result) == "ATTEMPT_ANSWERED" and result.usage.first_token_ms > 0
    assert answer["object"] == "chat.completion"
    assert content_of(chunks) == answer["choices"][0]["message"]["content"] != ""
    assert result.usage.output_tokens > 0


def test_a_cached_answer_is_replayed_as_a_stream(cluster, broker):
    start(cluster, broker)
    _, first = broker.run(request("stream later"))
    job = broker.dispatch(request("stream later"), stream=True)
    chunks = chunks_until_last(broker, job)
    result, response = broker.result(job)
    assert result.usage.cache == pb.CACHE_HIT and response.body == first.body
    assert content_of(chunks) == json.loads(first.body)["choices"][0]["message"]["content"]


def test_a_stream_that_breaks_off_is_unavailable(cluster, broker):
    start(cluster, broker)
    faults(cluster, {"kind": "truncated"})
    result, _ = broker.result(broker.dispatch(request("cut"), stream=True))
    assert outcome(result) == "ATTEMPT_UNAVAILABLE", result


# ------------------------------------------------------------------------------------------------ Anthropic's protocol


def start_anthropic(cluster, broker, **changes):
    provider = dict(cluster.base_config()["providers"][0], type="anthropic", api_key="sk-test")
    return start(cluster, broker, providers=[provider], **changes)


def test_anthropic_answers_in_openai_form(cluster, broker):
    start_anthropic(cluster, broker)
    body = request(messages=[{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}])
    result, response = broker.run(body)
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    answer = json.loads(response.body)
    assert answer["object"] == "chat.completion" and answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert result.usage.input_tokens == answer["usage"]["prompt_tokens"] > 0 < result.usage.output_tokens
    result, _ = broker.run(request("words", operation="embeddings"))
    assert (outcome(result), result.error_code) == ("ATTEMPT_REJECTED", "unsupported")


def test_anthropic_streams_in_openai_form(cluster, broker):
    start_anthropic(cluster, broker)
    job = broker.dispatch(request("stream this", max_tokens=40), stream=True)
    chunks = chunks_until_last(broker, job)
    result, response = broker.result(job)
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    assert content_of(chunks) == json.loads(response.body)["choices"][0]["message"]["content"] != ""
    assert result.usage.output_tokens > 0


@pytest.mark.parametrize("fault, wanted", [({"kind": "status", "status": 529}, "ATTEMPT_RATE_LIMITED"),
                                           ({"kind": "status", "status": 429}, "ATTEMPT_RATE_LIMITED"),
                                           ({"kind": "error_in_200"}, "ATTEMPT_UNAVAILABLE"),
                                           ({"kind": "refused"}, "ATTEMPT_REFUSED"),
                                           ({"kind": "truncated"}, "ATTEMPT_UNAVAILABLE")])
def test_anthropic_failures_have_their_outcomes(cluster, broker, fault, wanted):
    start_anthropic(cluster, broker)
    faults(cluster, fault)
    assert outcome(broker.run(request("fail"))[0]) == wanted
    assert outcome(broker.result(broker.dispatch(request("fail"), stream=True))[0]) == wanted


def test_anthropic_that_is_overloaded_in_mid_stream_is_rate_limited(cluster, broker):
    start_anthropic(cluster, broker)
    faults(cluster, {"kind": "error_in_stream"})
    result, _ = broker.result(broker.dispatch(request("fail", max_tokens=40), stream=True))
    assert (outcome(result), result.error_code) == ("ATTEMPT_RATE_LIMITED", "overloaded")


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("fault, wanted, code", [
    ({"kind": "status", "status": 500}, "ATTEMPT_UNAVAILABLE", "unavailable"),
    ({"kind": "status", "status": 401}, "ATTEMPT_UNAVAILABLE", "credentials"),
    ({"kind": "status", "status": 400}, "ATTEMPT_REJECTED", "rejected"),
    ({"kind": "status", "status": 498}, "ATTEMPT_RATE_LIMITED", "overloaded"),
    ({"kind": "status", "status": 529}, "ATTEMPT_RATE_LIMITED", "overloaded"),
    ({"kind": "refused"}, "ATTEMPT_REFUSED", "content_refused"),
    ({"kind": "reset"}, "ATTEMPT_UNAVAILABLE", "reset"),
    ({"kind": "truncated"}, "ATTEMPT_UNAVAILABLE", "truncated"),
    ({"kind": "garbage"}, "ATTEMPT_UNAVAILABLE", "garbage"),
    ({"kind": "empty"}, "ATTEMPT_UNAVAILABLE", "garbage"),
    ({"kind": "error_in_200"}, "ATTEMPT_UNAVAILABLE", "provider_error"),
])
def test_each_failure_has_its_outcome(cluster, broker, fault, wanted, code):
    start(cluster, broker)
    faults(cluster, fault)
    result, response = broker.run(request("fail"))
    assert (outcome(result), result.error_code) == (wanted, code), result
    assert result.error_text and response is None
    call, = result.calls
    assert (call.outcome, call.error_code) == (result.outcome, code)
    assert (call.upstream.provider, call.upstream.model) == ("sim", "sim-small")
    assert call.http_status == (0 if fault["kind"] == "reset" else 200 if "20" in fault["kind"] or fault["kind"] in (
        "truncated", "garbage", "empty") else fault.get("status", 400))
    assert call.tokens == call.cost_nanousd == 0


@pytest.mark.parametrize("how, low, high", [("header", 2000, 2000), ("ms_header", 1500, 1500), ("body", 1500, 1500),
                                            ("date", 1, 3000), ("none", 0, 0)])
def test_retry_after_is_understood_in_every_form(cluster, broker, how, low, high):
    start(cluster, broker)
    faults(cluster, {"kind": "status", "status": 429, "retry_after": how, "retry_after_ms": 1500})
    result, _ = broker.run(request("limit"))
    assert outcome(result) == "ATTEMPT_RATE_LIMITED"
    assert low <= result.retry_after_ms <= high


def test_a_provider_that_hangs_is_timed_out(cluster, broker):
    provider = dict(cluster.base_config()["providers"][0], timeout="300ms")
    start(cluster, broker, providers=[provider])
    faults(cluster, {"kind": "hang"})
    result, _ = broker.run(request("hang"))
    assert (outcome(result), result.error_code) == ("ATTEMPT_UNAVAILABLE", "timeout")
    result, _ = broker.run(request("hang"), deadline_in_ms=100)
    assert outcome(result) == "ATTEMPT_EXPIRED"


def test_the_cache_does_not_stand_in_for_who_has_paid_a_share(cluster, broker):
    """Two jobs share a call that is cut off: each has its part of the estimate, and none is answered by what would name no provider."""
    cluster.config = {"tiers": [{"name": "standard", "cache_ttl": "1ms", "cache_stale_if_error": "1h", "cache_stale_at_once": "on",
                                 "combine_linger": "500ms", "combine_jobs_max": 2}],
                      "models": [{"name": "sim-embed", "provider": "sim", "input_usd_per_mtok": 1}]}
    worker = start(cluster, broker, providers=[dict(cluster.base_config()["providers"][0], timeout="500ms")])
    texts = [pb.ModelRequest(operation="embeddings", model="sim-embed", body=json.dumps({"input": text}).encode()).SerializeToString()
             for text in ("one", "two")]
    assert outcome(broker.run(texts[0], route="sim-embed")[0]) == "ATTEMPT_ANSWERED"
    wait_for(lambda: worker.metrics()["tiermq_worker_cache_entries"] == 1, "the fill")
    faults(cluster, {"kind": "hang"})
    jobs = [broker.dispatch(text, route="sim-embed", is_last_choice=True) for text in texts]
    results = [broker.result(job)[0] for job in jobs]
    assert [(outcome(result), result.error_code) for result in results] == [("ATTEMPT_UNAVAILABLE", "timeout")] * 2
    told, = (call for result in results for call in result.calls)
    assert told.cost_nanousd == sum(result.usage.cost_nanousd for result in results) > 0


def test_a_connection_that_hangs_reaches_nobody_and_leaves_the_job_its_deadline(cluster, broker):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        others = [socket.socket() for _ in range(8)]  # as many as fill its backlog: whoever comes later waits
        for other in others:
            other.setblocking(False)
            other.connect_ex(address)
        provider = dict(cluster.base_config()["providers"][0], base_url=f"http://127.0.0.1:{address[1]}/v1",
                        connect_timeout="300ms", timeout="60s")
        start(cluster, broker, providers=[provider])
        result, _ = broker.run(request("anyone?"), deadline_in_ms=30000)
        assert (outcome(result), result.error_code) == ("ATTEMPT_UNAVAILABLE", "connect")
        for other in others:
            other.close()


def test_an_absent_model_server_is_unavailable(cluster, broker):
    start(cluster, broker, providers=[{"name": "sim", "type": "openai", "base_url": "http://127.0.0.1:1/v1"}])
    result, _ = broker.run(request("anyone?"))
    assert (outcome(result), result.error_code) == ("ATTEMPT_UNAVAILABLE", "connect")


def test_a_server_without_tls_is_unavailable(cluster, broker):
    url = cluster.modelsim.ready["http"].replace("http:", "https:")
    start(cluster, broker, providers=[{"name": "sim", "type": "openai", "base_url": f"{url}/v1"}])
    result, _ = broker.run(request("secret"))
    assert (outcome(result), result.error_code) == ("ATTEMPT_UNAVAILABLE", "tls")
    assert result.calls[0].error_code == "tls" and result.calls[0].http_status == 0


def test_unusable_payloads_are_invalid(cluster, broker):
    start(cluster, broker)
    for payload in (b"\xff\xff\xff", request(operation="images"), pb.ModelRequest(
            operation="chat.completions", model="x", body=b"{not json").SerializeToString()):
        result, _ = broker.run(payload)
        assert outcome(result) == "ATTEMPT_INVALID" and result.error_text, result


def test_an_unknown_route_is_left_to_other_workers(cluster, broker):
    start(cluster, broker)
    result, _ = broker.run(request(), route="unheard-of")
    assert (outcome(result), result.error_code) == ("ATTEMPT_UNAVAILABLE", "no_model")


# ------------------------------------------------------------------------------------------------ what the broker is told


def limits(cluster, **changes):
    status, text = http_request(cluster.modelsim.ready["http"], "/control/limits", changes)
    assert status == 200, text


def seen(cluster, field, modelsim=None):
    """A counter of the simulated model server."""
    return json.loads(http_request((modelsim or cluster.modelsim).ready["http"], "/control/counters")[1])[field]


def test_an_answered_call_is_reported_with_what_it_used(cluster, broker):
    start(cluster, broker)
    result, _ = broker.run(request("report me"))
    call, = result.calls
    assert (call.upstream.provider, call.upstream.model) == ("sim", "sim-small")
    assert (call.outcome, call.error_code, call.http_status) == (pb.ATTEMPT_ANSWERED, "", 200)
    assert call.tokens == result.usage.input_tokens + result.usage.output_tokens > 0
    assert call.cost_nanousd == result.usage.cost_nanousd > 0 and call.call_ms == result.usage.call_ms
    assert not call.HasField("limits")
    hit, _ = broker.run(request("report me"))
    assert hit.usage.cache == pb.CACHE_HIT and not hit.calls


def test_an_attempt_that_ends_before_its_call_reports_none(cluster, broker):
    start(cluster, broker)
    for payload, fields, wanted in ((b"\xff", {}, "ATTEMPT_INVALID"), (request(), {"route": "unheard-of"}, "ATTEMPT_UNAVAILABLE")):
        result, _ = broker.run(payload, **fields)
        assert outcome(result) == wanted and not result.calls
    assert seen(cluster, "requests_total") == 0


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_limits_of_the_provider_are_passed_on(cluster, broker, kind):
    start_anthropic(cluster, broker) if kind == "anthropic" else start(cluster, broker)
    # Two at once and one in 20 s; a hundred tokens at once.
    limits(cluster, requests_per_min=3, tokens_per_min=6000, burst_s=40)
    first = broker.run(request("one"))[0].calls[0].limits
    assert (first.requests_per_min, first.tokens_per_min) == (3, 6000)
    assert first.has_requests_left and first.requests_left == 1 and 19000 <= first.requests_reset_ms <= 21000
    assert first.has_tokens_left and 0 < first.tokens_left < 4000
    broker.run(request("two"))
    result, _ = broker.run(request("three"))
    call, = result.calls
    assert outcome(result) == "ATTEMPT_RATE_LIMITED" and call.http_status == 429
    assert 15000 < call.retry_after_ms == result.retry_after_ms <= 20000
    assert call.limits.has_requests_left and call.limits.requests_left == 0


def test_a_provider_that_keeps_its_limits_secret_says_only_when_to_come_back(cluster, broker):
    start(cluster, broker)
    limits(cluster, requests_per_min=1, burst_s=60, headers=False)
    broker.run(request("one"))
    call, = broker.run(request("two"))[0].calls
    assert not call.HasField("limits") and 55000 < call.retry_after_ms <= 60000


def test_a_cancelled_call_is_reported_too(cluster, broker):
    worker = start(cluster, broker)
    faults(cluster, {"kind": "hang"})
    job = broker.dispatch(request("hang"))
    wait_for(lambda: seen(cluster, "in_flight") == 1, "the call")
    broker.send(pb.BrokerToWorker(cancel=[pb.WorkerCancel(lease=pb.LeaseRef(job_id=job, attempt=1), reason="test")]))
    result, _ = broker.result(job)
    call, = result.calls
    assert (outcome(result), call.outcome, call.http_status) == ("ATTEMPT_CANCELLED", pb.ATTEMPT_CANCELLED, 0)
    assert call.upstream.model == "sim-small"
    assert worker.metrics()['tiermq_worker_provider_calls_total{provider="sim",model="sim-small",outcome="cancelled"}'] == 1


def test_a_wrong_canonical_key_is_told(cluster, broker):
    worker = start(cluster, broker)
    assert not broker.run(request("right"))[0].key_mismatch
    result, _ = broker.run(request("wrong"), canonical_key=bytes(16))
    assert outcome(result) == "ATTEMPT_ANSWERED" and result.key_mismatch
    faults(cluster, {"kind": "status", "status": 500})
    assert broker.run(request("wrong too"), canonical_key=bytes(16))[0].key_mismatch
    assert worker.metrics()["tiermq_worker_key_mismatches_total"] == 2


# ------------------------------------------------------------------------------------------------ upstreams


def start_two_providers(cluster, broker, **changes):
    """Model sim-small at "sim", and at "other" when the broker says so. Returns (worker, the other model server)."""
    config = cluster.base_config()
    first = cluster.modelsim
    other = cluster.run("modelsim-other", [program("tiermq-modelsim"), "--listen", "127.0.0.1:0"])
    cluster.modelsim = first
    config["providers"].append({"name": "other", "type": "openai", "base_url": other.ready["http"] + "/v1"})
    config["providers"].append({"name": "third", "type": "openai", "base_url": other.ready["http"] + "/v1"})
    config["models"][0]["failover"] = ["other"]
    worker = start(cluster, broker, providers=config["providers"], models=config["models"], cache={"mode": "off"}, **changes)
    return worker, other


def test_the_upstream_that_the_broker_names_is_called(cluster, broker):
    _, other = start_two_providers(cluster, broker)
    for upstream, model, server in (("other/sim-small", "sim-small", other), ("sim/sim-large", "sim-large", cluster.modelsim)):
        before = seen(cluster, "requests_total", server)
        result, response = broker.run(request("where?"), upstream=upstream)
        assert outcome(result) == "ATTEMPT_ANSWERED", result
        assert f"{result.usage.provider}/{result.usage.model}" == upstream
        assert f"{result.calls[0].upstream.provider}/{result.calls[0].upstream.model}" == upstream
        assert json.loads(response.body)["model"] == model
        assert response.router_reason == f"named by the broker: {upstream}"
        assert seen(cluster, "requests_total", server) == before + 1


@pytest.mark.parametrize("upstream, code", [("sim/unheard-of", "no_model"), ("nowhere/sim-small", "no_provider"),
                                            ("third/sim-small", "no_provider")])
def test_an_upstream_that_is_not_configured_here_is_unavailable(cluster, broker, upstream, code):
    _, other = start_two_providers(cluster, broker)
    result, _ = broker.run(request(), upstream=upstream)
    assert (outcome(result), result.error_code) == ("ATTEMPT_UNAVAILABLE", code) and not result.calls
    assert seen(cluster, "requests_total") == seen(cluster, "requests_total", other) == 0


def test_the_idempotency_key_belongs_to_job_and_upstream(cluster, broker):
    start_two_providers(cluster, broker)
    job = make_id()
    for attempt, upstream in enumerate(("sim/sim-small", "sim/sim-large", "sim/sim-small"), start=1):
        broker.result(broker.dispatch(request("twice"), job=job, attempt=attempt, upstream=upstream))
        wait_for(lambda: broker.turn(0.01) or cluster.worker.metrics()["tiermq_worker_answers_kept"] == 0, "the conclusion")
    assert seen(cluster, "answered") == 3
    assert seen(cluster, "repeated_keys") == 1  # the third is the first again


def state(upstream, name, for_ms=0):
    provider, model = upstream.split("/")
    data = pb.UpstreamState(upstream=pb.Upstream(provider=provider, model=model), for_ms=for_ms,
                            state=pb.UpstreamState.State.Value(f"UPSTREAM_{name}"))
    return pb.Event(kind=pb.Event.EVENT_UPSTREAM, subject_kind="upstream", subject=upstream, text="test",
                    data=data.SerializeToString())


def upstream_states(worker):
    listed = worker.admin_json("/v1/stats")["brokers"][0]["upstreams"]
    return {f"{item['provider']}/{item['model']}": item["state"] for item in listed}


def test_an_upstream_that_failed_since_the_dispatch_is_not_called(cluster, broker):
    broker.snapshot = [state("sim/sim-small", "OPEN", 60000)]
    worker = start(cluster, broker)
    assert upstream_states(worker) == {"sim/sim-small": "open"}
    assert worker.metrics()["tiermq_worker_upstreams_open"] == 1
    result, _ = broker.run(request("now?"), upstream="sim/sim-small")
    assert (outcome(result), result.error_code) == ("ATTEMPT_DEFERRED", "upstream_open") and not result.calls
    assert 30000 < result.retry_after_ms <= 60000
    assert seen(cluster, "requests_total") == 0
    # Others are not touched, and the probe has to go.
    assert outcome(broker.run(request("now?"), upstream="sim/sim-large")[0]) == "ATTEMPT_ANSWERED"
    assert outcome(broker.run(request("probe"), upstream="sim/sim-small", is_probe=True)[0]) == "ATTEMPT_ANSWERED"
    # News by event.
    broker.wait_subscription()
    broker.publish(state("sim/sim-small", "SLOW_START"))
    worker.wait_log(lambda line: line["message"] == "upstream changed" and line["state"] == "slow_start")
    assert outcome(broker.run(request("now!"), upstream="sim/sim-small")[0]) == "ATTEMPT_ANSWERED"
    assert upstream_states(worker) == {"sim/sim-small": "slow_start"}
    metrics = worker.metrics()
    assert metrics["tiermq_worker_upstreams_open"] == 0
    assert metrics['tiermq_worker_upstream_changes_total{provider="sim",model="sim-small",state="open"}'] == 1


def test_a_hit_needs_no_upstream(cluster, broker):
    worker = start(cluster, broker)
    broker.run(request("known"), upstream="sim/sim-small")
    broker.wait_subscription()
    broker.publish(state("sim/sim-small", "OPEN", 60000))
    worker.wait_log(lambda line: line["message"] == "upstream changed")
    assert broker.run(request("known"), upstream="sim/sim-small")[0].usage.cache == pb.CACHE_HIT


def test_an_open_state_ends_when_its_time_is_over(cluster, broker):
    broker.snapshot = [state("sim/sim-small", "OPEN", 300)]
    start(cluster, broker)
    wait_for(lambda: outcome(broker.run(request("and now?"), upstream="sim/sim-small")[0]) == "ATTEMPT_ANSWERED", "its end")


def test_a_welcome_replaces_what_was_known_of_upstreams(cluster, broker):
    broker.snapshot = [state("sim/sim-small", "OPEN", 60000)]
    worker = start(cluster, broker)
    broker.snapshot = [state("sim/sim-large", "HALF_OPEN")]
    broker.known.clear()
    broker.wait("hello")
    broker.wait_credit()
    wait_for(lambda: upstream_states(worker) == {"sim/sim-large": "half_open"}, "the new snapshot")
    assert outcome(broker.run(request("now?"), upstream="sim/sim-small")[0]) == "ATTEMPT_ANSWERED"


def test_news_that_cannot_be_read_does_no_harm(cluster, broker):
    worker = start(cluster, broker)
    broker.wait_subscription()
    broker.publish(pb.Event(kind=pb.Event.EVENT_UPSTREAM, data=b"\xff\xff"))
    broker.publish(pb.Event(kind=pb.Event.EVENT_UPSTREAM))
    broker.sequence += 5  # a gap
    broker.publish(state("sim/sim-small", "CLOSED"))
    wait_for(lambda: worker.metrics().get('tiermq_worker_protocol_errors_total{kind="event_gap"}') == 1, "the gap")
    assert worker.metrics()['tiermq_worker_protocol_errors_total{kind="malformed"}'] == 2
    assert outcome(broker.run(request("still here"))[0]) == "ATTEMPT_ANSWERED"


def start_with_one_connection(cluster, broker):
    provider = dict(cluster.base_config()["providers"][0], connections_max=1)
    return start(cluster, broker, providers=[provider], cache={"mode": "off"})


def test_no_more_calls_run_than_connections_may_be_open(cluster, broker):
    start_with_one_connection(cluster, broker)
    jobs = [broker.dispatch(request(f"{n}")) for n in range(20)]
    assert all(outcome(broker.result(job)[0]) == "ATTEMPT_ANSWERED" for job in jobs)
    assert seen(cluster, "answered") == 20 and seen(cluster, "in_flight_max") == 1


def test_those_who_wait_for_a_connection_are_given_back_when_the_upstream_fails(cluster, broker):
    start_with_one_connection(cluster, broker)
    broker.wait_subscription()
    faults(cluster, {"kind": "hang", "model": "sim-small"})
    hanging = broker.dispatch(request("hangs"), upstream="sim/sim-small")
    wait_for(lambda: broker.turn(0.01) or seen(cluster, "in_flight") == 1, "the call")
    waiting = [broker.dispatch(request(f"waits {n}"), upstream="sim/sim-small") for n in range(3)]
    other = broker.dispatch(request("waits for the other model"), route="sim-large", upstream="sim/sim-large")
    broker.wait("heartbeat", lambda m: len(m.held) == 5)
    broker.publish(state("sim/sim-small", "OPEN", 60000))
    for job in waiting:
        result, _ = broker.result(job)
        assert (outcome(result), result.error_code) == ("ATTEMPT_DEFERRED", "upstream_open") and not result.calls
    # The probe does not wait behind what hangs.
    faults(cluster)
    probe, _ = broker.run(request("probe"), upstream="sim/sim-small", is_probe=True)
    assert outcome(probe) == "ATTEMPT_ANSWERED"
    broker.send(pb.BrokerToWorker(cancel=[pb.WorkerCancel(lease=pb.LeaseRef(job_id=hanging, attempt=1), reason="test")]))
    assert outcome(broker.result(hanging)[0]) == "ATTEMPT_CANCELLED"
    assert outcome(broker.result(other)[0]) == "ATTEMPT_ANSWERED"
    assert seen(cluster, "requests_total") == 3


def test_waiting_for_a_connection_ends_with_the_deadline_or_a_cancel(cluster, broker):
    start_with_one_connection(cluster, broker)
    faults(cluster, {"kind": "hang"})
    hanging = broker.dispatch(request("hangs"))
    wait_for(lambda: broker.turn(0.01) or seen(cluster, "in_flight") == 1, "the call")
    late = broker.dispatch(request("late"), deadline_in_ms=200)
    unwanted = broker.dispatch(request("unwanted"))
    result, _ = broker.result(late)
    assert outcome(result) == "ATTEMPT_EXPIRED" and not result.calls
    for job, calls in ((unwanted, 0), (hanging, 1)):
        broker.send(pb.BrokerToWorker(cancel=[pb.WorkerCancel(lease=pb.LeaseRef(job_id=job, attempt=1), reason="test")]))
        result, _ = broker.result(job)
        assert outcome(result) == "ATTEMPT_CANCELLED" and len(result.calls) == calls
    assert seen(cluster, "requests_total") == 1


def test_the_answer_of_a_stand_in_is_not_kept_for_others(cluster, broker):
    start(cluster, broker)
    assert broker.run(request("who?"), upstream="sim/sim-large")[0].usage.model == "sim-large"
    again, _ = broker.run(request("who?"), upstream="sim/sim-small")
    assert again.usage.cache == pb.CACHE_MISS and again.usage.model == "sim-small"
    assert broker.run(request("who?"), upstream="sim/sim-large")[0].usage.cache == pb.CACHE_HIT


def test_a_filtered_answer_is_answered_and_not_kept(cluster, broker):
    answer = {"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": ""},
                                                        "finish_reason": "content_filter"}]}
    with http_answering(json.dumps(answer).encode()) as url:
        start(cluster, broker, providers=[{"name": "sim", "type": "openai", "base_url": f"{url}/v1"}])
        for _ in range(2):
            result, response = broker.run(request("filter me"))
            assert outcome(result) == "ATTEMPT_ANSWERED" and result.usage.cache == pb.CACHE_MISS
            assert json.loads(response.body)["choices"][0]["finish_reason"] == "content_filter"


# ------------------------------------------------------------------------------------------------ the broker's side


def test_a_cancelled_attempt_stops_its_call(cluster, broker):
    worker = start(cluster, broker)
    faults(cluster, {"kind": "hang"})
    job = broker.dispatch(request("hang"))
    broker.wait("heartbeat", lambda m: [r.job_id for r in m.held] == [job])
    broker.send(pb.BrokerToWorker(cancel=[pb.WorkerCancel(lease=pb.LeaseRef(job_id=job, attempt=1), reason="test")]))
    assert outcome(broker.result(job)[0]) == "ATTEMPT_CANCELLED"
    assert worker.admin_json("/v1/stats")["running"] == 0


def test_credit_never_exceeds_the_slots(cluster, broker):
    start(cluster, broker, worker={"slots": 3})
    faults(cluster, {"kind": "hang"})
    jobs = [broker.dispatch(request(f"{i}")) for i in range(3)]
    broker.wait("heartbeat", lambda m: len(m.held) == 3)
    assert broker.credit == 3
    broker.dispatched -= 1  # a dispatch without credit
    extra = broker.dispatch(request("more"))
    assert outcome(broker.result(extra)[0]) == "ATTEMPT_DEFERRED"
    for job in jobs:
        broker.send(pb.BrokerToWorker(cancel=[pb.WorkerCancel(lease=pb.LeaseRef(job_id=job, attempt=1), reason="test")]))
        broker.result(job)


def test_answers_are_kept_until_concluded_and_sent_again(cluster, broker):
    worker = start(cluster, broker)
    broker.concludes = False
    job = broker.dispatch(request("keep my answer"))
    first, response = broker.result(job)
    # The broker forgets everything.
    broker.refuse_unknown()
    hello, _ = broker.wait("hello")
    assert [(ref.job_id, ref.attempt) for ref in hello.answered] == [(job, 1)] and not hello.held
    again, same = broker.result(job)
    assert again.attempt == 1 and same.body == response.body
    broker.concludes = True
    broker.send(pb.BrokerToWorker(concluded=[pb.LeaseRef(job_id=job, attempt=1)]))
    wait_for(lambda: broker.turn(0.01) or worker.metrics()["tiermq_worker_answers_kept"] == 0, "the conclusion")


def test_a_job_that_comes_again_is_answered_from_the_kept_answer(cluster, broker):
    worker = start(cluster, broker, cache={"mode": "off"})
    broker.concludes = False
    job = broker.dispatch(request("dear"))
    first, response = broker.result(job)
    # The broker has not taken it for good, and dispatches the job once more.
    again, same = broker.result(broker.dispatch(request("dear"), job=job, attempt=2))
    assert (again.attempt, outcome(again)) == (2, "ATTEMPT_ANSWERED") and same.body == response.body
    assert again.usage.cost_nanousd == first.usage.cost_nanousd and len(first.calls) == 1
    assert (list(again.calls), again.made_by, again.run) == (list(first.calls), 1, first.run)
    assert again.calls_are_old and not first.calls_are_old
    assert seen(cluster, "requests_total") == 1
    assert worker.metrics()["tiermq_worker_answered_again_total"] == 1
    broker.concludes = True
    broker.send(pb.BrokerToWorker(concluded=[pb.LeaseRef(job_id=job, attempt=2)]))
    wait_for(lambda: broker.turn(0.01) or worker.metrics()["tiermq_worker_answers_kept"] == 0, "the conclusion")


def test_a_broker_that_comes_back_without_its_memory_costs_no_second_call(cluster, broker):
    start(cluster, broker, cache={"mode": "off"})
    broker.concludes = False
    job = broker.dispatch(request("dear"))
    broker.result(job)
    broker.socket.close(linger=0)
    again = PlayedBroker(endpoint=broker.endpoint, incarnation=2)
    again.events.close()
    broker.socket, broker.items, broker.known = again.socket, [], set()
    hello, _ = broker.wait("hello")
    assert [ref.job_id for ref in hello.answered] == [job]
    # It has recovered the job without its lease, and dispatches it before the answer is there.
    again, _ = broker.result(broker.dispatch(request("dear"), job=job, attempt=1))
    assert outcome(again) == "ATTEMPT_ANSWERED"
    assert seen(cluster, "requests_total") == 1
    broker.concludes = True
    broker.send(pb.BrokerToWorker(concluded=[pb.LeaseRef(job_id=job, attempt=1)]))


def test_a_job_that_comes_again_while_it_runs_is_called_for_once(cluster, broker):
    worker = start(cluster, broker, cache={"mode": "off"})
    status, _ = http_request(cluster.modelsim.ready["http"], "/control/latency", {"first_token_ms": 700})
    assert status == 200
    job = broker.dispatch(request("long"), upstream="sim/sim-small")
    wait_for(lambda: seen(cluster, "in_flight") == 1, "the call")
    broker.dispatch(request("long"), job=job, attempt=2, upstream="sim/sim-small")  # its lease was lost, and the worker was not
    worker.wait_log("attempt carried on as a later one")
    broker.wait("heartbeat", lambda m: [(ref.job_id, ref.attempt) for ref in m.held] == [(job, 2)])
    result, _ = broker.result(job)
    assert (result.attempt, outcome(result), len(result.calls)) == (2, "ATTEMPT_ANSWERED", 1)
    assert seen(cluster, "requests_total") == 1


def test_a_job_that_comes_again_for_another_upstream_is_called_for_there(cluster, broker):
    _, other = start_two_providers(cluster, broker)
    faults(cluster, {"kind": "hang"})
    job = broker.dispatch(request("long"), upstream="sim/sim-small")
    wait_for(lambda: seen(cluster, "in_flight") == 1, "the call")
    broker.dispatch(request("long"), job=job, attempt=2, upstream="other/sim-small")
    result, _ = broker.result(job)
    assert (result.attempt, outcome(result), result.usage.provider) == (2, "ATTEMPT_ANSWERED", "other")
    broker.send(pb.BrokerToWorker(cancel=[pb.WorkerCancel(lease=pb.LeaseRef(job_id=job, attempt=1), reason="concluded")]))
    assert outcome(broker.result(job)[0]) == "ATTEMPT_CANCELLED"


def test_failures_are_no_answers_for_the_next_attempt(cluster, broker):
    start(cluster, broker, cache={"mode": "off"})
    broker.concludes = False
    faults(cluster, {"kind": "status", "status": 500})
    job = broker.dispatch(request("fails first"))
    assert outcome(broker.result(job)[0]) == "ATTEMPT_UNAVAILABLE"
    faults(cluster)
    assert outcome(broker.result(broker.dispatch(request("fails first"), job=job, attempt=2))[0]) == "ATTEMPT_ANSWERED"
    broker.concludes = True
    for attempt in (1, 2):
        broker.send(pb.BrokerToWorker(concluded=[pb.LeaseRef(job_id=job, attempt=attempt)]))


def test_held_leases_are_named_after_a_broker_restart(cluster, broker):
    start(cluster, broker)
    faults(cluster, {"kind": "hang", "hang_ms": 1500})
    job = broker.dispatch(request("long"))
    broker.wait("heartbeat", lambda m: len(m.held) == 1)
    endpoint = broker.endpoint
    broker.socket.close(linger=0)
    again = PlayedBroker(endpoint=endpoint, incarnation=2)
    broker.socket, broker.items, broker.known = again.socket, [], set()
    hello, _ = broker.wait("hello")
    assert [ref.job_id for ref in hello.held] == [job] or [ref.job_id for ref in hello.answered] == [job]
    assert broker.result(job)[0].attempt == 1


def test_a_silent_broker_is_joined_again(cluster, broker):
    worker = start(cluster, broker)
    broker.wait("heartbeat")
    broker.welcomes = False
    worker.wait_log("broker lost")
    broker.wait("hello")
    broker.welcomes = True
    broker.wait("hello")
    assert outcome(broker.run(request("back"))[0]) == "ATTEMPT_ANSWERED"


def test_an_operators_drain_ends_with_a_resume_that_was_missed(cluster, broker):
    start(cluster, broker)
    broker.wait_credit()
    broker.send(pb.BrokerToWorker(drain=True))
    broker.run(request("before"))
    broker.known.clear()  # resumed while the worker is away, so a welcome is all that it hears
    broker.wait("hello")
    broker.run(request("after"))


def test_malformed_messages_do_no_harm(cluster, broker):
    worker = start(cluster, broker)
    broker.wait_credit()
    for parts in ([b""], [b"XX\x01\x04"], [b"TQ\x09\x04"], [b"TQ\x01\x04\xff\xff"], [b"TQ\x01\x02"], [b"TQ\x01\x04", b"extra"],
                  [b"TQ\x01\x04" + pb.BrokerToWorker(dispatch=[pb.Dispatch(job_id=b"x", has_payload=True)]).SerializeToString()]):
        broker.socket.send_multipart([broker.peer, *parts])
    assert outcome(broker.run(request("still here"))[0]) == "ATTEMPT_ANSWERED"
    assert worker.metrics()['tiermq_worker_protocol_errors_total{kind="malformed"}'] == 7


def test_two_brokers_share_the_slots(cluster, broker):
    other = PlayedBroker()
    cluster.brokers.append(other)
    start(cluster, broker, worker={"slots": 10})
    other.wait("hello")
    broker.wait_credit()
    other.wait_credit()
    wait_for(lambda: [broker.turn(0.01), other.turn(0.01)] and broker.credit + other.credit == 10, "all the credit")
    assert outcome(other.run(request("second"))[0]) == "ATTEMPT_ANSWERED"
    assert outcome(broker.run(request("first"))[0]) == "ATTEMPT_ANSWERED"
    cluster.brokers.remove(other)
    other.close()


def test_broker_that_joins_late_finds_its_share(cluster, broker):
    other = PlayedBroker()
    other.welcomes = False
    cluster.brokers.append(other)
    start(cluster, broker, worker={"slots": 10})
    other.wait("hello")
    broker.wait_credit()
    assert broker.credit == 5
    other.welcomes = True
    other.wait("hello")
    assert outcome(other.run(request("late"))[0]) == "ATTEMPT_ANSWERED"
    assert broker.credit == 5 and other.credit >= 5
    cluster.brokers.remove(other)
    other.close()


# ------------------------------------------------------------------------------------------------ running it


def test_sigterm_finishes_what_runs(cluster, broker):
    worker = start(cluster, broker)
    faults(cluster, {"kind": "hang", "hang_ms": 500})
    job = broker.dispatch(request("finish me"))
    broker.wait("heartbeat", lambda m: len(m.held) == 1)
    worker.signal(signal.SIGTERM)
    broker.wait("draining")
    broker.dispatched -= 1  # sent before the broker knew
    late = broker.dispatch(request("too late"))
    assert outcome(broker.result(late)[0]) == "ATTEMPT_DEFERRED"
    assert broker.result(job)[0].error_code in ("reset", "truncated", "")
    broker.wait("goodbye")
    assert worker.wait() == 0
    worker.was_killed = True


def test_drain_timeout_ends_it_all_the_same(cluster, broker):
    worker = start(cluster, broker, worker={"drain_timeout": "300ms"})
    faults(cluster, {"kind": "hang"})
    broker.dispatch(request("never"))
    broker.wait("heartbeat", lambda m: len(m.held) == 1)
    worker.signal(signal.SIGTERM)
    broker.wait("goodbye")
    assert worker.wait() == 0
    worker.was_killed = True


def test_sighup_reloads_prices(cluster, broker):
    worker = start(cluster, broker, cache={"mode": "off"})
    path = cluster.directory / "worker-1.yaml"
    config = json.loads(path.read_text())
    config["models"][0]["input_usd_per_mtok"] = 1.0
    config["models"][0]["output_usd_per_mtok"] = 2.0
    path.write_text(json.dumps(config))
    worker.signal(signal.SIGHUP)
    worker.wait_log("configuration reloaded")
    result, _ = broker.run(request("dearer"))
    assert result.usage.cost_nanousd == result.usage.input_tokens * 1000 + result.usage.output_tokens * 2000
    path.write_text("worker: {slots: many}")
    worker.signal(signal.SIGHUP)
    worker.wait_log("configuration not reloaded: the old one stays")
    assert outcome(broker.run(request("still"))[0]) == "ATTEMPT_ANSWERED"


def test_readiness_and_metrics(cluster, broker):
    broker.welcomes = False
    worker = cluster.start_worker()
    assert worker.admin("/healthz")[0] == 200
    assert worker.admin("/readyz")[0] == 503
    broker.welcomes = True
    broker.wait_credit()
    assert worker.admin("/readyz")[0] == 200
    broker.run(request("count me"))
    metrics = worker.metrics()
    assert metrics['tiermq_worker_attempts_total{outcome="answered"}'] == 1
    assert metrics['tiermq_worker_provider_call_seconds_count{provider="sim",model="sim-small"}'] == 1
    assert any(name.startswith("gen_ai_client_token_usage_sum") for name in metrics)
    assert any(name.startswith("gen_ai_client_operation_duration_seconds_count") for name in metrics)
    assert metrics["tiermq_worker_cost_usd_total{provider=\"sim\",model=\"sim-small\"}"] > 0


def test_an_address_in_use_is_said(cluster, broker):
    first = start(cluster, broker)
    config = json.loads((cluster.directory / "worker-1.yaml").read_text())
    config["worker"]["admin"] = first.ready["admin"]
    second = cluster.run("second", [program("tiermq-worker"), "--config", cluster.write_config("second", config)], ready=False)
    assert second.wait() == EXIT_ADDRESS
    second.was_killed = True
    assert "worker.admin" in second.output() and "is another worker running? set worker.admin" in second.output()


def test_command_line():
    worker = program("tiermq-worker")
    assert "--config" in subprocess.run([worker, "--help"], capture_output=True, text=True, check=True).stdout
    assert "tiermq-worker" in subprocess.run([worker, "--version"], capture_output=True, text=True, check=True).stdout
    assert subprocess.run([worker, "--what"], capture_output=True, check=False).returncode == 2
    assert subprocess.run([worker, "word"], capture_output=True, check=False).returncode == 2
    assert subprocess.run([worker, "--config", "/nowhere.yaml"], capture_output=True, check=False).returncode == EXIT_CONFIG


def test_a_broker_s_address_for_clients_is_told_as_what_it_is(cluster):
    broker = cluster.start_broker()
    clients = broker.config["broker"]["listen_clients"]
    worker = cluster.start_worker(worker={"brokers": [clients]})
    line = worker.wait_log(lambda line: line.get("message") == "malformed message from the broker")
    assert "its address for clients" in line["error"] and "broker.listen_workers" in line["error"], line
