#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/unit/worker/fixtures.h"
#include "worker/provider/outcome.h"

#define ANSWERED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define RATE_LIMITED WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED
#define UNAVAILABLE  WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define REJECTED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED
#define REFUSED      WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED
#define INVALID      WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID

/* A chat with nothing but what `members` adds. */
#define CHAT(members) "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]," members "}"
#define MESSAGES(...) "{\"messages\":[" __VA_ARGS__ "]}"

static struct provider_request request_of(enum operation operation, const char *body)
{
    return (struct provider_request){
        .operation = operation,
        .model = "gemini-model",
        .body = body,
        .body_bytes = strlen(body),
    };
}

/* ---- against what Google publishes ---- */

Test(gemini, requests_are_what_google_publishes)
{
    static const char *const names[] = {"text",  "system", "chat",    "image",
                                        "tools", "schema", "settings"};
    const struct provider_request request = request_of(OPERATION_CHAT, "");
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        expect_fixture_request(&protocol_gemini, "gemini", names[i], &request);
    }
    const struct provider_request embeddings = request_of(OPERATION_EMBEDDINGS, "");
    expect_fixture_request(&protocol_gemini, "gemini", "embeddings", &embeddings);
}

Test(gemini, replies_that_google_gives_come_back_in_openai_form)
{
    static const char *const names[] = {
        "text",           "cached",
        "thought-call",   "parallel-calls",
        "safety",         "prompt-blocked",
        "only-feedback",  "failed",
        "malformed-call", "candidates-logprobs",
        "embeddings",     "embeddings-counted",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        expect_fixture_reply(&protocol_gemini, "gemini", names[i]);
    }
}

Test(gemini, streams_that_google_gives_become_chunks)
{
    static const char *const names[] = {"text", "thought-call", "no-parts", "recitation",
                                        "candidates"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        expect_fixture_stream(&protocol_gemini, "gemini", names[i]);
    }
}

/* What the job's outcome is when Google sends this. */
static struct outcome outcome_of(const char *file, long status)
{
    struct outcome outcome;
    json_t *reply = fixture_json(file);
    json_t *answer = NULL;
    if (status == 200) {
        cr_assert_eq(protocol_gemini.read_answer(reply, &answer), 0, "%s", file);
    } else {
        answer = json_incref(reply);
    }
    outcome_from_reply(status, OPERATION_CHAT, answer, 0, &outcome);
    json_decref(answer);
    json_decref(reply);
    return outcome;
}

Test(gemini, replies_have_their_outcomes)
{
    static const struct {
        const char *file;
        long status;
        Wire__AttemptOutcome kind;
        const char *code;
        int64_t retry_after_ms;
    } table[] = {
        {"gemini/text.reply.gemini.json", 200, ANSWERED, "", 0},
        {"gemini/safety.reply.gemini.json", 200, ANSWERED, "", 0},
        {"gemini/prompt-blocked.reply.gemini.json", 200, REFUSED, "content_refused", 0},
        {"gemini/only-feedback.reply.gemini.json", 200, REFUSED, "content_refused", 0},
        {"gemini/failed.reply.gemini.json", 200, UNAVAILABLE, "provider_error", 0},
        {"gemini/malformed-call.reply.gemini.json", 200, UNAVAILABLE, "provider_error", 0},
        {"gemini/rate-limit.error.gemini.json", 429, RATE_LIMITED, "rate_limited", 15000},
        {"gemini/api-key.error.gemini.json", 400, UNAVAILABLE, "credentials", 0},
        {"gemini/not-enabled.error.gemini.json", 403, UNAVAILABLE, "credentials", 0},
        {"gemini/location.error.gemini.json", 400, UNAVAILABLE, "credentials", 0},
        {"gemini/unknown-model.error.gemini.json", 404, REJECTED, "rejected", 0},
        {"gemini/overloaded.error.gemini.json", 503, UNAVAILABLE, "unavailable", 0},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        const struct outcome outcome = outcome_of(table[i].file, table[i].status);
        cr_assert_eq(outcome.kind, table[i].kind, "%s: %s", table[i].file, outcome.text);
        cr_assert_str_eq(outcome.code, table[i].code, "%s", table[i].file);
        cr_assert_eq(outcome.retry_after_ms, table[i].retry_after_ms, "%s", table[i].file);
    }
}

/* ---- the address and the key ---- */

