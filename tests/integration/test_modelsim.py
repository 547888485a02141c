"""The simulated model server: its protocols, its times and its faults, over real connections."""

import base64
import concurrent.futures
import http.client
import json
import socket
import struct
import subprocess
import time

import pytest

from harness import http_request, program, wait_for

CHAT = {"model": "sim-small", "messages": [{"role": "user", "content": "What is a queue good for?"}]}


@pytest.fixture
def sim(cluster):
    return cluster.start_modelsim().ready["http"]


def post(sim, path, body):
    status, text = http_request(sim, path, body)
    return status, json.loads(text)


def counters(sim):
    return json.loads(http_request(sim, "/control/counters")[1])


def set_faults(sim, *faults):
    status, answer = post(sim, "/control/faults", {"faults": list(faults)})
    assert status == 200, answer


def stream(sim, path, body):
    """The data of each server-sent event."""
    status, text = http_request(sim, path, dict(body, stream=True))
    assert status == 200, text
    return [line[6:] for line in text.splitlines() if line.startswith("data: ")]


def test_equal_requests_get_equal_answers_and_others_do_not(sim):
    first, again = post(sim, "/v1/chat/completions", CHAT), post(sim, "/v1/chat/completions", CHAT)
    other = post(sim, "/v1/chat/completions", dict(CHAT, model="sim-large"))
    assert first == again and first[0] == 200
    assert first[1]["choices"][0]["message"]["content"] != other[1]["choices"][0]["message"]["content"]


