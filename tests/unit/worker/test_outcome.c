#include <criterion/criterion.h>
#include <string.h>

#include "common/attributes.h"
#include "worker/provider/outcome.h"

#define ANSWERED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define RATE_LIMITED WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED
#define UNAVAILABLE  WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define REJECTED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED
#define EXPIRED      WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED
#define REFUSED      WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED

static struct outcome judge(long status, const char *body, int64_t retry_after_ms)
{
    struct outcome outcome;
    json_t *json = body == NULL ? NULL : json_loads(body, 0, NULL);
    outcome_from_reply(status, OPERATION_CHAT, json, retry_after_ms, &outcome);
    json_decref(json);
    return outcome;
}

Test(outcome, each_status_has_its_meaning)
{
    static const struct {
        long status;
        Wire__AttemptOutcome kind;
    } table[] = {
        {429, RATE_LIMITED}, {498, RATE_LIMITED}, {500, UNAVAILABLE},  {502, UNAVAILABLE},
        {503, UNAVAILABLE},  {504, UNAVAILABLE},  {529, RATE_LIMITED}, {408, UNAVAILABLE},
        {409, UNAVAILABLE},  {425, UNAVAILABLE},  {302, UNAVAILABLE},  {401, UNAVAILABLE},
        {402, UNAVAILABLE},  {403, UNAVAILABLE},  {400, REJECTED},     {404, REJECTED},
        {413, REJECTED},     {422, REJECTED},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        const struct outcome outcome =
            judge(table[i].status, "{\"error\":{\"message\":\"why\"}}", 0);
        cr_assert_eq(outcome.kind, table[i].kind, "status %ld", table[i].status);
        cr_assert_not_null(strstr(outcome.text, "why"));
        cr_assert_str_neq(outcome.code, "");
    }
}

Test(outcome, a_success_without_an_answer_is_unavailable)
{
    cr_assert_eq(judge(200, NULL, 0).kind, UNAVAILABLE);
    cr_assert_eq(judge(200, "[]", 0).kind, UNAVAILABLE);
    cr_assert_eq(judge(200, "{}", 0).kind, UNAVAILABLE);
    cr_assert_eq(judge(200, "{\"choices\":[]}", 0).kind, UNAVAILABLE);
    cr_assert_eq(judge(200, "{\"error\":{\"message\":\"overloaded\"},\"choices\":[{}]}", 0).kind,
                 UNAVAILABLE);
    cr_assert_eq(judge(200, "{\"choices\":[{\"index\":0}],\"error\":null}", 0).kind, ANSWERED);
}

Test(outcome, whether_a_call_has_reached_anybody)
{
    static const struct {
        CURLcode code;
        bool is_unreached;
    } table[] = {{CURLE_COULDNT_CONNECT, true},     {CURLE_COULDNT_RESOLVE_HOST, true},
                 {CURLE_SSL_CONNECT_ERROR, true},   {CURLE_RECV_ERROR, false},
                 {CURLE_OPERATION_TIMEDOUT, false}, {CURLE_PARTIAL_FILE, false}};
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        struct outcome outcome;
        outcome_from_transport(table[i].code, "why", false, &outcome);
        cr_assert_eq(outcome_is_unreached(&outcome), table[i].is_unreached, "%d", (int)table[i].code);
    }
    const struct outcome unavailable = judge(503, NULL, 0);
    cr_assert_not(outcome_is_unreached(&unavailable));
}

Test(outcome, retry_after_comes_from_header_member_or_words)
{
    cr_assert_eq(judge(429, NULL, 7000).retry_after_ms, 7000);
    cr_assert_eq(judge(429, "{\"error\":{\"retry_after\":1.5}}", 0).retry_after_ms, 1500);
    cr_assert_eq(
        judge(429, "{\"error\":{\"message\":\"Please try again in 1m2.5s.\"}}", 0).retry_after_ms,
        62500);
    cr_assert_eq(judge(429, "{\"error\":{\"message\":\"try again in 120ms\"}}", 0).retry_after_ms,
                 120);
    cr_assert_eq(judge(429, "{\"error\":{\"message\":\"try again in a while\"}}", 0).retry_after_ms,
                 0);
    cr_assert_eq(
        judge(429, "{\"error\":{\"message\":\"try again in 999999999h\"}}", 0).retry_after_ms,
        OUTCOME_RETRY_AFTER_MS_MAX);
    cr_assert_eq(judge(503, NULL, 2000).retry_after_ms, 2000);
}

