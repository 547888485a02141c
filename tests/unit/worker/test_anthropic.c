#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/unit/worker/fixtures.h"
#include "worker/provider/outcome.h"
#include "worker/provider/protocol.h"

/* A chat with nothing but what `members` adds. */
#define CHAT(members) "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]," members "}"
#define CHAT_THERE                                                                                 \
    "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}]"

static struct provider_request request_of(const char *body)
{
    return (struct provider_request){
        .operation = OPERATION_CHAT,
        .model = "claude",
        .body = body,
        .body_bytes = strlen(body),
        .max_tokens_default = 777,
    };
}

static void expect_body_of(const struct provider_request *request, const char *wanted)
{
    struct bytes out = {.bytes_max = 65536};
    struct outcome outcome = {.code = ""};
    cr_assert_eq(protocol_anthropic.write_body(request, &out, &outcome), 0, "%s", outcome.text);
    json_t *got = json_loads(out.data, 0, NULL);
    json_t *expected = json_loads(wanted, 0, NULL);
    cr_assert_not_null(expected, "%s", wanted);
    cr_assert(json_equal(got, expected), "%s", out.data);
    json_decref(got);
    json_decref(expected);
    bytes_finish(&out);
}

static void expect_body(const char *body, const char *wanted)
{
    const struct provider_request request = request_of(body);
    expect_body_of(&request, wanted);
}

#define MARK "\"cache_control\":{\"type\":\"ephemeral\"}"
#define SAID(role, text, mark)                                                                     \
    "{\"role\":\"" role "\",\"content\":[{\"type\":\"text\",\"text\":\"" text "\"" mark "}]}"

Test(anthropic, a_prefix_is_marked_behind_the_system_and_the_conversation)
{
    struct provider_request request = request_of(
        "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":"
        "\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},{\"role\":\"user\",\"content\":\"c\"}]"
        "}");
    request.prefix_key = "key";
    expect_body_of(
        &request,
        "{\"model\":\"claude\",\"max_tokens\":777,\"system\":[{\"type\":\"text\",\"text\":"
        "\"s\"," MARK "}],\"messages\":[" SAID("user", "a", "") "," SAID(
            "assistant", "b", "") "," SAID("user", "c", "," MARK) "]}");
    request = request_of("{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":"
                         "\"user\",\"content\":\"a\"}]}");
    request.prefix_key = "key";
    expect_body_of(
        &request,
        "{\"model\":\"claude\",\"max_tokens\":777,\"system\":[{\"type\":\"text\",\"text\":"
        "\"s\"," MARK "}],\"messages\":[" SAID("user", "a", "") "]}");
}

Test(anthropic, system_messages_stop_and_sampling_are_translated)
{
    expect_body(
        "{\"model\":\"x\",\"messages\":[{\"role\":\"system\",\"content\":\"be "
        "brief\"},{\"role\":\"user\",\"content\":\"hi\"},"
        "{\"role\":\"assistant\",\"content\":\"hello\"},{\"role\":\"user\",\"content\":[{\"type\":"
        "\"text\",\"text\":\"look\"},"
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,QUJD\"}}]}],"
        "\"max_tokens\":9,\"stop\":\"END\",\"temperature\":1.5,\"top_p\":0.5,\"user\":\"u\","
        "\"seed\":1}",
        "{\"model\":\"claude\",\"max_tokens\":9,\"system\":[{\"type\":\"text\",\"text\":\"be "
        "brief\"}],\"messages\":["
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]},"
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"hello\"}]},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"look\"},{\"type\":\"image\","
        "\"source\":{\"type\":\"base64\","
        "\"media_type\":\"image/"
        "png\",\"data\":\"QUJD\"}}]}],\"stop_sequences\":[\"END\"],\"temperature\":1,\"top_p\":0.5,"
        "\"metadata\":{\"user_id\":\"u\"}}");
}

Test(anthropic, tools_and_their_results_are_translated)
{
    expect_body("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\","
                "\"content\":null,\"tool_calls\":[{\"id\":\"t1\","
                "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}"
                "\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"t1\","
                "\"content\":\"42\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":"
                "\"f\",\"description\":\"d\",\"parameters\":"
                "{\"type\":\"object\",\"properties\":{}}}}],\"tool_choice\":\"required\"}",
                "{\"model\":\"claude\",\"max_tokens\":777,\"messages\":[{\"role\":\"user\","
                "\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]},"
                "{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"t1\","
                "\"name\":\"f\",\"input\":{\"a\":1}}]},"
                "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t1\","
                "\"content\":[{\"type\":\"text\",\"text\":\"42\"}]}]}],"
                "\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":"
                "\"object\",\"properties\":{}}}],"
                "\"tool_choice\":{\"type\":\"any\"}}");
}

static void expect_refused(const char *body)
{
    struct bytes out = {.bytes_max = 65536};
    struct outcome outcome = {.code = ""};
    const struct provider_request request = request_of(body);
    cr_assert_eq(protocol_anthropic.write_body(&request, &out, &outcome), -EINVAL, "%s", body);
    cr_assert_eq(outcome.kind, WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED);
    cr_assert_str_neq(outcome.text, "");
    bytes_finish(&out);
}

