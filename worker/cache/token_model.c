/*
 * Every model looks tokens up in prefix trees: WordPiece has one for the beginnings of words and
 * one for what goes on (its "##" is left out there, so nothing is put together to look it up).
 */
#include "worker/cache/token_model.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/characters.h"
#include "worker/cache/prefix_tree.h"

enum model_kind { MODEL_WORD_PIECE, MODEL_WORD_LEVEL, MODEL_UNIGRAM };
enum { NO_TOKEN = UINT32_MAX, PIECE_WORD_CHARACTERS_MAX = 100 };

/* Unigram: the best way to the end of a prefix of the piece. */
struct best {
    double score;
    uint32_t from; /* where its last token begins */
    uint32_t token;
    bool is_reached;
};

struct token_model {
    enum model_kind kind;
    struct prefix_tree *tree;         /* of tokens, or of those that begin words */
    struct prefix_tree *continuation; /* MODEL_WORD_PIECE */
    size_t word_characters_max;
    uint32_t unknown; /* NO_TOKEN: there is none */
    uint32_t ids;
    uint32_t lengths[TOKEN_CHARACTERS_MAX + 1]; /* how many tokens have so many characters */
    uint32_t tokens;
    /* MODEL_UNIGRAM */
    double *scores;
    double unknown_score;
    uint32_t *byte_tokens; /* 256; NULL: unknown characters stay unknown */
    struct best *bests;
    size_t bests_capacity;
};

/* ---- reading ---- */

/* The words while the file is read; they borrow from it. */
struct word_list {
    struct prefix_word *items;
    size_t length;
};

static int count_token(struct token_model *model, const char *token, uint32_t id, char *ret_error)
{
    size_t characters = 0;
    for (size_t i = 0; token[i] != '\0'; i++) {
        characters += ((unsigned char)token[i] & 0xc0U) != 0x80U ? 1 : 0;
    }
    if (characters > TOKEN_CHARACTERS_MAX || strlen(token) > PREFIX_TREE_WORD_BYTES_MAX) {
        return refusal_write(ret_error, "a token is longer than %d bytes",
                             PREFIX_TREE_WORD_BYTES_MAX);
    }
    model->lengths[characters]++;
    model->tokens++;
    model->ids = id >= model->ids ? id + 1 : model->ids;
    return 0;
}

static void add_word(struct word_list *words, const char *text, uint32_t id)
{
    /* An empty token can be in no text. */
    if (text[0] != '\0') {
        words->items[words->length++] =
            (struct prefix_word){.text = text, .bytes = (uint32_t)strlen(text), .value = id};
    }
}

static int read_vocabulary(const json_t *vocabulary, const char *prefix, struct token_model *model,
                           struct word_list *words, struct word_list *continuations,
                           char *ret_error)
{
    const size_t prefix_bytes = prefix == NULL ? 0 : strlen(prefix);
    const char *token;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)vocabulary, token, value) {
        const json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= TOKENS_MAX) {
            return refusal_write(ret_error, "the token \"%.40s\" has no number below %d", token,
                                 TOKENS_MAX);
        }
        int r = count_token(model, token, (uint32_t)id, ret_error);
        if (r < 0) {
            return r;
        }
        const bool goes_on = prefix != NULL && strncmp(token, prefix, prefix_bytes) == 0;
        /* A word may also begin with "##", as it is written. */
        add_word(words, token, (uint32_t)id);
        if (goes_on) {
            add_word(continuations, token + prefix_bytes, (uint32_t)id);
        }
    }
    return 0;
}

static int grow_trees(struct token_model *model, struct word_list *words,
                      struct word_list *continuations)
{
    int r = prefix_tree_create(words->items, words->length, &model->tree);
    return r < 0 ? r
                 : prefix_tree_create(continuations->items, continuations->length,
                                      &model->continuation);
}

/*
 * The vocabulary of WordPiece and WordLevel: an object of tokens and their numbers. `prefix` marks
 * those that go on; NULL: none does.
 */
