#include "worker/cache/decision_seed.h"

static const struct threshold_seed builtin = {
    .weight = DECISION_SEED_WEIGHT,
#include "worker/cache/decision_counts.inc"
};

const struct threshold_seed *decision_seed(void)
{
    return &builtin;
}
