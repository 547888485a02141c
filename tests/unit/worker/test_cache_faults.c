/*
 * The cache when its keeper fails, or hangs. Functions below the cache are wrapped, so that they do
 * what a test wants at the moment that it wants.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "tests/unit/remove_tree.h"
#include "worker/cache/cache.h"
#include "worker/cache/sweep.h"

static char directory[] = "/tmp/tiermq-cache-XXXXXX";
static char path[64], log_path[64];
static struct loop *loop;
static struct log *log_of_test;
static int log_fd;

/* ---- what fails ---- */

static atomic_int lookup_result, open_result, step_result; /* the next one's; 0: it works */
static atomic_llong time_gone_ms;
static atomic_int positions; /* that were written: each is an fsync */
static atomic_bool step_hangs, lookup_hangs;
static atomic_int about_result, walk_result; /* of the store */
static sem_t is_hanging, may_go_on, is_closed;

int __real_keeper_open(const struct keeper_options *options, struct keeper **ret_keeper,
                       char *ret_error);
int __real_keeper_lookup(struct keeper *keeper, const struct cache_query *query,
                         int64_t now_unix_ms, struct cache_result *ret_result, char *ret_error);
int __real_keeper_step(struct keeper *keeper, int64_t now_unix_ms, char *ret_error);
void __real_keeper_close(struct keeper **keeper);
int __real_keeper_put_position(struct keeper *keeper, const char *endpoint, const uint8_t *epoch,
                               uint64_t sequence, char *ret_error);
int __wrap_keeper_put_position(struct keeper *keeper, const char *endpoint, const uint8_t *epoch,
                               uint64_t sequence, char *ret_error);
int64_t __real_clock_monotonic_ms(void);
int64_t __real_clock_unix_ms(void);
int __wrap_keeper_open(const struct keeper_options *options, struct keeper **ret_keeper,
                       char *ret_error);
int __wrap_keeper_lookup(struct keeper *keeper, const struct cache_query *query,
                         int64_t now_unix_ms, struct cache_result *ret_result, char *ret_error);
int __wrap_keeper_step(struct keeper *keeper, int64_t now_unix_ms, char *ret_error);
void __wrap_keeper_close(struct keeper **keeper);
int __real_cache_store_get_about(struct cache_store *store, const uint8_t *key,
                                 Record__CacheAbout **ret_about, char *ret_error);
int __real_cache_store_scan(struct cache_store *store, const uint8_t *from, size_t most,
                            cache_store_visit_fn *visit, void *context, uint8_t *ret_next,
                            bool *ret_is_end, char *ret_error);
int __wrap_cache_store_get_about(struct cache_store *store, const uint8_t *key,
                                 Record__CacheAbout **ret_about, char *ret_error);
int __wrap_cache_store_scan(struct cache_store *store, const uint8_t *from, size_t most,
                            cache_store_visit_fn *visit, void *context, uint8_t *ret_next,
                            bool *ret_is_end, char *ret_error);
int64_t __wrap_clock_monotonic_ms(void);
int64_t __wrap_clock_unix_ms(void);

int __wrap_keeper_open(const struct keeper_options *options, struct keeper **ret_keeper,
                       char *ret_error)
{
    const int r = atomic_load(&open_result);
    return r < 0 ? r : __real_keeper_open(options, ret_keeper, ret_error);
}

int __wrap_keeper_lookup(struct keeper *keeper, const struct cache_query *query,
                         int64_t now_unix_ms, struct cache_result *ret_result, char *ret_error)
{
    if (atomic_exchange(&lookup_hangs, false)) {
        (void)sem_post(&is_hanging);
        (void)sem_wait(&may_go_on);
    }
    const int r = atomic_exchange(&lookup_result, 0);
    return r < 0 ? r : __real_keeper_lookup(keeper, query, now_unix_ms, ret_result, ret_error);
}

int __wrap_keeper_step(struct keeper *keeper, int64_t now_unix_ms, char *ret_error)
{
    if (atomic_load(&step_hangs)) {
        (void)sem_post(&is_hanging);
        (void)sem_wait(&may_go_on);
        return -EIO;
    }
    const int r = atomic_exchange(&step_result, 0);
    return r < 0 ? r : __real_keeper_step(keeper, now_unix_ms, ret_error);
}

