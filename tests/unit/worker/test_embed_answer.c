#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "worker/cache/embed_answer.h"
#include "worker/cache/embed_breaker.h"

static int read_answer(const char *body, float *vectors, char *error)
{
    return embed_answer_read(body, strlen(body), 2, 2, vectors, error);
}

Test(embed_answer, vectors_are_placed_by_index_and_made_one_long)
{
    float vectors[4];
    char error[REFUSAL_BYTES] = "";
    cr_assert_eq(read_answer("{\"data\":[{\"index\":1,\"embedding\":[0,-2]},{\"index\":0,\"embedding\":[3.0,4e0]}],"
                             "\"usage\":{}}",
                             vectors, error),
                 0, "%s", error);
    cr_expect(fabsf(vectors[0] - 0.6F) < 1e-6F && fabsf(vectors[1] - 0.8F) < 1e-6F);
    cr_expect(vectors[2] == 0 && vectors[3] == -1);
}

Test(embed_answer, what_cannot_be_right_is_refused_with_the_reason)
{
#define ONE "{\"index\":0,\"embedding\":[1,2]}"
    static const struct { const char *body, *why; } cases[] = {
        {"", "no JSON"},
        {"{\"data\":[" ONE ",{\"index\":1,\"embedd", "no JSON"},
        {"[]", "0 vectors for 2 texts"},
        {"{}", "0 vectors for 2 texts"},
        {"{\"data\":[" ONE "]}", "1 vectors for 2 texts"},
        {"{\"data\":[" ONE "," ONE "," ONE "]}", "3 vectors for 2 texts"},
        {"{\"data\":[" ONE "," ONE "]}", "index is missing, or there twice"},
        {"{\"data\":[" ONE ",{\"embedding\":[1,2]}]}", "index is missing"},
        {"{\"data\":[" ONE ",{\"index\":2,\"embedding\":[1,2]}]}", "index is missing"},
        {"{\"data\":[" ONE ",{\"index\":-1,\"embedding\":[1,2]}]}", "index is missing"},
        {"{\"data\":[" ONE ",5]}", "index is missing"},
        {"{\"data\":[" ONE ",{\"index\":1}]}", "has 0 dimensions, not 2"},
        {"{\"data\":[" ONE ",{\"index\":1,\"embedding\":[1]}]}", "has 1 dimensions, not 2"},
        {"{\"data\":[" ONE ",{\"index\":1,\"embedding\":[1,2,3]}]}", "has 3 dimensions, not 2"},
        {"{\"data\":[" ONE ",{\"index\":1,\"embedding\":[1,null]}]}", "no finite number"},
        {"{\"data\":[" ONE ",{\"index\":1,\"embedding\":[1,\"2\"]}]}", "no finite number"},
        {"{\"data\":[" ONE ",{\"index\":1,\"embedding\":[1,1e39]}]}", "no finite number"},
        {"{\"data\":[" ONE ",{\"index\":1,\"embedding\":[1,1e999]}]}", "no JSON"},
        {"{\"data\":[" ONE ",{\"index\":1,\"embedding\":[1,NaN]}]}", "no JSON"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        float vectors[4];
        char error[REFUSAL_BYTES] = "";
        cr_expect_eq(read_answer(cases[i].body, vectors, error), -EINVAL, "%s", cases[i].body);
        cr_expect_not_null(strstr(error, cases[i].why), "%s: %s", cases[i].body, error);
    }
}

Test(embed_breaker, it_opens_after_failures_in_a_row_and_one_request_probes)
{
    struct embed_breaker breaker = {0};
    cr_expect_not(embed_breaker_fail(&breaker, 0, 0, 0));
    cr_expect_not(embed_breaker_fail(&breaker, 0, 0, 0));
    cr_expect_not(embed_breaker_succeed(&breaker), "it was not open");
    cr_expect_not(embed_breaker_fail(&breaker, 0, 0, 0));
    cr_expect_not(embed_breaker_fail(&breaker, 0, 0, 0));
    cr_expect(embed_breaker_allows(&breaker, 0));
    cr_expect(embed_breaker_fail(&breaker, 100, 0, 0));
    cr_expect_not(embed_breaker_allows(&breaker, 1099));
    cr_expect(embed_breaker_allows(&breaker, 1100));
    embed_breaker_send(&breaker);
    cr_expect_not(embed_breaker_allows(&breaker, 1100), "one probe at a time");
    cr_expect(embed_breaker_succeed(&breaker));
    cr_expect(embed_breaker_allows(&breaker, 1101));
}

Test(embed_breaker, pauses_double_up_to_a_bound_less_a_random_part)
{
    struct embed_breaker breaker = {0};
    int64_t now_ms = 0;
    int64_t expected_ms = EMBED_BREAKER_PAUSE_FIRST_MS;
    for (int i = 1; i < EMBED_BREAKER_FAILURES_MAX; i++) {
        cr_expect_not(embed_breaker_fail(&breaker, now_ms, 0, 0));
    }
    for (int i = 0; i < 10; i++) {
        cr_expect(embed_breaker_fail(&breaker, now_ms, 0, 1));
        cr_expect_eq(breaker.open_until_ms - now_ms, expected_ms / 2);
        now_ms = breaker.open_until_ms;
        embed_breaker_send(&breaker);
        expected_ms = expected_ms * 2 < EMBED_BREAKER_PAUSE_MAX_MS ? expected_ms * 2 : EMBED_BREAKER_PAUSE_MAX_MS;
    }
}

Test(embed_breaker, a_server_that_says_when_is_heard_at_once)
{
    struct embed_breaker breaker = {0};
    cr_expect(embed_breaker_fail(&breaker, 0, 5000, 1));
    cr_expect_not(embed_breaker_allows(&breaker, 4999));
    cr_expect(embed_breaker_allows(&breaker, 5000));
    breaker = (struct embed_breaker){0};
    cr_expect(embed_breaker_fail(&breaker, 0, 3600000, 0.5));
    cr_expect(embed_breaker_allows(&breaker, EMBED_BREAKER_PAUSE_MAX_MS), "but not for ever");
}

Test(embed_breaker, requests_from_before_it_opened_change_nothing)
{
    struct embed_breaker breaker = {0};
    cr_expect(embed_breaker_fail(&breaker, 0, 1000, 0));
    const int64_t until_ms = breaker.open_until_ms;
    cr_expect_not(embed_breaker_fail(&breaker, 10, 0, 0));
    cr_expect_not(embed_breaker_succeed(&breaker));
    cr_expect(breaker.is_open && breaker.open_until_ms == until_ms);
}
