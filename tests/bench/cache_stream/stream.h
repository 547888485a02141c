/*
 * stream: a seeded sequence of questions as a cache would meet them, and for each the texts asked
 * before that are nearest to it, so that any policy can be replayed in a blink.
 *
 * Clusters are drawn with weight rank^-0.8 in an order the seed shuffles, their texts evenly; 40 %
 * of the queries get one or two cosmetic changes (politeness, case, typos, punctuation).
 *
 * Profile, vector and score are the product's. The nearest are found by an exact scan: what its
 * index misses is measured elsewhere (bench-cache-index), and by the policy "index" of
 * bench-cache-stream.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "tests/bench/cache_stream/corpus.h"
#include "worker/cache/decision.h"
#include "worker/cache/sparse_vector.h"

enum { STREAM_CANDIDATES = 96 };

/* What is less alike is not asked about. */
static const double STREAM_COSINE_MIN = 0.1;

struct stream_candidate {
    uint32_t text;
    float cosine;
    float score; /* NAN: not asked for yet */
};

struct stream_text {
    char *text;
    struct profile *profile;      /* NULL: no words, or too many: it is like no other */
    struct sparse_vector *vector; /* as long as its items */
};

struct stream_query {
    uint32_t text;    /* equal texts have equal numbers, in the order in which they first come */
    uint32_t cluster; /* what is asked */
    struct stream_candidate *candidates; /* nearest first, of those asked before, itself left out */
    size_t n_candidates;
};

struct stream {
    const struct decision_model *model;
    struct stream_query *queries;
    size_t n_queries;
    struct stream_text *texts;
    size_t n_texts;
};

/* Keeps the model. */
void stream_make(const struct corpus *corpus, const struct decision_model *model, size_t n_queries,
                 uint64_t seed, struct stream *ret_stream);
void stream_finish(struct stream *stream);

/* The decision's score of the query beside a candidate of it. */
double stream_score(const struct stream *stream, const struct stream_query *query,
                    struct stream_candidate *candidate);
/* The same for any text. */
double stream_score_of(const struct stream *stream, uint32_t a, uint32_t b, double cosine);

/* splitmix64. Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
 */
uint64_t random_next(uint64_t *state);
double random_unit(uint64_t *state); /* in [0, 1) */
