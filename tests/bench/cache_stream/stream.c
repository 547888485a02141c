#include "tests/bench/cache_stream/stream.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/attributes.h"
#include "tests/bench/cache_stream/score.h"

enum { TEXT_MAX = 2048, BUCKETS = 1 << 16 };
static const double ZIPF = 0.8;
static const double COSMETIC_SHARE = 0.4;

uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

double random_unit(uint64_t *state)
{
    return (double)(random_next(state) >> 11) * 0x1p-53;
}

static void *must(void *memory)
{
    if (memory == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return memory;
}

/* ------------------------------------------------------------------------- cosmetic changes */

static void frame(char *text, const char *before, const char *after)
{
    char framed[2 * TEXT_MAX];
    snprintf(framed, sizeof(framed), "%s%s%s", before, text, after);
    snprintf(text, TEXT_MAX, "%s", framed);
}

static void be_polite(char *text, uint64_t *random)
{
    static const char *const before[] = {"please ",
                                         "Hi, ",
                                         "hello! ",
                                         "Hey, ",
                                         "Could you tell me: ",
                                         "quick question: ",
                                         "I need help with this: ",
                                         "can you please help? "};
    static const char *const after[] = {" please", " thanks", ", thank you", " Thanks!", " pls"};
    const uint64_t pick = random_next(random);
    if (pick % 3 > 0) {
        frame(text, before[(pick >> 8) % ARRAY_LENGTH(before)], "");
    }
    if (pick % 3 < 2) {
        frame(text, "", after[(pick >> 16) % ARRAY_LENGTH(after)]);
    }
}

static void change_case(char *text, uint64_t *random)
{
    const uint64_t pick = random_next(random) % 4;
    for (size_t i = 0; text[i] != '\0'; i++) {
        const unsigned char c = (unsigned char)text[i];
        const bool is_first = i == 0 || text[i - 1] == ' ';
        if (pick == 0) {
            text[i] = (char)toupper(c);
        } else if (pick == 1 && is_first) {
            text[i] = (char)toupper(c);
        } else if (pick >= 2) {
            text[i] = (char)tolower(c);
        }
    }
}

/* Within a word of four letters or more, its first letter aside; numbers are left alone. */
static void mistype(char *text, uint64_t *random)
{
    const size_t length = strlen(text);
    for (int tries = 0; tries < 40 && length > 4; tries++) {
        const size_t at = 1 + random_next(random) % (length - 3);
        if (!isalpha((unsigned char)text[at - 1]) || !isalpha((unsigned char)text[at]) ||
            !isalpha((unsigned char)text[at + 1]) || !isalpha((unsigned char)text[at + 2])) {
            continue;
        }
        const char c = text[at];
        switch (random_next(random) % 3) {
        case 0:
            text[at] = text[at + 1];
            text[at + 1] = c;
            return;
        case 1:
            memmove(text + at, text + at + 1, length - at);
            return;
        default:
            text[at] = (char)('a' + random_next(random) % 26);
            return;
        }
    }
}

static void punctuate(char *text, uint64_t *random)
{
    static const char *const ends[] = {"", "?", "!", "...", " ?", "??", "."};
    size_t length = strlen(text);
    while (length > 0 && strchr("?.! ", text[length - 1]) != NULL) {
        text[--length] = '\0';
    }
    frame(text, "", ends[random_next(random) % ARRAY_LENGTH(ends)]);
    char *comma = strchr(text, ',');
    if (comma != NULL && random_next(random) % 2 == 0) {
        memmove(comma, comma + 1, strlen(comma));
    }
}

static void wrap(char *text, uint64_t *random)
{
    static void (*const changes[])(char *, uint64_t *) = {be_polite, change_case, mistype,
                                                          punctuate};
    const uint64_t pick = random_next(random);
    changes[pick % 4](text, random);
    if ((pick >> 8) % 2 == 0) {
        changes[(pick >> 16) % 4](text, random);
    }
}

/* ------------------------------------------------------------------------- drawing */

static size_t draw(const double *sums, size_t n, double at)
{
    size_t low = 0, high = n - 1;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (sums[middle] > at) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static uint32_t number_of(struct stream *stream, uint32_t *table, size_t room, const char *text)
{
    size_t at = XXH3_64bits(text, strlen(text)) % room;
    while (table[at] != 0) {
        if (strcmp(stream->texts[table[at] - 1].text, text) == 0) {
            return table[at] - 1;
        }
        at = (at + 1) % room;
    }
    stream->texts[stream->n_texts].text = must(strdup(text));
    table[at] = (uint32_t)++stream->n_texts;
    return table[at] - 1;
}

static void draw_queries(const struct corpus *corpus, uint64_t seed, struct stream *stream)
{
    uint64_t random = seed * 1000003 + 17;
    const size_t n = corpus->n_clusters, room = 4 * stream->n_queries;
    uint32_t *ranked = must(calloc(n, sizeof(*ranked)));
    double *sums = must(calloc(n, sizeof(*sums)));
    uint32_t *table = must(calloc(room, sizeof(*table)));
    for (size_t i = 0; i < n; i++) {
        const size_t other = random_next(&random) % (i + 1);
        ranked[i] = ranked[other];
        ranked[other] = (uint32_t)i;
        sums[i] = (i > 0 ? sums[i - 1] : 0) + pow((double)(i + 1), -ZIPF);
    }
    for (size_t i = 0; i < stream->n_queries; i++) {
        const uint32_t cluster = ranked[draw(sums, n, random_unit(&random) * sums[n - 1])];
        const struct corpus_cluster *from = &corpus->clusters[cluster];
        char text[TEXT_MAX];
        snprintf(text, sizeof(text), "%s", from->texts[random_next(&random) % from->n_texts]);
        if (random_unit(&random) < COSMETIC_SHARE) {
            wrap(text, &random);
        }
        stream->queries[i] =
            (struct stream_query){.text = number_of(stream, table, room, text), .cluster = cluster};
    }
    free(ranked);
    free(sums);
    free(table);
}

/* ------------------------------------------------------------------------- candidates */

struct posting_list {
    uint32_t *texts;
    uint32_t length;
};

static void index_texts(const struct score_profile *profiles, size_t n,
                        struct posting_list *postings)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t w = 0; w < profiles[i].n_words; w++) {
            struct posting_list *list = &postings[profiles[i].words[w] % BUCKETS];
            if ((list->length & (list->length - 1)) == 0) {
                list->texts =
                    must(reallocarray(list->texts, list->length == 0 ? 1 : 2 * (size_t)list->length,
                                      sizeof(uint32_t)));
            }
            list->texts[list->length++] = (uint32_t)i;
        }
    }
}

