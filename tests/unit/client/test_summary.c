#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "client/cli/summary.h"
#include "common/exit_codes.h"

static void add(struct summary *summary, const char *tier, enum outcome outcome, int64_t total_us, enum tiermq_cache cache)
{
    const struct tiermq_answer answer = {
        .total_us = total_us, .cache = cache, .input_tokens = 10, .output_tokens = 20, .cost_nanousd = 1000000, .saved_nanousd = 5};
    cr_assert_eq(summary_add(summary, tier, outcome, &answer), 0);
}

Test(summary, adds_up_by_tier)
{
    struct summary summary = {0};
    add(&summary, "realtime", OUTCOME_SUCCEEDED, 1000, TIERMQ_CACHE_HIT);
    add(&summary, "realtime", OUTCOME_SUCCEEDED, 1000, TIERMQ_CACHE_NEAR_HIT);
    add(&summary, "background", OUTCOME_DEAD, 9000000, TIERMQ_CACHE_NONE);
    json_t *json = summary_json(&summary, 2.0);
    const json_t *all = json_object_get(json, "all");
    const json_t *realtime = json_array_get(json_object_get(json, "tiers"), 0);
    cr_assert_eq(json_integer_value(json_object_get(all, "jobs")), 3);
    cr_assert_eq(json_integer_value(json_object_get(all, "input_tokens")), 30);
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(all, "outcomes"), "dead")), 1);
    cr_assert_eq(json_integer_value(json_object_get(json_object_get(realtime, "cache"), "near_hit")), 1);
    const json_int_t p99 = json_integer_value(json_object_get(json_object_get(all, "latency_us"), "p99"));
    cr_assert(p99 >= 1000 && p99 < 1100, "failures are no latencies: %lld", (long long)p99);
    json_decref(json);
    summary_finish(&summary);
}

Test(summary, exit_code_tells_the_worst)
{
    struct summary summary = {0};
    cr_assert_eq(summary_exit_code(&summary), EXIT_OK);
    add(&summary, "t", OUTCOME_SUCCEEDED, 1, TIERMQ_CACHE_NONE);
    add(&summary, "t", OUTCOME_ACCEPTED, 1, TIERMQ_CACHE_NONE);
    cr_assert_eq(summary_exit_code(&summary), EXIT_OK);
    add(&summary, "t", OUTCOME_INVALID, 1, TIERMQ_CACHE_NONE);
    cr_assert_eq(summary_exit_code(&summary), EXIT_REJECTED);
    add(&summary, "t", OUTCOME_LOST, 1, TIERMQ_CACHE_NONE);
    cr_assert_eq(summary_exit_code(&summary), EXIT_NOT_SUCCEEDED);
    summary_finish(&summary);
}

Test(summary, table_names_every_outcome_that_happened)
{
    struct summary summary = {0};
    char *text = NULL;
    size_t bytes = 0;
    add(&summary, "realtime", OUTCOME_SUCCEEDED, 42000, TIERMQ_CACHE_HIT);
    add(&summary, "standard", OUTCOME_EXPIRED, 1, TIERMQ_CACHE_NONE);
    FILE *out = open_memstream(&text, &bytes);
    summary_print(&summary, 1.0, out);
    fclose(out);
    cr_assert_not_null(strstr(text, "expired"));
    cr_assert_null(strstr(text, "cancelled"));
    cr_assert_not_null(strstr(text, "2 jobs in 1.0 s (2/s)"));
    free(text);
    summary_finish(&summary);
}