static void expect_path(enum operation operation, const char *model, bool stream,
                        const char *wanted)
{
    struct bytes out = {.bytes_max = 1024};
    struct provider_request request = request_of(operation, "");
    request.model = model;
    request.stream = stream;
    cr_assert_eq(protocol_gemini.write_path(&request, &out), 0);
    cr_assert_str_eq(out.data, wanted);
    bytes_finish(&out);
}

Test(gemini, the_path_names_the_model_and_the_verb)
{
    expect_path(OPERATION_CHAT, "gemini-2.5-flash", false,
                "/models/gemini-2.5-flash:generateContent");
    expect_path(OPERATION_CHAT, "gemini-2.5-flash", true,
                "/models/gemini-2.5-flash:streamGenerateContent?alt=sse");
    expect_path(OPERATION_CHAT, "tunedModels/mine", false, "/tunedModels/mine:generateContent");
    expect_path(OPERATION_EMBEDDINGS, "a?b#c d", false, "/models/a%3Fb%23c%20d:batchEmbedContents");
    struct bytes out = {.bytes_max = 1024};
    const struct provider_request request = request_of(OPERATION_COMPLETIONS, "");
    cr_assert_eq(protocol_gemini.write_path(&request, &out), -ENOTSUP);
    bytes_finish(&out);
}

Test(gemini, the_key_goes_into_googles_header)
{
    struct curl_slist *headers = protocol_gemini.add_headers(NULL, "secret");
    cr_assert_str_eq(headers->data, "x-goog-api-key: secret");
    cr_assert_null(headers->next);
    curl_slist_free_all(headers);
    cr_assert_null(protocol_gemini.add_headers(NULL, ""));
}

/* ---- what cannot be said ---- */

static void expect_refused(enum operation operation, const char *body, const char *code,
                           const char *word)
{
    struct bytes out = {.bytes_max = 65536};
    struct outcome outcome = {.code = ""};
    const struct provider_request request = request_of(operation, body);
    cr_assert_eq(protocol_gemini.write_body(&request, &out, &outcome), -EINVAL, "%s", body);
    cr_assert_eq(outcome.kind, strcmp(code, "invalid_body") == 0 ? INVALID : REJECTED);
    cr_assert_str_eq(outcome.code, code, "%s", body);
    cr_assert_not_null(strstr(outcome.text, word), "%s: %s", body, outcome.text);
    cr_assert_eq(outcome.retry_after_ms, 0);
    bytes_finish(&out);
}

