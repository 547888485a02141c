#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/cache/cache_store.h"

static char directory[] = "/tmp/tiermq-cache-XXXXXX";
static char path[64];

static void make_directory(void)
{
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/cache", directory);
}

static int remove_one(const char *file, const struct stat *status, int kind, struct FTW *ftw)
{
    (void)status;
    (void)kind;
    (void)ftw;
    return remove(file);
}

static void remove_directory(void)
{
    nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(cache_store, .init = make_directory, .fini = remove_directory);

static struct cache_store_options options(void)
{
    return (struct cache_store_options){
        .path = path,
        .keeps_vectors = true,
        .near_threshold = 0.9,
        .entries_max = 1000,
        .bytes_max = 1 << 30,
        .memory_bytes_max = 1 << 30,
        .write_buffer_bytes = 1 << 20,
        .block_cache_bytes = 1 << 20,
    };
}

static struct cache_store *open_store(const struct cache_store_options *wanted)
{
    struct cache_store *store = NULL;
    char error[CACHE_ERROR_BYTES] = "";
    cr_assert_eq(cache_store_open(wanted, &store, error), 0, "%s", error);
    return store;
}

static void key_of(int number, uint8_t *ret_key)
{
    memset(ret_key, 0, CACHE_KEY_BYTES);
    memcpy(ret_key, &number, sizeof(number));
}

/*
 * An entry of key `number`, with the text "body-<number>", filled at `filled_ms`, living 1000 ms.
 */
static void fill(struct cache_store *store, int number, int64_t filled_ms, uint8_t scope,
                 const char *text)
{
    uint8_t key[CACHE_KEY_BYTES];
    uint8_t scope_id[CACHE_SCOPE_BYTES] = {scope};
    char body[32];
    char error[CACHE_ERROR_BYTES] = "";
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    key_of(number, key);
    snprintf(body, sizeof(body), "body-%d", number);
    entry.filled_unix_ms = (uint64_t)filled_ms;
    entry.expires_unix_ms = (uint64_t)filled_ms + 1000;
    entry.scope.data = scope_id;
    entry.scope.len = scope == 0 ? 0 : CACHE_SCOPE_BYTES;
    entry.model = "m";
    entry.cost_nanousd = 5;
    entry.body.data = (uint8_t *)body;
    entry.body.len = strlen(body);
    cr_assert_eq(cache_store_fill(store, key, &entry, text, error), 0, "%s", error);
}

static enum cache_answer look(struct cache_store *store, int number, int64_t now_ms, uint8_t scope,
                              const char *text, char *ret_body)
{
    struct cache_query query = {.may_be_near = scope != 0, .scope = {scope}, .text = text};
    struct cache_result result;
    char error[CACHE_ERROR_BYTES] = "";
    key_of(number, query.key);
    cr_assert_eq(cache_store_lookup(store, &query, now_ms, &result, error), 0, "%s", error);
    ret_body[0] = '\0';
    if (result.entry != NULL) {
        snprintf(ret_body, 32, "%.*s", (int)result.entry->body.len,
                 (const char *)result.entry->body.data);
        cr_assert_eq(result.entry->cost_nanousd, 5);
        record__cache_entry__free_unpacked(result.entry, NULL);
    }
    return result.answer;
}

Test(cache_store, an_entry_is_found_by_its_key_alone)
{
    const struct cache_store_options wanted = options();
    struct cache_store *store = open_store(&wanted);
    char body[32];
    fill(store, 1, 100, 0, NULL);
    cr_assert_eq(look(store, 1, 200, 0, NULL, body), CACHE_ANSWER_HIT);
    cr_assert_str_eq(body, "body-1");
    cr_assert_eq(look(store, 2, 200, 0, NULL, body), CACHE_ANSWER_MISS);
    cache_store_close(&store);
}

Test(cache_store, an_entry_past_its_time_is_a_miss_and_goes)
{
    const struct cache_store_options wanted = options();
    struct cache_store *store = open_store(&wanted);
    struct cache_store_stats stats;
    char body[32];
    fill(store, 1, 100, 7, "some text of the user");
    cr_assert_eq(look(store, 1, 1099, 0, NULL, body), CACHE_ANSWER_HIT);
    cr_assert_eq(look(store, 1, 1100, 0, NULL, body), CACHE_ANSWER_MISS);
    cache_store_read_stats(store, &stats);
    cr_assert_eq(stats.entries, 0);
    cr_assert_eq(stats.bytes, 0);
    cr_assert_eq(stats.memory_bytes, 0);
    cache_store_close(&store);
}

Test(cache_store, entries_vectors_and_counts_survive_a_restart)
{
    const struct cache_store_options wanted = options();
    struct cache_store *store = open_store(&wanted);
    struct cache_store_stats before, after;
    char body[32];
    fill(store, 1, 100, 7, "what is the capital of france");
    fill(store, 2, 101, 0, NULL);
    cache_store_read_stats(store, &before);
    cache_store_close(&store);
    store = open_store(&wanted);
    cache_store_read_stats(store, &after);
    cr_assert_eq(after.entries, 2);
    cr_assert_eq(after.bytes, before.bytes);
    cr_assert_eq(after.memory_bytes, before.memory_bytes);
    cr_assert_eq(look(store, 9, 200, 7, "What is the CAPITAL of France?", body),
                 CACHE_ANSWER_NEAR_HIT);
    cr_assert_str_eq(body, "body-1");
    cache_store_close(&store);
}

Test(cache_store, the_oldest_go_first_beyond_the_bound)
{
    struct cache_store_options wanted = options();
    wanted.entries_max = 10;
    struct cache_store *store = open_store(&wanted);
    struct cache_store_stats stats;
    char body[32];
    for (int i = 0; i < 100; i++) {
        fill(store, i, 100 + i, 0, NULL);
    }
    cache_store_read_stats(store, &stats);
    cr_assert_eq(stats.entries, 10);
    cr_assert_eq(stats.evictions, 90);
    cr_assert_eq(look(store, 89, 300, 0, NULL, body), CACHE_ANSWER_MISS);
    cr_assert_eq(look(store, 90, 300, 0, NULL, body), CACHE_ANSWER_HIT);
    cache_store_close(&store);
}

Test(cache_store, entries_of_one_moment_or_of_a_clock_set_back_are_evicted_too)
{
    struct cache_store_options wanted = options();
    wanted.entries_max = 10;
    struct cache_store *store = open_store(&wanted);
    struct cache_store_stats stats;
    for (int i = 0; i < 200; i++) {
        fill(store, (i * 37) % 251, 100 - i / 50, 0, NULL);
    }
    cache_store_read_stats(store, &stats);
    cr_assert_eq(stats.entries, 10);
    cache_store_close(&store);
}

Test(cache_store, bounds_in_bytes_and_memory_hold_too)
{
    struct cache_store_options wanted = options();
    wanted.bytes_max = 2000;
    wanted.memory_bytes_max = 20 * 1100;
    struct cache_store *store = open_store(&wanted);
    struct cache_store_stats stats;
    char text[64];
    for (int i = 0; i < 200; i++) {
        snprintf(text, sizeof(text), "question number %d about thing%d", i, i * 7);
        fill(store, i, 100 + i, 7, text);
        cache_store_read_stats(store, &stats);
        cr_assert_leq(stats.bytes, wanted.bytes_max);
        cr_assert_leq(stats.memory_bytes, wanted.memory_bytes_max);
    }
    cr_assert_gt(stats.entries, 5);
    cache_store_close(&store);
}

Test(cache_store, filling_again_replaces_and_counts_once)
{
    const struct cache_store_options wanted = options();
    struct cache_store *store = open_store(&wanted);
    struct cache_store_stats stats;
    char body[32];
    fill(store, 1, 100, 7, "the first text of this entry");
    fill(store, 1, 5000, 7, "the first text of this entry");
    cache_store_read_stats(store, &stats);
    cr_assert_eq(stats.entries, 1);
    cr_assert_eq(look(store, 1, 5500, 0, NULL, body), CACHE_ANSWER_HIT);
    cache_store_close(&store);
}

Test(cache_store, near_matches_never_cross_a_scope)
{
    const struct cache_store_options wanted = options();
    struct cache_store *store = open_store(&wanted);
    char body[32];
    fill(store, 1, 100, 7, "What is the capital of France?");
    cr_assert_eq(look(store, 2, 200, 7, "what is the capital of FRANCE", body),
                 CACHE_ANSWER_NEAR_HIT);
    cr_assert_eq(look(store, 2, 200, 8, "what is the capital of FRANCE", body), CACHE_ANSWER_MISS);
    cr_assert_eq(look(store, 2, 200, 7, "How do I bake bread?", body), CACHE_ANSWER_MISS);
    cache_store_close(&store);
}

Test(cache_store, near_matches_end_with_their_entry)
{
    const struct cache_store_options wanted = options();
    struct cache_store *store = open_store(&wanted);
    char body[32];
    fill(store, 1, 100, 7, "What is the capital of France?");
    cr_assert_eq(look(store, 2, 1100, 7, "what is the capital of FRANCE", body), CACHE_ANSWER_MISS);
    cr_assert_eq(look(store, 2, 200, 7, "what is the capital of FRANCE", body), CACHE_ANSWER_MISS);
    cache_store_close(&store);
}

Test(cache_store, a_path_that_is_no_directory_is_said)
{
    struct cache_store_options wanted = options();
    struct cache_store *store = NULL;
    char error[CACHE_ERROR_BYTES] = "";
    FILE *file = fopen(path, "w");
    fclose(file);
    cr_assert_eq(cache_store_open(&wanted, &store, error), -EIO);
    cr_assert_str_neq(error, "");
    cr_assert_null(store);
}
