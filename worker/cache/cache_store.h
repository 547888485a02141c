/*
 * cache_store: the entries of the cache in RocksDB, their vectors in memory, and the bounds that
 * are kept.
 *
 * Blocks; belongs to the cache's thread (cache.h). Nothing is fsynced: losing the newest entries in
 * a crash costs calls, not answers. Beyond entries_max, bytes_max or memory_bytes_max the oldest
 * entries go first. An entry past its time is a miss, and goes when it is met. See DESIGN.md, "The
 * worker's pipeline", and proto/records.proto, CacheEntry.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "proto/records.pb-c.h"

enum { CACHE_KEY_BYTES = 16, CACHE_SCOPE_BYTES = 16, CACHE_ERROR_BYTES = 256 };

struct cache_store;

struct cache_store_options {
    const char *path;
    bool keeps_vectors;
    double near_threshold;
    uint64_t entries_max;
    uint64_t bytes_max;
    uint64_t memory_bytes_max;
    uint64_t write_buffer_bytes;
    uint64_t block_cache_bytes;
};

enum cache_answer {
    CACHE_ANSWER_MISS,
    CACHE_ANSWER_HIT,
    CACHE_ANSWER_NEAR_HIT,
    CACHE_ANSWER_BROKEN
};

struct cache_query {
    uint8_t key[CACHE_KEY_BYTES];
    bool may_be_near;
    uint8_t scope[CACHE_SCOPE_BYTES];
    const char *text; /* what may differ within the scope; NULL unless may_be_near */
};

struct cache_result {
    enum cache_answer answer;
    uint8_t key[CACHE_KEY_BYTES]; /* the entry that answers */
    double score;                 /* 1 for an exact hit */
    Record__CacheEntry *entry;    /* hit: owned; record__cache_entry__free_unpacked() */
};

struct cache_store_stats {
    uint64_t entries;
    uint64_t bytes;
    uint64_t memory_bytes;
    uint64_t evictions;
};

/* Errors: -EIO (ret_error says what RocksDB says); -ENOMEM. */
MUST_USE int cache_store_open(const struct cache_store_options *options,
                              struct cache_store **ret_store, char ret_error[CACHE_ERROR_BYTES]);
void cache_store_close(struct cache_store **store);
/* Errors: -EIO, -ENOMEM; a damaged entry is a miss. */
MUST_USE int cache_store_lookup(struct cache_store *store, const struct cache_query *query,
                                int64_t now_unix_ms, struct cache_result *ret_result,
                                char ret_error[CACHE_ERROR_BYTES]);
/* Replaces. `text` NULL: never a near hit; else entry->scope must be set. Errors: -EIO, -ENOMEM. */
MUST_USE int cache_store_fill(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                              const Record__CacheEntry *entry, const char *text,
                              char ret_error[CACHE_ERROR_BYTES]);
void cache_store_read_stats(const struct cache_store *store, struct cache_store_stats *ret_stats);
