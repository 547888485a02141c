"""Google's protocol, as the simulated model server speaks it: through the worker alone, and through a whole cluster."""

import json

import pytest

from harness import http_answering, http_request, wait_for
from test_worker import broker, chunks_until_last, content_of, faults, limits, outcome, request, seen, start  # noqa: F401
from wire import pb

KEY = "AIza-test"
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"text": {"type": "string"}},
    "additionalProperties": False}}}


def use_gemini(cluster, **provider):
    url = f"{cluster.modelsim.ready['http']}/v1beta"
    cluster.config["providers"] = [{"name": "google", "type": "gemini", "base_url": url, "api_key": KEY, **provider}]
    cluster.config["models"] = [{"name": name, "provider": "google", "input_usd_per_mtok": 0.15, "output_usd_per_mtok": 0.60}
                                for name in ("sim-small", "sim-embed")]


def start_gemini(cluster, broker, **provider):  # noqa: F811
    use_gemini(cluster, **provider)
    return start(cluster, broker, cache={"mode": "off"})


# ------------------------------------------------------------------------------------------------ the worker


def test_chat_is_answered_in_openai_form(cluster, broker):  # noqa: F811
    start_gemini(cluster, broker)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"type": "text", "text": "hello there"}]}]
    result, response = broker.run(request(messages=messages, temperature=0.5, stop="END", seed=3))
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    answer = json.loads(response.body)
    assert (answer["object"], answer["model"]) == ("chat.completion", "sim-small") and answer["id"]
    assert answer["choices"][0]["message"]["content"] and answer["choices"][0]["finish_reason"] == "stop"
    assert result.usage.input_tokens == answer["usage"]["prompt_tokens"] == 7
    assert result.usage.output_tokens == answer["usage"]["completion_tokens"] > 0
    result, response = broker.run(request("hello", max_tokens=3))
    assert json.loads(response.body)["choices"][0]["finish_reason"] == "length" and result.usage.output_tokens == 3
    assert seen(cluster, "requests")["generateContent"] == 2