Test(gemini, what_cannot_be_said_is_refused_by_its_member)
{
    static const struct {
        const char *body;
        const char *word;
    } table[] = {
        {CHAT("\"n\":9"), "n above 8"},
        {CHAT("\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\"]"), "stop"},
        {CHAT("\"logit_bias\":{\"1\":5}"), "logit_bias"},
        {CHAT("\"modalities\":[\"text\",\"audio\"]"), "modalities"},
        {CHAT("\"audio\":{\"voice\":\"x\"}"), "audio"},
        {CHAT("\"functions\":[{\"name\":\"f\"}]"), "functions"},
        {CHAT("\"web_search_options\":{\"a\":1}"), "web_search_options"},
        {CHAT("\"parallel_tool_calls\":false"), "parallel_tool_calls"},
        {CHAT("\"reasoning_effort\":\"xhigh\""), "reasoning_effort"},
        {CHAT("\"response_format\":{\"type\":\"grammar\"}"), "response_format"},
        {CHAT("\"tools\":[{\"type\":\"custom\",\"custom\":{\"name\":\"c\"}}]"), "tools"},
        {CHAT("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
              "\"tool_choice\":\"perhaps\""),
         "tool_choice"},
        {MESSAGES("{\"role\":\"wizard\",\"content\":\"hi\"}"), "wizard"},
        {MESSAGES("{\"role\":\"user\",\"content\":[{\"type\":\"video\"}]}"), "video"},
        {MESSAGES("{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"file_id\":"
                  "\"f\"}}]}"),
         "file_data"},
        {MESSAGES("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
                  "\"data:text/plain,hi\"}}]}"),
         "base64"},
        {MESSAGES("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
                  "\"data:text/plain,hi;base64,aGk=\"}}]}"),
         "base64"},
        {MESSAGES("{\"role\":\"system\",\"content\":[{\"type\":\"image_url\",\"image_url\":{"
                  "\"url\":\"http://x\"}}]}"),
         "instruction"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        expect_refused(OPERATION_CHAT, table[i].body, "unsupported", table[i].word);
    }
}

Test(gemini, embeddings_that_cannot_be_said_are_refused_by_their_member)
{
    expect_refused(OPERATION_EMBEDDINGS, "{\"input\":\"a\",\"encoding_format\":\"base64\"}",
                   "unsupported", "encoding_format");
    expect_refused(OPERATION_EMBEDDINGS, "{\"input\":[1,2]}", "unsupported", "input");
    expect_refused(OPERATION_EMBEDDINGS, "{}", "unsupported", "input");
    expect_refused(OPERATION_EMBEDDINGS, "{\"input\":[]}", "rejected", "input");
    char body[1024] = "{\"input\":[\"a\"";
    for (int i = 0; i < 100; i++) {
        strcat(body, ",\"a\"");
    }
    strcat(body, "]}");
    expect_refused(OPERATION_EMBEDDINGS, body, "unsupported", "100");
}

Test(gemini, what_makes_no_sense_is_rejected_with_words)
{
    expect_refused(OPERATION_CHAT, "{}", "rejected", "messages");
    expect_refused(OPERATION_CHAT, MESSAGES("{\"role\":\"system\",\"content\":\"a\"}"), "rejected",
                   "messages");
    expect_refused(OPERATION_CHAT, MESSAGES("{\"role\":\"user\",\"content\":\"\"}"), "rejected",
                   "messages");
    expect_refused(OPERATION_CHAT, MESSAGES("{\"role\":\"user\",\"content\":7}"), "rejected",
                   "content");
    expect_refused(OPERATION_CHAT,
                   MESSAGES("{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"tool\","
                            "\"tool_call_id\":\"t\",\"content\":\"a\"}"),
                   "rejected", "tool_call_id");
    expect_refused(OPERATION_CHAT, MESSAGES("{\"role\":\"assistant\",\"tool_calls\":[{}]}"),
                   "rejected", "function name");
    expect_refused(OPERATION_CHAT,
                   MESSAGES("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":7}]}"),
                   "rejected", "text");
    expect_refused(OPERATION_CHAT,
                   CHAT("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
                        "\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":"
                        "\"required\",\"tools\":[]}}"),
                   "rejected", "tool_choice");
    expect_refused(OPERATION_CHAT, "[]", "invalid_body", "JSON object");
    expect_refused(OPERATION_CHAT, "{\"a\":\"\\u0000\"}", "invalid_body", "JSON object");
}

static void expect_member(const char *body, const char *member, const char *wanted)
{
    struct bytes out = {.bytes_max = 65536};
    struct outcome outcome = {.code = ""};
    const struct provider_request request = request_of(OPERATION_CHAT, body);
    cr_assert_eq(protocol_gemini.write_body(&request, &out, &outcome), 0, "%s", outcome.text);
    json_t *got = json_loads(out.data, 0, NULL);
    json_t *expected = wanted == NULL ? NULL : json_loads(wanted, 0, NULL);
    if (wanted == NULL) {
        cr_assert_null(json_object_get(got, member), "%s", out.data);
    } else {
        expect_json(json_object_get(got, member), expected, body);
    }
    json_decref(got);
    json_decref(expected);
    bytes_finish(&out);
}

#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"

Test(gemini, each_choice_of_tools_has_its_mode)
{
    expect_member(CHAT(TOOLS), "toolConfig", NULL);
    expect_member(CHAT("\"tool_choice\":\"required\""), "toolConfig", NULL);
    expect_member(CHAT(TOOLS ",\"tool_choice\":\"auto\""), "toolConfig",
                  "{\"functionCallingConfig\":{\"mode\":\"AUTO\"}}");
    expect_member(CHAT(TOOLS ",\"tool_choice\":\"none\""), "toolConfig",
                  "{\"functionCallingConfig\":{\"mode\":\"NONE\"}}");
    expect_member(CHAT(TOOLS ",\"tool_choice\":\"required\""), "toolConfig",
                  "{\"functionCallingConfig\":{\"mode\":\"ANY\"}}");
    expect_member(
        CHAT(TOOLS ",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":"
                   "\"required\",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"
                   "]}}"),
        "toolConfig",
        "{\"functionCallingConfig\":{\"mode\":\"ANY\",\"allowedFunctionNames\":[\"f\"]}}");
}

Test(gemini, what_is_null_is_not_said)
{
    expect_member(CHAT("\"stop\":null,\"seed\":null,\"temperature\":null,\"reasoning_effort\":null,"
                       "\"response_format\":null,\"tool_choice\":null,\"logit_bias\":null"),
                  "generationConfig", NULL);
}

