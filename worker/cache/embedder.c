#include "worker/cache/embedder.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

#include "common/attributes.h"

enum { WORD_BYTES_MAX = 64, GRAM_MIN = 3, GRAM_MAX = 5 };

/* Weights by kind of feature: a word says more than a part of it. */
static const float WEIGHT_WORD = 1.0F;
static const float WEIGHT_COMMON_WORD = 0.2F;
static const float WEIGHT_PAIR = 0.7F;
static const float WEIGHT_GRAM = 0.25F;

/*
 * The most frequent words of English prose, sorted: they are in every prompt and tell none from
 * another.
 */
static const char *const common_words[] = {
    "a",     "about",  "all",  "an",     "and",   "are",   "as",    "at",   "be",   "been",
    "but",   "by",     "can",  "could",  "did",   "do",    "does",  "for",  "from", "give",
    "had",   "has",    "have", "he",     "her",   "his",   "how",   "i",    "if",   "in",
    "into",  "is",     "it",   "its",    "me",    "my",    "of",    "on",   "or",   "our",
    "out",   "please", "she",  "should", "so",    "some",  "tell",  "than", "that", "the",
    "their", "them",   "then", "there",  "these", "they",  "this",  "to",   "up",   "us",
    "was",   "we",     "were", "what",   "when",  "where", "which", "who",  "why",  "will",
    "with",  "would",  "you",  "your",
};

struct word {
    char text[WORD_BYTES_MAX];
    size_t bytes;
};

static bool is_word_byte(unsigned char c)
{
    return c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_common(const struct word *word)
{
    size_t low = 0;
    size_t high = ARRAY_LENGTH(common_words);
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const int order = strcmp(word->text, common_words[middle]);
        if (order == 0) {
            return true;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return false;
}

static void add_feature(float *sums, const void *feature, size_t bytes, uint64_t kind, float weight)
{
    const uint64_t hash = XXH3_64bits_withSeed(feature, bytes, kind);
    sums[hash % EMBEDDER_DIMENSIONS] += (hash >> 63) != 0 ? -weight : weight;
}

/* Grams over "_word_", so that a beginning and an end count as such. */
static void add_grams(float *sums, const struct word *word)
{
    char framed[WORD_BYTES_MAX + 2];
    const size_t bytes = word->bytes + 2;
    framed[0] = framed[bytes - 1] = '_';
    memcpy(framed + 1, word->text, word->bytes);
    for (size_t length = GRAM_MIN; length <= GRAM_MAX; length++) {
        for (size_t at = 0; at + length <= bytes; at++) {
            add_feature(sums, framed + at, length, length, WEIGHT_GRAM);
        }
    }
}

static void add_word(float *sums, const struct word *word, const struct word *before)
{
    enum { KIND_WORD = 100, KIND_PAIR = 101 };
    const bool is_weak = is_common(word);
    add_feature(sums, word->text, word->bytes, KIND_WORD,
                is_weak ? WEIGHT_COMMON_WORD : WEIGHT_WORD);
    if (!is_weak) {
        add_grams(sums, word);
    }
    if (before->bytes > 0) {
        char pair[2 * WORD_BYTES_MAX + 1];
        memcpy(pair, before->text, before->bytes);
        pair[before->bytes] = ' ';
        memcpy(pair + before->bytes + 1, word->text, word->bytes);
        add_feature(sums, pair, before->bytes + 1 + word->bytes, KIND_PAIR, WEIGHT_PAIR);
    }
}

/* The next word at or after *at, cut at WORD_BYTES_MAX − 1. False: none is left. */
static bool next_word(const char *text, size_t bytes, size_t *at, struct word *ret_word)
{
    while (*at < bytes && !is_word_byte((unsigned char)text[*at])) {
        (*at)++;
    }
    ret_word->bytes = 0;
    while (*at < bytes && is_word_byte((unsigned char)text[*at])) {
        if (ret_word->bytes < WORD_BYTES_MAX - 1) {
            ret_word->text[ret_word->bytes++] = lower(text[*at]);
        }
        (*at)++;
    }
    ret_word->text[ret_word->bytes] = '\0';
    return ret_word->bytes > 0;
}

static void quantise(const float *sums, struct vector *vector)
{
    float largest = 0;
    for (size_t i = 0; i < EMBEDDER_DIMENSIONS; i++) {
        largest = fmaxf(largest, fabsf(sums[i]));
    }
    for (size_t i = 0; i < EMBEDDER_DIMENSIONS; i++) {
        vector->values[i] = largest > 0 ? (int8_t)lrintf(sums[i] / largest * 127.0F) : 0;
    }
    vector_set_norm(vector);
}

static int32_t dot(const int8_t *a, const int8_t *b)
{
    int32_t sum = 0;
    for (size_t i = 0; i < EMBEDDER_DIMENSIONS; i++) {
        sum += (int32_t)a[i] * b[i];
    }
    return sum;
}

size_t embedder_embed(const char *text, size_t bytes, struct vector *ret_vector)
{
    float sums[EMBEDDER_DIMENSIONS] = {0};
    struct word words[2] = {{.bytes = 0}, {.bytes = 0}};
    size_t at = 0;
    size_t n_words = 0;
    while (n_words <= EMBEDDER_WORDS_MAX && next_word(text, bytes, &at, &words[n_words % 2])) {
        add_word(sums, &words[n_words % 2], &words[(n_words + 1) % 2]);
        n_words++;
    }
    quantise(sums, ret_vector);
    return n_words;
}

void vector_set_norm(struct vector *vector)
{
    vector->norm = sqrtf((float)dot(vector->values, vector->values));
}

double vector_cosine(const struct vector *a, const struct vector *b)
{
    const double product = (double)a->norm * (double)b->norm;
    return product > 0 ? dot(a->values, b->values) / product : 0;
}