def test_usage_counts_the_tokens_of_the_text(sim):
    _, answer = post(sim, "/v1/chat/completions", CHAT)
    text = answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] == sum((len(word) + 3) // 4 for word in text.split())
    # What is a queu·e good for ?
    assert answer["usage"]["prompt_tokens"] == 8
    assert answer["usage"]["total_tokens"] == 8 + answer["usage"]["completion_tokens"]


def test_version_of_the_data_is_the_first_word_of_the_answers_that_it_changes(sim):
    _, before = post(sim, "/v1/chat/completions", CHAT)
    versions = [{"text": "QUEUE", "version": 1234567}]
    assert post(sim, "/control/versions", {"versions": versions}) == (200, {"versions": versions})
    _, answer = post(sim, "/v1/chat/completions", CHAT)
    content = answer["choices"][0]["message"]["content"]
    assert content.startswith("v1234567 ") and answer["usage"]["completion_tokens"] == sum((len(word) + 3) // 4 for word in content.split())
    other = post(sim, "/v1/chat/completions", dict(CHAT, messages=[{"role": "user", "content": "And a stack?"}]))[1]
    assert not other["choices"][0]["message"]["content"].startswith("v1")
    status, error = post(sim, "/control/versions", {"versions": [{"text": "", "version": 1}]})
    assert status == 400 and "text" in error["error"]
    assert post(sim, "/control/versions", {"versions": []})[0] == 200
    assert post(sim, "/v1/chat/completions", CHAT)[1] == before


def test_max_tokens_cuts_and_says_so(sim):
    _, answer = post(sim, "/v1/chat/completions", dict(CHAT, max_tokens=3))
    assert answer["usage"]["completion_tokens"] == 3 and answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("path, body, text_of", [
    ("/v1/chat/completions", CHAT, lambda c: c["delta"].get("content", "")),
    ("/v1/completions", {"model": "sim-small", "prompt": "What is a queue good for?"}, lambda c: c["text"]),
])
def test_a_stream_is_the_whole_answer_in_pieces(sim, path, body, text_of):
    _, whole = post(sim, path, body)
    expected = whole["choices"][0].get("text") or whole["choices"][0]["message"]["content"]
    events = stream(sim, path, dict(body, stream_options={"include_usage": True}))
    assert events[-1] == "[DONE]"
    chunks = [json.loads(e) for e in events[:-1]]
    assert "".join(text_of(c["choices"][0]) for c in chunks if c["choices"]) == expected
    assert chunks[-1]["usage"] == whole["usage"] and chunks[-1]["choices"] == []


def test_anthropic_messages_whole_and_streamed(sim):
    body = {"model": "sim-small", "max_tokens": 64, "messages": CHAT["messages"]}
    status, whole = post(sim, "/v1/messages", body)
    assert status == 200 and whole["type"] == "message" and whole["stop_reason"] == "end_turn"
    events = [json.loads(e) for e in stream(sim, "/v1/messages", body)]
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
    deltas = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(deltas) == whole["content"][0]["text"]
    status, error = post(sim, "/v1/messages", {k: v for k, v in body.items() if k != "max_tokens"})
    assert status == 400 and error["type"] == "error" and "max_tokens" in error["error"]["message"]


def test_google_contents_whole_and_streamed(sim):
    path = "/v1beta/models/sim-small:"
    body = {"contents": [{"role": "user", "parts": [{"text": "What is a queue good for?"}]}]}
    status, whole = post(sim, path + "generateContent", body)
    candidate, = whole["candidates"]
    assert status == 200 and candidate["finishReason"] == "STOP" and candidate["content"]["role"] == "model"
    text = candidate["content"]["parts"][0]["text"]
    assert text == post(sim, "/v1/chat/completions", CHAT)[1]["choices"][0]["message"]["content"]
    events = [json.loads(e) for e in stream(sim, path + "streamGenerateContent?alt=sse", body)]
    assert "".join(e["candidates"][0]["content"]["parts"][0]["text"] for e in events) == text
    assert [e["candidates"][0].get("finishReason") for e in events[-2:]] == [None, "STOP"]
    assert events[-1]["usageMetadata"] == whole["usageMetadata"] and events[-1]["responseId"] == whole["responseId"]
    assert post(sim, path + "streamGenerateContent", body)[0] == 400
    status, cut = post(sim, path + "generateContent", dict(body, generationConfig={"maxOutputTokens": 2}))
    assert cut["candidates"][0]["finishReason"] == "MAX_TOKENS" and cut["usageMetadata"]["candidatesTokenCount"] == 2


@pytest.mark.parametrize("path, body, status, word", [
    ("sim-small:generateContent", {"contents": []}, 400, "INVALID_ARGUMENT"),
    ("sim-small:generateContent", b"{", 400, "INVALID_ARGUMENT"),
    ("gpt-9:generateContent", {"contents": [{"parts": [{"text": "a"}]}]}, 404, "NOT_FOUND"),
    ("sim-embed:batchEmbedContents", {"requests": [{"model": "models/other", "content": {"parts": [{"text": "a"}]}}]}, 400,
     "INVALID_ARGUMENT"),
])
def test_google_says_errors_in_its_own_form(sim, path, body, status, word):
    got, text = http_request(sim, "/v1beta/models/" + path, body, method="POST")
    error = json.loads(text)["error"]
    assert (got, error["code"], error["status"]) == (status, status, word) and error["message"]


def test_google_embeds_what_openai_embeds(sim):
    texts = ["one text", "another text"]
    _, openai = post(sim, "/v1/embeddings", {"model": "sim-embed", "input": texts, "dimensions": 16})
    _, google = post(sim, "/v1beta/models/sim-embed:batchEmbedContents", {"requests": [
        {"model": "models/sim-embed", "content": {"parts": [{"text": text}]}, "outputDimensionality": 16} for text in texts]})
    assert [e["values"] for e in google["embeddings"]] == [d["embedding"] for d in openai["data"]]


def test_a_filter_cuts_the_answer_and_says_so(sim):
    messages = dict(CHAT, max_tokens=64)
    contents = {"contents": [{"role": "user", "parts": [{"text": CHAT["messages"][0]["content"]}]}]}
    whole = post(sim, "/v1/chat/completions", CHAT)[1]["choices"][0]["message"]["content"]
    set_faults(sim, {"kind": "filtered"})
    choice = post(sim, "/v1/chat/completions", CHAT)[1]["choices"][0]
    text = choice["message"]["content"]
    assert choice["finish_reason"] == "content_filter" and whole.startswith(text) and 0 < len(text) < len(whole)
    message = post(sim, "/v1/messages", messages)[1]
    assert (message["stop_reason"], message["content"][0]["text"]) == ("refusal", text)
    candidate = post(sim, "/v1beta/models/sim-small:generateContent", contents)[1]["candidates"][0]
    assert (candidate["finishReason"], candidate["content"]["parts"][0]["text"]) == ("SAFETY", text)


def test_embeddings_of_similar_texts_are_near(sim):
    texts = ["how do I reset my password", "how do I reset my pass word please", "the river moves under the bridge"]
    _, answer = post(sim, "/v1/embeddings", {"model": "sim-embed", "input": texts, "dimensions": 256})
    vectors = [d["embedding"] for d in answer["data"]]
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    assert all(abs(dot(v, v) - 1) < 1e-3 for v in vectors)
    assert dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]) + 0.2
    _, packed = post(sim, "/v1/embeddings", {"model": "sim-embed", "input": texts[0], "dimensions": 256, "encoding_format": "base64"})
    unpacked = struct.unpack("<256f", base64.b64decode(packed["data"][0]["embedding"]))
    assert unpacked == pytest.approx(vectors[0], abs=1e-5)