static int by_score(const void *a, const void *b)
{
    const float left = ((const struct stream_candidate *)a)->score;
    const float right = ((const struct stream_candidate *)b)->score;
    return (left < right) - (left > right);
}

/* Texts that share words, weighted by how rare these are; the likest are scored. */
static size_t touch(const struct score_profile *profile, size_t self, size_t n_texts,
                    const struct posting_list *postings, float *weights, uint32_t *touched)
{
    size_t n_touched = 0;
    for (size_t w = 0; w < profile->n_words; w++) {
        const struct posting_list *list = &postings[profile->words[w] % BUCKETS];
        const float weight = logf((float)n_texts / (float)list->length);
        for (size_t i = 0; i < list->length; i++) {
            const uint32_t text = list->texts[i];
            if (text != self) {
                if (weights[text] == 0) {
                    touched[n_touched++] = text;
                }
                weights[text] += weight;
            }
        }
    }
    return n_touched;
}

static void find_candidates(struct stream *stream, const struct score_profile *profiles,
                            size_t self, const struct posting_list *postings, float *weights,
                            uint32_t *touched, struct stream_candidate *found)
{
    const size_t n_touched =
        touch(&profiles[self], self, stream->n_texts, postings, weights, touched);
    for (size_t i = 0; i < n_touched; i++) {
        found[i] = (struct stream_candidate){.text = touched[i], .score = weights[touched[i]]};
        weights[touched[i]] = 0;
    }
    qsort(found, n_touched, sizeof(found[0]), by_score);
    const size_t n_scored = n_touched < 2 * STREAM_CANDIDATES ? n_touched : 2 * STREAM_CANDIDATES;
    for (size_t i = 0; i < n_scored; i++) {
        found[i].score = (float)score_pair(&profiles[self], &profiles[found[i].text]);
    }
    qsort(found, n_scored, sizeof(found[0]), by_score);
    struct stream_text *text = &stream->texts[self];
    text->n_candidates = n_scored < STREAM_CANDIDATES ? n_scored : STREAM_CANDIDATES;
    memcpy(text->candidates, found, text->n_candidates * sizeof(found[0]));
}

static void score_all(struct stream *stream)
{
    const size_t n = stream->n_texts;
    struct score_profile *profiles = must(calloc(n, sizeof(*profiles)));
    struct posting_list *postings = must(calloc(BUCKETS, sizeof(*postings)));
    float *weights = must(calloc(n, sizeof(*weights)));
    uint32_t *touched = must(calloc(n, sizeof(*touched)));
    struct stream_candidate *found = must(calloc(n, sizeof(*found)));
    for (size_t i = 0; i < n; i++) {
        score_read(stream->texts[i].text, &profiles[i]);
    }
    index_texts(profiles, n, postings);
    for (size_t i = 0; i < n; i++) {
        find_candidates(stream, profiles, i, postings, weights, touched, found);
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        free(postings[i].texts);
    }
    free(postings);
    free(profiles);
    free(weights);
    free(touched);
    free(found);
}

void stream_make(const struct corpus *corpus, size_t n_queries, uint64_t seed,
                 struct stream *ret_stream)
{
    *ret_stream = (struct stream){.n_queries = n_queries};
    ret_stream->queries = must(calloc(n_queries, sizeof(ret_stream->queries[0])));
    ret_stream->texts = must(calloc(n_queries, sizeof(ret_stream->texts[0])));
    draw_queries(corpus, seed, ret_stream);
    score_all(ret_stream);
}

void stream_finish(struct stream *stream)
{
    for (size_t i = 0; i < stream->n_texts; i++) {
        free(stream->texts[i].text);
    }
    free(stream->texts);
    free(stream->queries);
    *stream = (struct stream){0};
}
