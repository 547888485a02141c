"""
Prompts that are made shorter before they are sent: a worker opposite a server that writes down what it is sent, and whole
clusters with simulated models, whose answers and token counts follow from the prompt that they get.
"""

import base64
import json
import signal
import time

from harness import merge, wait_for
from test_providers import CHAT_ANSWER, recorder
from test_single_flight import answers, assert_one_ran_for_all, following, set_first_token_ms, tier_stats
from test_worker import broker, outcome, seen  # noqa: F401
from test_worker import start as start_one
from wire import pb

LONG = "Tell me   everything.  \n\n\n\nAnd then some more,  please: `keep   this`."
SHORT = "Tell me everything.\n\nAnd then some more, please: `keep   this`."


def body_of(text, **members):
    return json.dumps({"model": "sim-small", "messages": [{"role": "user", "content": text}], **members})


def requests(text):
    return pb.ModelRequest(operation="chat.completions", model="sim-small", body=body_of(text).encode()).SerializeToString()


def start_worker(cluster, broker, url, cache="off", tiers=None, vocabulary=None, **provider):  # noqa: F811
    model = {"name": "sim-small", "provider": "p", "input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
    cluster.config = {"providers": [{"name": "p", "base_url": url, **provider}],
                      "models": [{**model, "vocabulary": str(vocabulary)} if vocabulary else model]}
    if tiers:
        cluster.config["tiers"] = [{"name": name, **keys} for name, keys in tiers.items()]
    return start_one(cluster, broker, cache={"mode": cache})


def saved_of(usage):
    return {name: getattr(usage, f"saved_{name}_tokens") for name in ("history", "passages", "space", "repeats")
            if getattr(usage, f"saved_{name}_tokens")}


def test_prose_is_sent_tidied_and_the_record_says_so(cluster, broker):  # noqa: F811
    with recorder((200, {}, CHAT_ANSWER)) as server:
        start_worker(cluster, broker, server.url)
        result, response = broker.run(requests(LONG), tier="standard")
        assert outcome(result) == "ATTEMPT_ANSWERED", result
        assert server.seen[0][2]["messages"] == [{"role": "user", "content": SHORT}]
        assert set(saved_of(result.usage)) == {"space"}
        # A dollar a million tokens is 1,000 nano-dollars a token.
        assert result.usage.saved_optimising_nanousd == 1000 * saved_of(result.usage)["space"]
        assert saved_of(response.usage) == saved_of(result.usage)
        assert 'tiermq_worker_prompt_tokens_saved_total{tier="standard",lever="space"}' in cluster.worker.metrics()


def test_realtime_is_sent_as_it_came(cluster, broker):  # noqa: F811
    with recorder((200, {}, CHAT_ANSWER)) as server:
        start_worker(cluster, broker, server.url)
        result, _ = broker.run(requests(LONG), tier="realtime")
        assert server.seen[0][2]["messages"] == [{"role": "user", "content": LONG}]
        assert saved_of(result.usage) == {}


def test_the_cache_knows_the_request_as_it_was_asked(cluster, broker):  # noqa: F811
    with recorder((200, {}, CHAT_ANSWER)) as server:
        start_worker(cluster, broker, server.url, cache="exact")
        first, _ = broker.run(requests(LONG), tier="standard")
        wait_for(lambda: cluster.worker.metrics().get("tiermq_worker_cache_entries") == 1, "the fill")
        again, _ = broker.run(requests(LONG), tier="standard")
        other, _ = broker.run(requests(SHORT), tier="standard")
        statuses = [pb.CacheStatus.Name(result.usage.cache) for result in (first, again, other)]
        assert statuses == ["CACHE_MISS", "CACHE_HIT", "CACHE_MISS"]
        assert saved_of(again.usage) == {} and len(server.seen) == 2


def test_history_is_trimmed_to_the_tiers_budget_and_tools_stay_paired(cluster, broker):  # noqa: F811
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "system", "content": "Be kind."}]
    for i in range(12):
        messages += [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": None, "tool_calls": [call]},
                     {"role": "tool", "tool_call_id": "c", "content": "found"}, {"role": "assistant", "content": "so it is"}]
    with recorder((200, {}, CHAT_ANSWER)) as server:
        start_worker(cluster, broker, server.url, tiers={"standard": {"prompt_history_tokens_max": 150}})
        body = json.dumps({"model": "sim-small", "messages": messages})
        result, _ = broker.run(pb.ModelRequest(operation="chat.completions", model="sim-small", body=body.encode()).SerializeToString(),
                               tier="standard")
        sent = server.seen[0][2]["messages"]
        assert sent[0] == messages[0] and sent[1:] == messages[-(len(sent) - 1):] and len(sent) < len(messages)
        assert (len(sent) - 1) % 4 == 0 and saved_of(result.usage)["history"] > 0


