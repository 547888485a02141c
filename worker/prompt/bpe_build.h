/*
 * bpe_build: the tables of a vocabulary while it is read, and what bpe looks up in them. Private to
 * worker/prompt/bpe*.c.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "worker/prompt/bpe.h"

enum { BPE_NONE = 0xffffffff };

struct bpe_token {
    uint32_t from; /* in `text` */
    uint32_t bytes;
    uint32_t rank; /* the lower, the sooner it is made */
};

struct bpe_merge {
    uint32_t left, right; /* tokens, by their place in `tokens` */
    uint32_t rank;
};

struct bpe {
    enum bpe_pattern pattern;
    char *text; /* of all tokens, one behind the other */
    size_t text_bytes, text_capacity;
    struct bpe_token *tokens;
    size_t tokens_length, tokens_capacity;
    uint32_t *by_text; /* open addressing: a token's place, BPE_NONE: empty */
    size_t by_text_mask;
    bool
        has_merges; /* pairs are named one by one; else any two whose text is a token's may merge */
    struct bpe_merge *merges; /* open addressing; left BPE_NONE: empty */
    size_t merges_mask;
};

/* Errors: -EMSGSIZE a bound is passed; -ENOMEM. */
MUST_USE int bpe_add_token(struct bpe *bpe, const char *text, size_t bytes, uint32_t rank);
/* After the last token. Errors: -EEXIST two tokens have the same text; -ENOMEM. */
MUST_USE int bpe_index_tokens(struct bpe *bpe);
/* Room for so many. Errors: -ENOMEM. */
MUST_USE int bpe_begin_merges(struct bpe *bpe, size_t length);
/* Within that room. Of two for one pair the first counts. */
void bpe_add_merge(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank);
/* The place of the token with this text; BPE_NONE. */
uint32_t bpe_find(const struct bpe *bpe, const char *text, size_t bytes);

/* Reads the two kinds of file into an empty one. Errors: -EINVAL (ret_error says why); -ENOMEM. */
MUST_USE int bpe_read_ranks(struct bpe *bpe, const char *data, size_t bytes,
                            char ret_error[REFUSAL_BYTES]);
MUST_USE int bpe_read_json(struct bpe *bpe, const json_t *file, char ret_error[REFUSAL_BYTES]);
