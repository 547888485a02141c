/* dice: the run's only source of chance (SplitMix64), so that a seed decides everything. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct dice {
    uint64_t state;
};

static inline uint64_t dice_next(struct dice *dice)
{
    uint64_t z = (dice->state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* From 0 to below - 1. */
static inline uint64_t dice_below(struct dice *dice, uint64_t below)
{
    return below == 0 ? 0 : dice_next(dice) % below;
}

/* From low to high, both included. */
static inline int64_t dice_between(struct dice *dice, int64_t low, int64_t high)
{
    return low + (int64_t)dice_below(dice, (uint64_t)(high - low + 1));
}

static inline bool dice_hit(struct dice *dice, uint32_t permille)
{
    return dice_below(dice, 1000) < permille;
}
