/*
 * score: how alike two questions are, as a logit: more is more alike. Lexical features with the
 * signs and weights of a monotone logistic; what the cache decides by, for the stream benchmark.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "worker/cache/embedder.h"

enum { SCORE_WORDS_MAX = 64, SCORE_SET_MAX = 16, SCORE_VERSION = 1 };

struct score_set {
    uint32_t hashes[SCORE_SET_MAX];
    uint8_t length;
};

struct score_profile {
    struct vector vector;
    uint32_t words[SCORE_WORDS_MAX]; /* hashes of the content words, each once */
    uint8_t n_words;
    struct score_set numbers;
    struct score_set names;    /* capitalised within a sentence */
    struct score_set calendar; /* weekdays and months */
    struct score_set questions;
    uint8_t negations;
    uint32_t any[SCORE_WORDS_MAX]; /* hashes of all words, lower case */
    uint8_t n_any;
};

void score_read(const char *text, struct score_profile *ret_profile);
double score_pair(const struct score_profile *a, const struct score_profile *b);
