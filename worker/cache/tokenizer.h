/*
 * tokenizer: texts as numbers of tokens, as a tokenizer.json says: special tokens first, then
 * text_normalizer, text_splitter and token_model.
 *
 * Source: the format of github.com/huggingface/tokenizers. What a file asks for and is not known
 * here is refused when it is read, never passed over. Post-processing, padding and truncation have
 * no part in static vectors. Keeps room for its work: one text at a time.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/refusal.h"

struct tokenizer;

enum {
    TOKENIZER_JSON_BYTES_MAX = 128 << 20,
    TOKENIZER_SPECIALS_MAX = 4096,
    TOKENIZER_WORK_BYTES_MAX = 1 << 20, /* a text on its way through the steps */
};

/* Errors: -EINVAL (ret_error says why); -ENOMEM. */
MUST_USE int tokenizer_read(const char *json, size_t bytes, struct tokenizer **ret_tokenizer,
                            char ret_error[REFUSAL_BYTES]);
void tokenizer_destroy(struct tokenizer **tokenizer);

/* One more than the highest number that tokenizer_encode() gives. */
uint32_t tokenizer_ids(const struct tokenizer *tokenizer);
/* Half of the vocabulary's tokens have no more characters than this. */
uint32_t tokenizer_median_characters(const struct tokenizer *tokenizer);

/*
 * The first `ids_max` tokens of a text, without unknown ones.
 * Errors: -EMSGSIZE its steps make more than TOKENIZER_WORK_BYTES_MAX of the text; -ENOMEM.
 */
MUST_USE int tokenizer_encode(struct tokenizer *tokenizer, const char *text, size_t bytes,
                              uint32_t *ret_ids, size_t ids_max, size_t *ret_length);