Test(anthropic, what_cannot_be_said_is_refused_with_words)
{
    expect_refused("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"n\":2}");
    expect_refused("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"logprobs\":true}");
    expect_refused(CHAT("\"response_format\":{\"type\":\"json_object\"},\"tools\":[{\"function\":{"
                        "\"name\":\"f\"}}]"));
    expect_refused(CHAT("\"response_format\":{\"type\":\"json_schema\"}"));
    expect_refused(CHAT("\"response_format\":{\"type\":\"grammar\"}"));
    expect_refused(CHAT("\"tools\":[{\"function\":{\"name\":\"tiermq_json_object\"}}]"));
    expect_refused("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
                   "\"image_url\":{\"url\":\"data:image/png,raw\"}}]}]}");
    expect_refused("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]}");
    expect_refused("{\"messages\":[{\"role\":\"wizard\",\"content\":\"hi\"}]}");
    expect_refused("{\"messages\":[]}");
    expect_refused("{}");
}

static void expect_answer(const char *reply, const char *wanted)
{
    json_t *got = NULL;
    json_t *read = json_loads(reply, 0, NULL);
    json_t *expected = json_loads(wanted, 0, NULL);
    cr_assert_eq(protocol_anthropic.read_answer(read, &got), 0);
    char *text = json_dumps(got, 0);
    cr_assert(json_equal(got, expected), "%s", text);
    free(text);
    json_decref(read);
    json_decref(got);
    json_decref(expected);
}