def test_a_long_prefix_is_named_for_a_provider_that_keeps_it(cluster, broker):  # noqa: F811
    system = "You know every rule of the house by heart. " * 200
    with recorder((200, {}, CHAT_ANSWER)) as server:
        start_worker(cluster, broker, server.url, prompt_cache="on")
        for text in ("one", "two"):
            body = json.dumps({"model": "sim-small", "messages": [{"role": "system", "content": system}, {"role": "user", "content": text}]})
            broker.run(pb.ModelRequest(operation="chat.completions", model="sim-small", body=body.encode()).SerializeToString(),
                       tier="standard")
        broker.run(requests("short"), tier="standard")
        keys = [body.get("prompt_cache_key") for _, _, body in server.seen]
        assert keys[0] == keys[1] and len(keys[0]) == 32 and keys[2] is None


def test_a_shared_prompt_has_the_prefix_of_those_who_share_it(cluster, broker):  # noqa: F811
    system = "You know every rule of the house by heart. " * 200
    with recorder((200, {}, CHAT_ANSWER)) as server:
        start_worker(cluster, broker, server.url, prompt_cache="on", tiers={"standard": {"combine_linger": "500ms", "combine_jobs_max": 2}})
        jobs = []
        for text in ("one", "two"):
            body = json.dumps({"model": "sim-small", "messages": [{"role": "system", "content": system}, {"role": "user", "content": text}]})
            request = pb.ModelRequest(operation="chat.completions", model="sim-small", body=body.encode(), batchable=True)
            jobs.append(broker.dispatch(request.SerializeToString(), tier="standard"))
        for job in jobs:
            broker.result(job)
        shared, *alone = (body for _, _, body in server.seen)
        assert "response_format" in shared and len(alone) == 2  # that answer is no list, so each is asked again
        assert {body.get("prompt_cache_key") for body in alone} == {shared.get("prompt_cache_key")} != {None}


def test_a_vocabulary_that_cannot_be_read_is_logged_and_a_reload_tries_again(cluster, broker, tmp_path):  # noqa: F811
    path = tmp_path / "bytes.tiktoken"
    ranks = "".join(f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256))
    with recorder((200, {}, CHAT_ANSWER)) as server:
        worker = start_worker(cluster, broker, server.url, vocabulary=path)
        worker.wait_log("a vocabulary cannot be used: tokens are estimated")
        result, _ = broker.run(requests(LONG), tier="standard")
        assert 0 < saved_of(result.usage)["space"] < len(LONG) - len(SHORT)
        path.write_text(ranks)
        worker.signal(signal.SIGHUP)
        worker.wait_log("configuration reloaded")
        result, _ = broker.run(requests(LONG), tier="standard")
        assert saved_of(result.usage)["space"] == len(LONG) - len(SHORT)  # a token is a byte now


# ------------------------------------------------------------------------------------------------ whole clusters

STRICT = {"durability": "none", "prompt_space": "off", "prompt_prefix": "off"}
CUTTING = {**STRICT, "prompt_history_tokens_max": 120}
CONVERSATION = [{"role": "system", "content": "Be kind."}]
for number in range(12):
    CONVERSATION += [{"role": "user", "content": f"What is so special about the lighthouse with the number {number}?"},
                     {"role": "assistant", "content": f"It stands on a rock of its own, {number} miles from the coast."}]