/* Replies as they were seen, cut to what tells them apart. */
Test(outcome, the_words_of_an_error_go_before_its_status)
{
    static const struct {
        long status;
        const char *body;
        Wire__AttemptOutcome kind;
        const char *code;
        int64_t retry_after_ms;
    } table[] = {
        /* github.com/langchain-ai/langchainjs/issues/1929: OpenAI, no money. */
        {429,
         "{\"error\":{\"message\":\"You exceeded your current quota, please check your plan and "
         "billing details.\",\"type\":\"insufficient_quota\",\"param\":null,\"code\":"
         "\"insufficient_quota\"}}",
         UNAVAILABLE, "credentials", 0},
        /* github.com/RooCodeInc/Roo-Code/issues/3883: Google, the same words, and it passes. */
        {429,
         "[{\"error\":{\"code\":429,\"message\":\"You exceeded your current quota, please check "
         "your plan and billing details.\",\"status\":\"RESOURCE_EXHAUSTED\",\"details\":[{"
         "\"@type\":\"type.googleapis.com/google.rpc.Help\"},{\"@type\":\"type.googleapis.com/"
         "google.rpc.RetryInfo\",\"retryDelay\":\"26s\"}]}}]",
         RATE_LIMITED, "rate_limited", 26000},
        /* github.com/browserbase/mcp-server-browserbase/issues/129: Google, in words. */
        {429,
         "{\"error\":{\"code\":429,\"message\":\"Quota exceeded.\\nPlease retry in "
         "47.434392449s.\",\"status\":\"RESOURCE_EXHAUSTED\"}}",
         RATE_LIMITED, "rate_limited", 47435},
        /* learn.microsoft.com, dev-proxy, "529, 429, or spend cap": Anthropic, no money. */
        {429,
         "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"spend\","
         "\"details\":{\"error_code\":\"enforced_spend_limit_reached\"}}}",
         UNAVAILABLE, "credentials", 0},
        /* github.com/anthropics/claude-code/issues/66314. */
        {400,
         "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"Your "
         "credit balance is too low to access the Anthropic API.\"}}",
         UNAVAILABLE, "credentials", 0},
        /* github.com/Aider-AI/aider/issues/1880: larger than the limit, whenever it is sent. */
        {429,
         "{\"error\":{\"message\":\"Request too large for gpt-4o in organization org-x on tokens "
         "per min (TPM): Limit 30000, Requested 36278. The input or output tokens must be reduced "
         "in order to run successfully.\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}",
         REJECTED, "over_limit", 0},
        /* github.com/compl-ai/compl-ai/issues/20: Azure's filter of prompts. */
        {400,
         "{\"error\":{\"message\":\"The response was filtered\",\"type\":null,\"param\":"
         "\"prompt\",\"code\":\"content_filter\",\"status\":400,\"innererror\":{\"code\":"
         "\"ResponsibleAIPolicyViolation\"}}}",
         REFUSED, "content_refused", 0},
        /* github.com/alan-turing-institute/t0-1/issues/69: OpenAI. */
        {400,
         "{\"error\":{\"message\":\"Invalid prompt: your prompt was flagged as potentially "
         "violating our usage policy.\",\"type\":\"invalid_request_error\",\"code\":"
         "\"invalid_prompt\"}}",
         REFUSED, "content_refused", 0},
        /* github.com/anthropics/claude-code/issues/6195. */
        {400,
         "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":"
         "\"Output blocked by content filtering policy\"}}",
         REFUSED, "content_refused", 0},
        /* openrouter.ai/docs/api-reference/errors, "Moderation Errors". */
        {403,
         "{\"error\":{\"code\":403,\"message\":\"flagged\",\"metadata\":{\"reasons\":[\"x\"],"
         "\"flagged_input\":\"…\"}}}",
         REFUSED, "content_refused", 0},
        /* github.com/FirebaseExtended/vertexai-sdk-test-data, unary-failure-api-key: Google. */
        {400,
         "{\"error\":{\"code\":400,\"message\":\"API key not valid. Please pass a valid API "
         "key.\",\"status\":\"INVALID_ARGUMENT\",\"details\":[{\"@type\":\"type.googleapis.com/"
         "google.rpc.ErrorInfo\",\"reason\":\"API_KEY_INVALID\"}]}}",
         UNAVAILABLE, "credentials", 0},
        /* ai.google.dev/gemini-api/docs/troubleshooting: Google. */
        {400,
         "{\"error\":{\"code\":400,\"message\":\"User location is not supported for the API "
         "use.\",\"status\":\"FAILED_PRECONDITION\"}}",
         UNAVAILABLE, "credentials", 0},
        {400, "{\"error\":{\"code\":400,\"message\":\"x\",\"status\":\"INVALID_ARGUMENT\"}}",
         REJECTED, "rejected", 0},
        /* docs.anthropic.com/en/api/errors. */
        {529, "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}", RATE_LIMITED,
         "overloaded", 0},
        /* platform.openai.com/docs/guides/error-codes, "503 - Slow Down". */
        {503, "{\"error\":{\"message\":\"Slow Down\",\"code\":\"slow_down\"}}", RATE_LIMITED,
         "rate_limited", 0},
        /* vLLM: no `error` around it. */
        {400,
         "{\"object\":\"error\",\"message\":\"too long\",\"type\":\"BadRequestError\","
         "\"code\":400}",
         REJECTED, "rejected", 0},
        /* A server at fault is not believed when it speaks of the content. */
        {500, "{\"error\":{\"code\":\"content_filter\"}}", UNAVAILABLE, "unavailable", 0},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        const struct outcome outcome = judge(table[i].status, table[i].body, 0);
        cr_assert_eq(outcome.kind, table[i].kind, "%s", table[i].body);
        cr_assert_str_eq(outcome.code, table[i].code, "%s", table[i].body);
        cr_assert_eq(outcome.retry_after_ms, table[i].retry_after_ms, "%s", table[i].body);
        cr_assert_str_not_empty(outcome.text);
    }
}