void __wrap_keeper_close(struct keeper **keeper)
{
    __real_keeper_close(keeper);
    (void)sem_post(&is_closed);
}

int __wrap_keeper_put_position(struct keeper *keeper, const char *endpoint, const uint8_t *epoch,
                               uint64_t sequence, char *ret_error)
{
    atomic_fetch_add(&positions, 1);
    return __real_keeper_put_position(keeper, endpoint, epoch, sequence, ret_error);
}

int __wrap_cache_store_get_about(struct cache_store *store, const uint8_t *key,
                                 Record__CacheAbout **ret_about, char *ret_error)
{
    const int r = atomic_exchange(&about_result, 0);
    return r < 0 ? r : __real_cache_store_get_about(store, key, ret_about, ret_error);
}

int __wrap_cache_store_scan(struct cache_store *store, const uint8_t *from, size_t most,
                            cache_store_visit_fn *visit, void *context, uint8_t *ret_next,
                            bool *ret_is_end, char *ret_error)
{
    const int r = most > SWEEP_STEP ? atomic_exchange(&walk_result, 0) : 0;
    return r < 0 ? r
                 : __real_cache_store_scan(store, from, most, visit, context, ret_next, ret_is_end,
                                           ret_error);
}

int64_t __wrap_clock_monotonic_ms(void)
{
    return __real_clock_monotonic_ms() + atomic_load(&time_gone_ms);
}

int64_t __wrap_clock_unix_ms(void)
{
    return __real_clock_unix_ms() + atomic_load(&time_gone_ms);
}

/* ---- a cache ---- */

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/cache", directory);
    snprintf(log_path, sizeof(log_path), "%s/log", directory);
    log_fd = open(log_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_eq(loop_create(&loop), 0);
    cr_assert_eq(log_create("test", LOG_ERROR, log_fd, &log_of_test), 0);
    (void)sem_init(&is_hanging, 0, 0);
    (void)sem_init(&may_go_on, 0, 0);
    (void)sem_init(&is_closed, 0, 0);
}

static void tear_down(void)
{
    log_destroy(&log_of_test);
    loop_destroy(&loop);
    close(log_fd);
    remove_tree(directory);
}

TestSuite(cache_faults, .init = set_up, .fini = tear_down, .timeout = 60);

static uint64_t applied_sequence;

static void applied(void *context, const char *endpoint, const uint8_t epoch[CACHE_EPOCH_BYTES],
                    uint64_t sequence, const Wire__CacheSelector *selector, uint64_t entries,
                    uint64_t bytes)
{
    (void)selector;
    (void)context;
    (void)endpoint;
    (void)epoch;
    (void)entries;
    (void)bytes;
    applied_sequence = sequence;
}

static void compared(void *context, const struct cache_comparison *comparison,
                     enum judge_verdict verdict)
{
    (void)context;
    (void)comparison;
    (void)verdict;
}

static struct cache *make_cache(void)
{
    static const struct cache_handler handler = {.on_applied = applied, .on_compared = compared};
    const struct cache_options options = {
        .keeper = {
            .store = {.path = path, .write_buffer_bytes = 1 << 20, .block_cache_bytes = 1 << 20},
            .entries_max = 1000,
            .bytes_max = 1 << 30,
            .memory_bytes_max = 1 << 30}};
    struct cache *cache = NULL;
    cr_assert_eq(cache_create(loop, log_of_test, &options, &handler, NULL, &cache), 0);
    return cache;
}

struct seen {
    int answers;
    enum cache_answer last;
    const char *why;
    const int *question; /* whether it has an answer */
    bool was_asked;      /* it had one before */
};

static void answered(void *context, struct cache_result *result)
{
    struct seen *seen = context;
    seen->answers++;
    seen->last = result->answer;
    seen->why = result->why;
    seen->was_asked = seen->question != NULL && *seen->question != 0;
}

