#include "worker/cache/decision.h"

/*
 * What strict mode lets one text say more than the other: a third of a rare word, so none that is
 * rarer than the most common words of content.
 */
static const float STRICT_MISSING_MAX = 0.35F;

static const struct decision_model builtin = {
    .embedder = "builtin",
#include "worker/cache/decision_builtin.inc"
};

const struct decision_model *decision_builtin(void)
{
    return &builtin;
}

double decision_score(const struct decision_model *model, const struct likeness *likeness)
{
    double score = model->bias;
    for (size_t i = 0; i < LIKENESS_FEATURES; i++) {
        score += model->weights[i] * (double)likeness->features[i];
    }
    return score;
}

double decision_score_dense(const struct likeness *likeness)
{
    double score = DECISION_DENSE_SLOPE * ((double)likeness->features[LIKENESS_COSINE] - DECISION_DENSE_CENTRE);
    for (size_t i = 0; i < LIKENESS_GUARDS; i++) {
        score += builtin.weights[i] * (double)likeness->features[i];
    }
    return score;
}

bool decision_is_forbidden(const struct likeness *likeness, enum likeness_feature *ret_reason)
{
    for (size_t i = 0; i < LIKENESS_GUARDS; i++) {
        if (likeness->features[i] > 0) {
            *ret_reason = (enum likeness_feature)i;
            return true;
        }
    }
    if (likeness->features[LIKENESS_REPLACED] > 0) {
        *ret_reason = LIKENESS_REPLACED;
        return true;
    }
    if (likeness->features[LIKENESS_MISSING_MOST] > STRICT_MISSING_MAX) {
        *ret_reason = LIKENESS_MISSING_MOST;
        return true;
    }
    return false;
}