Test(outcome, an_error_inside_a_success_is_judged_as_one)
{
    static const struct {
        const char *body;
        Wire__AttemptOutcome kind;
    } table[] = {
        {"{\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}", RATE_LIMITED},
        {"{\"error\":{\"code\":\"content_filter\",\"message\":\"no\"}}", REFUSED},
        {"{\"error\":{\"code\":\"insufficient_quota\"}}", UNAVAILABLE},
        /* openrouter.ai/docs/api-reference/errors: the status stands in the body. */
        {"{\"error\":{\"code\":502,\"message\":\"Provider returned error\"}}", UNAVAILABLE},
        {"{\"error\":{\"code\":429,\"message\":\"slow down\"}}", RATE_LIMITED},
        {"{\"error\":{\"code\":\"400\",\"message\":\"no\"}}", REJECTED},
        {"[{\"error\":{\"code\":503,\"status\":\"UNAVAILABLE\"}}]", UNAVAILABLE},
        {"{\"error\":\"Network connection lost.\"}", UNAVAILABLE},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        cr_assert_eq(judge(200, table[i].body, 0).kind, table[i].kind, "%s", table[i].body);
    }
}

Test(outcome, an_answer_that_was_filtered_is_one_and_says_so)
{
    static const char filtered[] =
        "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"\"},\"finish_reason\":"
        "\"content_filter\"}]}";
    json_t *answer = json_loads(filtered, 0, NULL);
    cr_assert_eq(judge(200, filtered, 0).kind, ANSWERED);
    cr_assert(outcome_is_filtered(answer));
    json_decref(answer);
    answer = json_loads("{\"choices\":[{\"finish_reason\":\"stop\"}]}", 0, NULL);
    cr_assert_not(outcome_is_filtered(answer));
    json_decref(answer);
}

Test(outcome, a_rate_limit_inside_a_success_is_one)
{
    const struct outcome outcome = judge(
        200,
        "{\"error\":{\"type\":\"rate_limit_error\",\"message\":\"slow down\",\"retry_after\":3}}",
        0);
    cr_assert_eq(outcome.kind, RATE_LIMITED);
    cr_assert_eq(outcome.retry_after_ms, 3000);
}

Test(outcome, an_error_without_a_message_has_a_reason_in_words)
{
    cr_assert_str_not_empty(judge(200, "{\"error\":{\"code\":\"rate_limit_exceeded\"}}", 0).text);
    cr_assert_str_not_empty(judge(200, "{\"error\":{}}", 0).text);
}

Test(outcome, transport_failures_are_unavailable_and_the_own_deadline_is_not)
{
    struct outcome outcome;
    outcome_from_transport(CURLE_COULDNT_CONNECT, "", false, &outcome);
    cr_assert_eq(outcome.kind, UNAVAILABLE);
    cr_assert_str_eq(outcome.code, "connect");
    outcome_from_transport(CURLE_OPERATION_TIMEDOUT, "", false, &outcome);
    cr_assert_eq(outcome.kind, UNAVAILABLE);
    cr_assert_str_eq(outcome.code, "timeout");
    outcome_from_transport(CURLE_PARTIAL_FILE, "", false, &outcome);
    cr_assert_str_eq(outcome.code, "truncated");
    outcome_from_transport(CURLE_PEER_FAILED_VERIFICATION, "", false, &outcome);
    cr_assert_str_eq(outcome.code, "tls");
    outcome_from_transport(CURLE_COULDNT_RESOLVE_HOST, "", false, &outcome);
    cr_assert_str_eq(outcome.code, "connect");
    outcome_from_transport(CURLE_OPERATION_TIMEDOUT, "", true, &outcome);
    cr_assert_eq(outcome.kind, EXPIRED);
}
