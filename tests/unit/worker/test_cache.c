#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "tests/unit/remove_tree.h"
#include "worker/cache/cache.h"

static char directory[] = "/tmp/tiermq-cache-XXXXXX";
static char path[64];
static struct loop *loop;
static struct log *log_of_test;
static int log_fd;

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/cache", directory);
    log_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    cr_assert_eq(loop_create(&loop), 0);
    cr_assert_eq(log_create("test", LOG_ERROR, log_fd, &log_of_test), 0);
}

static void tear_down(void)
{
    log_destroy(&log_of_test);
    loop_destroy(&loop);
    close(log_fd);
    remove_tree(directory);
}

TestSuite(cache, .init = set_up, .fini = tear_down, .timeout = 60);

static uint64_t applied_sequence;

static void applied(void *context, const char *endpoint, const uint8_t epoch[CACHE_EPOCH_BYTES],
                    uint64_t sequence, const Wire__CacheSelector *selector, uint64_t entries,
                    uint64_t bytes)
{
    (void)selector;
    (void)endpoint;
    (void)epoch;
    (void)entries;
    (void)bytes;
    *(uint64_t *)context = sequence;
}

static size_t comparisons;
static enum judge_verdict last_verdict;

static void compared(void *context, const struct cache_comparison *comparison, enum judge_verdict verdict)
{
    (void)context;
    (void)comparison;
    comparisons++;
    last_verdict = verdict;
}

static const char *const endpoints[] = {"tcp://a:1"};

static struct cache *make_cache(void)
{
    static const struct cache_handler handler = {.on_applied = applied, .on_compared = compared};
    const struct cache_options options = {
        .keeper = {.store = {.path = path, .write_buffer_bytes = 1 << 20, .block_cache_bytes = 1 << 20},
                   .entries_max = 1000,
                   .bytes_max = 1 << 30,
                   .memory_bytes_max = 1 << 30},
        .endpoints = endpoints,
        .endpoints_length = 1,
    };
    struct cache *cache = NULL;
    cr_assert_eq(cache_create(loop, log_of_test, &options, &handler, &applied_sequence, &cache), 0);
    return cache;
}

struct seen {
    int answers;
    enum cache_answer last;
};

static void answered(void *context, struct cache_result *result)
{
    struct seen *seen = context;
    seen->answers++;
    seen->last = result->answer;
}

static enum cache_answer look(struct cache *cache, uint8_t number)
{
    struct seen seen = {.answers = 0};
    const struct cache_query query = {.key = {number}};
    struct cache_lookup *lookup = NULL;
    cr_assert_eq(cache_start_lookup(cache, &query, clock_monotonic_ms() + 60000, answered, &seen, &lookup), 0);
    while (seen.answers == 0) {
        cr_assert_eq(loop_turn(loop, 10000), 0);
    }
    return seen.last;
}

/* What the tests change before they fill. */
struct filling {
    uint64_t born;
    uint64_t ttl_ms, stale_ms;
    const struct cache_comparison *comparison;
};

static int fill_with(struct cache *cache, uint8_t number, struct filling filling)
{
    const uint8_t key[CACHE_KEY_BYTES] = {number};
    char body[64];
    const int bytes =
        snprintf(body, sizeof(body), "{\"choices\":[{\"message\":{\"content\":\"%d\"}}]}", number);
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    entry.about = &about;
    entry.body = (ProtobufCBinaryData){(size_t)bytes, (uint8_t *)body};
    about.filled_unix_ms = (uint64_t)clock_unix_ms();
    about.expires_unix_ms = about.filled_unix_ms + filling.ttl_ms;
    about.stale_until_unix_ms = about.expires_unix_ms + filling.stale_ms;
    return cache_start_fill(cache, key, &entry, NULL, filling.born, CACHE_KEEPS, filling.comparison);
}

static int fill(struct cache *cache, uint8_t number)
{
    return fill_with(cache, number, (struct filling){.born = cache_latest(cache), .ttl_ms = 60000});
}

static void wait_for_fills(struct cache *cache, uint64_t fills)
{
    struct cache_stats stats;
    do {
        cr_assert_eq(loop_turn(loop, 5), 0);
        cache_read_stats(cache, &stats);
    } while (stats.fills + stats.fills_failed < fills);
}

Test(cache, what_was_filled_is_hit_also_after_a_restart)
{
    struct cache *cache = make_cache();
    cr_assert_eq(look(cache, 1), CACHE_ANSWER_MISS);
    cr_assert_eq(fill(cache, 1), 0);
    wait_for_fills(cache, 1);
    cr_assert_eq(look(cache, 1), CACHE_ANSWER_HIT);
    cr_assert_eq(fill(cache, 2), 0);
    cache_destroy(&cache); /* writes what waits */
    loop_destroy(&loop);   /* its turn handler named the cache */
    cr_assert_eq(loop_create(&loop), 0);
    cache = make_cache();
    cr_assert_eq(look(cache, 1), CACHE_ANSWER_HIT);
    cr_assert_eq(look(cache, 2), CACHE_ANSWER_HIT);
    cache_destroy(&cache);
}

