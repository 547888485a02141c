#include <criterion/criterion.h>
#include <string.h>

#include "common/attributes.h"
#include "worker/provider/outcome.h"

#define ANSWERED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED
#define RATE_LIMITED WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED
#define UNAVAILABLE  WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
#define REJECTED     WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED
#define EXPIRED      WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED

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
        {429, RATE_LIMITED}, {498, RATE_LIMITED}, {500, UNAVAILABLE}, {502, UNAVAILABLE},
        {503, UNAVAILABLE},  {504, UNAVAILABLE},  {529, UNAVAILABLE}, {408, UNAVAILABLE},
        {409, UNAVAILABLE},  {302, UNAVAILABLE},  {401, UNAVAILABLE}, {402, UNAVAILABLE},
        {403, UNAVAILABLE},  {400, REJECTED},     {404, REJECTED},    {413, REJECTED},
        {422, REJECTED},
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
    outcome_from_transport(CURLE_OPERATION_TIMEDOUT, "", true, &outcome);
    cr_assert_eq(outcome.kind, EXPIRED);
}
