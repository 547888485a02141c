/*
 * bench-cache-quality: what the cache's own code says of texts, for cache_quality.py and tools/cache-fit.
 *
 *   bench-cache-quality words TEXTS                    each text's words that a weight may have, one line a text
 *   bench-cache-quality pairs PAIRS [MODELS]           "text TAB text": features of each pair
 *   bench-cache-quality candidates TEXTS QUERIES K [MODELS]   for each query the K nearest texts by cosine, itself left out
 *   bench-cache-quality names                          of the features
 *   bench-cache-quality speed TEXTS                    nanoseconds: profile, embed, likeness
 *
 * One text a line. Rows of pairs and candidates are 32-bit floats: index of the query, index of the text, 1 when strict mode
 * allows, the score by the built-in model, the score by each of MODELS (lines of bias and weights), and the features. An exact
 * scan, so that no index' recall is measured with it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "worker/cache/decision.h"
#include "worker/cache/embed_builtin.h"

enum { MODELS_MAX = 32, LINE_BYTES_MAX = 1 << 16, CANDIDATES_MAX = 64 };

struct text {
    struct profile *profile; /* NULL: without words, or too long */
    struct sparse_vector *vector;
    char *line;
};

struct texts {
    struct text *items;
    size_t length;
};

struct models {
    struct decision_model items[MODELS_MAX];
    size_t length;
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "bench-cache-quality: %s\n", what);
    exit(1);
}

static void *must_allocate(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (memory == NULL) {
        die("out of memory");
    }
    return memory;
}

static struct text text_of(const char *line)
{
    static union profile_buffer buffer;
    static struct sparse_vector vector;
    struct text text = {.line = strdup(line)};
    const size_t length = profile_make(line, strlen(line), &buffer);
    if (length == 0 || length > PROFILE_WORDS_MAX) {
        return text;
    }
    embed_builtin(&buffer.profile, &vector);
    const size_t vector_bytes = offsetof(struct sparse_vector, items) + vector.length * sizeof(vector.items[0]);
    text.profile = must_allocate(buffer.profile.bytes);
    memcpy(text.profile, &buffer, buffer.profile.bytes);
    text.vector = must_allocate(vector_bytes);
    memcpy(text.vector, &vector, vector_bytes);
    return text;
}

static struct texts read_texts(const char *path)
{
    static char line[LINE_BYTES_MAX];
    struct texts texts = {0};
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        die(path);
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if ((texts.length & (texts.length - 1)) == 0) {
            texts.items = realloc(texts.items, (texts.length == 0 ? 1 : 2 * texts.length) * sizeof(texts.items[0]));
            if (texts.items == NULL) {
                die("out of memory");
            }
        }
        texts.items[texts.length++] = text_of(line);
    }
    (void)fclose(file);
    return texts;
}

