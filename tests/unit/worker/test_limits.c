#include <criterion/criterion.h>
#include <string.h>

#include "common/attributes.h"
#include "worker/provider/limits.h"

/* 2026-05-12T14:14:46Z */
enum { MINUTE_MS = 60000 };
static const int64_t now_unix_ms = INT64_C(1778595286000);

/* The lines of a head, NULL at the end. */
static struct limits read_head(const char *const *lines)
{
    struct limits limits;
    limits_init(&limits);
    for (; *lines != NULL; lines++) {
        limits_take_line(&limits, *lines, strlen(*lines), now_unix_ms);
    }
    return limits;
}

static bool summarise(const char *const *lines, Wire__RateLimits *ret_said)
{
    const struct limits limits = read_head(lines);
    return limits_summarise(&limits, ret_said);
}

static int64_t retry_after_ms(const char *const *lines)
{
    return read_head(lines).retry_after_ms;
}

Test(limits, openai_says_requests_and_tokens)
{
    /* community.openai.com/t/1268905, a reply to a chat completion. */
    static const char *const lines[] = {
        "HTTP/2 200\r\n",
        "x-ratelimit-limit-requests: 5000\r\n",
        "x-ratelimit-limit-tokens: 160000\r\n",
        "x-ratelimit-remaining-requests: 4999\r\n",
        "x-ratelimit-remaining-tokens: 159976\r\n",
        "x-ratelimit-reset-requests: 12ms\r\n",
        "x-ratelimit-reset-tokens: 9ms\r\n",
        NULL,
    };
    Wire__RateLimits said;
    cr_assert(summarise(lines, &said));
    cr_assert_eq(said.requests_per_min, 5000);
    cr_assert_eq(said.tokens_per_min, 160000);
    cr_assert(said.has_requests_left && said.requests_left == 4999);
    cr_assert(said.has_tokens_left && said.tokens_left == 159976);
    cr_assert_eq(said.requests_reset_ms, 12);
    cr_assert_eq(said.tokens_reset_ms, 9);
}

Test(limits, anthropic_says_when_in_dates)
{
    /* docs.anthropic.com/en/api/rate-limits, "Response headers". */
    static const char *const lines[] = {
        "anthropic-ratelimit-requests-limit: 4000",
        "anthropic-ratelimit-requests-remaining: 3999",
        "anthropic-ratelimit-requests-reset: 2026-05-12T14:14:47Z",
        "anthropic-ratelimit-input-tokens-limit: 400000",
        "anthropic-ratelimit-input-tokens-remaining: 399000",
        "anthropic-ratelimit-input-tokens-reset: 2026-05-12T14:14:46.5+00:00",
        "anthropic-ratelimit-tokens-limit: 480000",
        "anthropic-ratelimit-tokens-remaining: 479000",
        "anthropic-ratelimit-tokens-reset: 2026-05-12T16:14:48+02:00",
        NULL,
    };
    Wire__RateLimits said;
    cr_assert(summarise(lines, &said));
    cr_assert_eq(said.requests_per_min, 4000);
    cr_assert_eq(said.requests_reset_ms, 1000);
    cr_assert_eq(said.tokens_per_min, 480000, "the common limit goes before that of the input");
    cr_assert_eq(said.tokens_left, 479000);
    cr_assert_eq(said.tokens_reset_ms, 2000);
}

Test(limits, output_that_is_used_up_leaves_no_tokens)
{
    static const char *const lines[] = {
        "anthropic-ratelimit-input-tokens-limit: 400000",
        "anthropic-ratelimit-input-tokens-remaining: 399000",
        "anthropic-ratelimit-output-tokens-remaining: 0",
        "anthropic-ratelimit-output-tokens-reset: 2026-05-12T14:15:16Z",
        NULL,
    };
    Wire__RateLimits said;
    cr_assert(summarise(lines, &said));
    cr_assert_eq(said.tokens_per_min, 400000);
    cr_assert(said.has_tokens_left && said.tokens_left == 0);
    cr_assert_eq(said.tokens_reset_ms, 30000);
}

Test(limits, a_limit_of_a_day_is_none_of_a_minute)
{
    /* console.groq.com/docs/rate-limits: requests a day, tokens a minute, under the same names. */
    static const char *const lines[] = {
        "x-ratelimit-limit-requests: 14400",
        "x-ratelimit-limit-tokens: 18000",
        "x-ratelimit-remaining-requests: 14370",
        "x-ratelimit-remaining-tokens: 17997",
        "x-ratelimit-reset-requests: 2m59.56s",
        "x-ratelimit-reset-tokens: 7.66ms",
        NULL,
    };
    Wire__RateLimits said;
    cr_assert(summarise(lines, &said));
    cr_assert_eq(said.requests_per_min, 0);
    cr_assert(said.has_requests_left && said.requests_left == 14370);
    cr_assert_eq(said.requests_reset_ms, 179560);
    cr_assert_eq(said.tokens_per_min, 18000);
}