Test(cache, a_broken_store_answers_broken_and_fails_nobody)
{
    FILE *file = fopen(path, "w");
    fclose(file);
    struct cache *cache = make_cache();
    struct cache_stats stats;
    cr_assert_eq(look(cache, 1), CACHE_ANSWER_BROKEN);
    cr_assert_eq(fill(cache, 1), 0);
    wait_for_fills(cache, 1);
    cache_read_stats(cache, &stats);
    cr_assert(stats.is_broken);
    cr_assert_eq(stats.fills_failed, 1);
    cache_destroy(&cache);
}

Test(cache, a_forgotten_lookup_is_never_answered)
{
    struct cache *cache = make_cache();
    struct seen seen = {.answers = 0};
    const struct cache_query query = {.key = {1}};
    struct cache_lookup *lookup = NULL;
    cr_assert_eq(cache_start_lookup(cache, &query, INT64_MAX, answered, &seen, &lookup), 0);
    cache_forget(&lookup);
    cr_assert_eq(look(cache, 2), CACHE_ANSWER_MISS); /* comes after it */
    cr_assert_eq(seen.answers, 0);
    cache_destroy(&cache);
}

Test(cache, its_queue_is_bounded)
{
    struct cache *cache = make_cache();
    int r = 0;
    for (int i = 0; i < 50 * CACHE_REQUESTS_MAX && r == 0; i++) {
        r = fill(cache, (uint8_t)i);
    }
    cr_assert_eq(r, -EAGAIN);
    cache_destroy(&cache);
}

Test(cache, invalidation_holds_for_what_is_asked_later_and_is_confirmed_when_swept)
{
    static const uint8_t epoch[CACHE_EPOCH_BYTES] = {3};
    uint8_t found[CACHE_EPOCH_BYTES];
    uint64_t sequence = 0;
    struct cache *cache = make_cache();
    cr_assert_eq(fill(cache, 1), 0);
    cache_invalidate(cache, endpoints[0], epoch, 5, NULL);
    cr_assert_eq(look(cache, 1), CACHE_ANSWER_MISS);
    while (applied_sequence != 5) {
        cr_assert_eq(loop_turn(loop, 10000), 0);
    }
    cache_destroy(&cache);
    loop_destroy(&loop);
    cr_assert_eq(loop_create(&loop), 0);
    cache = make_cache();
    cr_assert(cache_position(cache, 0, found, &sequence));
    cr_assert_eq(sequence, 5);
    cr_assert_arr_eq(found, epoch, CACHE_EPOCH_BYTES);
    cache_destroy(&cache);
}

/* Of the answer to question 9 with the answer to question 1. */
static enum judge_verdict compare(struct cache *cache, uint64_t born)
{
    const struct cache_comparison comparison = {
        .tenant = "shop", .tier = "fast", .key = {1}, .judge = JUDGE_EQUAL};
    const size_t before = comparisons;
    const struct filling filling = {.born = born, .ttl_ms = 60000, .comparison = &comparison};
    cr_assert_eq(fill_with(cache, 9, filling), 0);
    while (comparisons == before) {
        cr_assert_eq(loop_turn(loop, 10000), 0);
    }
    return last_verdict;
}

Test(cache, a_comparison_with_what_holds_no_more_says_nothing)
{
    static const uint8_t epoch[CACHE_EPOCH_BYTES] = {3};
    struct cache *cache = make_cache();
    cr_assert_eq(compare(cache, 0), JUDGE_UNKNOWN, "it is not there");
    cr_assert_eq(fill(cache, 1), 0);
    cr_assert_eq(compare(cache, 0), JUDGE_DIFFERENT);
    cr_assert_eq(fill_with(cache, 1, (struct filling){.stale_ms = 60000}), 0);
    cr_assert_eq(compare(cache, 0), JUDGE_UNKNOWN, "it is past its time");
    cache_invalidate(cache, endpoints[0], epoch, 1, NULL);
    cr_assert_eq(fill(cache, 1), 0);
    cr_assert_eq(compare(cache, 0), JUDGE_UNKNOWN, "the answer is from before the invalidation");
    cr_assert_eq(compare(cache, 1), JUDGE_DIFFERENT);
    cache_invalidate(cache, endpoints[0], epoch, 2, NULL);
    cr_assert_eq(compare(cache, 2), JUDGE_UNKNOWN, "the candidate is");
    cache_destroy(&cache);
}

Test(cache, lookup_that_waited_too_long_is_a_miss)
{
    struct cache *cache = make_cache();
    struct seen seen = {.answers = 0};
    const struct cache_query query = {.key = {1}};
    struct cache_lookup *lookup = NULL;
    struct cache_stats stats;
    cr_assert_eq(fill(cache, 1), 0);
    cr_assert_eq(cache_start_lookup(cache, &query, clock_monotonic_ms() - 1, answered, &seen, &lookup), 0);
    while (seen.answers == 0) {
        cr_assert_eq(loop_turn(loop, 10000), 0);
    }
    cr_assert_eq(seen.last, CACHE_ANSWER_MISS);
    cache_read_stats(cache, &stats);
    cr_assert_eq(stats.late, 1);
    cache_destroy(&cache);
}
