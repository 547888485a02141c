/*
 * near_index: the texts of the cache in memory, by scope; finds those nearest to one within one
 * scope, whoever made their vectors.
 *
 * One face over two indexes: sparse vectors of the built-in embedder (lexical_index), which are
 * made here from the text, or dense ones (vector_index), which the caller brings, a byte a
 * dimension. Whichever it is, the note of an entry is its text's profile: what guards compare
 * (likeness.h) is in the words, not in the vector.
 *
 * Memory: of a text of ten words with its profile about 1.3 KiB (built-in), 0.6 KiB and a byte a
 * dimension (dense). Belongs to the cache's thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/profile.h"
#include "worker/cache/sparse_vector.h"
#include "worker/cache/vector_index.h"

enum {
    NEAR_KEY_BYTES = 16,
    NEAR_SCOPE_BYTES = 16,
    NEAR_HITS_MAX = 16,
};

/* A text as it is compared. */
struct near_text {
    struct sparse_vector sparse;
    bool has_dense;
    int8_t dense[VECTOR_DIMENSIONS_MAX];
    union profile_buffer profile; /* last: its size varies */
};

/* All but the dense vector. False: it cannot be compared with others: no words, or too many. */
bool near_text_read(const char *text, struct near_text *ret_text);
/* What that would say. */
bool near_text_is_good(const char *text);
/* False: all zeros, or not finite: the embedder knows nothing of the text. */
bool near_text_set_dense(struct near_text *text, const float *vector, size_t dimensions);

struct near_index;

struct near_index_options {
    size_t dimensions; /* of dense vectors, up to VECTOR_DIMENSIONS_MAX; 0: those of the built-in
                          embedder */
    uint64_t entries_max;
    uint64_t bytes_max;
};

/* Copies the options. Errors: -EINVAL dimensions or entries_max; -ENOMEM. */
MUST_USE int near_index_create(const struct near_index_options *options,
                               struct near_index **ret_index);
void near_index_destroy(struct near_index **index);

/*
 * Keeps a copy. Replaces the entry of this key, whatever its scope was.
 * Errors: -EINVAL it lacks the vector that this index is by, or has too many letters; -ENOBUFS a
 * bound is reached; -ENOMEM.
 */
MUST_USE int near_index_add(struct near_index *index, const uint8_t scope[NEAR_SCOPE_BYTES],
                            const uint8_t key[NEAR_KEY_BYTES], const struct near_text *text);
void near_index_remove(struct near_index *index, const uint8_t key[NEAR_KEY_BYTES]);
bool near_index_has(const struct near_index *index, const uint8_t key[NEAR_KEY_BYTES]);

struct near_hit {
    const uint8_t *key;
    double cosine;
    const struct profile *profile;
};

/*
 * The `hits_max` (up to NEAR_HITS_MAX) entries of the scope with the largest cosines, best first:
 * borrowed until the next change. None when the text lacks the vector that this index is by.
 * Errors: -ENOMEM.
 */
MUST_USE int near_index_best(struct near_index *index, const uint8_t scope[NEAR_SCOPE_BYTES],
                             const struct near_text *text, size_t hits_max,
                             struct near_hit *ret_hits, size_t *ret_length);

/* Cleans up for some 10 µs. Returns whether there is more to do: for idle time. */
bool near_index_work(struct near_index *index);

struct near_index_stats {
    uint64_t entries;
    uint64_t bytes;        /* from the system */
    uint64_t searches_cut; /* lexical_index_stats.searches_cut */
};
void near_index_read_stats(const struct near_index *index, struct near_index_stats *ret_stats);
