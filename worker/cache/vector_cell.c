#include "worker/cache/vector_cell.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/simd.h"
#include "worker/cache/vector_index.h"

enum { ENTRIES_FIRST = 4, SPLIT_ROUNDS = 4, SIDE_SHARE_MIN = 8 };

SIMD_VERSIONS
int32_t vector_dot(const int8_t *a, const int8_t *b, size_t padded)
{
    int32_t sum = 0;
    for (size_t i = 0; i < padded / VECTOR_PAD * VECTOR_PAD; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

bool vector_quantise(const float *values, size_t dimensions, int8_t *ret_values)
{
    float largest = 0;
    for (size_t i = 0; i < dimensions; i++) {
        if (!isfinite(values[i])) {
            return false;
        }
        largest = fmaxf(largest, fabsf(values[i]));
    }
    if (largest == 0) {
        return false;
    }
    for (size_t i = 0; i < dimensions; i++) {
        ret_values[i] = (int8_t)lrintf(values[i] / largest * INT8_MAX);
    }
    return true;
}

int8_t *vector_quantised(const float *values, size_t dimensions)
{
    int8_t *quantised = malloc(dimensions);
    if (quantised != NULL && !vector_quantise(values, dimensions, quantised)) {
        free(quantised);
        return NULL;
    }
    return quantised;
}

double vector_cosine(const int8_t *a, const int8_t *b, size_t dimensions)
{
    int64_t both = 0, square_a = 0, square_b = 0;
    for (size_t i = 0; i < dimensions; i++) {
        both += a[i] * b[i];
        square_a += a[i] * a[i];
        square_b += b[i] * b[i];
    }
    return square_a == 0 || square_b == 0
               ? 0
               : (double)both / (sqrt((double)square_a) * sqrt((double)square_b));
}

uint32_t vector_cell_create(const struct vector_space *space)
{
    const uint32_t block =
        block_pool_alloc(space->pool, sizeof(struct vector_cell) + space->padded);
    if (block != 0) {
        *vector_cell_at(space, block) = (struct vector_cell){.entries = 0};
    }
    return block;
}

void vector_cell_destroy(const struct vector_space *space, uint32_t block)
{
    const struct vector_cell *cell = vector_cell_at(space, block);
    if (cell->entries != 0) {
        block_pool_free(space->pool, cell->entries);
    }
    block_pool_free(space->pool, block);
}

static int entries_reserve(const struct vector_space *space, struct vector_cell *cell)
{
    struct block_pool *pool = space->pool;
    const size_t capacity =
        cell->entries == 0 ? 0 : block_pool_capacity(pool, cell->entries) / sizeof(uint32_t);
    if (cell->length < capacity) {
        return 0;
    }
    if (cell->length >= CELL_ENTRIES_MAX) {
        return -ENOMEM;
    }
    const size_t larger = capacity == 0 ? ENTRIES_FIRST : capacity + capacity / 2;
    const uint32_t block = block_pool_alloc(pool, larger * sizeof(uint32_t));
    if (block == 0) {
        return -ENOMEM;
    }
    if (cell->entries != 0) {
        memcpy(block_pool_at(pool, block), block_pool_at(pool, cell->entries),
               cell->length * sizeof(uint32_t));
        block_pool_free(pool, cell->entries);
    }
    cell->entries = block;
    return 0;
}

int vector_cell_add(const struct vector_space *space, uint32_t block, uint32_t entry_block)
{
    struct vector_cell *cell = vector_cell_at(space, block);
    const int r = entries_reserve(space, cell);
    if (r < 0) {
        return r;
    }
    uint32_t *entries = block_pool_at(space->pool, cell->entries);
    struct vector_entry *entry = vector_entry_at(space, entry_block);
    entry->cell = block;
    entry->place = cell->length;
    entries[cell->length++] = entry_block;
    return 0;
}

void vector_cell_remove(const struct vector_space *space, uint32_t entry_block)
{
    const struct vector_entry *entry = vector_entry_at(space, entry_block);
    struct vector_cell *cell = vector_cell_at(space, entry->cell);
    uint32_t *entries = block_pool_at(space->pool, cell->entries);
    const uint32_t last = entries[--cell->length];
    entries[entry->place] = last;
    vector_entry_at(space, last)->place = entry->place;
}

/* Splitting: two means */

struct halves {
    const struct vector_space *space;
    const uint32_t *entries;
    uint32_t length;
    uint32_t n_right;
    bool is_right[CELL_ENTRIES_MAX];
    int8_t centres[2][VECTOR_DIMENSIONS_MAX];
    float inverse_norms[2];
};

static void set_centre(struct halves *halves, size_t side, const int8_t *values)
{
    const size_t padded = halves->space->padded;
    memcpy(halves->centres[side], values, padded);
    const int32_t square = vector_dot(values, values, padded);
    halves->inverse_norms[side] = square == 0 ? 0 : 1 / sqrtf((float)square);
}

/* Each vector counts alike, whatever its norm as it is kept. */
static void set_mean(struct halves *halves, bool is_right)
{
    float sums[VECTOR_DIMENSIONS_MAX] = {0};
    int8_t mean[VECTOR_DIMENSIONS_MAX] = {0};
    const size_t padded = halves->space->padded;
    for (uint32_t i = 0; i < halves->length; i++) {
        if (halves->is_right[i] == is_right) {
            const struct vector_entry *entry = vector_entry_at(halves->space, halves->entries[i]);
            for (size_t d = 0; d < padded; d++) {
                sums[d] += entry->values[d] * entry->inverse_norm;
            }
        }
    }
    if (vector_quantise(sums, padded, mean)) {
        set_centre(halves, is_right, mean);
    }
}

static float likeness(const struct halves *halves, size_t side, const struct vector_entry *entry)
{
    return (float)vector_dot(entry->values, halves->centres[side], halves->space->padded) *
           halves->inverse_norms[side];
}

static void assign(struct halves *halves)
{
    halves->n_right = 0;
    for (uint32_t i = 0; i < halves->length; i++) {
        const struct vector_entry *entry = vector_entry_at(halves->space, halves->entries[i]);
        halves->is_right[i] = likeness(halves, 1, entry) > likeness(halves, 0, entry);
        halves->n_right += halves->is_right[i];
    }
}

/* The first, and the one that is least like it. */
static void seed(struct halves *halves)
{
    float least = INFINITY;
    uint32_t farthest = 0;
    set_centre(halves, 0, vector_entry_at(halves->space, halves->entries[0])->values);
    for (uint32_t i = 0; i < halves->length; i++) {
        const struct vector_entry *entry = vector_entry_at(halves->space, halves->entries[i]);
        const float like = likeness(halves, 0, entry) * entry->inverse_norm;
        if (like < least) {
            least = like;
            farthest = i;
        }
    }
    set_centre(halves, 1, vector_entry_at(halves->space, halves->entries[farthest])->values);
}

/* Equal vectors, or all but a few alike: any halves will do, and the next split is not at once. */
static void cut_in_the_middle(struct halves *halves)
{
    halves->n_right = halves->length / 2;
    for (uint32_t i = 0; i < halves->length; i++) {
        halves->is_right[i] = i < halves->n_right;
    }
}

static void divide(struct halves *halves)
{
    seed(halves);
    for (size_t round = 0; round < SPLIT_ROUNDS; round++) {
        assign(halves);
        set_mean(halves, false);
        set_mean(halves, true);
    }
    assign(halves);
    const uint32_t least = halves->length / SIDE_SHARE_MIN;
    if (halves->n_right < least || halves->length - halves->n_right < least) {
        cut_in_the_middle(halves);
        set_mean(halves, false);
        set_mean(halves, true);
    }
}

static void cell_set_centre(const struct vector_space *space, uint32_t block,
                            const struct halves *halves, size_t side)
{
    struct vector_cell *cell = vector_cell_at(space, block);
    memcpy(cell->centre, halves->centres[side], space->padded);
    cell->inverse_norm = halves->inverse_norms[side];
}

uint32_t vector_cell_split(const struct vector_space *space, uint32_t block)
{
    struct vector_cell *cell = vector_cell_at(space, block);
    struct halves halves;
    uint32_t moved[CELL_ENTRIES_MAX];
    uint32_t n_moved = 0;
    const uint32_t right = vector_cell_create(space);
    const uint32_t list =
        right == 0 ? 0 : block_pool_alloc(space->pool, cell->length * sizeof(uint32_t));
    if (list == 0) {
        if (right != 0) {
            vector_cell_destroy(space, right);
        }
        return 0;
    }
    vector_cell_at(space, right)->entries = list;
    halves.space = space;
    halves.entries = vector_cell_entries(space, cell);
    halves.length = cell->length;
    divide(&halves);
    for (uint32_t i = 0; i < halves.length; i++) {
        if (halves.is_right[i]) {
            moved[n_moved++] = halves.entries[i];
        }
    }
    for (uint32_t i = 0; i < n_moved; i++) {
        vector_cell_remove(space, moved[i]);
        const int r = vector_cell_add(space, right, moved[i]);
        assert(r == 0); /* the list has room for all */
        (void)r;
    }
    cell_set_centre(space, block, &halves, 0);
    cell_set_centre(space, right, &halves, 1);
    return right;
}

int vector_cell_join(const struct vector_space *space, uint32_t from, uint32_t into)
{
    const struct vector_cell *cell = vector_cell_at(space, from);
    while (cell->length > 0) {
        const uint32_t entry = vector_cell_entries(space, cell)[cell->length - 1];
        vector_cell_remove(space, entry);
        const int r = vector_cell_add(space, into, entry);
        if (r < 0) {
            const int back = vector_cell_add(space, from, entry);
            assert(back == 0); /* where it was there is room */
            return r;
        }
    }
    return 0;
}