def test_models_are_listed_and_others_refused(sim):
    names = [m["id"] for m in json.loads(http_request(sim, "/v1/models")[1])["data"]]
    assert names == ["sim-small", "sim-medium", "sim-large", "sim-embed"]
    status, error = post(sim, "/v1/chat/completions", dict(CHAT, model="gpt-9"))
    assert status == 404 and error["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("body, word", [(b"{", "JSON"), (b"[]", "JSON"), ({"messages": []}, "model"),
                                        ({"model": "sim-small", "messages": []}, "messages"), (b"", "JSON")])
def test_a_bad_request_is_refused_with_the_field(sim, body, word):
    status, text = http_request(sim, "/v1/chat/completions", body, method="POST")
    assert status == 400 and word in json.loads(text)["error"]["message"]


@pytest.mark.parametrize("retry_after, where", [
    ("header", lambda headers, body: headers.get("Retry-After") == "2"),
    ("date", lambda headers, body: headers.get("Retry-After", "").endswith("GMT")),
    ("ms_header", lambda headers, body: headers.get("retry-after-ms") == "1500"),
    ("body", lambda headers, body: "Retry-After" not in headers and "try again in 1.5s" in body),
    ("none", lambda headers, body: "Retry-After" not in headers and "again" not in body),
])
def test_a_rate_limit_says_when_to_come_back(sim, retry_after, where):
    set_faults(sim, {"kind": "status", "status": 429, "retry_after_ms": 1500, "retry_after": retry_after})
    connection = http.client.HTTPConnection(sim.removeprefix("http://"))
    connection.request("POST", "/v1/chat/completions", json.dumps(CHAT))
    answer = connection.getresponse()
    assert answer.status == 429 and where(dict(answer.getheaders()), answer.read().decode())


def raw_reply(sim, body):
    """All bytes of the reply until the connection ends, and how it ended."""
    host, port = sim.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: sim\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        reply = b""
        try:
            while more := connection.recv(65536):
                reply += more
        except ConnectionResetError:
            return reply, "reset"
        return reply, "closed"


def test_connection_faults(sim):
    set_faults(sim, {"kind": "reset"})
    assert raw_reply(sim, CHAT) == (b"", "reset")
    set_faults(sim, {"kind": "hang", "hang_ms": 200})
    began = time.monotonic()
    assert raw_reply(sim, CHAT) == (b"", "closed")
    assert time.monotonic() - began >= 0.2
    set_faults(sim, {"kind": "truncated"})
    reply, _ = raw_reply(sim, CHAT)
    head, body = reply.split(b"\r\n\r\n", 1)
    promised = int([l for l in head.split(b"\r\n") if l.lower().startswith(b"content-length")][0].split(b":")[1])
    assert 0 < len(body) < promised
    reply, _ = raw_reply(sim, dict(CHAT, stream=True))
    assert b"data: " in reply and b"[DONE]" not in reply
    assert counters(sim)["answered"] == 0


@pytest.mark.parametrize("kind, check", [
    ("garbage", lambda text: "<html>" in text), ("empty", lambda text: text == ""),
    ("error_in_200", lambda text: "error" in json.loads(text)),
])
def test_wrong_bodies_come_with_status_200(sim, kind, check):
    set_faults(sim, {"kind": kind})
    status, text = http_request(sim, "/v1/chat/completions", CHAT)
    assert status == 200 and check(text)


def test_rate_and_window_and_model_select_what_fails(sim):
    set_faults(sim, {"kind": "status", "rate": 0.3, "model": "sim-small"}, {"kind": "status", "status": 500, "from_ms": 3600000})
    small = [post(sim, "/v1/chat/completions", CHAT)[0] for _ in range(200)]
    large = {post(sim, "/v1/chat/completions", dict(CHAT, model="sim-large"))[0] for _ in range(20)}
    assert 30 <= small.count(503) <= 90 and small.count(200) == 200 - small.count(503)
    assert large == {200}
    assert counters(sim)["faults"]["status"] == small.count(503)


