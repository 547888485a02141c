/*
 * cache: answers that were paid for once.
 *
 * The loop's side of cache_store: lookups and fills go to one thread through a bounded queue,
 * answers come back in a turn of the loop. The thread can be given up on: a lookup that takes too
 * long is forgotten by its owner, and is a miss; with a full queue lookups are misses and fills are
 * dropped at once. A store that breaks is closed, tried again every CACHE_RETRY_MS, and answers
 * "broken" meanwhile; no job fails for it. Belongs to the loop's thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/cache_store.h"

struct loop;
struct log;
struct cache;
struct cache_lookup;

enum {
    CACHE_REQUESTS_MAX = 4096,
    CACHE_FILLS_MAX = 512, /* of them: lookups wait behind these, about 50 µs for each */
    CACHE_RETRY_MS = 30000,
    CACHE_STOP_MS = 5000,
};

/*
 * Once for each lookup that is not forgotten, from a turn of the loop. The result's entry may be
 * taken.
 */
typedef void cache_fn(void *context, struct cache_result *result);

/* Opening happens on the thread. Strings are copied. Errors: -ENOMEM, -errno of pthread_create. */
MUST_USE int cache_create(struct loop *loop, struct log *log,
                          const struct cache_store_options *options, struct cache **ret_cache);
/* Writes the fills that wait, within CACHE_STOP_MS. Lookups that wait get no answer. */
void cache_destroy(struct cache **cache);

/* Copies the query. Errors: -EAGAIN the queue is full; -ENOMEM. */
MUST_USE int cache_start_lookup(struct cache *cache, const struct cache_query *query,
                                cache_fn *done, void *context, struct cache_lookup **ret_lookup);
/* Gives up on it: done() will not be called. */
void cache_forget(struct cache_lookup **lookup);

/*
 * Copies all it is given. `text` as in cache_store_fill(). filled_unix_ms and expires_unix_ms are
 * set by the caller.
 * Errors: -EAGAIN the queue is full; -ENOMEM.
 */
MUST_USE int cache_start_fill(struct cache *cache, const uint8_t key[CACHE_KEY_BYTES],
                              const Record__CacheEntry *entry, const char *text);

struct cache_stats {
    struct cache_store_stats store;
    bool is_broken;
    uint64_t fills;
    uint64_t fills_failed;
    uint64_t requests_waiting;
};
void cache_read_stats(struct cache *cache, struct cache_stats *ret_stats);
