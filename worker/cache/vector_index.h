/*
 * vector_index: the dense vectors of the cache in memory, a byte a dimension, by scope; finds those
 * nearest to one within one scope. For embedders with weights; the built-in one has lexical_index.
 *
 * A scope is a set of cells of some hundred vectors that lie near each other. A search
 * scans the cells whose centres are nearest until it has seen VECTOR_SCANNED_MIN vectors, or one in
 * VECTOR_SCANNED_SHARE of them all: a scope of up to VECTOR_SCANNED_MIN is scanned as a whole, so
 * exactly. A cell that is full is split in two, one that is nearly empty joins its neighbour: no
 * other work is ever done at once (a few hundred microseconds, with 1024 dimensions), and what is
 * removed is gone. Cosines are those of the vectors as they are kept.
 *
 * hnswlib 0.6 was measured beside it (tests/bench/cache_index.py): it searches 3 to 6 times as
 * fast, takes 50 to 100 times as long to add, and 3 to 4 times the memory; it never reuses what was
 * deleted and grows by copying all. Entries of a cache come and go, and a search that takes less
 * than a millisecond is not what one waits for beside an embedder with weights.
 *
 * Memory: about dimensions + 90 bytes and the note. Belongs to the cache's thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum {
    VECTOR_KEY_BYTES = 16,
    VECTOR_SCOPE_BYTES = 16,
    VECTOR_DIMENSIONS_MAX = 3072,
    VECTOR_NOTE_BYTES_MAX = 4096,
    VECTOR_HITS_MAX = 16,
    VECTOR_SCANNED_MIN = 8192,
    VECTOR_SCANNED_SHARE = 16,
};

/*
 * A vector with a byte a dimension, the largest as 127; cosines are off by less than 0.01. False:
 * it is zero or not finite, and *ret_values is not to be used.
 */
bool vector_quantise(const float *values, size_t dimensions, int8_t *ret_values);
/* Of two such vectors, as the index has it. */
double vector_cosine(const int8_t *a, const int8_t *b, size_t dimensions);

/* The same in memory of its own: free() it. NULL: likewise, or no memory. */
int8_t *vector_quantised(const float *values, size_t dimensions);

struct vector_index;

struct vector_index_options {
    size_t dimensions; /* 1 to VECTOR_DIMENSIONS_MAX */
    uint32_t entries_max;
    size_t bytes_max; /* of vector_index_stats.bytes_used */
};

/* Copies the options. Errors: -EINVAL dimensions or entries_max; -ENOMEM. */
MUST_USE int vector_index_create(const struct vector_index_options *options,
                                 struct vector_index **ret_index);
void vector_index_destroy(struct vector_index **index);

/*
 * Keeps a copy of all; `values` holds as many as the index has dimensions. Replaces the entry of
 * this key, whatever its scope was. `note` is the caller's, given back with a hit.
 * Errors: -EINVAL all values are 0, or the note is too long; -ENOBUFS entries_max or bytes_max is
 * reached: remove something; -ENOMEM. The index is as before then.
 */
MUST_USE int vector_index_add(struct vector_index *index, const uint8_t scope[VECTOR_SCOPE_BYTES],
                              const uint8_t key[VECTOR_KEY_BYTES], const int8_t *values,
                              const void *note, size_t note_bytes);
/* Returns whether it was there. */
bool vector_index_remove(struct vector_index *index, const uint8_t key[VECTOR_KEY_BYTES]);
bool vector_index_has(const struct vector_index *index, const uint8_t key[VECTOR_KEY_BYTES]);

struct vector_hit {
    const uint8_t *key;
    double cosine;
    const void *note; /* aligned to 4 bytes */
    size_t note_bytes;
};

/*
 * The `hits_max` (up to VECTOR_HITS_MAX) entries of the scope with the largest cosines of at least
 * `cosine_min`, best first: borrowed until the next change.
 * Errors: -ENOMEM, with more than VECTOR_SCANNED_MIN entries in the scope.
 */
MUST_USE int vector_index_best(const struct vector_index *index,
                               const uint8_t scope[VECTOR_SCOPE_BYTES], const int8_t *values,
                               double cosine_min, size_t hits_max,
                               struct vector_hit ret_hits[VECTOR_HITS_MAX], size_t *ret_length);

struct vector_index_stats {
    uint64_t entries;
    uint64_t scopes;
    uint64_t cells;
    size_t bytes_used; /* of all that is kept, rounded up as it is kept */
    size_t bytes;      /* from the system */
};
void vector_index_read_stats(const struct vector_index *index,
                             struct vector_index_stats *ret_stats);
