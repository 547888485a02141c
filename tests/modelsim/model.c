#include "tests/modelsim/model.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

/* Words of one to eight letters, so that answers have tokens inside words as real ones do. */
static const char *const words[] = {
    "a",     "the",    "of",     "queue", "holds",   "each",   "job",    "until", "worker", "asks",    "for",
    "it",    "and",    "then",   "sends", "answer",  "back",   "in",     "order", "with",   "care",    "so",
    "that",  "nothing", "is",    "lost",  "even",    "when",   "power",  "fails", "or",     "network", "drops",
    "some",  "packets", "first", "we",    "measure", "what",   "takes",  "time",  "next",   "make",    "slow",
    "parts", "fast",   "small",  "steps", "simple",  "rules",  "keep",   "large", "systems", "calm",   "at",
    "night", "every",  "request", "has",  "cost",    "limit",  "owner",  "clear", "end",    "two",     "seven",
    "blue",  "river",  "stone",  "light", "moves",   "under",  "bridge", "while", "people", "walk",    "home",
};

static uint64_t mix(uint64_t *state)
{
    /* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014. */
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The end of the token that begins at `text`, which is not blank. */
static const char *token_end(const char *text)
{
    if (!isalnum((unsigned char)*text)) {
        const char *end = text + 1;
        while (((unsigned char)*end & 0xc0) == 0x80) {
            end++; /* the rest of a UTF-8 character */
        }
        return end;
    }
    const char *end = text;
    while (end - text < 4 && isalnum((unsigned char)*end)) {
        end++;
    }
    return end;
}

static const char *skip_blanks(const char *text)
{
    while (isspace((unsigned char)*text)) {
        text++;
    }
    return text;
}

uint32_t model_count_tokens(const char *text)
{
    uint32_t tokens = 0;
    for (text = skip_blanks(text); *text != '\0'; text = skip_blanks(token_end(text))) {
        tokens++;
    }
    return tokens;
}

size_t model_tokens_bytes(const char *text, uint32_t tokens)
{
    const char *at = text;
    for (const char *next = skip_blanks(text); tokens > 0 && *next != '\0'; next = skip_blanks(at), tokens--) {
        at = token_end(next);
    }
    return (size_t)(at - text);
}

static bool is_of_word(char c)
{
    return isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

static bool is_listed(const char *list, const char *word, size_t bytes)
{
    for (const char *at = list; *at != '\0'; at += strspn(at, ",")) {
        const size_t length = strcspn(at, ",");
        if (length == bytes && strncasecmp(at, word, bytes) == 0) {
            return true;
        }
        at += length;
    }
    return false;
}

/* Of letters and digits, without case: rewordings that change nothing else are answered alike. */
static uint64_t hash_of_words(const char *prompt, const char *ignored, uint64_t seed)
{
    uint64_t hash = seed;
    while (*prompt != '\0') {
        size_t bytes = 0;
        while (is_of_word(prompt[bytes])) {
            bytes++;
        }
        const bool counts = ignored == NULL || !is_listed(ignored, prompt, bytes);
        for (size_t i = 0; counts && i < bytes; i++) {
            const unsigned char c = (unsigned char)tolower((unsigned char)prompt[i]);
            hash = XXH3_64bits_withSeed(&c, sizeof(c), hash);
        }
        prompt += bytes == 0 ? 1 : bytes;
    }
    return hash;
}

int model_answer_create(uint64_t seed, const char *model, const char *prompt, struct model_style style,
                        uint32_t max_tokens, const char *first_word, struct model_answer *ret_answer)
{
    uint64_t state = hash_of_words(prompt, style.ignored, style.is_alike ? seed : XXH3_64bits_withSeed(model, strlen(model), seed));
    uint32_t range = style.tokens_max - style.tokens_min + 1;
    uint32_t wanted = style.tokens_min + (uint32_t)(mix(&state) % range);
    uint32_t tokens_max = max_tokens != 0 && max_tokens < wanted ? max_tokens : wanted;

    /* A token is at most four letters, the blank before it and a full stop. */
    struct model_answer answer = {.text = malloc((size_t)tokens_max * 6 + 16),
                                  .token_ends = calloc((size_t)tokens_max + 1, sizeof(uint32_t))};
    if (answer.text == NULL || answer.token_ends == NULL) {
        model_answer_finish(&answer);
        return -ENOMEM;
    }
    size_t at = 0;
    while (answer.tokens < tokens_max) {
        const char *word = at == 0 && first_word != NULL ? first_word : words[mix(&state) % ARRAY_LENGTH(words)];
        if (at > 0) {
            answer.text[at++] = ' ';
        }
        while (*word != '\0' && answer.tokens < tokens_max) {
            size_t piece = (size_t)(token_end(word) - word);
            memcpy(answer.text + at, word, piece);
            at += piece;
            word += piece;
            answer.token_ends[answer.tokens++] = (uint32_t)at;
        }
    }
    answer.text[at] = '\0';
    answer.is_cut = tokens_max < wanted;
    *ret_answer = answer;
    return 0;
}

void model_answer_finish(struct model_answer *answer)
{
    free(answer->text);
    free(answer->token_ends);
    *answer = (struct model_answer){0};
}

void model_embed(uint64_t seed, const char *text, size_t dimensions, float *ret_vector)
{
    memset(ret_vector, 0, dimensions * sizeof(*ret_vector));
    while (*text != '\0') {
        char word[32];
        size_t length = 0;
        for (; is_of_word(*text); text++) {
            if (length < sizeof(word)) {
                word[length++] = (char)tolower((unsigned char)*text);
            }
        }
        if (length == 0) {
            text++;
            continue;
        }
        uint64_t hash = XXH3_64bits_withSeed(word, length, seed);
        ret_vector[hash % dimensions] += (hash >> 63) != 0 ? 1.0f : -1.0f;
    }
    double squares = 0;
    for (size_t i = 0; i < dimensions; i++) {
        squares += (double)ret_vector[i] * (double)ret_vector[i];
    }
    if (squares == 0) {
        ret_vector[0] = 1; /* blank text, or words that cancel out: still a unit vector */
        return;
    }
    for (size_t i = 0; i < dimensions; i++) {
        ret_vector[i] = (float)((double)ret_vector[i] / sqrt(squares));
    }
}
