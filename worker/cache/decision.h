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
    DECISION_VERSION = 1, /* raise it with every new fit: scores of two are not compared */
};

struct decision_model {
    const char *embedder; /* its id */
    double bias;
    double weights[LIKENESS_FEATURES];
};

/* For the built-in embedder ("builtin"). */
const struct decision_model *decision_builtin(void);

double decision_score(const struct decision_model *model, const struct likeness *likeness);

/*
 * Whether strict mode forbids to answer the one with the other's answer.
 * Gives: *ret_reason, the feature that forbids it; untouched when it is allowed.
 */
bool decision_is_forbidden(const struct likeness *likeness, enum likeness_feature *ret_reason);
