#include "worker/cache/accumulator.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/key_sort.h"
#include "worker/cache/postings.h"
#include "worker/cache/simd.h"

enum { STRIDE = 32, BUFFER = 4 * ACCUMULATOR_BEST_MAX };

/* The capacity is a multiple of STRIDE, and so is the room for what strides are summed up in. */
static size_t largest_room(size_t capacity)
{
    return (capacity / STRIDE + STRIDE - 1) / STRIDE * STRIDE;
}

size_t accumulator_bytes(const struct accumulator *accumulator)
{
    return (accumulator->capacity + largest_room(accumulator->capacity)) *
           sizeof(*accumulator->sums);
}

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
    uint16_t *sums = calloc(capacity + largest_room(capacity), sizeof(*sums));
    if (sums == NULL) {
        return -ENOMEM;
    }
    free(accumulator->sums);
    *accumulator =
        (struct accumulator){.sums = sums, .largest = sums + capacity, .capacity = capacity};
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

static uint16_t larger_of(uint16_t a, uint16_t b)
{
    return a > b ? a : b;
}

SIMD_VERSIONS
static void find_largest(const uint16_t *sums, size_t strides, uint16_t *ret_largest)
{
    for (size_t stride = 0; stride < strides; stride++) {
        uint16_t largest = 0;
        for (size_t i = 0; i < STRIDE; i++) {
            largest = larger_of(largest, sums[stride * STRIDE + i]);
        }
        ret_largest[stride] = largest;
    }
}

/* The first from `at`, a multiple of STRIDE, of STRIDE values some of which are at least `least`.
 */
SIMD_VERSIONS
static size_t next_values(const uint16_t *values, size_t at, size_t length, uint16_t least)
{
    for (; at < length; at += STRIDE) {
        uint16_t largest = 0;
        for (size_t i = 0; i < STRIDE; i++) {
            largest = larger_of(largest, values[at + i]);
        }
        if (largest >= least) {
            return at;
        }
    }
    return length;
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
}

typedef void stride_fn(struct best *best, const uint16_t *sums, size_t first);

/* How large the nearest are. */
static void measure_stride(struct best *best, const uint16_t *sums, size_t first)
{
    const struct accumulator_wanted *wanted = best->wanted;
    for (size_t i = first; i < first + STRIDE; i++) {
        if (sums[i] >= best->least) {
            best_raise(best, (uint32_t)i, sums[i]);
        }
    }
    const bool is_full = best->near_length == wanted->near;
    if (is_full && best->near[wanted->near - 1] > best->least) {
        best->least = best->near[wanted->near - 1];
    }
}

/* Those that are large enough. */
static void collect_stride(struct best *best, const uint16_t *sums, size_t first)
{
    for (size_t i = first; i < first + STRIDE; i++) {
        if (sums[i] >= best->least) {
            best->buffer[best->length++] =
                (struct accumulated){.slot = (uint32_t)i, .sum = sums[i]};
        }
    }
    if (best->length > BUFFER - STRIDE) {
        best_cut(best);
    }
}

/* Strides in which something is of interest, which becomes less on the way. */
static void visit(struct best *best, const struct accumulator *accumulator, size_t strides,
                  stride_fn *stride)
{
    const uint16_t *largest = accumulator->largest;
    for (size_t at = 0; best->least <= UINT16_MAX; at += STRIDE) {
        at = next_values(largest, at, strides, (uint16_t)best->least);
        if (at >= strides) {
            return;
        }
        for (size_t i = at; i < at + STRIDE && i < strides; i++) {
            if (largest[i] >= best->least) {
                stride(best, accumulator->sums, i * STRIDE);
            }
        }
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

/* What is less than the nearest by more than the slack is not wanted. */
static uint32_t least_of(const struct best *best)
{
    const struct accumulator_wanted *wanted = best->wanted;
    const bool is_full = best->near_length == wanted->near;
    const uint32_t worst = is_full ? best->near[wanted->near - 1] : 0;
    return worst > wanted->sum_min + wanted->slack ? worst - wanted->slack : wanted->sum_min;
}

size_t accumulator_take(struct accumulator *accumulator, size_t slots,
                        const struct accumulator_wanted *wanted,
                        struct accumulated ret_best[ACCUMULATOR_BEST_MAX])
{
    struct best best; /* not initialised as a whole: 16 KiB */
    const size_t strides = (slots + STRIDE - 1) / STRIDE;
    assert(wanted->sum_min > 0);
    assert(wanted->near > 0);
    assert(wanted->near <= ACCUMULATOR_NEAR_MAX);
    assert(wanted->best_max <= ACCUMULATOR_BEST_MAX);
    best.wanted = wanted;
    best.least = wanted->sum_min;
    best.length = best.near_length = 0;
    find_largest(accumulator->sums, strides, accumulator->largest);
    visit(&best, accumulator, strides, measure_stride);
    best.least = least_of(&best);
    visit(&best, accumulator, strides, collect_stride);
    memset(accumulator->sums, 0, strides * STRIDE * sizeof(*accumulator->sums));
    if (best.length > wanted->best_max) {
        best_cut(&best);
    }
    sort_falling(best.buffer, best.length, ret_best);
    return best.length;
}