Test(anthropic, the_answer_comes_back_in_openai_form)
{
    expect_answer("{\"id\":\"msg\",\"type\":\"message\",\"role\":\"assistant\",\"model\":"
                  "\"claude\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                  "{\"type\":\"text\",\"text\":\"b\"},{\"type\":\"tool_use\",\"id\":\"t\",\"name\":"
                  "\"f\",\"input\":{\"x\":1}}],\"stop_reason\":\"tool_use\","
                  "\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":5,\"cache_creation_"
                  "input_tokens\":2,\"output_tokens\":3}}",
                  "{\"id\":\"msg\",\"object\":\"chat.completion\",\"model\":\"claude\",\"choices\":"
                  "[{\"index\":0,\"finish_reason\":\"tool_calls\","
                  "\"message\":{\"role\":\"assistant\",\"content\":\"ab\",\"tool_calls\":[{\"id\":"
                  "\"t\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                  "\"arguments\":\"{\\\"x\\\":1}\"}}]}}],\"usage\":{\"prompt_tokens\":17,"
                  "\"completion_tokens\":3,\"total_tokens\":20,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":5,"
                  "\"cache_creation_input_tokens\":2}}}");
}

Test(anthropic, a_reply_that_is_no_message_is_refused)
{
    json_t *got = NULL;
    json_t *read = json_loads("{\"type\":\"message\",\"content\":\"text\"}", 0, NULL);
    cr_assert_eq(protocol_anthropic.read_answer(read, &got), -EBADMSG);
    json_decref(read);
}

/* The chunk an event becomes, as sorted JSON; "" when none. */
static void expect_event(struct protocol_stream *stream, const char *event, const char *wanted)
{
    json_t *chunk = NULL;
    struct outcome outcome;
    cr_assert_eq(protocol_anthropic.read_event(stream, "x", event, strlen(event), &chunk, &outcome),
                 0, "%s", event);
    char *text = chunk == NULL ? strdup("") : json_dumps(chunk, JSON_COMPACT | JSON_SORT_KEYS);
    cr_assert_str_eq(text, wanted);
    free(text);
    json_decref(chunk);
}

Test(anthropic, stream_events_become_chunks)
{
    struct protocol_stream stream = {.head = NULL};
    expect_event(&stream, "{\"type\":\"ping\"}", "");
    expect_event(
        &stream,
        "{\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"c\",\"usage\":{\"input_"
        "tokens\":4,\"output_tokens\":1}}}",
        "{\"choices\":[{\"delta\":{\"content\":\"\",\"role\":\"assistant\"},\"finish_reason\":null,"
        "\"index\":0}],\"id\":\"m\",\"model\":\"c\",\"object\":\"chat.completion.chunk\"}");
    expect_event(&stream,
                 "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":"
                 "\"text\",\"text\":\"\"}}",
                 "");
    expect_event(&stream,
                 "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\","
                 "\"text\":\"hi\"}}",
                 "{\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":null,\"index\":0}"
                 "],\"id\":\"m\",\"model\":\"c\",\"object\":\"chat.completion.chunk\"}");
    expect_event(&stream,
                 "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\"},\"usage\":"
                 "{\"output_tokens\":7}}",
                 "{\"choices\":[{\"delta\":{},\"finish_reason\":\"length\",\"index\":0}],\"id\":"
                 "\"m\",\"model\":\"c\",\"object\":\"chat.completion.chunk\",\"usage\":{"
                 "\"completion_tokens\":7,\"prompt_tokens\":4,\"prompt_tokens_details\":{\"cached_"
                 "tokens\":0},\"total_tokens\":11}}");
    cr_assert_not(stream.is_ended);
    expect_event(&stream, "{\"type\":\"message_stop\"}", "");
    cr_assert(stream.is_ended);
    protocol_stream_finish(&stream);
}

Test(anthropic, an_error_event_ends_the_stream)
{
    static const char event[] =
        "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}";
    struct protocol_stream stream = {.head = NULL};
    struct outcome outcome;
    json_t *chunk = NULL;
    cr_assert_eq(
        protocol_anthropic.read_event(&stream, "error", event, strlen(event), &chunk, &outcome),
        -ECONNABORTED);
    cr_assert_eq(outcome.kind, WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED);
    cr_assert_str_eq(outcome.code, "overloaded");
    cr_assert_not_null(strstr(outcome.text, "Overloaded"));
    protocol_stream_finish(&stream);
}

/* ---- against what Anthropic publishes ---- */

Test(anthropic, requests_are_what_anthropic_publishes)
{
    static const char *const names[] = {"messages",    "images",   "parallel-tools", "json-schema",
                                        "json-object", "thinking", "cache-control"};
    const struct provider_request request = {.operation = OPERATION_CHAT, .model = "claude-model"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        expect_fixture_request(&protocol_anthropic, "anthropic", names[i], &request);
    }
}

Test(anthropic, replies_that_anthropic_gives_come_back_in_openai_form)
{
    static const char *const names[] = {"text",       "stop-sequence", "thinking",
                                        "tool-use",   "json-object",   "cache",
                                        "pause-turn", "max-tokens",    "refusal"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        expect_fixture_reply(&protocol_anthropic, "anthropic", names[i]);
    }
}

Test(anthropic, streams_that_anthropic_gives_become_chunks)
{
    static const char *const names[] = {"text", "tool-use", "thinking", "refusal", "json-object"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        expect_fixture_stream(&protocol_anthropic, "anthropic", names[i]);
    }
}

static const char *outcome_word(Wire__AttemptOutcome kind)
{
    return kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED  ? "rate_limited"
           : kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE ? "unavailable"
           : kind == WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED    ? "rejected"
                                                                : "another";
}

Test(anthropic, errors_that_anthropic_gives_are_judged)
{
    size_t i;
    json_t *error;
    json_t *errors = fixture_json("anthropic/errors.json");
    cr_assert_gt(json_array_size(errors), 0);
    json_array_foreach (errors, i, error) {
        struct outcome outcome;
        const long status = (long)json_integer_value(json_object_get(error, "status"));
        outcome_from_reply(status, OPERATION_CHAT, json_object_get(error, "body"), 0, &outcome);
        cr_assert_str_eq(outcome_word(outcome.kind),
                         json_string_value(json_object_get(error, "outcome")), "status %ld: %s",
                         status, outcome.text);
    }
    json_decref(errors);
}

/* ---- thinking ---- */

Test(anthropic, thinking_leaves_half_of_the_clients_bound_for_the_answer)
{
    expect_body(CHAT("\"reasoning_effort\":\"high\",\"max_tokens\":4000"),
                "{\"model\":\"claude\",\"max_tokens\":4000,\"thinking\":{\"type\":\"enabled\","
                "\"budget_tokens\":2000}," CHAT_THERE "}");
    expect_body(CHAT("\"reasoning_effort\":\"high\",\"max_tokens\":2000"),
                "{\"model\":\"claude\",\"max_tokens\":2000," CHAT_THERE "}");
    expect_body(CHAT("\"reasoning_effort\":\"none\",\"max_tokens\":9000"),
                "{\"model\":\"claude\",\"max_tokens\":9000," CHAT_THERE "}");
}

Test(anthropic, thinking_is_added_to_a_bound_that_is_ours)
{
    expect_body(CHAT("\"reasoning_effort\":\"low\""),
                "{\"model\":\"claude\",\"max_tokens\":1801,\"thinking\":{\"type\":\"enabled\","
                "\"budget_tokens\":1024}," CHAT_THERE "}");
}

Test(anthropic, thinking_is_left_out_where_a_tool_is_forced_or_has_answered)
{
    expect_body(
        CHAT("\"reasoning_effort\":\"low\",\"max_tokens\":9000,\"tool_choice\":\"required\","
             "\"tools\":[{\"function\":{\"name\":\"f\"}}]"),
        "{\"model\":\"claude\",\"max_tokens\":9000," CHAT_THERE
        ",\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}}],"
        "\"tool_choice\":{\"type\":\"any\"}}");
    expect_body(
        "{\"reasoning_effort\":\"low\",\"max_tokens\":9000,\"messages\":[{\"role\":\"tool\","
        "\"tool_call_id\":\"t\",\"content\":\"1\"}]}",
        "{\"model\":\"claude\",\"max_tokens\":9000,\"messages\":[{\"role\":\"user\","
        "\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t\",\"content\":[{"
        "\"type\":\"text\",\"text\":\"1\"}]}]}]}");
}
