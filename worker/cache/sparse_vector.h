/*
 * sparse_vector: the features of a text with their weights: what the built-in embedder makes and
 * what lexical_index finds again.
 *
 * A feature (word, pair of words, character gram) is a bucket, a hash of SPARSE_BUCKET_BITS bits:
 * so many that two features of one text meet in one bucket once in a thousand texts, so weights
 * need no sign. An item is bucket and weight in 32 bits; items stand in no order, each bucket once,
 * since sorting them would cost as much as making them.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SPARSE_BUCKET_BITS = 24,
    SPARSE_BUCKETS = 1 << SPARSE_BUCKET_BITS,
    SPARSE_WEIGHT_MAX = 255,
    SPARSE_ITEMS_MAX = 512, /* a longer text keeps its heaviest */
};

/*
 * Weights are from 1 to 255, in a scale of the vector's own: the heaviest item best has 255. A
 * feature in most texts must weigh less than one in few (inverse document frequency): the index
 * counts on it when it chooses which items it looks up.
 */
struct sparse_vector {
    uint32_t norm_squared; /* sum of the weights' squares */
    uint16_t length;       /* of items; 0: a text without a feature, like nothing */
    uint32_t items[SPARSE_ITEMS_MAX];
};

static inline uint32_t sparse_item(uint32_t bucket, uint32_t weight)
{
    return bucket << 8 | weight;
}

static inline uint32_t sparse_bucket(uint32_t item)
{
    return item >> 8;
}

static inline uint32_t sparse_weight(uint32_t item)
{
    return item & 0xff;
}

/* Sets norm_squared from the items, for vectors just made or read from disk. */
void sparse_vector_set_norm(struct sparse_vector *vector);

/* Whether it keeps the promises above: for vectors read from disk. */
bool sparse_vector_is_valid(const struct sparse_vector *vector);

/* From 0 to 1; 0 when one of them is empty. About a quarter of a microsecond. */
double sparse_vector_cosine(const struct sparse_vector *a, const struct sparse_vector *b);