CONVERSATION += [{"role": "user", "content": "Which of them is the tallest?"}]


def start_cluster(cluster, tiers, workers=1, **config):
    cluster.config = {"tiers": [{"name": name, **keys} for name, keys in tiers.items()], **config}
    cluster.start_modelsim()
    cluster.start_broker()
    for _ in range(workers):
        worker = cluster.start_worker()
        if config.get("cache", {}).get("mode") != "off":
            worker.wait_log(lambda line: line["message"].startswith("cache is"))


def ask(cluster, tier, body, *arguments):
    line = json.dumps({"tier": tier, "model": "sim-small", "body": body})
    done = cluster.cli("submit", "--file", "-", *arguments, input=line + "\n")
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def chat(text):
    return {"messages": [{"role": "user", "content": text}]}


def conversation(last="Which of them is the tallest?"):
    return {"messages": CONVERSATION[:-1] + [{"role": "user", "content": last}]}


def test_the_model_sees_the_shorter_prompt_and_the_client_is_told_what_was_saved(cluster):
    start_cluster(cluster, {"strict": STRICT, "tidy": {"durability": "none"}}, cache={"mode": "off"})
    long, short = (f"What is a queue?\n{line}\n\nSay it in a word." for line in (40 * "=", 3 * "="))
    tidied = ask(cluster, "tidy", chat(long))
    whole = ask(cluster, "strict", chat(long))
    assert tidied["prompt_tokens_saved"] > 0 and "prompt_is_cut" not in tidied and "prompt_tokens_saved" not in whole
    assert tidied["input_tokens"] == ask(cluster, "strict", chat(short))["input_tokens"] < whole["input_tokens"]
    assert tidied["text"] == whole["text"]  # it answers the words of its prompt


def test_a_history_is_cut_in_the_tier_that_allows_it_alone(cluster):
    start_cluster(cluster, {"strict": STRICT, "cutting": CUTTING}, cache={"mode": "off"})
    whole = ask(cluster, "strict", conversation())
    cut = ask(cluster, "cutting", conversation())
    assert cut["prompt_is_cut"] and "prompt_is_cut" not in whole
    assert 2 * cut["input_tokens"] < whole["input_tokens"] and cut["text"] != whole["text"]


def test_the_cache_keeps_an_answer_from_a_cut_prompt_for_those_who_allow_that(cluster):
    shorter = {**STRICT, "prompt_history_tokens_max": 60}
    start_cluster(cluster, {"strict": STRICT, "cutting": CUTTING, "shorter": shorter}, cache={"mode": "exact"})
    cut = ask(cluster, "cutting", conversation())
    wait_for(lambda: cluster.worker.metrics().get("tiermq_worker_cache_entries") == 1, "the fill")
    again = ask(cluster, "cutting", conversation())
    assert (again["cache"], again["text"], again["prompt_is_cut"]) == ("hit", cut["text"], True)
    assert ask(cluster, "shorter", conversation())["text"] == cut["text"]  # its own would lack more
    whole = ask(cluster, "strict", conversation())
    assert whole["cache"] == "miss" and whole["cache_why"] == "cut" and "prompt_is_cut" not in whole
    assert whole["input_tokens"] > cut["input_tokens"] and whole["text"] != cut["text"]
    # What lacks nothing is for all, from now on.
    wait_for(lambda: ask(cluster, "cutting", conversation())["text"] == whole["text"], "the second fill")
    assert ask(cluster, "strict", conversation())["cache"] == "hit"
    assert seen(cluster, "requests")["chat.completions"] == 2


def test_an_answer_from_a_longer_cut_does_not_answer_who_allows_less(cluster):
    start_cluster(cluster, {"cutting": CUTTING, "longer": {**STRICT, "prompt_history_tokens_max": 200}}, cache={"mode": "exact"})
    cut = ask(cluster, "cutting", conversation())
    wait_for(lambda: cluster.worker.metrics().get("tiermq_worker_cache_entries") == 1, "the fill")
    longer = ask(cluster, "longer", conversation())
    assert longer["cache"] == "miss" and longer["input_tokens"] > cut["input_tokens"] and longer["prompt_is_cut"]