Test(limits, the_drafts_names_need_a_window)
{
    static const char *const with_window[] = {"RateLimit-Limit: 10, 10;w=1, 1000;w=3600",
                                              "RateLimit-Remaining: 9", "RateLimit-Reset: 50",
                                              NULL};
    static const char *const without[] = {"ratelimit-limit: 1000", "ratelimit-remaining: 0",
                                          "ratelimit-reset: 50", NULL};
    static const char *const older[] = {"X-RateLimit-Limit: 100, 100;window=60, 10000;window=86400",
                                        NULL};
    Wire__RateLimits said;
    cr_assert(summarise(with_window, &said));
    cr_assert_eq(said.requests_per_min, 600);
    cr_assert_eq(said.requests_reset_ms, 50000);
    cr_assert(summarise(without, &said));
    cr_assert_eq(said.requests_per_min, 0);
    cr_assert(said.has_requests_left && said.requests_left == 0);
    cr_assert(summarise(older, &said));
    cr_assert_eq(said.requests_per_min, 100);
}

Test(limits, no_limit_is_larger_than_can_be_counted)
{
    static const char *const lines[] = {"RateLimit-Limit: 1000000000000000;w=0.001", NULL};
    Wire__RateLimits said;
    cr_assert(summarise(lines, &said));
    cr_assert_eq(said.requests_per_min, UINT64_C(1000000000000000));
}

Test(limits, a_head_without_them_says_nothing)
{
    static const char *const lines[] = {"content-type: application/json",
                                        "x-ratelimit-limit-requests: many",
                                        "x-ratelimit-remaining-tokens: -1",
                                        "no colon",
                                        "",
                                        NULL};
    Wire__RateLimits said;
    cr_assert_not(summarise(lines, &said));
    cr_assert_eq(retry_after_ms(lines), 0);
}

Test(limits, a_new_status_line_begins_anew)
{
    static const char *const lines[] = {"HTTP/1.1 103 Early Hints", "x-ratelimit-limit-requests: 1",
                                        "Retry-After: 9", "HTTP/1.1 200 OK", NULL};
    Wire__RateLimits said;
    cr_assert_not(summarise(lines, &said));
    cr_assert_eq(retry_after_ms(lines), 0);
}

Test(limits, retry_after_is_read_in_every_form)
{
    static const struct {
        const char *lines[3];
        int64_t ms;
    } table[] = {
        {{"Retry-After: 7", NULL}, 7000},
        {{"retry-after: 0.5", NULL}, 500},
        {{"Retry-After: Tue, 12 May 2026 14:15:16 GMT", NULL}, 30000},
        {{"Retry-After: Tue, 12 May 2026 14:14:16 GMT", NULL}, 0},
        {{"retry-after-ms: 1500", "Retry-After: 2"}, 1500},
        {{"Retry-After: 2", "x-ms-retry-after-ms: 1500"}, 1500},
        {{"Retry-After: soon", NULL}, 0},
        {{"Retry-After: -5", NULL}, 0},
        {{"Retry-After: nan", NULL}, 0},
        {{"Retry-After: 0x10", NULL}, 0},
        {{"retry-after-ms: 1e99", NULL}, 0},
        {{"Retry-After: 999999", NULL}, LIMITS_WAIT_MS_MAX},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        cr_assert_eq(retry_after_ms(table[i].lines), table[i].ms, "%s", table[i].lines[0]);
    }
}

Test(limits, waits_are_read_in_every_form)
{
    static const struct {
        const char *text;
        int64_t ms;
    } table[] = {
        {"1s", 1000},
        {"6m0s", 6 * MINUTE_MS},
        {"20ms", 20},
        {"1h2m3.5s", 3723500},
        {"15.002899939s", 15003},
        {"120us", 1},
        {"30", 30000},
        {"1778595288", 2000},
        {"1778595289500", 3500},
        {"2026-05-12T14:14:47.25Z", 1250},
        {"2026-05-12T09:14:47-05:00", 1000},
        {"9999999999h", LIMITS_WAIT_MS_MAX},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        int64_t ms = -1;
        cr_assert(limits_read_wait(table[i].text, now_unix_ms, &ms), "%s", table[i].text);
        cr_assert_eq(ms, table[i].ms, "%s: %ld", table[i].text, (long)ms);
    }
    int64_t ms = -1;
    static const char *const none[] = {"", "s", "soon", "-1", "12 parsecs", "inf", "2026-99-99"};
    for (size_t i = 0; i < ARRAY_LENGTH(none); i++) {
        cr_assert_not(limits_read_wait(none[i], now_unix_ms, &ms), "%s", none[i]);
    }
    cr_assert_eq(ms, -1);
}