def test_a_stream_comes_in_pieces_and_whole(cluster, broker):  # noqa: F811
    start_gemini(cluster, broker)
    job = broker.dispatch(request("stream this", max_tokens=40), stream=True)
    chunks = chunks_until_last(broker, job)
    result, response = broker.result(job)
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    assert content_of(chunks) == json.loads(response.body)["choices"][0]["message"]["content"] != ""
    assert len(chunks) > 3 and chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-1]["usage"]["completion_tokens"] == result.usage.output_tokens > 0
    assert seen(cluster, "requests")["streamGenerateContent"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called_and_their_results_taken(cluster, broker, stream):  # noqa: F811
    start_gemini(cluster, broker)
    job = broker.dispatch(request("weather?", tools=[TOOL], tool_choice="required"), stream=stream)
    result, response = broker.result(job)
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    choice, = json.loads(response.body)["choices"]
    call, = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"])["text"] and call["id"].startswith("call_")
    messages = [{"role": "user", "content": "weather?"}, choice["message"],
                {"role": "tool", "tool_call_id": call["id"], "content": "rain"}]
    result, response = broker.run(request(messages=messages, tools=[TOOL]))
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    assert json.loads(response.body)["choices"][0]["message"]["content"]


def test_embeddings_come_in_the_order_of_their_inputs(cluster, broker):  # noqa: F811
    start_gemini(cluster, broker)
    texts = ["one text", "quite another"]
    result, response = broker.run(request(texts, operation="embeddings", model="sim-embed", dimensions=8), route="sim-embed")
    assert outcome(result) == "ATTEMPT_ANSWERED", result
    answer = json.loads(response.body)
    assert [d["index"] for d in answer["data"]] == [0, 1] and {len(d["embedding"]) for d in answer["data"]} == {8}
    assert result.usage.input_tokens == answer["usage"]["prompt_tokens"] > 0
    result, response = broker.run(request(texts[1], operation="embeddings", model="sim-embed", dimensions=8), route="sim-embed")
    assert json.loads(response.body)["data"][0]["embedding"] == answer["data"][1]["embedding"]
    result, _ = broker.run(request(texts, operation="embeddings", model="sim-embed", encoding_format="base64"), route="sim-embed")
    assert (outcome(result), result.error_code) == ("ATTEMPT_REJECTED", "unsupported")
    assert "encoding_format" in result.error_text


def test_what_cannot_be_said_is_rejected_without_a_call(cluster, broker):  # noqa: F811
    start_gemini(cluster, broker)
    for payload, word in ((request("x", logit_bias={"1": 1}), "logit_bias"), (request("x", n=9), "n above 8"),
                          (request("x", operation="completions"), "completions")):
        result, _ = broker.run(payload)
        assert (outcome(result), result.error_code) == ("ATTEMPT_REJECTED", "unsupported") and word in result.error_text
    assert seen(cluster, "requests_total") == 0


@pytest.mark.parametrize("fault, whole, code, streamed", [
    ({"kind": "status", "status": 500}, "ATTEMPT_UNAVAILABLE", "unavailable", None),
    ({"kind": "status", "status": 503}, "ATTEMPT_UNAVAILABLE", "unavailable", None),
    ({"kind": "status", "status": 403}, "ATTEMPT_UNAVAILABLE", "credentials", None),
    ({"kind": "status", "status": 400}, "ATTEMPT_REJECTED", "rejected", None),
    ({"kind": "status", "status": 404}, "ATTEMPT_REJECTED", "rejected", None),
    ({"kind": "status", "status": 429}, "ATTEMPT_RATE_LIMITED", "rate_limited", None),
    ({"kind": "reset"}, "ATTEMPT_UNAVAILABLE", "reset", None),
    ({"kind": "hang"}, "ATTEMPT_UNAVAILABLE", "timeout", None),
    ({"kind": "truncated"}, "ATTEMPT_UNAVAILABLE", "truncated", None),
    ({"kind": "garbage"}, "ATTEMPT_UNAVAILABLE", "garbage", ("ATTEMPT_UNAVAILABLE", "truncated")),
    ({"kind": "empty"}, "ATTEMPT_UNAVAILABLE", "garbage", ("ATTEMPT_UNAVAILABLE", "garbage")),
    ({"kind": "error_in_200"}, "ATTEMPT_UNAVAILABLE", "unavailable", None),
    ({"kind": "error_in_stream"}, "ATTEMPT_UNAVAILABLE", "unavailable", None),
    ({"kind": "refused"}, "ATTEMPT_REFUSED", "content_refused", None),
    ({"kind": "filtered"}, "ATTEMPT_ANSWERED", "", None),
    ({"kind": "slow", "factor": 2}, "ATTEMPT_ANSWERED", "", None),
    ({"kind": "stall", "hang_ms": 100}, "ATTEMPT_ANSWERED", "", None),
])
def test_each_fault_has_its_outcome_whole_and_streamed(cluster, broker, fault, whole, code, streamed):  # noqa: F811
    start_gemini(cluster, broker, timeout="1s")
    faults(cluster, fault)
    result, response = broker.run(request("fail"))
    assert (outcome(result), result.error_code) == (whole, code), result
    if fault["kind"] == "filtered":
        assert json.loads(response.body)["choices"][0]["finish_reason"] == "content_filter"
    result, response = broker.result(broker.dispatch(request("fail", max_tokens=40), stream=True))
    assert (outcome(result), result.error_code) == (streamed or (whole, code)), result
    if fault["kind"] == "filtered":
        assert json.loads(response.body)["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize("kind, wanted", [("dimension", 7), ("shuffled", 8), ("not_a_number", None)])
def test_each_fault_of_embeddings_has_its_outcome(cluster, broker, kind, wanted):  # noqa: F811
    start_gemini(cluster, broker)
    faults(cluster, {"kind": kind})
    result, response = broker.run(request(["a", "b"], operation="embeddings", model="sim-embed", dimensions=8), route="sim-embed")
    if wanted is None:
        assert (outcome(result), result.error_code) == ("ATTEMPT_UNAVAILABLE", "garbage")
    else:
        assert outcome(result) == "ATTEMPT_ANSWERED" and len(json.loads(response.body)["data"][1]["embedding"]) == wanted


def test_an_error_put_bare_behind_a_stream_is_no_answer(cluster, broker):  # noqa: F811
    event = {"candidates": [{"content": {"parts": [{"text": "Okay"}], "role": "model"}, "finishReason": "STOP"}]}
    error = {"error": {"code": 503, "message": "The model is overloaded. Please try again later.", "status": "UNAVAILABLE"}}
    body = f"data: {json.dumps(event)}\r\n\r\n{json.dumps(error, indent=2)}\n".encode()
    with http_answering(body) as url:
        start_gemini(cluster, broker, base_url=url)
        result, _ = broker.result(broker.dispatch(request("fail"), stream=True))
    assert (outcome(result), result.error_code) == ("ATTEMPT_UNAVAILABLE", "provider_error"), result


def test_a_request_that_outgrows_its_bound_in_google_s_form_is_rejected(cluster, broker):  # noqa: F811
    start_gemini(cluster, broker)
    call = {"id": "c", "type": "function", "function": {"name": "f" * 30000, "arguments": "{}"}}
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    messages += [{"role": "tool", "tool_call_id": "c", "content": "42"}] * 100
    result, _ = broker.run(request(messages=messages))
    assert (outcome(result), result.error_code) == ("ATTEMPT_REJECTED", "too_large"), result
    assert seen(cluster, "requests_total") == 0


@pytest.mark.parametrize("how, low, high", [("header", 2000, 2000), ("body", 1500, 1500), ("none", 0, 0)])
def test_the_wait_is_understood_in_google_s_form(cluster, broker, how, low, high):  # noqa: F811
    start_gemini(cluster, broker)
    faults(cluster, {"kind": "status", "status": 429, "retry_after": how, "retry_after_ms": 1500})
    result, _ = broker.run(request("limit"))
    assert outcome(result) == "ATTEMPT_RATE_LIMITED" and low <= result.retry_after_ms <= high


def test_a_rate_limit_says_when_to_come_back_in_its_body_alone(cluster, broker):  # noqa: F811
    start_gemini(cluster, broker)
    limits(cluster, requests_per_min=1, burst_s=60)
    assert not broker.run(request("one"))[0].calls[0].HasField("limits")
    call, = broker.run(request("two"))[0].calls
    assert (call.outcome, call.error_code) == (pb.ATTEMPT_RATE_LIMITED, "rate_limited")
    assert not call.HasField("limits") and 55000 < call.retry_after_ms <= 60000


def test_a_wrong_key_is_the_account_s_fault(cluster):
    cluster.start_modelsim("--api-key", "another")
    use_gemini(cluster)
    cluster.config["tiers"] = [{"name": "standard", "attempts_max": 1}]
    cluster.start_broker()
    cluster.start_worker()
    done = cluster.cli("submit", "--json", "hello")
    assert done.returncode != 0 and "API key not valid" in done.stdout, done.stdout
    cluster.modelsim.signal(15)


# ------------------------------------------------------------------------------------------------ the whole cluster


@pytest.fixture(name="answering")
def fixture_answering(cluster):
    cluster.start_modelsim("--api-key", KEY)
    use_gemini(cluster, timeout="2s")
    cluster.config["tiers"] = [{"name": "standard", "backoff_first": "20ms", "backoff_max": "50ms", "attempts_max": 100}]
    cluster.start_broker()
    cluster.start_worker()
    return cluster


def test_a_job_a_stream_and_embeddings_through_the_broker(answering):
    done = answering.cli("submit", "--json", "What is a queue?")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["outcome"] == "succeeded" and result["text"] and result["cost_nanousd"] > 0
    streamed = answering.cli("submit", "--stream", "--cache-use", "off", "What is a queue?")
    assert streamed.returncode == 0 and streamed.stdout.strip() == result["text"], streamed.stderr
    done = answering.cli("submit", "--operation", "embeddings", "--route", "sim-embed", "--json", "some text")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["body"]["data"][0]["embedding"]) == 64


@pytest.mark.parametrize("fault", [
    {"kind": "status", "status": 429, "retry_after": "body", "retry_after_ms": 200}, {"kind": "status", "status": 503},
    {"kind": "reset"}, {"kind": "truncated"}, {"kind": "garbage"}, {"kind": "empty"}, {"kind": "error_in_200"},
    {"kind": "error_in_stream"}], ids=lambda fault: fault["kind"])
def test_a_job_outlives_a_fault(answering, fault):
    http = answering.modelsim.ready["http"]
    http_request(http, "/control/faults", {"faults": [fault]})
    job = answering.cli_start("submit", "--json", "What is a queue?")
    wait_for(lambda: seen(answering, "requests_total") > 0, "the first call")
    http_request(http, "/control/faults", {"faults": []})
    out, err = job.communicate(timeout=60)
    assert job.returncode == 0 and json.loads(out)["outcome"] == "succeeded", err


def test_a_refused_prompt_is_not_tried_again(answering):
    http_request(answering.modelsim.ready["http"], "/control/faults", {"faults": [{"kind": "refused"}]})
    done = answering.cli("submit", "--json", "What is a queue?")
    assert done.returncode != 0 and json.loads(done.stdout)["outcome"] != "succeeded"
    assert seen(answering, "requests_total") == 1