static int read_words(const json_t *value, const char *prefix, struct token_model *model,
                      char *ret_error)
{
    const json_t *vocabulary = json_object_get(value, "vocab");
    const size_t length = json_object_size(vocabulary);
    if (length == 0 || length > TOKENS_MAX) {
        return refusal_write(ret_error, "its vocabulary has no or more than %d tokens", TOKENS_MAX);
    }
    struct word_list words = {calloc(length, sizeof(struct prefix_word)), 0};
    struct word_list continuations = {calloc(length, sizeof(struct prefix_word)), 0};
    int r = words.items == NULL || continuations.items == NULL ? -ENOMEM : 0;
    r = r < 0 ? r : read_vocabulary(vocabulary, prefix, model, &words, &continuations, ret_error);
    r = r < 0 ? r : grow_trees(model, &words, &continuations);
    free(words.items);
    free(continuations.items);
    const char *unknown = json_string_value(json_object_get(value, "unk_token"));
    const json_t *unknown_id = unknown == NULL ? NULL : json_object_get(vocabulary, unknown);
    model->unknown = unknown_id == NULL ? NO_TOKEN : (uint32_t)json_integer_value(unknown_id);
    return r;
}

static int read_word_piece(const json_t *value, struct token_model *model, char *ret_error)
{
    const char *prefix = json_string_value(json_object_get(value, "continuing_subword_prefix"));
    const json_t *characters = json_object_get(value, "max_input_chars_per_word");
    model->kind = MODEL_WORD_PIECE;
    model->word_characters_max = PIECE_WORD_CHARACTERS_MAX;
    if (json_is_integer(characters)) {
        const json_int_t characters_max = json_integer_value(characters);
        if (characters_max < 1 || characters_max > 10000) {
            return refusal_write(ret_error, "max_input_chars_per_word is not from 1 to 10000");
        }
        model->word_characters_max = (size_t)characters_max;
    }
    return read_words(value, prefix == NULL ? "##" : prefix, model, ret_error);
}

static int read_word_level(const json_t *value, struct token_model *model, char *ret_error)
{
    model->kind = MODEL_WORD_LEVEL;
    return read_words(value, NULL, model, ret_error);
}

static int read_scored(const json_t *list, struct token_model *model, struct word_list *words,
                       char *ret_error)
{
    double lowest = INFINITY;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *token = json_string_value(json_array_get(entry, 0));
        const json_t *score = json_array_get(entry, 1);
        if (token == NULL || !json_is_number(score)) {
            return refusal_write(ret_error, "vocab[%zu] is no token with its score", i);
        }
        int r = count_token(model, token, (uint32_t)i, ret_error);
        if (r < 0) {
            return r;
        }
        model->scores[i] = json_number_value(score);
        lowest = fmin(lowest, model->scores[i]);
        add_word(words, token, (uint32_t)i);
    }
    model->unknown_score = lowest - 10.0; /* SentencePiece's kUnkPenalty */
    return 0;
}

/* The tokens "<0x00>" to "<0xFF>" of whoever writes unknown characters in bytes. */
static int read_byte_tokens(const json_t *value, struct token_model *model)
{
    if (!json_is_true(json_object_get(value, "byte_fallback"))) {
        return 0;
    }
    model->byte_tokens = calloc(256, sizeof(uint32_t));
    if (model->byte_tokens == NULL) {
        return -ENOMEM;
    }
    for (unsigned int byte = 0; byte < 256; byte++) {
        char token[8];
        uint32_t id = NO_TOKEN;
        (void)snprintf(token, sizeof(token), "<0x%02X>", byte);
        const size_t found = prefix_tree_longest(model->tree, token, strlen(token), &id);
        model->byte_tokens[byte] = found == strlen(token) ? id : NO_TOKEN;
    }
    return 0;
}

