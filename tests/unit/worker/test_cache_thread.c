/*
 * The loop and the cache's thread at full speed, with lookups given up on in the middle. A plain
 * program, since Criterion does not start under TSan, for which it is made.
 */
#include <assert.h>
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

enum { ROUNDS = 20, LOOKUPS_A_ROUND = 200 };

static size_t answers;

static void answered(void *context, struct cache_result *result)
{
    (void)result;
    (*(size_t *)context)++;
}

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

static void compared(void *context, const struct cache_comparison *comparison, enum judge_verdict verdict)
{
    (void)context;
    (void)comparison;
    (void)verdict;
}

static void ask(struct cache *cache, uint8_t number, bool is_forgotten)
{
    const struct cache_query query = {
        .key = {number}, .may_be_near = true, .scope = {1}, .text = "a text of some words"};
    struct cache_lookup *lookup = NULL;
    assert(cache_start_lookup(cache, &query, INT64_MAX, answered, &answers, &lookup) == 0);
    if (is_forgotten) {
        cache_forget(&lookup);
    }
}

static void keep(struct cache *cache, uint8_t number)
{
    const uint8_t key[CACHE_KEY_BYTES] = {number};
    uint8_t scope[CACHE_SCOPE_BYTES] = {1};
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    entry.about = &about;
    about.filled_unix_ms = (uint64_t)clock_unix_ms();
    about.expires_unix_ms = about.stale_until_unix_ms = about.filled_unix_ms + 60000;
    about.scope = (ProtobufCBinaryData){sizeof(scope), scope};
    about.text = "a text of some words";
    const int r = cache_start_fill(cache, key, &entry, NULL, cache_latest(cache), CACHE_KEEPS, NULL);
    assert(r == 0 || r == -EAGAIN);
}

int main(void)
{
    char directory[] = "/tmp/tiermq-cache-XXXXXX";
    char path[64];
    struct loop *loop = NULL;
    struct log *log = NULL;
    struct cache *cache = NULL;
    struct cache_stats stats;
    size_t wanted = 0;
    assert(mkdtemp(directory) != NULL);
    (void)snprintf(path, sizeof(path), "%s/cache", directory);
    const int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    static const struct cache_handler handler = {.on_applied = applied, .on_compared = compared};
    static const uint8_t epoch[CACHE_EPOCH_BYTES] = {1};
    uint64_t swept = 0;
    const struct cache_options options = {
        .keeper = {.store = {.path = path, .write_buffer_bytes = 1 << 20, .block_cache_bytes = 1 << 20},
                   .is_near = true,
                   .entries_max = 50,
                   .bytes_max = 1 << 20,
                   .memory_bytes_max = 64 << 20}};
    assert(loop_create(&loop) == 0);
    assert(log_create("test", LOG_ERROR, fd, &log) == 0);
    assert(cache_create(loop, log, &options, &handler, &swept, &cache) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < LOOKUPS_A_ROUND; i++) {
            ask(cache, (uint8_t)i, i % 3 == 0);
            wanted += i % 3 == 0 ? 0 : 1;
            keep(cache, (uint8_t)(i * 7));
        }
        cache_invalidate(cache, "tcp://a:1", epoch, (uint64_t)round + 1, NULL);
        while (answers < wanted) {
            assert(loop_turn(loop, 10000) == 0);
        }
        cache_read_stats(cache, &stats);
        assert(stats.keeper.store.entries <= options.keeper.entries_max);
    }
    ask(cache, 1, false); /* destroyed with a lookup and fills on the way */
    keep(cache, 1);
    cache_destroy(&cache);
    log_destroy(&log);
    loop_destroy(&loop);
    (void)close(fd);
    assert(answers == wanted);
    remove_tree(directory);
    return 0;
}
