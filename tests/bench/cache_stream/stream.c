#include "tests/bench/cache_stream/stream.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/attributes.h"
#include "worker/cache/embed_builtin.h"

enum { TEXT_MAX = 2048 };
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

static void read_text(struct stream_text *text)
{
    static union profile_buffer buffer;
    static struct sparse_vector vector;
    const size_t n_words = profile_make(text->text, strlen(text->text), &buffer);
    if (n_words == 0 || n_words > PROFILE_WORDS_MAX) {
        return;
    }
    embed_builtin(&buffer.profile, &vector);
    const size_t vector_bytes =
        offsetof(struct sparse_vector, items) + vector.length * sizeof(vector.items[0]);
    text->profile = must(malloc(buffer.profile.bytes));
    memcpy(text->profile, &buffer, buffer.profile.bytes);
    text->vector = must(malloc(vector_bytes));
    memcpy(text->vector, &vector, vector_bytes);
}

/* Of every bucket its texts, ascending: from starts[bucket] to starts[bucket + 1]. */
struct postings {
    uint32_t *starts;
    struct posting {
        uint32_t text, weight;
    } * list;
};

static struct postings postings_of(const struct stream *stream)
{
    struct postings postings = {.starts = must(calloc(SPARSE_BUCKETS + 2, sizeof(uint32_t)))};
    size_t total = 0;
    for (size_t i = 0; i < stream->n_texts; i++) {
        const struct sparse_vector *vector = stream->texts[i].vector;
        for (size_t k = 0; vector != NULL && k < vector->length; k++, total++) {
            postings.starts[sparse_bucket(vector->items[k]) + 2]++;
        }
    }
    for (size_t i = 2; i < SPARSE_BUCKETS + 2; i++) {
        postings.starts[i] += postings.starts[i - 1];
    }
    postings.list = must(calloc(total + 1, sizeof(postings.list[0])));
    for (size_t i = 0; i < stream->n_texts; i++) {
        const struct sparse_vector *vector = stream->texts[i].vector;
        for (size_t k = 0; vector != NULL && k < vector->length; k++) {
            const uint32_t at = postings.starts[sparse_bucket(vector->items[k]) + 1]++;
            postings.list[at] =
                (struct posting){.text = (uint32_t)i, .weight = sparse_weight(vector->items[k])};
        }
    }
    return postings;
}

/* Of texts below `n_asked` alone. */
static void add_dots(const struct postings *postings, const struct sparse_vector *vector,
                     size_t n_asked, uint32_t *dots)
{
    for (size_t k = 0; k < vector->length; k++) {
        const uint32_t bucket = sparse_bucket(vector->items[k]);
        const uint32_t weight = sparse_weight(vector->items[k]);
        const struct posting *end = &postings->list[postings->starts[bucket + 1]];
        for (const struct posting *at = &postings->list[postings->starts[bucket]];
             at < end && at->text < n_asked; at++) {
            dots[at->text] += weight * at->weight;
        }
    }
}

static int by_cosine(const void *a, const void *b)
{
    const float left = ((const struct stream_candidate *)a)->cosine;
    const float right = ((const struct stream_candidate *)b)->cosine;
    return (left < right) - (left > right);
}

static void find_candidates(struct stream *stream, struct stream_query *query, size_t n_asked,
                            const struct postings *postings, uint32_t *dots,
                            struct stream_candidate *found)
{
    const struct sparse_vector *vector = stream->texts[query->text].vector;
    size_t length = 0;
    if (vector == NULL) {
        return;
    }
    memset(dots, 0, n_asked * sizeof(dots[0]));
    add_dots(postings, vector, n_asked, dots);
    for (uint32_t i = 0; i < n_asked; i++) {
        if (dots[i] > 0 && i != query->text) {
            const double norms =
                (double)vector->norm_squared * stream->texts[i].vector->norm_squared;
            const float cosine = (float)(dots[i] / sqrt(norms));
            if ((double)cosine >= STREAM_COSINE_MIN) {
                found[length++] =
                    (struct stream_candidate){.text = i, .cosine = cosine, .score = NAN};
            }
        }
    }
    qsort(found, length, sizeof(found[0]), by_cosine);
    query->n_candidates = length < STREAM_CANDIDATES ? length : STREAM_CANDIDATES;
    query->candidates = must(calloc(query->n_candidates + 1, sizeof(found[0])));
    memcpy(query->candidates, found, query->n_candidates * sizeof(found[0]));
}

static void find_all(struct stream *stream)
{
    for (size_t i = 0; i < stream->n_texts; i++) {
        read_text(&stream->texts[i]);
    }
    const struct postings postings = postings_of(stream);
    uint32_t *dots = must(calloc(stream->n_texts, sizeof(*dots)));
    struct stream_candidate *found = must(calloc(stream->n_texts, sizeof(*found)));
    size_t n_asked = 0;
    for (size_t i = 0; i < stream->n_queries; i++) {
        struct stream_query *query = &stream->queries[i];
        find_candidates(stream, query, n_asked, &postings, dots, found);
        n_asked = query->text >= n_asked ? query->text + 1 : n_asked;
    }
    free(postings.starts);
    free(postings.list);
    free(dots);
    free(found);
}

double stream_score_of(const struct stream *stream, uint32_t a, uint32_t b, double cosine)
{
    struct likeness likeness;
    likeness_of(stream->texts[a].profile, stream->texts[b].profile, cosine, &likeness);
    return decision_score(stream->model, &likeness);
}

double stream_score(const struct stream *stream, const struct stream_query *query,
                    struct stream_candidate *candidate)
{
    if (isnan(candidate->score)) {
        candidate->score =
            (float)stream_score_of(stream, query->text, candidate->text, (double)candidate->cosine);
    }
    return (double)candidate->score;
}

void stream_make(const struct corpus *corpus, const struct decision_model *model, size_t n_queries,
                 uint64_t seed, struct stream *ret_stream)
{
    *ret_stream = (struct stream){.model = model, .n_queries = n_queries};
    ret_stream->queries = must(calloc(n_queries, sizeof(ret_stream->queries[0])));
    ret_stream->texts = must(calloc(n_queries, sizeof(ret_stream->texts[0])));
    draw_queries(corpus, seed, ret_stream);
    find_all(ret_stream);
}

void stream_finish(struct stream *stream)
{
    for (size_t i = 0; i < stream->n_texts; i++) {
        free(stream->texts[i].text);
        free(stream->texts[i].profile);
        free(stream->texts[i].vector);
    }
    for (size_t i = 0; i < stream->n_queries; i++) {
        free(stream->queries[i].candidates);
    }
    free(stream->texts);
    free(stream->queries);
    *stream = (struct stream){0};
}