static int read_unigram(const json_t *value, struct token_model *model, char *ret_error)
{
    const json_t *list = json_object_get(value, "vocab");
    const json_t *unknown = json_object_get(value, "unk_id");
    const size_t length = json_array_size(list);
    model->kind = MODEL_UNIGRAM;
    if (length == 0 || length > TOKENS_MAX) {
        return refusal_write(ret_error, "its vocabulary has no or more than %d tokens", TOKENS_MAX);
    }
    model->unknown = NO_TOKEN;
    if (json_is_integer(unknown)) {
        const json_int_t id = json_integer_value(unknown);
        if (id < 0 || (size_t)id >= length) {
            return refusal_write(ret_error, "unk_id is no token");
        }
        model->unknown = (uint32_t)id;
    }
    struct word_list words = {calloc(length, sizeof(struct prefix_word)), 0};
    model->scores = calloc(length, sizeof(double));
    int r = words.items == NULL || model->scores == NULL ? -ENOMEM : 0;
    r = r < 0 ? r : read_scored(list, model, &words, ret_error);
    r = r < 0 ? r : prefix_tree_create(words.items, words.length, &model->tree);
    free(words.items);
    return r < 0 ? r : read_byte_tokens(value, model);
}

int token_model_read(const json_t *value, struct token_model **ret_model,
                     char ret_error[REFUSAL_BYTES])
{
    static const struct {
        const char *type;
        int (*read)(const json_t *value, struct token_model *model, char *ret_error);
    } kinds[] = {
        {"WordPiece", read_word_piece}, {"WordLevel", read_word_level}, {"Unigram", read_unigram}};
    const json_t *type_value = json_object_get(value, "type");
    const char *type = json_string_value(type_value);
    CLEANUP(token_model_destroy) struct token_model *model = calloc(1, sizeof(*model));
    if (model == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; type != NULL && i < ARRAY_LENGTH(kinds); i++) {
        if (strcmp(type, kinds[i].type) == 0) {
            int r = kinds[i].read(value, model, ret_error);
            if (r < 0) {
                return r;
            }
            *ret_model = TAKE(model);
            return 0;
        }
    }
    return refusal_write(ret_error,
                         "the model \"%.40s\" is not known; WordPiece, WordLevel and Unigram are",
                         type == NULL ? "" : type);
}

void token_model_destroy(struct token_model **model)
{
    struct token_model *old = TAKE(*model);
    if (old == NULL) {
        return;
    }
    prefix_tree_destroy(&old->tree);
    prefix_tree_destroy(&old->continuation);
    free(old->scores);
    free(old->byte_tokens);
    free(old->bests);
    free(old);
}

uint32_t token_model_ids(const struct token_model *model)
{
    return model->ids;
}

uint32_t token_model_median_characters(const struct token_model *model)
{
    uint64_t seen = model->lengths[0];
    uint32_t characters = 0;
    while (characters < TOKEN_CHARACTERS_MAX && 2 * seen < model->tokens) {
        seen += model->lengths[++characters];
    }
    return characters;
}

/* ---- encoding ---- */

void token_model_add(const struct token_model *model, uint32_t id, struct token_ids *ids)
{
    if (id != model->unknown && id != NO_TOKEN && ids->length < ids->ids_max) {
        ids->items[ids->length++] = id;
    }
}

static void encode_word_level(const struct token_model *model, const char *piece, size_t bytes,
                              struct token_ids *ids)
{
    uint32_t id = NO_TOKEN;
    if (prefix_tree_longest(model->tree, piece, bytes, &id) == bytes) {
        token_model_add(model, id, ids);
    }
}

static size_t count_characters(const char *piece, size_t bytes)
{
    size_t characters = 0;
    for (size_t i = 0; i < bytes; i++) {
        characters += ((unsigned char)piece[i] & 0xc0U) != 0x80U ? 1 : 0;
    }
    return characters;
}

