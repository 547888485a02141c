/*
 * accumulator: sums of products by slot, from runs of postings; then the slots with the largest.
 *
 * An array of 16 bits for each slot, all zero between searches: adding is one increment. What is
 * large is found by the largest of each 32 slots: first how large the best are, then those that are
 * as large. A sum never overflows while weights are those
 * of vectors scaled to ACCUMULATOR_UNIT, each item at least 1.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum {
    /* What a vector's norm becomes. 224² and a rounding error of up to 1 for each of 512 items in
     * both vectors, 512 + 2 · √512 · 224, stay below 2^16. */
    ACCUMULATOR_UNIT = 224,
    ACCUMULATOR_BEST_MAX = 256,
    ACCUMULATOR_NEAR_MAX = 16,
};

struct accumulator {
    uint16_t *sums;
    uint16_t *largest; /* of each stride of sums, while they are taken */
    size_t capacity;   /* of sums */
};

struct accumulated {
    uint32_t slot;
    uint32_t sum; /* in 1 / ACCUMULATOR_UNIT² */
};

void accumulator_finish(struct accumulator *accumulator); /* zero is an empty one */
/* For slots below `slots`. Errors: -ENOMEM. */
MUST_USE int accumulator_reserve(struct accumulator *accumulator, size_t slots);
size_t accumulator_bytes(const struct accumulator *accumulator);
/* Adds weight times the weight of each posting to its slot. */
void accumulator_add(struct accumulator *accumulator, const uint32_t *run, size_t length,
                     uint32_t weight);
typedef bool accumulator_live_fn(const void *context, uint32_t slot);

/* What accumulator_take() is to find. */
struct accumulator_wanted {
    uint32_t sum_min; /* 1 or more */
    size_t best_max;  /* up to ACCUMULATOR_BEST_MAX */
    /* Sums that are less than the near_th largest of those that live by more than `slack` are not
     * wanted either. */
    size_t near; /* 1 to ACCUMULATOR_NEAR_MAX */
    uint32_t slack;
    accumulator_live_fn *is_live;
    const void *context;
};

/*
 * The slots below `slots` with the largest sums, largest first; all sums are zero after it. Those
 * that do not live are among them. Returns how many.
 */
size_t accumulator_take(struct accumulator *accumulator, size_t slots,
                        const struct accumulator_wanted *wanted,
                        struct accumulated ret_best[ACCUMULATOR_BEST_MAX]);
