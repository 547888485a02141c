"""Kinds of providers, each through broker and worker, opposite the simulator or a server that writes down what it is sent."""

import contextlib
import http.server
import json
import threading

import pytest

from harness import http_request
from test_worker import broker, chunks_until_last, content_of, faults, outcome, request, seen  # noqa: F401
from test_worker import start as start_one
from wire import pb

PRICES = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}

CHAT_ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "from afar"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}


class Recorder(http.server.ThreadingHTTPServer):
    """Answers each request with the next of its replies, the last one for ever; keeps (path, headers, body)."""

    request_queue_size = 128  # else those who connect at once wait for seconds

    def __init__(self, *replies):
        self.replies, self.seen, self.lock = list(replies), [], threading.Lock()
        super().__init__(("127.0.0.1", 0), Recorder.Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with self.server.lock:
                self.server.seen.append((self.path, self.headers, json.loads(body)))
                replies = self.server.replies
                status, headers, reply = replies.pop(0) if len(replies) > 1 else replies[0]
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass


@contextlib.contextmanager
def recorder(*replies):
    server = Recorder(*replies)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def start(cluster, provider, model="m", environment=None, **model_members):
    """A broker and a worker with one provider and one model."""
    cluster.config = {"providers": [{"name": "p", **provider}],
                      "models": [{"name": model, "provider": "p", **PRICES, **model_members}],
                      "cache": {"mode": "off"}}
    cluster.start_broker(environment=environment)
    cluster.start_worker(environment=environment)


# ------------------------------------------------------------------------------------------------ by configuration


def test_headers_query_key_and_path_are_those_of_the_configuration(cluster):
    with recorder((200, {}, CHAT_ANSWER)) as server:
        environment = {"THE_KEY": "k-1", "THE_TOKEN": "t-2"}
        start(cluster, {"base_url": server.url + "/base/", "api_key": "${THE_KEY:-}", "key_header": "X-Key",
                        "headers": ["X-Title: a title", "X-Token: ${THE_TOKEN:-none}"], "query": "api-version=2024-10-21",
                        "paths": {"chat.completions": "/for/{model}/chat"}},
              environment=environment, provider_model="org/m 1")
        done = cluster.cli("submit", "--model", "m", "hello")
        assert done.returncode == 0 and "from afar" in done.stdout, done
        path, headers, body = server.seen[0]
        assert path == "/base/for/org%2Fm%201/chat?api-version=2024-10-21"
        assert headers["X-Key"] == "k-1" and headers["Authorization"] is None
        assert headers["X-Title"] == "a title" and headers["X-Token"] == "t-2"
        assert headers["Idempotency-Key"] and headers.get_all("Content-Type") == ["application/json"]
        assert body["model"] == "org/m 1"


def test_a_key_in_authorization_is_a_bearer(cluster):
    with recorder((200, {}, CHAT_ANSWER)) as server:
        start(cluster, {"base_url": server.url, "type": "openai", "api_key": "k", "key_header": "authorization"})
        assert cluster.cli("submit", "--model", "m", "hello").returncode == 0
        path, headers, _ = server.seen[0]
        assert path == "/chat/completions" and headers.get_all("Authorization") == ["Bearer k"]


# ------------------------------------------------------------------------------------------------ types, opposite the simulator

TYPES = ("openai", "azure", "openai-responses")
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


def use(cluster, kind, **provider):
    url = cluster.modelsim.ready["http"] + ("" if kind == "azure" else "/v1")
    cluster.config["providers"] = [{"name": "p", "type": kind, "base_url": url, "api_key": "k", **provider}]
    cluster.config["models"] = [{"name": name, "provider": "p", **PRICES} for name in ("sim-small", "sim-embed")]


def start_worker(cluster, broker, kind, **provider):  # noqa: F811
    use(cluster, kind, **provider)
    return start_one(cluster, broker, cache={"mode": "off"})


@pytest.mark.parametrize("kind, api", [("openai", "chat.completions"), ("azure", "azure.chat.completions"),
                                       ("openai-responses", "responses")])
def test_a_chat_is_answered_whole_and_streamed(cluster, broker, kind, api):  # noqa: F811
    start_worker(cluster, broker, kind)
    result, response = broker.run(request("hello there", max_tokens=20))
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    answer = json.loads(response.body)
    assert answer["object"] == "chat.completion" and answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert result.usage.input_tokens == answer["usage"]["prompt_tokens"] > 0
    assert result.usage.output_tokens == answer["usage"]["completion_tokens"] > 0
    job = broker.dispatch(request("hello there", max_tokens=20), stream=True)
    chunks = chunks_until_last(broker, job)
    result, response = broker.result(job)
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    streamed = json.loads(response.body)
    content = answer["choices"][0]["message"]["content"]
    assert content_of(chunks) == content == streamed["choices"][0]["message"]["content"] != ""
    assert (streamed["id"], streamed["usage"]) == (answer["id"], answer["usage"])
    if kind == "azure":
        assert answer["prompt_filter_results"] == streamed["prompt_filter_results"]
        assert answer["choices"][0]["content_filter_results"] == streamed["choices"][0]["content_filter_results"]
    assert seen(cluster, "requests")[api] == 2


@pytest.mark.parametrize("kind, prefix", [("openai", ""), ("azure", "azure."), ("openai-responses", "")])
def test_other_operations_go_out_as_they_are(cluster, broker, kind, prefix):  # noqa: F811
    start_worker(cluster, broker, kind)
    result, response = broker.run(request("say it", operation="completions", max_tokens=5))
    assert outcome(result) == "ATTEMPT_ANSWERED" and json.loads(response.body)["choices"][0]["text"], result
    result, response = broker.run(request("words", operation="embeddings", model="sim-embed"), route="sim-embed")
    assert outcome(result) == "ATTEMPT_ANSWERED" and len(json.loads(response.body)["data"]) == 1, result
    result, response = broker.run(request("words", operation="responses"))
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    answer = json.loads(response.body)
    assert answer["object"] == "response" and answer["status"] == "completed"
    assert result.usage.input_tokens == answer["usage"]["input_tokens"] > 0
    assert result.usage.output_tokens == answer["usage"]["output_tokens"] > 0
    requests = seen(cluster, "requests")
    assert [requests[prefix + name] for name in ("completions", "embeddings", "responses")] == [1, 1, 1]


@pytest.mark.parametrize("kind", ["openai", "azure"])
def test_events_of_a_response_keep_their_names(cluster, broker, kind):  # noqa: F811
    start_worker(cluster, broker, kind)
    job = broker.dispatch(request("stream this", operation="responses", max_output_tokens=6), stream=True)
    text = b""
    while b"response.incomplete" not in text and b"response.completed" not in text:
        text += broker.wait("chunk", lambda head: head[:16] == job)[1]
    result, response = broker.result(job)
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    events = [dict(line.split(": ", 1) for line in event.split("\n")) for event in text.decode().strip().split("\n\n")]
    documents = [json.loads(event["data"]) for event in events]
    assert [event["event"] for event in events] == [document["type"] for document in documents]
    assert [document["sequence_number"] for document in documents] == sorted(document["sequence_number"] for document in documents)
    whole = json.loads(response.body)
    assert documents[0]["type"] == "response.created" and documents[-1]["response"] == whole
    delta = "".join(d["delta"] for d in documents if d["type"] == "response.output_text.delta")
    assert whole["output"][0]["content"][0]["text"] == delta != ""
    assert whole["status"] == "incomplete" and result.usage.output_tokens == 6


@pytest.mark.parametrize("stream", [False, True])
def test_functions_are_called_over_the_responses_api(cluster, broker, stream):  # noqa: F811
    start_worker(cluster, broker, "openai-responses")
    choice = {"type": "function", "function": {"name": "get_weather"}}
    job = broker.dispatch(request("weather?", tools=[TOOL], tool_choice=choice), stream=stream)
    result, response = broker.result(job)
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    answer, = json.loads(response.body)["choices"]
    call, = answer["message"]["tool_calls"]
    assert answer["finish_reason"] == "tool_calls" and call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"])["text"]
    messages = [{"role": "user", "content": "weather?"}, answer["message"],
                {"role": "tool", "tool_call_id": call["id"], "content": "rain"}]
    result, response = broker.run(request(messages=messages, tools=[TOOL]))
    assert outcome(result) == "ATTEMPT_ANSWERED", result


@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
def test_other_types_refuse_responses_and_say_what_helps(cluster, broker, kind):  # noqa: F811
    start_worker(cluster, broker, kind)
    result, _ = broker.run(request("x", operation="responses"))
    assert (outcome(result), result.error_code) == ("ATTEMPT_REJECTED", "unsupported")
    assert "does not offer responses; name a model of a provider of type openai or azure" in result.error_text


def test_background_is_refused(cluster, broker):  # noqa: F811
    start_worker(cluster, broker, "openai")
    result, _ = broker.run(request("x", operation="responses", background=True))
    assert (outcome(result), result.error_code) == ("ATTEMPT_INVALID", "background")
    assert "submit without waiting" in result.error_text
    assert seen(cluster, "requests_total") == 0


def test_a_response_is_cached_unless_it_has_a_state(cluster, broker):  # noqa: F811
    use(cluster, "openai")
    start_one(cluster, broker)
    statuses = []
    for members in ({}, {}, {"store": True}, {"previous_response_id": "resp_1"}, {"tools": [{"type": "web_search"}]},
                    {"tools": [{"type": "web_search"}]}):
        result, response = broker.run(request("the same", operation="responses", **members))
        assert outcome(result) == "ATTEMPT_ANSWERED", result
        statuses.append((pb.CacheStatus.Name(result.usage.cache), response.cache_why))
    assert statuses[0][0] == "CACHE_MISS" and statuses[1][0] == "CACHE_HIT"
    assert {why for _, why in statuses[2:]} == {"stateful"} and "CACHE_HIT" not in [status for status, _ in statuses[2:]]
    job = broker.dispatch(request("the same", operation="responses"), stream=True)
    _, chunk = broker.wait("chunk", lambda head: head[:16] == job)
    assert chunk.startswith(b"event: response.completed\ndata: {")
    result, _ = broker.result(job)
    assert pb.CacheStatus.Name(result.usage.cache) == "CACHE_HIT"


FAULTS = [
    ({"kind": "status", "status": 500}, "ATTEMPT_UNAVAILABLE", "unavailable"),
    ({"kind": "status", "status": 401}, "ATTEMPT_UNAVAILABLE", "credentials"),
    ({"kind": "status", "status": 400}, "ATTEMPT_REJECTED", "rejected"),
    ({"kind": "status", "status": 404}, "ATTEMPT_REJECTED", "rejected"),
    ({"kind": "status", "status": 429}, "ATTEMPT_RATE_LIMITED", "rate_limited"),
    ({"kind": "reset"}, "ATTEMPT_UNAVAILABLE", "reset"),
    ({"kind": "hang"}, "ATTEMPT_UNAVAILABLE", "timeout"),
    ({"kind": "truncated"}, "ATTEMPT_UNAVAILABLE", "truncated"),
    ({"kind": "garbage"}, "ATTEMPT_UNAVAILABLE", ("garbage", "truncated")),
    ({"kind": "empty"}, "ATTEMPT_UNAVAILABLE", "garbage"),
    ({"kind": "error_in_200"}, "ATTEMPT_UNAVAILABLE", "provider_error"),
    ({"kind": "error_in_stream"}, "ATTEMPT_UNAVAILABLE", "provider_error"),
    ({"kind": "refused"}, "ATTEMPT_REFUSED", "content_refused"),
    ({"kind": "filtered"}, "ATTEMPT_ANSWERED", ""),
    ({"kind": "slow", "factor": 2}, "ATTEMPT_ANSWERED", ""),
    ({"kind": "stall", "hang_ms": 100}, "ATTEMPT_ANSWERED", ""),
]


@pytest.mark.parametrize("kind, operation", [("openai", "responses"), ("azure", "chat.completions"), ("azure", "responses"),
                                             ("openai-responses", "chat.completions")])
def test_each_fault_has_its_outcome_whole_and_streamed(cluster, broker, kind, operation):  # noqa: F811
    start_worker(cluster, broker, kind, timeout="1s")
    for fault, kind_of_outcome, code in FAULTS:
        faults(cluster, fault)
        for stream in (False, True):
            result, response = broker.result(broker.dispatch(request("fail", operation=operation), stream=stream))
            assert outcome(result) == kind_of_outcome, (fault, stream, result)
            assert result.error_code in (code if isinstance(code, tuple) else (code,)), (fault, stream, result)
            if fault["kind"] == "filtered":
                answer = json.loads(response.body)
                assert (answer["incomplete_details"]["reason"] if operation == "responses"
                        else answer["choices"][0]["finish_reason"]) == "content_filter"


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("where, wait_ms", [("header", 2000), ("ms_header", 1500), ("body", 1500)])
def test_a_rate_limit_says_when_to_come_back(cluster, broker, kind, where, wait_ms):  # noqa: F811
    start_worker(cluster, broker, kind)
    faults(cluster, {"kind": "status", "status": 429, "retry_after_ms": 1500, "retry_after": where})
    result, _ = broker.run(request("fail"))
    assert outcome(result) == "ATTEMPT_RATE_LIMITED"
    assert result.retry_after_ms == (2000 if kind == "azure" and where == "body" else wait_ms)


def test_a_base_url_without_its_version_ends_no_job(cluster, broker):  # noqa: F811
    cluster.start_worker(providers=[{"name": "sim", "type": "openai", "base_url": cluster.modelsim.ready["http"]}])
    result, _ = broker.run(request("hello"))
    assert outcome(result) == "ATTEMPT_UNAVAILABLE" and result.error_code == "address", result
    assert "base_url" in result.error_text and "/v1" in result.error_text


def test_azure_needs_its_version_and_its_header(cluster, broker):  # noqa: F811
    cluster.modelsim.stop()
    cluster.start_modelsim("--api-key", "k")
    start_worker(cluster, broker, "azure")
    result, _ = broker.run(request("hello"))
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    url = cluster.modelsim.ready["http"] + "/openai/deployments/sim-small/chat/completions"
    body = {"messages": [{"role": "user", "content": "hello"}]}
    for query, headers, status in (("", {"api-key": "k"}, 404), ("?api-version=1", {"Authorization": "Bearer k"}, 401),
                                   ("?api-version=1", {"api-key": "k"}, 200)):
        got, text = http_request(url + query, "", body, headers=headers)
        assert got == status, text


# ------------------------------------------------------------------------------------------------ through a whole cluster


@pytest.mark.parametrize("kind", TYPES)
def test_jobs_pass_through_broker_and_worker(cluster, kind):
    cluster.start_modelsim()
    use(cluster, kind)
    cluster.start_broker()
    cluster.start_worker()
    for operation in ("chat.completions", "responses"):
        whole = cluster.cli("submit", "--model", "sim-small", "--operation", operation, "--distinct", "--cache-use", "off", "hello")
        assert whole.returncode == 0 and whole.stdout.strip(), whole
        streamed = cluster.cli("submit", "--model", "sim-small", "--operation", operation, "--stream", "--cache-use", "off", "hello")
        assert streamed.returncode == 0 and streamed.stdout.strip() == whole.stdout.strip(), (streamed, whole)
    # A fault that passes is outlived, and a refusal is told.
    faults(cluster, {"kind": "error_in_stream", "until_ms": 300}, {"kind": "refused", "text": "forbidden"})
    assert cluster.cli("submit", "--model", "sim-small", "--stream", "--distinct", "--cache-use", "off", "again").returncode == 0
    refused = cluster.cli("submit", "--model", "sim-small", "forbidden")
    assert refused.returncode != 0 and "filtered" in refused.stderr, refused