static struct seen look(struct cache *cache, uint8_t number)
{
    struct seen seen = {.answers = 0};
    const struct cache_query query = {.key = {number}};
    struct cache_lookup *lookup = NULL;
    cr_assert_eq(cache_start_lookup(cache, &query, INT64_MAX, answered, &seen, &lookup), 0);
    while (seen.answers == 0) {
        cr_assert_eq(loop_turn(loop, 10000), 0);
    }
    return seen;
}

static void fill(struct cache *cache, uint8_t number, uint64_t filled_unix_ms)
{
    const uint8_t key[CACHE_KEY_BYTES] = {number};
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    entry.about = &about;
    about.filled_unix_ms = filled_unix_ms;
    about.expires_unix_ms = about.stale_until_unix_ms = filled_unix_ms + 86400000;
    cr_assert_eq(cache_start_fill(cache, key, &entry, NULL, 0, CACHE_KEEPS, NULL), 0);
}

static void invalidate(struct cache *cache, uint64_t sequence, uint64_t older_than_ms)
{
    static const uint8_t epoch[CACHE_EPOCH_BYTES] = {3};
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.older_than_ms = older_than_ms;
    cache_invalidate(cache, "tcp://a:1", epoch, sequence, &selector);
}

static void wait_until_applied(uint64_t sequence)
{
    while (applied_sequence != sequence) {
        cr_assert_eq(loop_turn(loop, 10000), 0);
    }
}

Test(cache_faults, a_lookup_without_memory_is_a_miss_and_closes_nothing)
{
    struct cache *cache = make_cache();
    struct cache_stats stats;
    fill(cache, 1, (uint64_t)clock_unix_ms());
    cr_assert_eq(look(cache, 1).last, CACHE_ANSWER_HIT);
    atomic_store(&lookup_result, -ENOMEM);
    const struct seen seen = look(cache, 1);
    cr_assert_eq(seen.last, CACHE_ANSWER_MISS);
    cr_assert_str_eq(seen.why, "memory");
    cr_assert_eq(look(cache, 1).last, CACHE_ANSWER_HIT);
    cache_read_stats(cache, &stats);
    cr_assert_eq(stats.broken, 0);
    cache_destroy(&cache);
}

Test(cache_faults, an_age_counts_from_its_invalidation_also_in_a_keeper_that_is_opened_again)
{
    struct cache *cache = make_cache();
    const uint64_t before_unix_ms = (uint64_t)clock_unix_ms();
    invalidate(cache, 1, 3600000);
    wait_until_applied(1);
    atomic_fetch_add(&time_gone_ms, 50 * 60 * 1000);
    atomic_store(&step_result, -EBADMSG); /* set aside, and a new one begun at once */
    struct cache_stats stats;
    do {
        invalidate(cache, 2, 86400000);
        cr_assert_eq(loop_turn(loop, 5), 0);
        cache_read_stats(cache, &stats);
    } while (stats.set_aside == 0);
    fill(cache, 1,
         before_unix_ms - 1800000); /* half an hour old when older ones were invalidated */
    cr_assert_eq(look(cache, 1).last, CACHE_ANSWER_HIT);
    cache_destroy(&cache);
}

Test(cache_faults, invalidations_that_wait_for_a_broken_store_are_bounded)
{
    enum { MANY = INVALIDATIONS_MAX + 500 };
    atomic_store(&open_result, -EIO);
    struct cache *cache = make_cache();
    for (uint64_t i = 1; i <= MANY; i++) {
        invalidate(cache, i, 3600000);
    }
    struct cache_stats stats;
    do { /* the queue takes no lookup while it is so long */
        cr_assert_eq(loop_turn(loop, 5), 0);
        cache_read_stats(cache, &stats);
    } while (stats.requests_waiting > 0);
    cr_assert_eq(look(cache, 1).last, CACHE_ANSWER_BROKEN);
    cache_read_stats(cache, &stats);
    cr_assert_leq(stats.invalidations_pending, INVALIDATIONS_MAX);
    atomic_store(&open_result, 0);
    atomic_fetch_add(&time_gone_ms, CACHE_RETRY_MS);
    wait_until_applied(MANY);
    cr_assert_eq(atomic_load(&positions), 1, "%d positions are written", atomic_load(&positions));
    cache_destroy(&cache);
}

