#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/unit/worker/fixtures.h"

#define RATE_LIMITED WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED
#define UNAVAILABLE  WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define REJECTED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED
#define ANSWERED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED

Test(responses, chats_become_requests)
{
    static const char *const names[] = {"text", "turns", "image", "tools", "json_object"};
    const struct provider_request request = {.operation = OPERATION_CHAT, .model = "gpt-5.1"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        expect_fixture_request(&protocol_responses, "responses", names[i], &request);
    }
}

Test(responses, a_wish_for_a_stream_goes_along)
{
    const struct provider_request request = {
        .operation = OPERATION_CHAT, .model = "gpt-5.1", .stream = true};
    expect_fixture_request(&protocol_responses, "responses", "json_schema", &request);
}

Test(responses, replies_become_answers)
{
    static const char *const names[] = {"text",       "function_call",  "reasoning", "refusal",
                                        "incomplete", "content_filter", "logprobs"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        expect_fixture_reply(&protocol_responses, "responses", names[i]);
    }
}

Test(responses, streams_become_chunks)
{
    static const char *const names[] = {"text", "function_calls", "incomplete", "compatible"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        expect_fixture_stream(&protocol_responses, "responses", names[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        expect_fixture_answer(&protocol_responses, "responses", names[i]);
    }
}

Test(responses, a_failure_in_a_stream_has_its_meaning)
{
    static const struct {
        const char *name;
        Wire__AttemptOutcome kind;
        const char *code;
        int64_t retry_after_ms;
    } table[] = {
        {"quota", UNAVAILABLE, "credentials", 0},
        {"failed", RATE_LIMITED, "rate_limited", 2000},
        {"flat_error", UNAVAILABLE, "provider_error", 0},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        const struct outcome outcome =
            fixture_stream_outcome(&protocol_responses, "responses", table[i].name);
        cr_expect_eq(outcome.kind, table[i].kind, "%s", table[i].name);
        cr_expect_str_eq(outcome.code, table[i].code, "%s", table[i].name);
        cr_expect_eq(outcome.retry_after_ms, table[i].retry_after_ms, "%s", table[i].name);
    }
    const struct outcome outcome = fixture_error_outcome("responses", "failed", 200);
    cr_expect_eq(outcome.kind, UNAVAILABLE);
    cr_expect_str_eq(outcome.code, "provider_error");
}

static void expect_refused(const char *body, const char *words)
{
    struct bytes out = {.bytes_max = 65536};
    struct outcome outcome = {.code = ""};
    const struct provider_request request = {
        .operation = OPERATION_CHAT, .model = "m", .body = body, .body_bytes = strlen(body)};
    cr_assert_eq(protocol_responses.write_body(&request, &out, &outcome), -EINVAL, "%s", body);
    cr_expect_eq(outcome.kind, REJECTED, "%s", body);
    cr_expect_not_null(strstr(outcome.text, words), "%s: %s", body, outcome.text);
    bytes_finish(&out);
}

Test(responses, what_cannot_be_said_is_refused_with_words)
{
    static const char *const table[][2] = {
        {"{\"n\":2,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "n above 1"},
        {"{\"stop\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "stop"},
        {"{\"modalities\":[\"text\",\"audio\"],\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]"
         "}",
         "audio"},
        {"{\"functions\":[],\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "as tools"},
        {"{\"web_search_options\":{},\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
         "operation responses"},
        {"{\"tools\":[{\"type\":\"custom\"}],\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
         "tools other than functions"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}]}", "part"},
        {"{\"messages\":[{\"role\":\"clown\",\"content\":\"a\"}]}", "role"},
        {"{\"messages\":[]}", "message"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        expect_refused(table[i][0], table[i][1]);
    }
}

static int read_verbatim(struct protocol_stream *stream, const char *event, json_t **ret_event)
{
    struct outcome outcome = {.code = ""};
    return protocol_openai.read_event(stream, "x", event, strlen(event), ret_event, &outcome);
}

Test(responses, the_operation_takes_events_as_they_are_and_the_whole_from_the_last)
{
    struct protocol_stream stream = {.operation = OPERATION_RESPONSES};
    json_t *event = NULL;
    cr_assert_eq(read_verbatim(&stream, "{\"type\":\"response.created\",\"response\":{}}", &event),
                 0);
    cr_assert_not_null(event);
    json_decref(event);
    cr_expect_null(stream.whole);
    cr_assert_eq(read_verbatim(&stream,
                               "{\"type\":\"response.incomplete\",\"response\":{\"status\":"
                               "\"incomplete\",\"output\":[],\"error\":null}}",
                               &event),
                 0);
    cr_expect_eq(event == NULL, false);
    json_decref(event);
    cr_assert(stream.is_ended);
    struct outcome outcome = {.code = ""};
    outcome_from_reply(200, OPERATION_RESPONSES, stream.whole, 0, &outcome);
    cr_expect_eq(outcome.kind, ANSWERED);
    cr_assert_eq(read_verbatim(&stream, "[DONE]", &event), 0);
    cr_expect_null(event);
    cr_expect_eq(read_verbatim(&stream, "{\"type\":\"error\",\"message\":\"m\"}", &event),
                 -ECONNABORTED);
    cr_expect_eq(read_verbatim(&stream, "[1]", &event), -EBADMSG);
    protocol_stream_finish(&stream);
}

Test(responses, one_that_runs_on_is_no_answer)
{
    static const char *const statuses[] = {"queued", "in_progress", "cancelled", "failed"};
    for (size_t i = 0; i < ARRAY_LENGTH(statuses); i++) {
        json_t *body = json_pack("{s:s, s:n, s:[]}", "status", statuses[i], "error", "output");
        struct outcome outcome = {.code = ""};
        json_t *answer = NULL;
        outcome_from_reply(200, OPERATION_RESPONSES, body, 0, &outcome);
        cr_expect_eq(outcome.kind, UNAVAILABLE, "%s", statuses[i]);
        cr_expect_eq(protocol_responses.read_answer(body, &answer), -EBADMSG, "%s", statuses[i]);
        json_decref(body);
    }
}
