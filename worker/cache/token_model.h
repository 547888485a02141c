/*
 * token_model: pieces of a text as the numbers of the vocabulary's tokens.
 *
 * Known are WordPiece (the longest token first), WordLevel (the whole piece), and Unigram (of all
 * ways to cut a piece the one with the highest sum of scores). BPE is refused: static models that
 * are distilled today are one of these. Source: the models of github.com/huggingface/tokenizers.
 *
 * Unknown text is left out, as model2vec does: a row for "unknown" would make all unknown things
 * alike.
 */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/refusal.h"

struct token_model;

enum {
    TOKENS_MAX = 4 << 20,        /* of a vocabulary */
    TOKEN_CHARACTERS_MAX = 1024, /* as many lengths are told apart; longer ones are refused */
};

/* Tokens of one text. */
struct token_ids {
    uint32_t *items; /* room for ids_max, the caller's */
    size_t length;
    size_t ids_max; /* what is beyond is left out */
};

/*
 * `value`: the "model" of the file.
 * Errors: -EINVAL (ret_error says why); -ENOMEM.
 */
MUST_USE int token_model_read(const json_t *value, struct token_model **ret_model,
                              char ret_error[REFUSAL_BYTES]);
void token_model_destroy(struct token_model **model);

uint32_t token_model_ids(const struct token_model *model); /* one more than the highest */
/* Half of the tokens have no more characters than this. */
uint32_t token_model_median_characters(const struct token_model *model);

/* Appends the tokens of a piece, which is UTF-8. Errors: -ENOMEM. */
MUST_USE int token_model_encode(struct token_model *model, const char *piece, size_t bytes,
                                struct token_ids *ids);
/* Appends a token that was found otherwise, unless it stands for unknown text or is beyond ids_max.
 */
void token_model_add(const struct token_model *model, uint32_t id, struct token_ids *ids);
