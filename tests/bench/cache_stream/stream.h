/*
 * stream: a seeded sequence of questions as a cache would meet them, and for each distinct text its
 * likest other texts, so that any policy can be replayed in a blink.
 *
 * Clusters are drawn with weight rank^-0.8 in an order the seed shuffles, their texts evenly; 40 %
 * of the queries get one or two cosmetic changes (politeness, case, typos, punctuation).
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "tests/bench/cache_stream/corpus.h"

enum { STREAM_CANDIDATES = 64 };

struct stream_candidate {
    uint32_t text;
    float score;
};

struct stream_text {
    char *text;
    struct stream_candidate candidates[STREAM_CANDIDATES]; /* likest first */
    size_t n_candidates;
};

struct stream_query {
    uint32_t text;    /* equal texts have equal numbers */
    uint32_t cluster; /* what is asked */
};

struct stream {
    struct stream_query *queries;
    size_t n_queries;
    struct stream_text *texts;
    size_t n_texts;
};

void stream_make(const struct corpus *corpus, size_t n_queries, uint64_t seed,
                 struct stream *ret_stream);
void stream_finish(struct stream *stream);

/* splitmix64. Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
 */
uint64_t random_next(uint64_t *state);
double random_unit(uint64_t *state); /* in [0, 1) */