Test(gemini, a_body_that_outgrows_its_bound_is_an_error)
{
    struct bytes out = {.bytes_max = 20};
    struct outcome outcome = {.code = ""};
    const struct provider_request request = request_of(OPERATION_CHAT, CHAT("\"n\":1"));
    cr_assert_eq(protocol_gemini.write_body(&request, &out, &outcome), -EMSGSIZE);
    bytes_finish(&out);
}

/* ---- replies that are none ---- */

Test(gemini, a_reply_that_is_none_is_refused)
{
    static const char *const replies[] = {
        "{}",
        "{\"candidates\":[]}",
        "{\"candidates\":{}}",
        "{\"candidates\":[{\"index\":8}]}",
        "{\"candidates\":[{\"index\":-1}]}",
        "{\"candidates\":[{\"index\":\"0\"}]}",
        "{\"embeddings\":[{}]}",
        "{\"embeddings\":[{\"values\":\"AAAA\"}]}",
    };
    for (size_t i = 0; i < ARRAY_LENGTH(replies); i++) {
        json_t *answer = NULL;
        json_t *reply = json_loads(replies[i], 0, NULL);
        cr_assert_eq(protocol_gemini.read_answer(reply, &answer), -EBADMSG, "%s", replies[i]);
        cr_assert_null(answer);
        json_decref(reply);
    }
}

/* ---- streams that break off ---- */

static int feed(struct protocol_stream *stream, const char *event, struct outcome *ret_outcome)
{
    json_t *chunk = NULL;
    int r =
        protocol_gemini.read_event(stream, "message", event, strlen(event), &chunk, ret_outcome);
    json_decref(chunk);
    return r;
}

Test(gemini, a_stream_is_ended_only_when_each_choice_is)
{
    struct protocol_stream stream = {.head = NULL};
    struct outcome outcome;
    cr_assert_eq(feed(&stream, "{\"candidates\":[{\"index\":0},{\"index\":1}]}", &outcome), 0);
    cr_assert_not(stream.is_ended);
    cr_assert_eq(
        feed(&stream, "{\"candidates\":[{\"index\":1,\"finishReason\":\"STOP\"}]}", &outcome), 0);
    cr_assert_not(stream.is_ended);
    cr_assert_eq(
        feed(&stream, "{\"candidates\":[{\"index\":0,\"finishReason\":\"STOP\"}]}", &outcome), 0);
    cr_assert(stream.is_ended);
    protocol_stream_finish(&stream);
}

Test(gemini, an_error_or_a_block_ends_the_stream_with_its_outcome)
{
    static const struct {
        const char *event;
        int r;
        Wire__AttemptOutcome kind;
    } table[] = {
        {"{\"error\":{\"code\":429,\"message\":\"m\",\"status\":\"RESOURCE_EXHAUSTED\"}}",
         -ECONNABORTED, RATE_LIMITED},
        {"{\"error\":{\"code\":500,\"message\":\"m\",\"status\":\"INTERNAL\"}}", -ECONNABORTED,
         UNAVAILABLE},
        {"{\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}", -ECONNABORTED, REFUSED},
        {"{\"candidates\":[{\"finishReason\":\"MALFORMED_FUNCTION_CALL\"}]}", -ECONNABORTED,
         UNAVAILABLE},
        {"[]", -EBADMSG, 0},
        {"{", -EBADMSG, 0},
        {"{\"candidates\":[{\"index\":8}]}", -EBADMSG, 0},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        struct protocol_stream stream = {.head = NULL};
        struct outcome outcome = {.kind = 0};
        cr_assert_eq(feed(&stream, "{\"candidates\":[{\"content\":{}}]}", &outcome), 0);
        cr_assert_eq(feed(&stream, table[i].event, &outcome), table[i].r, "%s", table[i].event);
        cr_assert_eq(outcome.kind, table[i].kind, "%s", table[i].event);
        protocol_stream_finish(&stream);
    }
}

Test(gemini, an_event_without_news_makes_no_chunk)
{
    struct protocol_stream stream = {.head = NULL};
    struct outcome outcome;
    json_t *chunk = NULL;
    cr_assert_eq(
        protocol_gemini.read_event(&stream, "message", "{\"error\":null}", 14, &chunk, &outcome),
        0);
    cr_assert_null(chunk);
    protocol_stream_finish(&stream);
}