static struct models read_models(const char *path)
{
    struct models models = {0};
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    if (path != NULL && file == NULL) {
        die(path);
    }
    double value;
    while (file != NULL && models.length < MODELS_MAX && fscanf(file, "%lf", &value) == 1) {
        struct decision_model *model = &models.items[models.length++];
        *model = (struct decision_model){.embedder = "builtin", .bias = value};
        for (size_t i = 0; i < LIKENESS_FEATURES; i++) {
            if (fscanf(file, "%lf", &model->weights[i]) != 1) {
                die("a model is not whole");
            }
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return models;
}

static void write_row(size_t query, size_t candidate, const struct text *a, const struct text *b, const struct models *models)
{
    float row[4 + MODELS_MAX + LIKENESS_FEATURES];
    struct likeness likeness;
    enum likeness_feature reason;
    size_t n = 0;
    likeness_of(a->profile, b->profile, sparse_vector_cosine(a->vector, b->vector), &likeness);
    row[n++] = (float)query;
    row[n++] = (float)candidate;
    row[n++] = decision_is_forbidden(&likeness, &reason) ? 0 : 1;
    row[n++] = (float)decision_score(decision_builtin(), &likeness);
    for (size_t i = 0; i < models->length; i++) {
        row[n++] = (float)decision_score(&models->items[i], &likeness);
    }
    for (size_t i = 0; i < LIKENESS_FEATURES; i++) {
        row[n++] = likeness.features[i];
    }
    if (fwrite(row, sizeof(row[0]), n, stdout) != n) {
        die("cannot write");
    }
}

static void write_pairs(const char *path, const struct models *models)
{
    const struct texts pairs = read_texts(path);
    for (size_t i = 0; i < pairs.length; i++) {
        char *second = strchr(pairs.items[i].line, '\t');
        if (second == NULL) {
            die("no pair");
        }
        *second++ = '\0';
        const struct text a = text_of(pairs.items[i].line);
        const struct text b = text_of(second);
        if (a.profile != NULL && b.profile != NULL) {
            write_row(i, i, &a, &b, models);
        }
    }
}

/* Postings of every bucket, by counting: items of starts[bucket] up to starts[bucket + 1]. */
struct postings {
    uint32_t *starts;
    uint32_t *texts;
    uint8_t *weights;
};

static struct postings postings_of(const struct texts *texts)
{
    struct postings postings = {.starts = must_allocate((SPARSE_BUCKETS + 2) * sizeof(uint32_t))};
    size_t total = 0;
    for (size_t i = 0; i < texts->length; i++) {
        const struct sparse_vector *vector = texts->items[i].vector;
        for (size_t k = 0; vector != NULL && k < vector->length; k++, total++) {
            postings.starts[sparse_bucket(vector->items[k]) + 2]++;
        }
    }
    for (size_t i = 2; i < SPARSE_BUCKETS + 2; i++) {
        postings.starts[i] += postings.starts[i - 1];
    }
    postings.texts = must_allocate((total + 1) * sizeof(uint32_t));
    postings.weights = must_allocate(total + 1);
    for (size_t i = 0; i < texts->length; i++) {
        const struct sparse_vector *vector = texts->items[i].vector;
        for (size_t k = 0; vector != NULL && k < vector->length; k++) {
            const uint32_t at = postings.starts[sparse_bucket(vector->items[k]) + 1]++;
            postings.texts[at] = (uint32_t)i;
            postings.weights[at] = (uint8_t)sparse_weight(vector->items[k]);
        }
    }
    return postings;
}

static void add_dots(const struct postings *postings, const struct sparse_vector *query, uint32_t *dots)
{
    for (size_t k = 0; k < query->length; k++) {
        const uint32_t bucket = sparse_bucket(query->items[k]);
        const uint32_t weight = sparse_weight(query->items[k]);
        for (uint32_t at = postings->starts[bucket]; at < postings->starts[bucket + 1]; at++) {
            dots[postings->texts[at]] += weight * postings->weights[at];
        }
    }
}

struct candidate {
    size_t text;
    double likeness; /* the squared cosine, times the query's squared norm */
};

static size_t best_of(const struct texts *texts, const char *line, const uint32_t *dots, size_t k, struct candidate *best)
{
    size_t length = 0;
    for (size_t i = 0; i < texts->length; i++) {
        if (dots[i] == 0 || strcmp(texts->items[i].line, line) == 0) {
            continue;
        }
        const double likeness = (double)dots[i] * dots[i] / texts->items[i].vector->norm_squared;
        if (length == k && likeness <= best[k - 1].likeness) {
            continue;
        }
        size_t at = length < k ? length++ : k - 1;
        for (; at > 0 && best[at - 1].likeness < likeness; at--) {
            best[at] = best[at - 1];
        }
        best[at] = (struct candidate){.text = i, .likeness = likeness};
    }
    return length;
}

static void write_candidates(const char *texts_path, const char *queries_path, size_t k, const struct models *models)
{
    const struct texts texts = read_texts(texts_path);
    const struct texts queries = read_texts(queries_path);
    const struct postings postings = postings_of(&texts);
    uint32_t *dots = must_allocate((texts.length + 1) * sizeof(*dots));
    if (k > CANDIDATES_MAX) {
        die("too many candidates");
    }
    for (size_t q = 0; q < queries.length; q++) {
        struct candidate best[CANDIDATES_MAX];
        const struct text *query = &queries.items[q];
        if (query->profile == NULL) {
            continue;
        }
        memset(dots, 0, texts.length * sizeof(*dots));
        add_dots(&postings, query->vector, dots);
        const size_t length = best_of(&texts, query->line, dots, k, best);
        for (size_t i = 0; i < length; i++) {
            write_row(q, best[i].text, query, &texts.items[best[i].text], models);
        }
    }
    free(dots);
}

static void write_words(const char *path)
{
    const struct texts texts = read_texts(path);
    for (size_t i = 0; i < texts.length; i++) {
        struct words words;
        struct word word;
        words_init(&words, texts.items[i].line, strlen(texts.items[i].line));
        while (words_next(&words, &word)) {
            if (word.form == WORD_LETTERS && word.bytes < WORD_BYTES_MAX) {
                printf("%.*s ", word.bytes, word.text);
            }
        }
        printf("\n");
    }
}

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* CPU time of the thread, the median of ROUNDS rounds over all texts. */
static void measure_speed(const char *path)
{
    enum { ROUNDS = 15, KINDS = 3 };
    static union profile_buffer buffer;
    static struct sparse_vector vector;
    const struct texts texts = read_texts(path);
    double ns[KINDS][ROUNDS];
    size_t bytes = 0;
    double sink = 0;
    for (size_t i = 0; i < texts.length; i++) {
        bytes += strlen(texts.items[i].line);
    }
    for (size_t round = 0; round < ROUNDS; round++) {
        double began = now_ns();
        for (size_t i = 0; i < texts.length; i++) {
            sink += (double)profile_make(texts.items[i].line, strlen(texts.items[i].line), &buffer);
        }
        ns[0][round] = (now_ns() - began) / (double)texts.length;
        began = now_ns();
        for (size_t i = 0; i < texts.length; i++) {
            if (texts.items[i].profile != NULL) {
                embed_builtin(texts.items[i].profile, &vector);
                sink += vector.length;
            }
        }
        ns[1][round] = (now_ns() - began) / (double)texts.length;
        began = now_ns();
        for (size_t i = 1; i < texts.length; i++) {
            struct likeness likeness;
            if (texts.items[i].profile != NULL && texts.items[i - 1].profile != NULL) {
                likeness_of(texts.items[i].profile, texts.items[i - 1].profile, 0.5, &likeness);
                sink += (double)likeness.features[0];
            }
        }
        ns[2][round] = (now_ns() - began) / (double)texts.length;
    }
    for (size_t i = 0; i < KINDS; i++) {
        qsort(ns[i], ROUNDS, sizeof(ns[i][0]), by_value);
    }
    size_t items = 0, profile_bytes = 0;
    for (size_t i = 0; i < texts.length; i++) {
        items += texts.items[i].vector != NULL ? texts.items[i].vector->length : 0;
        profile_bytes += texts.items[i].profile != NULL ? texts.items[i].profile->bytes : 0;
    }
    __asm__ volatile("" : : "m"(sink)); /* the work is not optimised away */
    const double n = (double)texts.length;
    printf("{\"texts\": %zu, \"bytes\": %.1f, \"profile_ns\": %.0f, \"embed_ns\": %.0f, \"likeness_ns\": %.0f, \"vector_items\": %.1f, "
           "\"profile_bytes\": %.0f}\n",
           texts.length, (double)bytes / n, ns[0][ROUNDS / 2], ns[1][ROUNDS / 2], ns[2][ROUNDS / 2], (double)items / n,
           (double)profile_bytes / n);
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "words") == 0 && argc == 3) {
        write_words(argv[2]);
    } else if (strcmp(command, "pairs") == 0 && (argc == 3 || argc == 4)) {
        const struct models models = read_models(argc == 4 ? argv[3] : NULL);
        write_pairs(argv[2], &models);
    } else if (strcmp(command, "candidates") == 0 && (argc == 5 || argc == 6)) {
        const struct models models = read_models(argc == 6 ? argv[5] : NULL);
        write_candidates(argv[2], argv[3], strtoul(argv[4], NULL, 10), &models);
    } else if (strcmp(command, "names") == 0) {
        for (size_t i = 0; i < LIKENESS_FEATURES; i++) {
            printf("%s\n", likeness_feature_name((enum likeness_feature)i));
        }
    } else if (strcmp(command, "speed") == 0 && argc == 3) {
        measure_speed(argv[2]);
    } else {
        die("words TEXTS | pairs PAIRS [MODELS] | candidates TEXTS QUERIES K [MODELS] | names | speed TEXTS");
    }
    return fflush(stdout) == 0 && ferror(stdout) == 0 ? 0 : 1;
}
