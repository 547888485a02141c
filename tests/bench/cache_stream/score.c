#include "tests/bench/cache_stream/score.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/attributes.h"

enum { WORD_MAX = 40 };

/* Words that say little about what is asked, politeness among them. Sorted. */
static const char *const weak_words[] = {
    "a",     "about", "all",   "am",     "an",     "and",  "any",    "appreciate", "are",
    "as",    "at",    "be",    "been",   "but",    "by",   "can",    "could",      "did",
    "do",    "does",  "for",   "from",   "get",    "give", "had",    "has",        "have",
    "hello", "help",  "hey",   "hi",     "i",      "if",   "in",     "into",       "is",
    "it",    "its",   "just",  "kindly", "know",   "let",  "like",   "me",         "my",
    "need",  "of",    "on",    "or",     "our",    "out",  "please", "quick",      "should",
    "so",    "some",  "tell",  "thank",  "thanks", "that", "the",    "their",      "them",
    "then",  "there", "these", "they",   "this",   "to",   "up",     "us",         "want",
    "was",   "we",    "were",  "will",   "wish",   "with", "would",  "you",        "your",
};
static const char *const question_words[] = {"how", "what", "when",  "where", "which",
                                             "who", "whom", "whose", "why"};
static const char *const negations[] = {"cannot", "didn", "doesn", "don",     "except",
                                        "isn",    "n't",  "never", "no",      "non",
                                        "none",   "not",  "wasn",  "without", "won"};
static const char *const calendar[] = {
    "april",     "august", "december", "february", "friday",   "january",   "july",
    "june",      "march",  "may",      "monday",   "november", "october",   "saturday",
    "september", "sunday", "thursday", "tomorrow", "tuesday",  "wednesday", "yesterday"};

static int order(const void *word, const void *member)
{
    return strcmp(word, *(const char *const *)member);
}

#define IS_IN(list, word)                                                                          \
    (bsearch(word, list, ARRAY_LENGTH(list), sizeof((list)[0]), order) != NULL)

static bool set_has(const uint32_t *hashes, size_t length, uint32_t hash)
{
    for (size_t i = 0; i < length; i++) {
        if (hashes[i] == hash) {
            return true;
        }
    }
    return false;
}

static void set_add(struct score_set *set, uint32_t hash)
{
    if (set->length < SCORE_SET_MAX && !set_has(set->hashes, set->length, hash)) {
        set->hashes[set->length++] = hash;
    }
}

static void list_add(uint32_t *hashes, uint8_t *length, uint32_t hash)
{
    if (*length < SCORE_WORDS_MAX && !set_has(hashes, *length, hash)) {
        hashes[(*length)++] = hash;
    }
}

/* "it's" is "it": what follows an apostrophe is dropped, unless it negates. */
static void add_word(struct score_profile *profile, const char *word, bool is_name)
{
    char lower[WORD_MAX] = "";
    bool has_digit = false;
    for (size_t i = 0; word[i] != '\0'; i++) {
        lower[i] = (char)tolower((unsigned char)word[i]);
        has_digit = has_digit || isdigit((unsigned char)word[i]);
    }
    const uint32_t hash = (uint32_t)XXH3_64bits(lower, strlen(lower));
    list_add(profile->any, &profile->n_any, hash);
    if (has_digit) {
        set_add(&profile->numbers, hash);
    }
    if (IS_IN(question_words, lower)) {
        set_add(&profile->questions, hash);
    } else if (IS_IN(negations, lower)) {
        profile->negations++;
    } else if (IS_IN(calendar, lower)) {
        set_add(&profile->calendar, hash);
    }
    if (!IS_IN(weak_words, lower) && strlen(lower) > 1) {
        list_add(profile->words, &profile->n_words, hash);
        if (is_name) {
            set_add(&profile->names, hash);
        }
    }
}

static bool is_word_byte(unsigned char c)
{
    return isalnum(c) || c >= 0x80;
}

void score_read(const char *text, struct score_profile *ret_profile)
{
    *ret_profile = (struct score_profile){0};
    (void)embedder_embed(text, strlen(text), &ret_profile->vector);
    bool begins_sentence = true;
    for (const char *at = text; *at != '\0';) {
        if (!is_word_byte((unsigned char)*at)) {
            begins_sentence = begins_sentence || strchr(".?!:", *at) != NULL;
            at++;
            continue;
        }
        char word[WORD_MAX] = "";
        size_t length = 0;
        for (; is_word_byte((unsigned char)*at); at++) {
            if (length < WORD_MAX - 1) {
                word[length++] = *at;
            }
        }
        add_word(ret_profile, word,
                 isupper((unsigned char)word[0]) && islower((unsigned char)word[1]) &&
                     !begins_sentence);
        begins_sentence = false;
    }
}

static size_t common_of(const uint32_t *a, size_t a_length, const uint32_t *b, size_t b_length)
{
    size_t n_common = 0;
    for (size_t i = 0; i < a_length; i++) {
        n_common += set_has(b, b_length, a[i]);
    }
    return n_common;
}

/* 2: each side holds what the other lacks; 1: one side does; 0: neither. */
static int sides_apart(const struct score_set *a, const struct score_set *b)
{
    const size_t n_common = common_of(a->hashes, a->length, b->hashes, b->length);
    return (a->length > n_common) + (b->length > n_common);
}

/* Names the other side does not have in any case. */
static int names_apart(const struct score_profile *a, const struct score_profile *b)
{
    const size_t in_b = common_of(a->names.hashes, a->names.length, b->any, b->n_any);
    const size_t in_a = common_of(b->names.hashes, b->names.length, a->any, a->n_any);
    return (a->names.length > in_b) + (b->names.length > in_a);
}

double score_pair(const struct score_profile *a, const struct score_profile *b)
{
    static const double by_numbers[] = {0, -1.721, -3.833};
    static const double by_names[] = {0, -0.770, -2.638};
    const size_t n_common = common_of(a->words, a->n_words, b->words, b->n_words);
    const size_t shorter = a->n_words < b->n_words ? a->n_words : b->n_words;
    const size_t n_all = (size_t)a->n_words + b->n_words - n_common;
    double score = -0.537 + 0.580 * vector_cosine(&a->vector, &b->vector);
    score += n_all > 0 ? 2.285 * (double)n_common / (double)n_all : 0;
    score += shorter > 0 ? 0.490 * (double)n_common / (double)shorter : 0;
    score -= 0.663 / (double)(shorter > 0 ? shorter : 1);
    score += by_numbers[sides_apart(&a->numbers, &b->numbers)];
    score += by_names[names_apart(a, b)];
    score += a->negations % 2 != b->negations % 2 ? -0.759 : 0;
    score += sides_apart(&a->calendar, &b->calendar) > 0 ? -0.954 : 0;
    score += sides_apart(&a->questions, &b->questions) > 0 ? -0.781 : 0;
    return score;
}
