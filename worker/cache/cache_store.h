/*
 * cache_store: the entries of the cache in RocksDB, and nothing else: no policy, no time.
 *
 * An entry is stored twice: whole, and what it is about alone, which sweeps read. Each value has a checksum; one that does
 * not fit is removed when it is met, and counted: damage is a miss. Nothing is fsynced but positions: losing the newest
 * entries in a crash costs calls, not answers. Keys are hashes, so a random key samples evenly.
 *
 * Blocks; belongs to the cache's thread. See proto/records.proto, CacheEntry.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "proto/records.pb-c.h"

enum {
    CACHE_KEY_BYTES = 16,
    CACHE_SCOPE_BYTES = 16,
    CACHE_EPOCH_BYTES = 16,
    CACHE_ERROR_BYTES = 256,
};

struct cache_store;

struct cache_store_options {
    const char *path;
    uint64_t write_buffer_bytes;
    uint64_t block_cache_bytes;
};

/*
 * Errors: -EIO (ret_error says what RocksDB says), -EBADMSG the database is damaged, or of another format; -ENOMEM. All
 * functions below that give ret_error: the same.
 */
MUST_USE int cache_store_open(const struct cache_store_options *options, struct cache_store **ret_store,
                              char ret_error[CACHE_ERROR_BYTES]);
void cache_store_close(struct cache_store **store);

/* Gives: *ret_entry (free_unpacked) with its `about`, NULL: it is not there, or was damaged and is removed. */
MUST_USE int cache_store_get(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                             Record__CacheEntry **ret_entry, char ret_error[CACHE_ERROR_BYTES]);
/* Replaces. Sets entry->about->bytes. */
MUST_USE int cache_store_put(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES], Record__CacheEntry *entry,
                             char ret_error[CACHE_ERROR_BYTES]);
MUST_USE int cache_store_remove(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                                char ret_error[CACHE_ERROR_BYTES]);
/* What it is about, as it was last put. NULL: it is not there. */
MUST_USE int cache_store_get_about(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                                   Record__CacheAbout **ret_about, char ret_error[CACHE_ERROR_BYTES]);
/* For what changes in it by itself: hits and served. The entry is there. */
MUST_USE int cache_store_put_about(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                                   const Record__CacheAbout *about, char ret_error[CACHE_ERROR_BYTES]);

/*
 * The vector of an entry that is there, and what the entry is about with it: its `embedder` says whose it is. `bytes` 0: the
 * embedder knows nothing of the text. Replacing or removing the entry removes it.
 */
MUST_USE int cache_store_put_vector(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES],
                                    const Record__CacheAbout *about, const int8_t *vector, size_t bytes,
                                    char ret_error[CACHE_ERROR_BYTES]);
/* Gives: *ret_bytes, up to bytes_max. -ENOENT: it is not there, damaged, or longer. */
MUST_USE int cache_store_get_vector(struct cache_store *store, const uint8_t key[CACHE_KEY_BYTES], int8_t *ret_vector,
                                    size_t bytes_max, size_t *ret_bytes, char ret_error[CACHE_ERROR_BYTES]);

/*
 * Visits what up to `most` entries are about, in the order of keys, from `from` on. The entry may
 * be removed within the visit; `about` is borrowed. Damaged ones are removed. A visit returns
 * whether there may be another one in this scan. Gives: *ret_next, where to go on; *ret_is_end when
 * there is nothing further.
 */
typedef bool cache_store_visit_fn(void *context, const uint8_t key[CACHE_KEY_BYTES],
                                  const Record__CacheAbout *about);
MUST_USE int cache_store_scan(struct cache_store *store, const uint8_t from[CACHE_KEY_BYTES], size_t most,
                              cache_store_visit_fn *visit, void *context, uint8_t ret_next[CACHE_KEY_BYTES],
                              bool *ret_is_end, char ret_error[CACHE_ERROR_BYTES]);

/* How far the invalidations of the broker at this endpoint have been followed; sequence 0: none. */
MUST_USE int cache_store_get_position(struct cache_store *store, const char *endpoint,
                                      uint8_t ret_epoch[CACHE_EPOCH_BYTES], uint64_t *ret_sequence,
                                      char ret_error[CACHE_ERROR_BYTES]);
/* Synced: with it, all that was removed before. */
MUST_USE int cache_store_put_position(struct cache_store *store, const char *endpoint,
                                      const uint8_t epoch[CACHE_EPOCH_BYTES], uint64_t sequence,
                                      char ret_error[CACHE_ERROR_BYTES]);

struct cache_store_stats {
    uint64_t entries, bytes; /* of entries, before compression */
    uint64_t damaged;        /* met since it was opened */
};
void cache_store_read_stats(const struct cache_store *store, struct cache_store_stats *ret_stats);
