#include "worker/cache/tokenizer.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/prefix_tree.h"
#include "worker/cache/text_normalizer.h"
#include "worker/cache/text_splitter.h"
#include "worker/cache/token_model.h"

struct tokenizer {
    struct text_normalizer *normalizer;
    struct text_splitter *splitter;
    struct token_model *model;
    struct prefix_tree *specials; /* "added tokens": found in the text as it is */
    bool begins_special[256];     /* which bytes one of them begins with */
    uint32_t ids;
    struct bytes normal;
    struct bytes normal_spare;
    struct pieces pieces;
    struct pieces pieces_spare;
};

static int read_special(const json_t *value, struct tokenizer *tokenizer, struct prefix_word *word,
                        char *ret_error)
{
    const char *content = json_string_value(json_object_get(value, "content"));
    const json_t *id = json_object_get(value, "id");
    if (content == NULL || content[0] == '\0' || strlen(content) > PREFIX_TREE_WORD_BYTES_MAX ||
        !json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= TOKENS_MAX) {
        return refusal_write(ret_error, "an added token lacks its content or number");
    }
    if (json_is_true(json_object_get(value, "single_word"))) {
        return refusal_write(ret_error,
                             "the added token \"%.40s\" is to be a single word, "
                             "which is not known",
                             content);
    }
    *word = (struct prefix_word){.text = content,
                                 .bytes = (uint32_t)strlen(content),
                                 .value = (uint32_t)json_integer_value(id)};
    tokenizer->begins_special[(unsigned char)content[0]] = true;
    tokenizer->ids = word->value >= tokenizer->ids ? word->value + 1 : tokenizer->ids;
    return 0;
}

static int read_specials(const json_t *list, struct tokenizer *tokenizer, char *ret_error)
{
    const size_t length = json_array_size(list);
    if (length > TOKENIZER_SPECIALS_MAX) {
        return refusal_write(ret_error, "there are more added tokens than %d",
                             TOKENIZER_SPECIALS_MAX);
    }
    struct prefix_word *words = calloc(length + 1, sizeof(*words));
    int r = words == NULL ? -ENOMEM : 0;
    for (size_t i = 0; i < length && r == 0; i++) {
        r = read_special(json_array_get(list, i), tokenizer, &words[i], ret_error);
    }
    r = r < 0 ? r : prefix_tree_create(words, length, &tokenizer->specials);
    free(words);
    return r;
}

static int read_parts(const json_t *file, struct tokenizer *tokenizer, char *ret_error)
{
    int r = text_normalizer_read(json_object_get(file, "normalizer"), &tokenizer->normalizer,
                                 ret_error);
    r = r < 0 ? r
              : text_splitter_read(json_object_get(file, "pre_tokenizer"), &tokenizer->splitter,
                                   ret_error);
    r = r < 0 ? r : token_model_read(json_object_get(file, "model"), &tokenizer->model, ret_error);
    if (r < 0) {
        return r;
    }
    tokenizer->ids = token_model_ids(tokenizer->model);
    return read_specials(json_object_get(file, "added_tokens"), tokenizer, ret_error);
}

int tokenizer_read(const char *json, size_t bytes, struct tokenizer **ret_tokenizer,
                   char ret_error[REFUSAL_BYTES])
{
    json_error_t error;
    if (bytes > TOKENIZER_JSON_BYTES_MAX) {
        return refusal_write(ret_error, "it is larger than %d bytes", TOKENIZER_JSON_BYTES_MAX);
    }
    CLEANUP(tokenizer_destroy) struct tokenizer *tokenizer = calloc(1, sizeof(*tokenizer));
    if (tokenizer == NULL) {
        return -ENOMEM;
    }
    tokenizer->normal.bytes_max = TOKENIZER_WORK_BYTES_MAX;
    tokenizer->normal_spare.bytes_max = TOKENIZER_WORK_BYTES_MAX;
    tokenizer->pieces.text.bytes_max = TOKENIZER_WORK_BYTES_MAX;
    tokenizer->pieces_spare.text.bytes_max = TOKENIZER_WORK_BYTES_MAX;
    json_t *file = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(file)) {
        json_decref(file);
        return refusal_write(ret_error, "it is no JSON object: %.80s", error.text);
    }
    int r = read_parts(file, tokenizer, ret_error);
    json_decref(file);
    if (r < 0) {
        return r;
    }
    *ret_tokenizer = TAKE(tokenizer);
    return 0;
}

void tokenizer_destroy(struct tokenizer **tokenizer)
{
    struct tokenizer *old = TAKE(*tokenizer);
    if (old == NULL) {
        return;
    }
    text_normalizer_destroy(&old->normalizer);
    text_splitter_destroy(&old->splitter);
    token_model_destroy(&old->model);
    prefix_tree_destroy(&old->specials);
    bytes_finish(&old->normal);
    bytes_finish(&old->normal_spare);
    pieces_finish(&old->pieces);
    pieces_finish(&old->pieces_spare);
    free(old);
}

uint32_t tokenizer_ids(const struct tokenizer *tokenizer)
{
    return tokenizer->ids;
}

uint32_t tokenizer_median_characters(const struct tokenizer *tokenizer)
{
    return token_model_median_characters(tokenizer->model);
}

/* What lies between special tokens. */
static int encode_plain(struct tokenizer *tokenizer, const char *text, size_t bytes, bool is_first,
                        struct token_ids *ids)
{
    int r = text_normalizer_apply(tokenizer->normalizer, text, bytes, &tokenizer->normal_spare,
                                  &tokenizer->normal);
    r = r < 0 ? r
              : text_splitter_split(tokenizer->splitter, tokenizer->normal.data,
                                    tokenizer->normal.length, is_first, &tokenizer->pieces_spare,
                                    &tokenizer->pieces);
    const struct pieces *pieces = &tokenizer->pieces;
    for (size_t i = 0; r == 0 && i < pieces->length && ids->length < ids->ids_max; i++) {
        r = token_model_encode(tokenizer->model, pieces->text.data + pieces->items[i].from,
                               pieces->items[i].to - pieces->items[i].from, ids);
    }
    return r;
}

/* Where the next special token begins, and its bytes; `bytes` when there is none. */
static size_t find_special(const struct tokenizer *tokenizer, const char *text, size_t bytes,
                           size_t at, uint32_t *ret_id, size_t *ret_bytes)
{
    for (; at < bytes; at++) {
        if (!tokenizer->begins_special[(unsigned char)text[at]]) {
            continue;
        }
        *ret_bytes = prefix_tree_longest(tokenizer->specials, text + at, bytes - at, ret_id);
        if (*ret_bytes > 0) {
            return at;
        }
    }
    *ret_bytes = 0;
    return bytes;
}

int tokenizer_encode(struct tokenizer *tokenizer, const char *text, size_t bytes, uint32_t *ret_ids,
                     size_t ids_max, size_t *ret_length)
{
    struct token_ids ids = {.items = ret_ids, .ids_max = ids_max};
    size_t at = 0;
    while (at < bytes && ids.length < ids_max) {
        uint32_t special = 0;
        size_t special_bytes = 0;
        const size_t until = find_special(tokenizer, text, bytes, at, &special, &special_bytes);
        int r = until > at ? encode_plain(tokenizer, text + at, until - at, at == 0, &ids) : 0;
        if (r < 0) {
            return r;
        }
        if (special_bytes > 0) {
            token_model_add(tokenizer->model, special, &ids);
        }
        at = until + special_bytes;
    }
    *ret_length = ids.length;
    return 0;
}
