/*
 * model: what the simulated models say. Deterministic: the seed, the model's name and the prompt decide the answer, its
 * length and its tokens, on every machine.
 *
 * A token here is a word of at most four letters, four letters of a longer word, or one other visible character:
 * near enough to real tokenizers for costs and limits, and countable by a test that has only the text.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum { MODEL_EMBEDDING_DIMENSIONS = 64, MODEL_EMBEDDING_DIMENSIONS_MAX = 4096 };

struct model_answer {
    char *text;            /* ASCII, words and blanks, no character that JSON escapes; released with free() */
    uint32_t *token_ends;  /* offset in text behind each token; released with free() */
    uint32_t tokens;
    int is_cut;            /* ended by max_tokens, not by itself */
};

uint32_t model_count_tokens(const char *text);
size_t model_tokens_bytes(const char *text, uint32_t tokens); /* of the first so many, with the blanks before them */

/* How models answer. */
struct model_style {
    uint32_t tokens_min, tokens_max; /* bounds of an answer's length, before a request's own cuts it */
    const char *ignored;             /* words on which no answer depends: lower case, with commas between; NULL: none */
    bool is_alike;                   /* whatever the model's name is */
};

/*
 * `max_tokens`: cuts the answer; 0: nothing does. `first_word`: of letters and digits, what it begins with; NULL: as the dice say.
 * Errors: -ENOMEM.
 */
MUST_USE int model_answer_create(uint64_t seed, const char *model, const char *prompt, struct model_style style,
                                 uint32_t max_tokens, const char *first_word, struct model_answer *ret_answer);
void model_answer_finish(struct model_answer *answer);

/* A unit vector of hashed words (letters and digits, without case): texts that share words lie near each other. */
void model_embed(uint64_t seed, const char *text, size_t dimensions, float *ret_vector);