def send(sim, path="/v1/chat/completions", key=None, body=CHAT):
    """Status, headers in lower case, text."""
    connection = http.client.HTTPConnection(sim.removeprefix("http://"))
    connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {key}"} if key else {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text


def history(sim, field):
    return sum(second[field] for second in json.loads(http_request(sim, "/control/history")[1])["seconds"])


def test_content_is_refused_in_the_words_of_the_provider(sim):
    set_faults(sim, {"kind": "refused"})
    status, answer = post(sim, "/v1/chat/completions", CHAT)
    assert (status, answer["error"]["code"]) == (400, "content_filter")
    status, answer = post(sim, "/v1/messages", dict(CHAT, max_tokens=9))
    assert status == 400 and "content filtering policy" in answer["error"]["message"]


def test_a_stream_can_end_with_an_error(sim):
    set_faults(sim, {"kind": "error_in_stream"})
    events = stream(sim, "/v1/chat/completions", CHAT)
    assert len(events) > 2 and "error" in json.loads(events[-1])
    events = stream(sim, "/v1/messages", dict(CHAT, max_tokens=40))
    assert json.loads(events[-1])["error"]["type"] == "overloaded_error"
    status, answer = post(sim, "/v1/chat/completions", CHAT)
    assert status == 200 and "error" in answer
    assert counters(sim)["answered"] == 0