Test(cache_faults, a_thread_that_hangs_leaves_loop_and_log_alone_when_it_goes_on)
{
    struct cache *cache = make_cache();
    struct stat status;
    atomic_store(&step_hangs, true);
    (void)sem_wait(&is_hanging);
    cache_destroy(&cache);
    cr_assert_null(cache);
    while (sem_trywait(&is_closed) == 0) {
    }
    (void)sem_post(&may_go_on);
    (void)sem_wait(&is_closed); /* since its keeper broke, which it would log before */
    cr_assert_eq(fstat(log_fd, &status), 0);
    cr_assert_eq(status.st_size, 0);
}

static void asked(void *context, uint64_t number, const char *text, const char *asked_error)
{
    (void)number;
    cr_assert_not_null(text, "%s", asked_error);
    *(int *)context = 1;
}

Test(cache_faults, a_question_about_all_entries_lets_later_lookups_pass)
{
    struct cache *cache = make_cache();
    struct seen first = {.answers = 0}, later = {.answers = 0};
    struct cache_lookup *lookup = NULL;
    int has_answer = 0;
    for (int i = 0; i < 200; i++) {
        fill(cache, (uint8_t)i, (uint64_t)clock_unix_ms());
    }
    atomic_store(&lookup_hangs, true);
    cr_assert_eq(cache_start_lookup(cache, &(struct cache_query){.key = {1}}, INT64_MAX, answered,
                                    &first, &lookup),
                 0);
    (void)sem_wait(&is_hanging);
    cr_assert_eq(cache_ask(cache, "cache.top", "{}", asked, &has_answer, 1), 0);
    cr_assert_eq(cache_start_lookup(cache, &(struct cache_query){.key = {2}}, INT64_MAX, answered,
                                    &later, &lookup),
                 0);
    (void)sem_post(&may_go_on);
    later.question = &has_answer;
    while (!has_answer || later.answers == 0) {
        cr_assert_eq(loop_turn(loop, 10000), 0);
    }
    cr_assert_not(later.was_asked, "the question was answered first");
    cache_destroy(&cache);
}

static void refused(void *context, uint64_t number, const char *text, const char *asked_error)
{
    (void)number;
    cr_assert_null(text, "%s", text);
    cr_assert_str_eq(asked_error, strerror(EIO));
    *(int *)context = 1;
}

static size_t errors_logged(void)
{
    char text[65536];
    FILE *file = fopen(log_path, "re");
    const size_t length = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[length] = '\0';
    size_t found = 0;
    for (const char *at = text; (at = strstr(at, "cache is broken")) != NULL; at++) {
        found++;
    }
    return found;
}

/* The store fails while it is asked: that is said, counted and logged, once each. */
static void assert_that_a_question_shows_the_failure(const char *what, const char *argument,
                                                     atomic_int *result)
{
    struct cache *cache = make_cache();
    struct cache_stats stats;
    int has_answer = 0;
    fill(cache, 1, (uint64_t)clock_unix_ms());
    atomic_store(result, -EIO);
    cr_assert_eq(cache_ask(cache, what, argument, refused, &has_answer, 1), 0);
    while (!has_answer) {
        cr_assert_eq(loop_turn(loop, 10000), 0);
    }
    cr_assert_eq(look(cache, 1).last, CACHE_ANSWER_BROKEN);
    cache_read_stats(cache, &stats);
    cr_assert(stats.is_broken);
    cr_assert_eq(stats.broken, 1);
    cr_assert_eq(errors_logged(), 1);
    cache_destroy(&cache);
}

Test(cache_faults, a_store_that_fails_while_an_entry_is_shown_is_broken)
{
    assert_that_a_question_shows_the_failure(
        "cache.get", "{\"key\": \"01000000000000000000000000000000\"}", &about_result);
}

Test(cache_faults, a_store_that_fails_while_entries_are_counted_is_broken)
{
    assert_that_a_question_shows_the_failure("cache.count", "{}", &walk_result);
}

Test(cache_faults, a_store_that_fails_while_the_first_are_listed_is_broken)
{
    assert_that_a_question_shows_the_failure("cache.top", "{}", &about_result);
}
