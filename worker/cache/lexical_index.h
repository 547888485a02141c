/*
 * lexical_index: the sparse vectors of the cache in memory, by scope; finds those nearest to one
 * within one scope.
 *
 * A scope of a few entries is scanned; a larger one has inverted lists, which are read rarest
 * feature first until what is left cannot matter, and the best by what was read are compared
 * exactly. So of those that a scan would find a search misses a few in a thousand, at the bottom of
 * the list (tests/bench/cache_index.py measures it); the cosines it gives are exact. Nothing is
 * ever compared across scopes.
 *
 * No operation takes a step as long as the index: growing, moving entries of a scope into lists,
 * and dropping what was removed happen a little with each change. What is removed is not found
 * again at once; its postings (about a third of its memory) go within the next changes, at most an
 * eighth of a scope waits.
 *
 * Memory: about 12 bytes an item, 100 bytes, and the note: 0.9 KiB for a text of 50 bytes with its
 * profile. An item beyond the LEXICAL_POSTINGS heaviest takes 4.
 * Belongs to the cache's thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/sparse_vector.h"

enum {
    LEXICAL_KEY_BYTES = 16,
    LEXICAL_SCOPE_BYTES = 16,
    LEXICAL_NOTE_BYTES_MAX = 4096,
    LEXICAL_HITS_MAX = 16,
    LEXICAL_ENTRIES_MAX = 1 << 23,
};

struct lexical_index;

struct lexical_index_options {
    uint32_t entries_max; /* up to LEXICAL_ENTRIES_MAX */
    size_t bytes_max;     /* of lexical_index_stats.bytes_used */
    /* What reading lists may take in one search, by the clock: after the first, which is read
     * whatever it takes, those are left out that would take longer, so that a slow machine answers
     * in time and finds a little less. 0: no bound. */
    int64_t read_ns_max;
};

/* Copies the options. Errors: -EINVAL entries_max is 0 or too large; -ENOMEM. */
MUST_USE int lexical_index_create(const struct lexical_index_options *options,
                                  struct lexical_index **ret_index);
void lexical_index_destroy(struct lexical_index **index);

/*
 * Keeps a copy of all. Replaces the entry of this key, whatever its scope was; a key is in one
 * scope. `note` is the caller's, given back with a hit. The scope and the key are hashes that
 * nobody can choose. Errors: -EINVAL the vector is empty or not valid, or the note is too
 * long; -ENOBUFS entries_max or bytes_max is reached: remove something; -ENOMEM. The index is as
 * before then.
 */
MUST_USE int lexical_index_add(struct lexical_index *index,
                               const uint8_t scope[LEXICAL_SCOPE_BYTES],
                               const uint8_t key[LEXICAL_KEY_BYTES],
                               const struct sparse_vector *vector, const void *note,
                               size_t note_bytes);
/* Returns whether it was there. */
bool lexical_index_remove(struct lexical_index *index, const uint8_t key[LEXICAL_KEY_BYTES]);

struct lexical_hit {
    const uint8_t *key;
    double cosine;
    const void *note; /* aligned to 4 bytes */
    size_t note_bytes;
};

/* What is kept of a key; its cosine is 1. False: it is not there. Borrowed until the next change.
 */
bool lexical_index_find(const struct lexical_index *index, const uint8_t key[LEXICAL_KEY_BYTES],
                        struct lexical_hit *ret_hit);

/*
 * The `hits_max` (up to LEXICAL_HITS_MAX) entries of the scope with the largest cosines of at least
 * `cosine_min` (0 to 1), best first. The larger cosine_min, the less is read.
 * Gives:  *ret_length hits, borrowed until the next change.
 * The vector is valid. Errors: -ENOMEM.
 */
MUST_USE int lexical_index_best(struct lexical_index *index,
                                const uint8_t scope[LEXICAL_SCOPE_BYTES],
                                const struct sparse_vector *vector, double cosine_min,
                                size_t hits_max, struct lexical_hit ret_hits[LEXICAL_HITS_MAX],
                                size_t *ret_length);

/*
 * Cleans up for some 10 µs; every change does so too. Returns whether there is more to do: for idle
 * time, and after many removals.
 */
bool lexical_index_work(struct lexical_index *index);

struct lexical_index_stats {
    uint64_t entries;
    uint64_t scopes;
    uint64_t postings;
    uint64_t postings_lost; /* without memory for them: entries that are harder to find */
    uint64_t slots_waiting; /* of removed entries whose postings are still there */
    uint64_t searches_cut;  /* that left out lists by read_ns_max */
    size_t bytes_used;      /* of all that is kept, rounded up as it is kept */
    size_t bytes;           /* from the system: used, and what is free within its pages */
};
void lexical_index_read_stats(const struct lexical_index *index,
                              struct lexical_index_stats *ret_stats);
