/*
 * corpus: questions by what they ask. Texts of one cluster want the same answer, texts of two want
 * different ones. Clusters fall into two sides by a hash of their name: what is fitted sees one,
 * what is measured the other.
 *
 * Files, tab-separated with a heading: semcache_dev.tsv (id, text_a, text_b, same_answer,
 * cluster_a, cluster_b) and train_clusters.tsv (source, group, cluster, text). A text of two
 * clusters counts for the first. Exits with a message when a file cannot be read.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum corpus_side { CORPUS_FIT, CORPUS_STREAM };

struct corpus_cluster {
    char *name;
    uint64_t hash; /* of the name */
    char **texts;
    size_t n_texts;
};

struct corpus {
    struct corpus_cluster *clusters;
    size_t n_clusters;
};

void corpus_load(const char *directory, enum corpus_side side, struct corpus *ret_corpus);
void corpus_finish(struct corpus *corpus);
