/*
 * The two kinds of file that a vocabulary comes in. A tokenizer.json writes each byte of a token as
 * a character: those that can be seen as themselves, the others as U+0100 and on, in their order
 * (bytes_to_unicode() of GPT-2).
 */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "worker/prompt/bpe_build.h"

enum { GPT2_TOKENS_MAX = 100000, CL100K_TOKENS_MAX = 150000, BYTE_CHARACTERS = 0x144 };

static int refuse_token(int error, char *ret_error)
{
    return error == -ENOMEM ? error
           : error == -EEXIST
               ? refusal_write(ret_error, "has two tokens of the same text")
               : refusal_write(ret_error,
                               "has more than %d tokens, or one of no or more than %d bytes",
                               BPE_TOKENS_MAX, BPE_TOKEN_BYTES_MAX);
}

/* ---- ranks ---- */

/* "BASE64 RANK". False: it is not that. */
static bool line_parse(const char *line, size_t bytes, char ret_token[BPE_TOKEN_BYTES_MAX],
                       size_t *ret_bytes, uint32_t *ret_rank)
{
    const char *end = NULL;
    if (sodium_base642bin((unsigned char *)ret_token, BPE_TOKEN_BYTES_MAX, line, bytes, NULL,
                          ret_bytes, &end, sodium_base64_VARIANT_ORIGINAL) < 0 ||
        end == line + bytes || *end != ' ') {
        return false;
    }
    uint32_t rank = 0;
    const char *at = end + 1;
    for (; at < line + bytes && *at >= '0' && *at <= '9' && rank < BPE_TOKENS_MAX; at++) {
        rank = 10 * rank + (uint32_t)(*at - '0');
    }
    *ret_rank = rank;
    return at > end + 1 && at == line + bytes;
}

static int line_read(struct bpe *bpe, const char *line, size_t bytes, char *ret_error)
{
    char token[BPE_TOKEN_BYTES_MAX];
    size_t token_bytes;
    uint32_t rank;
    if (bytes == 0) {
        return 0;
    }
    if (!line_parse(line, bytes, token, &token_bytes, &rank)) {
        return refusal_write(ret_error, "line %zu is not a token in base64 and its rank",
                             bpe->tokens_length + 1);
    }
    int r = bpe_add_token(bpe, token, token_bytes, rank);
    return r < 0 ? refuse_token(r, ret_error) : 0;
}

int bpe_read_ranks(struct bpe *bpe, const char *data, size_t bytes, char ret_error[REFUSAL_BYTES])
{
    for (size_t at = 0; at < bytes;) {
        const char *end = memchr(data + at, '\n', bytes - at);
        const size_t length = end == NULL ? bytes - at : (size_t)(end - data) - at;
        const bool has_return = length > 0 && data[at + length - 1] == '\r';
        int r = line_read(bpe, data + at, length - (has_return ? 1 : 0), ret_error);
        if (r < 0) {
            return r;
        }
        at += length + 1;
    }
    if (bpe->tokens_length == 0) {
        return refusal_write(ret_error, "has no tokens");
    }
    bpe->pattern = bpe->tokens_length <= GPT2_TOKENS_MAX     ? BPE_GPT2
                   : bpe->tokens_length <= CL100K_TOKENS_MAX ? BPE_CL100K
                                                             : BPE_O200K;
    int r = bpe_index_tokens(bpe);
    return r < 0 ? refuse_token(r, ret_error) : 0;
}

/* ---- tokenizer.json ---- */

static bool is_seen(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

/* By character: its byte; -1: it stands for none. */
static void byte_characters(int ret_bytes[BYTE_CHARACTERS])
{
    int hidden = 0x100;
    memset(ret_bytes, 0xff, BYTE_CHARACTERS * sizeof(ret_bytes[0]));
    for (unsigned byte = 0; byte < 0x100; byte++) {
        ret_bytes[is_seen(byte) ? (int)byte : hidden++] = (int)byte;
    }
}

/* -1: a character stands for no byte, or there are too many. */
static ssize_t token_decode(const int *characters, const char *text, size_t bytes,
                            char ret_token[BPE_TOKEN_BYTES_MAX])
{
    size_t length = 0;
    for (size_t at = 0; at < bytes;) {
        utf8proc_int32_t point;
        const utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                       (utf8proc_ssize_t)(bytes - at), &point);
        if (step <= 0 || point >= BYTE_CHARACTERS || characters[point] < 0 ||
            length == BPE_TOKEN_BYTES_MAX) {
            return -1;
        }
        ret_token[length++] = (char)characters[point];
        at += (size_t)step;
    }
    return (ssize_t)length;
}

static int vocabulary_read(struct bpe *bpe, const json_t *model, const int *characters,
                           char *ret_error)
{
    char token[BPE_TOKEN_BYTES_MAX];
    const char *text;
    json_t *id;
    json_object_foreach (json_object_get(model, "vocab"), text, id) {
        const ssize_t bytes = token_decode(characters, text, strlen(text), token);
        const json_int_t rank = json_integer_value(id);
        if (bytes <= 0 || rank < 0 || rank >= BPE_NONE) {
            continue; /* a special token: it is no text */
        }
        int r = bpe_add_token(bpe, token, (size_t)bytes, (uint32_t)rank);
        if (r < 0) {
            return refuse_token(r, ret_error);
        }
    }
    if (bpe->tokens_length == 0) {
        return refusal_write(ret_error, "model.vocab has no tokens of bytes");
    }
    int r = bpe_index_tokens(bpe);
    return r < 0 ? refuse_token(r, ret_error) : 0;
}

