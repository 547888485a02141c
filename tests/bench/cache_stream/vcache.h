/*
 * vcache: the rule of vCache (Schroeder et al., arXiv 2502.03771) for comparison, written from its
 * mathematics: each entry has a logistic of its own over the similarities that met it, and is
 * served with the chance that keeps the wrong answers among *all queries* below max_error.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VCACHE_OBSERVATIONS_MAX = 64 };

struct vcache_entry {
    float scores[VCACHE_OBSERVATIONS_MAX]; /* similarities in [0, 1] */
    bool right[VCACHE_OBSERVATIONS_MAX];
    size_t length;
    bool is_fitted;
    double slope, middle, deviation; /* of the logistic; of its middle's estimate */
};

void vcache_observe(struct vcache_entry *entry, double similarity, bool is_right);
/* Whether to serve the entry; `chance` is even in [0, 1). */
bool vcache_serves(struct vcache_entry *entry, double similarity, double max_error, double chance);
