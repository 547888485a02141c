#include "worker/cache/decision_seed.h"

/* As many labels as it counts for: its trust falls as the labels of a class contradict it (threshold.h). */
#define WEIGHT 6000.0

static const struct threshold_seed seed = {
#include "worker/cache/decision_counts.inc"
    .weight = WEIGHT,
};

const struct threshold_seed *decision_seed(void)
{
    return &seed;
}