/* A word of which one part is unknown is unknown as a whole. */
static void encode_word_piece(const struct token_model *model, const char *piece, size_t bytes,
                              struct token_ids *ids)
{
    const size_t length_before = ids->length;
    size_t at = 0;
    if (bytes > model->word_characters_max &&
        count_characters(piece, bytes) > model->word_characters_max) {
        return;
    }
    while (at < bytes) {
        uint32_t id = NO_TOKEN;
        const size_t found = prefix_tree_longest(at == 0 ? model->tree : model->continuation,
                                                 piece + at, bytes - at, &id);
        if (found == 0) {
            ids->length = length_before;
            return;
        }
        token_model_add(model, id, ids);
        at += found;
    }
}

static void improve(struct best *best, double score, size_t from, uint32_t token)
{
    if (!best->is_reached || score > best->score) {
        *best = (struct best){score, (uint32_t)from, token, true};
    }
}

static int reserve_bests(struct token_model *model, size_t bytes)
{
    if (bytes + 1 > model->bests_capacity) {
        struct best *bests = realloc(model->bests, (bytes + 1) * sizeof(*bests));
        if (bests == NULL) {
            return -ENOMEM;
        }
        model->bests = bests;
        model->bests_capacity = bytes + 1;
    }
    memset(model->bests, 0, (bytes + 1) * sizeof(*model->bests));
    return 0;
}

static void search_from(const struct token_model *model, const char *piece, size_t bytes, size_t at,
                        size_t character_bytes)
{
    struct prefix_walk walk = prefix_walk_begin(model->tree);
    const double here = model->bests[at].score;
    bool has_single = false;
    int32_t token;
    for (size_t end = at; end < bytes; end++) {
        if (prefix_walk_step(&walk, (unsigned char)piece[end], &token) < 0) {
            break;
        }
        if (token >= 0) {
            improve(&model->bests[end + 1], here + model->scores[token], at, (uint32_t)token);
            has_single = has_single || end + 1 - at == character_bytes;
        }
    }
    if (!has_single) {
        improve(&model->bests[at + character_bytes], here + model->unknown_score, at, NO_TOKEN);
    }
}

static void add_unknown(const struct token_model *model, const char *piece, size_t from, size_t to,
                        struct token_ids *ids)
{
    for (size_t i = from; i < to && model->byte_tokens != NULL; i++) {
        token_model_add(model, model->byte_tokens[(unsigned char)piece[i]], ids);
    }
}

/*
 * Viterbi. Back from the end each place learns where the path goes on (`from` becomes the end of
 * the token that begins there), so that the tokens come out in their order and the first ones are
 * kept when there are too many.
 */
static int encode_unigram(struct token_model *model, const char *piece, size_t bytes,
                          struct token_ids *ids)
{
    int32_t character;
    int r = reserve_bests(model, bytes);
    if (r < 0) {
        return r;
    }
    for (size_t at = 0; at < bytes;) {
        const size_t length = character_read(piece + at, bytes - at, &character);
        search_from(model, piece, bytes, at, length);
        at += length;
    }
    uint32_t token = NO_TOKEN;
    uint32_t next = (uint32_t)bytes;
    for (size_t at = bytes; at > 0;) {
        const struct best found = model->bests[at];
        model->bests[at].from = next;
        model->bests[at].token = token;
        next = (uint32_t)at;
        token = found.token;
        at = found.from;
    }
    for (size_t at = 0; at < bytes;) {
        if (token == NO_TOKEN) {
            add_unknown(model, piece, at, next, ids);
        } else {
            token_model_add(model, token, ids);
        }
        at = next;
        token = model->bests[at].token;
        next = model->bests[at].from;
    }
    return 0;
}

int token_model_encode(struct token_model *model, const char *piece, size_t bytes,
                       struct token_ids *ids)
{
    switch (model->kind) {
    case MODEL_WORD_PIECE:
        encode_word_piece(model, piece, bytes, ids);
        return 0;
    case MODEL_WORD_LEVEL:
        encode_word_level(model, piece, bytes, ids);
        return 0;
    case MODEL_UNIGRAM:
        return encode_unigram(model, piece, bytes, ids);
    }
    return 0;
}
