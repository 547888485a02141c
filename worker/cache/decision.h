/*
 * decision: how sure one is that two texts ask for the same answer, from their likeness.
 *
 * A score is a logit, larger is more alike: a weighted sum whose signs are fixed (a guard never
 * speaks for, sharing never against), fitted by tools/cache-fit. It belongs to one embedder and its
 * version. Which score suffices is not decided here but learned (common/threshold.h).
 *
 * In strict mode guards alone forbid, whatever the score: no guard may speak, no content word may
 * be replaced by another, and next to none may be missing.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "worker/cache/likeness.h"

enum {
    DECISION_VERSION = 1, /* raise it with every new fit, or change: scores of two are not compared */
};

/* A guard of 2 outweighs a cosine of 1 against one of 0.9. */
#define DECISION_DENSE_SLOPE 20.0
#define DECISION_DENSE_CENTRE 0.8

struct decision_model {
    const char *embedder; /* its id */
    double bias;
    double weights[LIKENESS_FEATURES];
};

/* For the built-in embedder ("builtin"). */
const struct decision_model *decision_builtin(void);

double decision_score(const struct decision_model *model, const struct likeness *likeness);

/*
 * For dense vectors of whatever embedder: the guards with the weights of the built-in model, since they are about words, and the
 * cosine: DECISION_DENSE_SLOPE a unit from DECISION_DENSE_CENTRE on. Shared words count for nothing: a paraphrase in other words is
 * what such vectors are for. Nothing of this was fitted: it only says in which order candidates are tried and which guard outweighs
 * which distance; what suffices is learned from the class' own labels alone.
 */
double decision_score_dense(const struct likeness *likeness);

/*
 * Whether strict mode forbids to answer the one with the other's answer.
 * Gives: *ret_reason, the feature that forbids it; untouched when it is allowed.
 */
bool decision_is_forbidden(const struct likeness *likeness, enum likeness_feature *ret_reason);