def test_a_stale_answer_from_a_cut_prompt_does_not_stand_in_where_cutting_is_not_allowed(cluster):
    late = {"cache_ttl": "1s", "cache_stale_if_error": "1h", "cache_stale_at_once": "on", "deadline": "3s"}
    start_cluster(cluster, {"strict": {**STRICT, **late}, "cutting": {**CUTTING, **late}}, cache={"mode": "exact"})
    cut = ask(cluster, "cutting", conversation())
    wait_for(lambda: cluster.worker.metrics().get("tiermq_worker_cache_entries") == 1, "the fill")
    time.sleep(1.1)  # past its time
    cluster.modelsim.stop()
    line = json.dumps({"tier": "strict", "model": "sim-small", "body": conversation()})
    done = cluster.cli("submit", "--file", "-", input=line + "\n")
    assert json.loads(done.stdout)["outcome"] == "expired", done
    stale = ask(cluster, "cutting", conversation())
    assert (stale["cache"], stale["text"], stale["prompt_is_cut"]) == ("stale_hit", cut["text"], True)


def test_a_near_answer_from_a_cut_prompt_is_not_given_where_cutting_is_not_allowed(cluster):
    tiers = {name: {**keys, "cache_max_error": 0.3} for name, keys in (("strict", STRICT), ("cutting", CUTTING))}
    start_cluster(cluster, tiers, cache={"mode": "near"})
    ask(cluster, "cutting", conversation())
    wait_for(lambda: cluster.worker.metrics().get("tiermq_worker_cache_entries") == 1, "the fill")
    assert ask(cluster, "cutting", conversation("Which of them is the tallest"))["cache_why"] == "closed"
    other = ask(cluster, "strict", conversation("which of them is the tallest"))
    assert other["cache"] == "miss" and "prompt_is_cut" not in other
    # It is not even compared: it would differ for another reason.
    assert other["cache_why"] == "unknown"


def reload(cluster, process, done, tiers):
    path = cluster.directory / f"{process.name}.yaml"
    path.write_text(json.dumps(merge(process.config, {"tiers": tiers})))
    process.signal(signal.SIGHUP)
    process.wait_log(done)


def test_who_follows_is_not_given_an_answer_that_lacks_too_much_by_now(cluster):
    start_cluster(cluster, {"standard": CUTTING}, cache={"mode": "off"})
    set_first_token_ms(cluster, 3000)
    line = json.dumps({"tier": "standard", "model": "sim-small", "body": conversation()})
    clients = [cluster.cli_start("submit", "--file", "-", input=line + "\n") for _ in range(2)]
    wait_for(lambda: following(cluster, "standard") == 1 and seen(cluster, "in_flight") == 1, "one that runs, one that follows")
    tiers = [{"name": "standard", **STRICT}]
    reload(cluster, cluster.broker, "reloaded", tiers)
    reload(cluster, cluster.worker, "configuration reloaded", tiers)
    leader, follower = sorted(answers(clients), key=lambda answer: answer["input_tokens"])
    assert leader["prompt_is_cut"] and "prompt_is_cut" not in follower and "led_by" not in follower
    assert tier_stats(cluster, "standard")["flights"]["followers_promoted"] == 1


def test_who_follows_is_told_that_the_prompt_was_cut(cluster):
    start_cluster(cluster, {"standard": CUTTING}, cache={"mode": "off"})
    set_first_token_ms(cluster, 1000)
    line = json.dumps({"tier": "standard", "model": "sim-small", "body": conversation()})
    clients = [cluster.cli_start("submit", "--file", "-", input=line + "\n") for _ in range(2)]
    both = answers(clients)
    assert_one_ran_for_all(both)
    assert all(answer["prompt_is_cut"] for answer in both)
    assert sorted("prompt_tokens_saved" in answer for answer in both) == [False, True]
