/* What the command line makes of many workers' answers about their caches. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "client/cli/cache.h"

static json_t *parse(const char *text)
{
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    cr_assert_not_null(json, "%s in %s", error.text, text);
    return json;
}

/* ---- stats ---- */

static const char TWO_WORKERS[] =
    "{\"complete\": false, \"workers\": ["
    "{\"worker\": \"w1\", \"answer\": {\"entries\": 3, \"bytes\": 300, \"building\": true, \"broken\": false,"
    " \"classes\": [{\"tenant\": \"t\", \"tier\": \"standard\", \"embedder\": \"builtin/1\", \"threshold\": null,"
    " \"why_closed\": \"thin\", \"evidence\": 10}],"
    " \"lookups\": [{\"tenant\": \"t\", \"tier\": \"standard\", \"route\": \"auto\", \"namespace\": \"\", \"exact\": 1, \"near\": 2,"
    " \"stale\": 0, \"miss\": 3, \"bypass\": {\"variety\": 4}, \"saved_usd\": 0.5, \"saved_seconds\": 2}]}},"
    "{\"worker\": \"w2\", \"answer\": {\"entries\": 4, \"bytes\": 40, \"building\": false, \"broken\": true,"
    " \"classes\": [{\"tenant\": \"t\", \"tier\": \"standard\", \"embedder\": \"builtin/1\", \"threshold\": 1.5,"
    " \"why_closed\": \"\", \"evidence\": 200}],"
    " \"lookups\": [{\"tenant\": \"t\", \"tier\": \"standard\", \"route\": \"auto\", \"namespace\": \"\", \"exact\": 10, \"near\": 0,"
    " \"stale\": 1, \"miss\": 0, \"bypass\": {\"variety\": 1, \"tools\": 2}, \"saved_usd\": 0.25, \"saved_seconds\": 1},"
    "{\"tenant\": \"t\", \"tier\": \"standard\", \"route\": \"auto\", \"namespace\": \"n\", \"exact\": 7}]}},"
    "{\"worker\": \"w3\", \"error\": \"it has not answered in time\"}]}";

Test(cache_stats, counters_and_lookups_add_up_by_their_names)
{
    json_t *answer = parse(TWO_WORKERS);
    json_t *sum = cache_stats_sum(answer);
    cr_assert_eq(cache_number(sum, "entries"), 7);
    cr_assert_eq(cache_number(sum, "bytes"), 340);
    cr_assert_eq(cache_number(sum, "building"), 1);
    cr_assert_eq(cache_number(sum, "broken"), 1);
    cr_assert_eq(cache_number(sum, "evictions"), 0);
    const json_t *lookups = json_object_get(sum, "lookups");
    cr_assert_eq(json_array_size(lookups), 2);
    const json_t *first = json_array_get(lookups, 0);
    cr_assert_eq(cache_number(first, "exact"), 11);
    cr_assert_eq(cache_number(first, "near"), 2);
    cr_assert_eq(cache_number(first, "stale"), 1);
    cr_assert_eq(cache_number(first, "miss"), 3);
    cr_assert_eq(cache_number(json_object_get(first, "bypass"), "variety"), 5);
    cr_assert_eq(cache_number(json_object_get(first, "bypass"), "tools"), 2);
    cr_assert_float_eq(cache_real(first, "saved_usd"), 0.75, 1e-9);
    cr_assert_str_eq(cache_text(json_array_get(lookups, 1), "namespace"), "n");
    json_decref(sum);
    json_decref(answer);
}

Test(cache_stats, class_is_told_by_who_has_most_evidence)
{
    json_t *answer = parse(TWO_WORKERS);
    json_t *sum = cache_stats_sum(answer);
    const json_t *classes = json_object_get(sum, "classes");
    cr_assert_eq(json_array_size(classes), 1);
    cr_assert_float_eq(cache_real(json_array_get(classes, 0), "threshold"), 1.5, 1e-9);
    cr_assert_str_eq(cache_text(json_array_get(classes, 0), "why_closed"), "");
    json_decref(sum);
    json_decref(answer);
}

static char *printed(const char *text)
{
    char *shown = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&shown, &bytes);
    json_t *answer = parse(text);
    json_t *sum = cache_stats_sum(answer);
    cache_stats_print(answer, sum, out);
    cr_assert_eq(fclose(out), 0);
    json_decref(sum);
    json_decref(answer);
    return shown;
}

Test(cache_stats, table_shows_workers_sum_reasons_and_thresholds)
{
    char *text = printed(TWO_WORKERS);
    const char *const words[] = {"w1", "building", "w2", "broken", "all", "variety 5, tools 2", "82.4%", "1.500", "builtin/1"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        cr_assert_not_null(strstr(text, words[i]), "%s is not in:\n%s", words[i], text);
    }
    cr_assert_null(strstr(text, "w3"));
    free(text);
}

