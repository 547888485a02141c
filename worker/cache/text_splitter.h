/*
 * text_splitter: a text in pieces, as the pre-tokenizers of a tokenizer.json cut it; each piece is
 * given to the model (token_model) for itself.
 *
 * Known are BertPreTokenizer, Whitespace, WhitespaceSplit, Punctuation, Digits, Metaspace,
 * ByteLevel, and Sequences of them; a file with another is refused. Source: the pre-tokenizers of
 * github.com/huggingface/tokenizers.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/bytes.h"
#include "worker/cache/refusal.h"

struct text_splitter;

enum { TEXT_SPLITTER_STEPS_MAX = 16 };

/* The text of all pieces and where each lies in it. {.text.bytes_max = N} is an empty one. */
struct pieces {
    struct bytes text;
    struct piece {
        size_t from;
        size_t to;
    } * items;
    size_t length;
    size_t capacity;
};
void pieces_finish(struct pieces *pieces);

/*
 * `value`: the "pre_tokenizer" of the file; null or NULL: the text is one piece.
 * Errors: -EINVAL (ret_error says why); -ENOMEM.
 */
MUST_USE int text_splitter_read(const json_t *value, struct text_splitter **ret_splitter,
                                char ret_error[REFUSAL_BYTES]);
void text_splitter_destroy(struct text_splitter **splitter);

/*
 * Splits UTF-8. `is_first`: nothing of the whole text lies before it. `out` is cleared first;
 * `spare` is used on the way.
 * Errors: -EMSGSIZE beyond the bound of one of the two; -ENOMEM.
 */
MUST_USE int text_splitter_split(const struct text_splitter *splitter, const char *text,
                                 size_t bytes, bool is_first, struct pieces *spare,
                                 struct pieces *out);
