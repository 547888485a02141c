#include "tests/bench/cache_stream/corpus.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/attributes.h"

enum { CORPUS_TEXTS_MAX = 1 << 17, COLUMNS_MAX = 8 };

struct loading {
    struct corpus *corpus;
    enum corpus_side side;
    uint64_t seen[CORPUS_TEXTS_MAX];     /* hashes of texts, open addressing; 0 is free */
    uint32_t clusters[CORPUS_TEXTS_MAX]; /* index + 1 of a cluster by its name; 0 is free */
};

static void *must(void *memory)
{
    if (memory == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return memory;
}

static bool is_new_text(struct loading *loading, const char *text)
{
    const uint64_t hash = XXH3_64bits(text, strlen(text)) | 1;
    size_t at = hash % CORPUS_TEXTS_MAX;
    while (loading->seen[at] != 0) {
        if (loading->seen[at] == hash) {
            return false;
        }
        at = (at + 1) % CORPUS_TEXTS_MAX;
    }
    loading->seen[at] = hash;
    return true;
}

static struct corpus_cluster *cluster_of(struct loading *loading, const char *name, uint64_t hash)
{
    struct corpus *corpus = loading->corpus;
    size_t at = hash % CORPUS_TEXTS_MAX;
    while (loading->clusters[at] != 0) {
        struct corpus_cluster *cluster = &corpus->clusters[loading->clusters[at] - 1];
        if (cluster->hash == hash) {
            return cluster;
        }
        at = (at + 1) % CORPUS_TEXTS_MAX;
    }
    corpus->clusters =
        must(reallocarray(corpus->clusters, corpus->n_clusters + 1, sizeof(corpus->clusters[0])));
    corpus->clusters[corpus->n_clusters++] =
        (struct corpus_cluster){.name = must(strdup(name)), .hash = hash};
    loading->clusters[at] = (uint32_t)corpus->n_clusters;
    return &corpus->clusters[corpus->n_clusters - 1];
}

static void add_text(struct loading *loading, const char *cluster_name, const char *text)
{
    const uint64_t hash = XXH3_64bits(cluster_name, strlen(cluster_name));
    const enum corpus_side side = (hash >> 40) % 2 == 0 ? CORPUS_FIT : CORPUS_STREAM;
    if (side != loading->side || !is_new_text(loading, text)) {
        return;
    }
    struct corpus_cluster *cluster = cluster_of(loading, cluster_name, hash);
    cluster->texts =
        must(reallocarray(cluster->texts, cluster->n_texts + 1, sizeof(cluster->texts[0])));
    cluster->texts[cluster->n_texts++] = must(strdup(text));
}

static size_t split(char *line, char *columns[COLUMNS_MAX])
{
    size_t n_columns = 0;
    line[strcspn(line, "\r\n")] = '\0';
    for (char *rest = line; rest != NULL && n_columns < COLUMNS_MAX;) {
        columns[n_columns++] = strsep(&rest, "\t");
    }
    return n_columns;
}

/* Texts and their clusters stand in the columns that `pairs` names. */
static void load_file(struct loading *loading, const char *directory, const char *name,
                      const size_t (*pairs)[2], size_t n_pairs, size_t n_columns)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    char *line = NULL;
    size_t room = 0;
    bool is_heading = true;
    while (getline(&line, &room, file) > 0) {
        char *columns[COLUMNS_MAX];
        const size_t found = split(line, columns);
        for (size_t i = 0; i < n_pairs && found == n_columns && !is_heading; i++) {
            add_text(loading, columns[pairs[i][1]], columns[pairs[i][0]]);
        }
        is_heading = false;
    }
    free(line);
    fclose(file);
}

void corpus_load(const char *directory, enum corpus_side side, struct corpus *ret_corpus)
{
    static const size_t dev[][2] = {{1, 4}, {2, 5}};
    static const size_t train[][2] = {{3, 2}};
    *ret_corpus = (struct corpus){0};
    struct loading *loading = must(calloc(1, sizeof(*loading)));
    loading->corpus = ret_corpus;
    loading->side = side;
    load_file(loading, directory, "semcache_dev.tsv", dev, ARRAY_LENGTH(dev), 6);
    load_file(loading, directory, "train_clusters.tsv", train, ARRAY_LENGTH(train), 4);
    free(loading);
}

void corpus_finish(struct corpus *corpus)
{
    for (size_t i = 0; i < corpus->n_clusters; i++) {
        for (size_t j = 0; j < corpus->clusters[i].n_texts; j++) {
            free(corpus->clusters[i].texts[j]);
        }
        free(corpus->clusters[i].texts);
        free(corpus->clusters[i].name);
    }
    free(corpus->clusters);
    *corpus = (struct corpus){0};
}