/* Answers come from other programs, of other versions, too. */
Test(cache_stats, nonsense_is_no_crash)
{
    const char *const cases[] = {
        "{}", "{\"workers\": {}}", "{\"workers\": [1, null, {\"worker\": 5}]}",
        "{\"workers\": [{\"answer\": []}, {\"answer\": {\"entries\": \"x\", \"lookups\": 5, \"classes\": {\"a\": 1}}}]}",
        "{\"workers\": [{\"answer\": {\"lookups\": [null, {\"bypass\": [1]}], \"classes\": [7]}}]}"};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *text = printed(cases[i]);
        cr_assert_not_null(strstr(text, "all"));
        free(text);
    }
}

/* ---- top ---- */

Test(cache_top, entry_of_two_workers_is_one)
{
    json_t *answer = parse("{\"workers\": ["
                           "{\"answer\": {\"entries\": [{\"key\": \"a\", \"hits\": 1, \"saved_usd\": 0.1, \"bytes\": 5,"
                           " \"age_ms\": 10, \"served_ms_ago\": null},"
                           " {\"key\": \"b\", \"hits\": 9, \"saved_usd\": 0.2, \"bytes\": 1}]}},"
                           "{\"error\": \"x\"},"
                           "{\"answer\": {\"entries\": [{\"key\": \"a\", \"hits\": 4, \"saved_usd\": 0.3, \"bytes\": 5,"
                           " \"age_ms\": 30, \"served_ms_ago\": 7}]}}]}");
    json_t *by_saved = cache_top_merge(answer, "saved", 10);
    cr_assert_eq(json_array_size(by_saved), 2);
    const json_t *first = json_array_get(by_saved, 0);
    cr_assert_str_eq(cache_text(first, "key"), "a");
    cr_assert_eq(cache_number(first, "hits"), 5);
    cr_assert_eq(cache_number(first, "bytes"), 10);
    cr_assert_eq(cache_number(first, "age_ms"), 30);
    cr_assert_eq(cache_number(first, "served_ms_ago"), 7);
    cr_assert_eq(cache_number(first, "workers"), 2);
    cr_assert_float_eq(cache_real(first, "saved_usd"), 0.4, 1e-9);
    json_t *by_hits = cache_top_merge(answer, "hits", 1);
    cr_assert_eq(json_array_size(by_hits), 1);
    cr_assert_str_eq(cache_text(json_array_get(by_hits, 0), "key"), "b");
    json_decref(by_hits);
    json_decref(by_saved);
    json_decref(answer);
}

/* ---- pages ---- */

#define K(digit) "0000000000000000000000000000000" digit
#define ENTRY(digit) "{\"key\": \"" K(digit) "\"}"

static void assert_keys(const json_t *entries, const char *digits)
{
    cr_assert_eq(json_array_size(entries), strlen(digits));
    for (size_t i = 0; i < strlen(digits); i++) {
        cr_assert_eq(cache_text(json_array_get(entries, i), "key")[31], digits[i]);
    }
}

Test(cache_page, what_is_beyond_the_first_stop_comes_with_the_next_page)
{
    json_t *answer = parse("{\"workers\": ["
                           "{\"answer\": {\"entries\": [" ENTRY("1") "," ENTRY("5") "], \"next\": \"" K("6") "\"}},"
                           "{\"answer\": {\"entries\": [" ENTRY("1") "," ENTRY("2") "], \"next\": \"" K("3") "\"}},"
                           "{\"answer\": {\"entries\": [" ENTRY("0") "," ENTRY("9") "], \"next\": null}}]}");
    json_t *entries = NULL;
    const char *next = NULL;
    cr_assert_eq(cache_page_merge(answer, NULL, &entries, &next), 0);
    assert_keys(entries, "012");
    cr_assert_str_eq(next, K("3"));
    json_decref(entries);
    json_decref(answer);
}

Test(cache_page, last_page_has_all_that_is_left)
{
    json_t *answer = parse("{\"workers\": [{\"answer\": {\"entries\": [" ENTRY("7") "," ENTRY("4") "], \"next\": null}},"
                           "{\"answer\": {\"entries\": [" ENTRY("2") "]}}]}");
    json_t *entries = NULL;
    const char *next = NULL;
    cr_assert_eq(cache_page_merge(answer, K("3"), &entries, &next), 0);
    assert_keys(entries, "47");
    cr_assert_null(next);
    json_decref(entries);
    json_decref(answer);
}

Test(cache_page, pages_that_would_never_end_are_refused)
{
    const char *const cases[] = {
        "{\"workers\": [{\"answer\": {\"entries\": [], \"next\": \"" K("3") "\"}}]}",
        "{\"workers\": [{\"answer\": {\"entries\": [], \"next\": \"zz\"}}]}",
        "{\"workers\": [{\"answer\": {\"entries\": [{\"key\": \"short\"}], \"next\": null}}]}",
        "{\"workers\": [{\"answer\": {\"entries\": [{}]}}]}"};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *answer = parse(cases[i]);
        json_t *entries = NULL;
        const char *next = NULL;
        cr_assert_eq(cache_page_merge(answer, K("3"), &entries, &next), -EBADMSG, "case %zu", i);
        cr_assert_null(entries);
        json_decref(answer);
    }
}