static uint32_t half_find(const struct bpe *bpe, const int *characters, const char *text,
                          size_t bytes)
{
    char token[BPE_TOKEN_BYTES_MAX];
    const ssize_t length = token_decode(characters, text, bytes, token);
    return length <= 0 ? BPE_NONE : bpe_find(bpe, token, (size_t)length);
}

/* "LEFT RIGHT", or ["LEFT", "RIGHT"]. */
static bool merge_read(struct bpe *bpe, const json_t *merge, const int *characters, uint32_t rank)
{
    const char *left = json_string_value(json_is_array(merge) ? json_array_get(merge, 0) : merge);
    if (left == NULL) {
        return false;
    }
    const char *space = json_is_array(merge) ? NULL : strchr(left, ' ');
    const char *right = space != NULL ? space + 1 : json_string_value(json_array_get(merge, 1));
    if (right == NULL) {
        return false;
    }
    const size_t left_bytes = space != NULL ? (size_t)(space - left) : strlen(left);
    const uint32_t first = half_find(bpe, characters, left, left_bytes);
    const uint32_t second = half_find(bpe, characters, right, strlen(right));
    if (first == BPE_NONE || second == BPE_NONE) {
        return false;
    }
    bpe_add_merge(bpe, first, second, rank);
    return true;
}

static int merges_read(struct bpe *bpe, const json_t *model, const int *characters, char *ret_error)
{
    const json_t *merges = json_object_get(model, "merges");
    const size_t length = json_array_size(merges);
    if (length == 0 || length > BPE_MERGES_MAX) {
        return refusal_write(ret_error, "model.merges has none, or more than %d", BPE_MERGES_MAX);
    }
    int r = bpe_begin_merges(bpe, length);
    for (size_t i = 0; r == 0 && i < length; i++) {
        if (!merge_read(bpe, json_array_get(merges, i), characters, (uint32_t)i)) {
            r = refusal_write(ret_error, "model.merges[%zu] is no pair of tokens", i);
        }
    }
    return r;
}

static bool is_type(const json_t *step, const char *type)
{
    const char *text = json_string_value(json_object_get(step, "type"));
    return text != NULL && strcmp(text, type) == 0;
}

/* One step that cuts texts. ByteLevel cuts by GPT-2's pattern unless it is told not to. */
static bool step_read(const json_t *step, bool *cuts, enum bpe_pattern *ret_pattern)
{
    const char *regex =
        json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
    if (is_type(step, "ByteLevel") && !json_is_true(json_object_get(step, "add_prefix_space"))) {
        if (!json_is_false(json_object_get(step, "use_regex"))) {
            const bool is_only = !*cuts;
            *ret_pattern = BPE_GPT2;
            *cuts = true;
            return is_only;
        }
        return true;
    }
    const bool is_cut = is_type(step, "Split") && regex != NULL && !*cuts;
    *cuts = true;
    return is_cut && bpe_pattern_parse(regex, ret_pattern);
}

static int pattern_read(struct bpe *bpe, const json_t *file, char *ret_error)
{
    const json_t *pre = json_object_get(file, "pre_tokenizer");
    const json_t *steps = is_type(pre, "Sequence") ? json_object_get(pre, "pretokenizers") : NULL;
    bool cuts = false;
    bool is_known = steps != NULL || step_read(pre, &cuts, &bpe->pattern);
    for (size_t i = 0; is_known && i < json_array_size(steps); i++) {
        is_known = step_read(json_array_get(steps, i), &cuts, &bpe->pattern);
    }
    return is_known && cuts
               ? 0
               : refusal_write(ret_error,
                               "pre_tokenizer is none of those known here: ByteLevel, or "
                               "Split by a pattern of tiktoken's, Llama 3 or Qwen");
}

int bpe_read_json(struct bpe *bpe, const json_t *file, char ret_error[REFUSAL_BYTES])
{
    const json_t *model = json_object_get(file, "model");
    const json_t *normalizer = json_object_get(file, "normalizer");
    int characters[BYTE_CHARACTERS];
    if (!json_is_object(file)) {
        return refusal_write(ret_error, "is no JSON object");
    }
    if (!is_type(model, "BPE") && json_object_get(model, "merges") == NULL) {
        return refusal_write(ret_error, "model is no BPE");
    }
    if (json_is_object(normalizer) && !is_type(normalizer, "NFC")) {
        return refusal_write(ret_error, "normalizer is not NFC");
    }
    byte_characters(characters);
    int r = pattern_read(bpe, file, ret_error);
    r = r < 0 ? r : vocabulary_read(bpe, model, characters, ret_error);
    return r < 0 ? r : merges_read(bpe, model, characters, ret_error);
}
