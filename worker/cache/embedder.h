/*
 * embedder: a text as a vector, by its words alone; no model, no weights, about a microsecond for a
 * short prompt.
 *
 * Hashed term frequencies of words, pairs of neighbouring words, and character 3–5-grams within
 * words, in EMBEDDER_DIMENSIONS signed buckets; common English words weigh less. It finds rewording
 * (case, typos, order, small changes), not paraphrase. Vectors of different EMBEDDER_VERSIONs are
 * never compared: raise it with every change here.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { EMBEDDER_VERSION = 1, EMBEDDER_DIMENSIONS = 1024, EMBEDDER_WORDS_MAX = 128 };

/* Quantised to a byte a dimension; cosines are off by less than 0.005. */
struct vector {
    int8_t values[EMBEDDER_DIMENSIONS];
    float norm;
};

/*
 * Returns the number of words. 0, or more than EMBEDDER_WORDS_MAX: the text is empty or too long
 * for the vector to tell it from others, and *ret_vector is not to be used.
 */
size_t embedder_embed(const char *text, size_t bytes, struct vector *ret_vector);

/* Sets the norm from the values, for vectors that were stored. */
void vector_set_norm(struct vector *vector);
/* From −1 to 1. 0 when one of them is zero. */
double vector_cosine(const struct vector *a, const struct vector *b);
