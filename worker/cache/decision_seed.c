#include "worker/cache/decision_seed.h"

#include "worker/cache/decision.h"

static const struct threshold_seed builtin = {
    .weight = DECISION_SEED_WEIGHT,
#include "worker/cache/decision_counts.inc"
};

const struct threshold_seed *decision_seed(void)
{
    return &builtin;
}

/* No library function: on every machine the same edges, since counts over other ones are never added. */
void decision_seed_dense(struct threshold_seed *ret_seed)
{
    double distance = 0.6;
    *ret_seed = (struct threshold_seed){.weight = 0};
    for (size_t i = 0; i < THRESHOLD_BINS - 1; i++) {
        const double cosine_above_centre = (1 - DECISION_DENSE_CENTRE) - distance;
        ret_seed->scale.edges[i] = (float)(DECISION_DENSE_SLOPE * cosine_above_centre);
        distance *= 0.9;
    }
}
