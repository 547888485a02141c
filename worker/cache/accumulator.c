#include "worker/cache/accumulator.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/key_sort.h"
#include "worker/cache/postings.h"
#include "worker/cache/simd.h"

enum { STRIDE = 32, BUFFER = 4 * ACCUMULATOR_BEST_MAX };

void accumulator_finish(struct accumulator *accumulator)
{
    free(accumulator->sums);
    *accumulator = (struct accumulator){.sums = NULL};
}

int accumulator_reserve(struct accumulator *accumulator, size_t slots)
{
    if (slots <= accumulator->capacity) {
        return 0;
    }
    /* Nothing to copy, since all is zero. */
    const size_t capacity = (slots + slots / 4 + STRIDE) / STRIDE * STRIDE;
    uint16_t *sums = calloc(capacity, sizeof(*sums));
    if (sums == NULL) {
        return -ENOMEM;
    }
    free(accumulator->sums);
    accumulator->sums = sums;
    accumulator->capacity = capacity;
    return 0;
}

void accumulator_add(struct accumulator *accumulator, const uint32_t *run, size_t length,
                     uint32_t weight)
{
    uint16_t *const sums = accumulator->sums;
    for (size_t i = 0; i < length; i++) {
        uint16_t *sum = &sums[posting_slot(run[i])];
        *sum = (uint16_t)(*sum + weight * posting_weight(run[i]));
    }
}

/* The first slot from `at`, a multiple of STRIDE, whose stride holds a sum of at least `sum_min`.
 */
SIMD_VERSIONS
static size_t next_stride(const uint16_t *sums, size_t at, size_t slots, uint16_t sum_min)
{
    for (; at < slots; at += STRIDE) {
        uint16_t largest = 0;
        for (size_t i = 0; i < STRIDE; i++) {
            largest = sums[at + i] > largest ? sums[at + i] : largest;
        }
        if (largest >= sum_min) {
            return at;
        }
    }
    return slots;
}

struct best {
    const struct accumulator_wanted *wanted;
    uint32_t least;                      /* what a sum must be to be of interest */
    uint32_t near[ACCUMULATOR_NEAR_MAX]; /* the largest that live, falling */
    size_t near_length;
    size_t length;
    struct accumulated buffer[BUFFER];
};

/* Moves the `n` largest to the front, in no order: quickselect. */
static void select_largest(struct accumulated *all, size_t length, size_t n)
{
    size_t low = 0;
    size_t high = length;
    while (high - low > 1) {
        const uint32_t pivot = all[low + (high - low) / 2].sum;
        size_t larger =
            low; /* [low, larger) > pivot, [larger, at) = pivot, [smaller, high) < pivot */
        size_t smaller = high;
        for (size_t at = low; at < smaller;) {
            const struct accumulated item = all[at];
            if (item.sum > pivot) {
                all[at++] = all[larger];
                all[larger++] = item;
            } else if (item.sum < pivot) {
                all[at] = all[--smaller];
                all[smaller] = item;
            } else {
                at++;
            }
        }
        if (n < larger) {
            high = larger;
        } else if (n > smaller) {
            low = smaller;
        } else {
            return;
        }
    }
}

/* Keeps the best of the buffer; only what is larger than the least of them is of interest then. */
static void best_cut(struct best *best)
{
    select_largest(best->buffer, best->length, best->wanted->best_max);
    best->length = best->wanted->best_max;
    uint32_t least = UINT32_MAX;
    for (size_t i = 0; i < best->length; i++) {
        least = best->buffer[i].sum < least ? best->buffer[i].sum : least;
    }
    best->least = least + 1 > best->least ? least + 1 : best->least;
}

static void best_raise(struct best *best, uint32_t slot, uint32_t sum)
{
    const struct accumulator_wanted *wanted = best->wanted;
    const bool is_full = best->near_length == wanted->near;
    if ((is_full && sum <= best->near[wanted->near - 1]) ||
        !wanted->is_live(wanted->context, slot)) {
        return;
    }
    size_t at = is_full ? wanted->near - 1 : best->near_length++;
    for (; at > 0 && best->near[at - 1] < sum; at--) {
        best->near[at] = best->near[at - 1];
    }
    best->near[at] = sum;
    const uint32_t worst = best->near[wanted->near - 1];
    if (best->near_length == wanted->near && worst > best->least + wanted->slack) {
        best->least = worst - wanted->slack;
    }
}

static void best_consider(struct best *best, const uint16_t *sums, size_t first)
{
    for (size_t i = first; i < first + STRIDE; i++) {
        if (sums[i] >= best->least) {
            best->buffer[best->length++] =
                (struct accumulated){.slot = (uint32_t)i, .sum = sums[i]};
            best_raise(best, (uint32_t)i, sums[i]);
        }
    }
    if (best->length > BUFFER - STRIDE) {
        best_cut(best);
    }
}

/* Largest first; among equals the lower slot. */
static void sort_falling(const struct accumulated *all, size_t length,
                         struct accumulated ret_sorted[ACCUMULATOR_BEST_MAX])
{
    uint64_t keys[ACCUMULATOR_BEST_MAX], scratch[ACCUMULATOR_BEST_MAX];
    for (size_t i = 0; i < length; i++) {
        keys[i] = (uint64_t)(UINT16_MAX - all[i].sum) << 32 | all[i].slot;
    }
    key_sort(keys, scratch, length);
    for (size_t i = 0; i < length; i++) {
        ret_sorted[i] = (struct accumulated){.slot = (uint32_t)keys[i],
                                             .sum = UINT16_MAX - (uint32_t)(keys[i] >> 32)};
    }
}

size_t accumulator_take(struct accumulator *accumulator, size_t slots,
                        const struct accumulator_wanted *wanted,
                        struct accumulated ret_best[ACCUMULATOR_BEST_MAX])
{
    struct best best; /* not initialised as a whole: 16 KiB */
    uint16_t *const sums = accumulator->sums;
    assert(wanted->sum_min > 0);
    assert(wanted->near > 0);
    assert(wanted->near <= ACCUMULATOR_NEAR_MAX);
    assert(wanted->best_max <= ACCUMULATOR_BEST_MAX);
    best.wanted = wanted;
    best.least = wanted->sum_min;
    best.length = best.near_length = 0;
    for (size_t at = 0; best.least <= UINT16_MAX; at += STRIDE) {
        at = next_stride(sums, at, slots, (uint16_t)best.least);
        if (at >= slots) {
            break;
        }
        best_consider(&best, sums, at);
    }
    memset(sums, 0, (slots + STRIDE - 1) / STRIDE * STRIDE * sizeof(*sums));
    if (best.length > wanted->best_max) {
        best_cut(&best);
    }
    sort_falling(best.buffer, best.length, ret_best);
    return best.length;
}