def test_more_requests_than_the_limit_are_told_when_to_come_back(cluster):
    # Three at once, then one in 20 s: slow enough that none is filled up during the test.
    sim = cluster.start_modelsim("--requests-per-min", "3", "--limit-burst", "60").ready["http"]
    for left in (2, 1, 0):
        status, headers, _ = send(sim)
        assert (status, headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == (200, "3", str(left))
        assert headers["x-ratelimit-reset-requests"].endswith("s")
    status, headers, text = send(sim)
    assert status == 429 and "try again in" in json.loads(text)["error"]["message"]
    wait_ms = int(headers["retry-after-ms"])
    assert 0 < wait_ms <= 20000 and int(headers["retry-after"]) == -(-wait_ms // 1000)
    assert send(sim, key="another")[0] == 200  # each key has limits of its own
    assert counters(sim)["limited"] == 1 and counters(sim)["answered"] == 4
    assert [history(sim, field) for field in ("requests", "answered", "limited", "failed")] == [5, 4, 1, 0]


def test_tokens_are_limited_as_they_are_counted(cluster):
    sim = cluster.start_modelsim("--tokens", "10:10").ready["http"]  # 8 of the prompt, 10 of the answer
    assert post(sim, "/control/limits", {"tokens_per_min": 40, "burst_s": 60})[0] == 200
    assert send(sim)[1]["x-ratelimit-remaining-tokens"] == "22"
    assert send(sim)[1]["x-ratelimit-remaining-tokens"] == "4"
    status, headers, _ = send(sim)
    assert status == 429 and headers["x-ratelimit-limit-tokens"] == "40" and "x-ratelimit-limit-requests" not in headers
    # 14 tokens are missing, at 1.5 s each.
    assert 15000 < int(headers["retry-after-ms"]) <= 21000
    # One that is larger than a full bucket passes, and leaves a debt.
    assert post(sim, "/control/limits", {"tokens_per_min": 10, "burst_s": 1})[0] == 200
    assert send(sim)[0] == 200
    assert send(sim)[0] == 429


def test_anthropic_has_its_own_names_for_limits(cluster):
    sim = cluster.start_modelsim("--requests-per-min", "3", "--limit-burst", "60").ready["http"]
    status, headers, _ = send(sim, "/v1/messages", body=dict(CHAT, max_tokens=9))
    assert status == 200 and headers["anthropic-ratelimit-requests-limit"] == "3"
    assert headers["anthropic-ratelimit-requests-remaining"] == "2"
    assert time.strptime(headers["anthropic-ratelimit-requests-reset"], "%Y-%m-%dT%H:%M:%SZ")
    assert not any(name.startswith("x-ratelimit") for name in headers)


def test_limits_can_be_kept_secret_and_lifted(cluster):
    sim = cluster.start_modelsim("--requests-per-min", "1", "--limit-burst", "60", "--no-limit-headers").ready["http"]
    for wanted in (200, 429):
        status, headers, _ = send(sim)
        assert status == wanted and not any(name.startswith("x-ratelimit") for name in headers)
    assert "retry-after" in headers
    assert post(sim, "/control/limits", {"requests_per_min": 0, "headers": True}) == (
        200, {"requests_per_min": 0.0, "tokens_per_min": 0.0, "burst_s": 60.0, "headers": True})
    assert send(sim)[0] == 200
    for wrong, word in (({"requests_per_min": -1}, "requests_per_min"), ({"burst": 1}, "burst"), ({"headers": 1}, "headers"), ([], "object")):
        status, answer = post(sim, "/control/limits", wrong)
        assert status == 400 and word in answer["error"]


def test_history_tells_what_each_second_saw(sim):
    set_faults(sim, {"kind": "status", "status": 500, "model": "sim-large"}, {"kind": "status", "status": 529, "model": "sim-medium"})
    for model in ("sim-small", "sim-medium", "sim-large"):
        post(sim, "/v1/chat/completions", dict(CHAT, model=model))
    assert [history(sim, field) for field in ("requests", "answered", "limited", "failed")] == [3, 1, 1, 1]
    seconds = json.loads(http_request(sim, "/control/history")[1])["seconds"]
    assert all(later["t_ms"] - earlier["t_ms"] == 1000 for earlier, later in zip(seconds, seconds[1:]))
    assert abs(seconds[-1]["t_ms"] - time.time() * 1000) < 5000 and max(s["concurrent"] for s in seconds) == 1
    post(sim, "/control/reset", {})
    assert history(sim, "requests") == 0


def test_a_bad_fault_script_is_refused_and_the_old_one_stays(sim):
    set_faults(sim, {"kind": "status", "status": 500})
    for script, word in (({"faults": [{"kind": "fire"}]}, "combine_truncate"), ({"faults": [{"kind": "hang", "rate": 7}]}, "rate"),
                         ({"faults": [{"kind": "hang", "until": 5}]}, 'unknown field "until"; use kind, rate, from_ms, until_ms,'), ({}, "faults")):
        status, answer = post(sim, "/control/faults", script)
        assert status == 400 and word in answer["error"]
    assert post(sim, "/v1/chat/completions", CHAT)[0] == 500


def test_a_fault_script_that_is_not_there_is_told(tmp_path):
    done = subprocess.run([str(program("tiermq-modelsim")), "--listen", "127.0.0.1:0", "--faults", str(tmp_path / "none.json")],
                          capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 3
    assert done.stderr == f"tiermq-modelsim: --faults: unable to open {tmp_path}/none.json: No such file or directory\n"


def test_times_hold(cluster):
    sim = cluster.start_modelsim("--first-token-ms", "100", "--tokens-per-s", "100", "--tokens", "10:10").ready["http"]
    began = time.monotonic()
    assert post(sim, "/v1/chat/completions", CHAT)[0] == 200
    assert time.monotonic() - began >= 0.2  # 100 ms and ten tokens of 10 ms
    post(sim, "/control/latency", {"first_token_ms": 0, "tokens_per_s": 0})
    assert json.loads(http_request(sim, "/control/latency")[1])["first_token_ms"] == 0


def test_a_repeated_idempotency_key_is_counted(sim):
    for expected in (0, 1):
        assert http_request(sim, "/v1/chat/completions", CHAT, headers={"Idempotency-Key": "job-1"})[0] == 200
        assert counters(sim)["repeated_keys"] == expected
    post(sim, "/control/reset", {})
    assert counters(sim)["requests_total"] == 0


def test_a_wrong_key_is_refused(cluster):
    sim = cluster.start_modelsim("--api-key", "secret").ready["http"]
    assert post(sim, "/v1/chat/completions", CHAT)[0] == 401
    assert http_request(sim, "/v1/chat/completions", CHAT, headers={"Authorization": "Bearer secret"})[0] == 200
    assert http_request(sim, "/v1/chat/completions", CHAT, headers={"x-api-key": "secret"})[0] == 200


def test_calls_are_written_down_over_a_kill_with_key_account_and_end(cluster):
    path = cluster.directory / "calls.jsonl"

    def call(sim, key):
        return http_request(sim.ready["http"], "/v1/chat/completions", CHAT,
                            headers={"Idempotency-Key": key, "Authorization": "Bearer worker-1"})[0]

    sim = cluster.start_modelsim("--calls", path)
    assert call(sim, "one") == 200
    set_faults(sim.ready["http"], {"kind": "status", "status": 503})
    assert call(sim, "two") == 503
    wait_for(lambda: "unanswered" in path.read_text(), "the end of the second call, which is written after its reply")
    sim.kill()
    sim = cluster.start_modelsim("--calls", path)
    assert call(sim, "one") == 200
    sim.stop()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    began = {line["call"]: line for line in lines if line["event"] == "began"}
    ended = [(began[line["call"]]["key"], line["event"], line["model"], line["fault"]) for line in lines if line["event"] != "began"]
    assert ended == [("one", "answered", "sim-small", "none"), ("two", "unanswered", "sim-small", "status"),
                     ("one", "answered", "sim-small", "none")]
    assert len(began) == 3 and {line["account"] for line in began.values()} == {"worker-1"}


# ---- prompt caches of providers ----

RULES = "Rule of the house: be kind. " * 200  # 1800 tokens


def openai_cached(sim, system, **members):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": members.pop("ask", "Why?")}]
    _, answer = post(sim, "/v1/chat/completions", {"model": "sim-small", "messages": messages, **members})
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_openai_keeps_every_long_prefix_in_steps_until_its_time_is_over(cluster):
    sim = cluster.start_modelsim("--prefix-cache", "1").ready["http"]
    assert [openai_cached(sim, RULES, ask=ask) for ask in ("one", "two")] == [0, 1024 + 6 * 128]
    assert openai_cached(sim, RULES, model="sim-large") == openai_cached(sim, RULES, prompt_cache_key="k") == 0
    assert [openai_cached(sim, RULES, tools=[{"type": "function", "function": {"name": name}}]) for name in ("a", "b", "a")] == [0, 0, 1792]
    assert [openai_cached(sim, "short " * 400) for _ in range(2)] == [0, 0]
    assert openai_cached(sim, "Another. " + RULES) == 0  # what differs at the beginning shares nothing
    time.sleep(1.1)
    assert openai_cached(sim, RULES) == 0
    sums = json.loads(http_request(sim, "/control/bill")[1])["models"]["sim-small"]["answered"]
    assert (sums["cached_tokens"], sums["cache_write_tokens"]) == (2 * 1792, 0)


def test_a_prefix_cannot_be_read_before_its_first_answer_has_begun(cluster):
    sim = cluster.start_modelsim("--prefix-cache", "60", "--first-token-ms", "400").ready["http"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda ask: openai_cached(sim, RULES, ask=ask), ("one", "two"))) == [0, 0]
    assert openai_cached(sim, RULES) == 1792


def anthropic_counts(sim, mark, question, stream_it=False):
    """What it says of (uncached, written, read) tokens."""
    system = [{"type": "text", "text": RULES, **({"cache_control": {"type": "ephemeral"}} if mark else {})}]
    body = {"model": "sim-small", "max_tokens": 20, "system": system, "messages": [{"role": "user", "content": question}]}
    usage = json.loads(stream(sim, "/v1/messages", body)[0])["message"]["usage"] if stream_it else post(sim, "/v1/messages", body)[1]["usage"]
    return usage["input_tokens"], usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]


def test_anthropic_keeps_what_is_marked_and_nothing_else(cluster):
    sim = cluster.start_modelsim("--prefix-cache", "60").ready["http"]
    assert [anthropic_counts(sim, False, "one") for _ in range(2)] == [(1801, 0, 0)] * 2
    assert anthropic_counts(sim, True, "one") == (1, 1800, 0)
    assert anthropic_counts(sim, True, "two", stream_it=True) == (1, 0, 1800)
    sums = json.loads(http_request(sim, "/control/bill")[1])["models"]["sim-small"]["answered"]
    assert (sums["input_tokens"], sums["cached_tokens"], sums["cache_write_tokens"]) == (4 * 1801, 1800, 1800)


def test_words_to_ignore_change_no_answer(cluster):
    sim = cluster.start_modelsim("--ignore", "please,thanks").ready["http"]
    texts = ("What is a queue?", "Please, what is a QUEUE? Thanks!", "What is a pleased queue?")
    answers = [post(sim, "/v1/chat/completions", dict(CHAT, messages=[{"role": "user", "content": text}]))[1] for text in texts]
    plain, polite, other = (answer["choices"][0]["message"]["content"] for answer in answers)
    assert plain == polite != other


def test_models_that_are_alike_give_the_same_answers(cluster):
    sim = cluster.start_modelsim("--alike").ready["http"]
    texts = [post(sim, "/v1/chat/completions", dict(CHAT, model=model))[1]["choices"][0]["message"]["content"] for model in ("sim-small", "sim-large")]
    assert texts[0] == texts[1]
