/*
 * decision_seed: what is known beforehand of the built-in score: how often the likest kept question
 * with such a score had the same answer, counted by tools/cache-fit on questions that the
 * coefficients had not seen. Its edges are the scale of evidence about the built-in embedder.
 *
 * For threshold_decide(), which never opens by it alone. It counts as DECISION_SEED_WEIGHT labels:
 * enough to open after hundreds of queries, so few that some thousand labels of the class itself
 * outweigh it; when they contradict it, it loses all weight (common/threshold.h).
 *
 * It belongs to DECISION_VERSION and is made anew with every fit.
 */
#pragma once
#include "common/threshold.h"

enum { DECISION_SEED_WEIGHT = 6000 };

const struct threshold_seed *decision_seed(void);

/*
 * Of dense vectors nothing is known beforehand: a scale alone, so that a class opens by its own labels. Each edge is a tenth nearer to
 * cosine 1 than the one below, from 0.4 on.
 */
void decision_seed_dense(struct threshold_seed *ret_seed);
