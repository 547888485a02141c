/*
 * sparse_table: the items of one sparse vector by bucket, for its dot products with many others.
 *
 * An item is in the one slot that its bucket names; those that find it taken are in a list, and the
 * slot is marked. So an item of the other vector costs two loads, and no branch that depends on
 * whether it matches: with a probe that goes on until it does, every match was mispredicted, which
 * took half of the time. On the stack.
 */
#pragma once
#include <string.h>
#include "worker/cache/sparse_vector.h"

enum { SPARSE_TABLE_SLOTS = 8 * SPARSE_ITEMS_MAX };

struct sparse_table {
    uint32_t slots[SPARSE_TABLE_SLOTS];     /* items; 0 is none, since no weight is 0 */
    uint8_t is_crowded[SPARSE_TABLE_SLOTS]; /* there are more of this slot in the list: */
    uint32_t rest[SPARSE_ITEMS_MAX];
    size_t rest_length;
};

static inline void sparse_table_clear(struct sparse_table *table)
{
    memset(table->slots, 0, sizeof(table->slots));
    memset(table->is_crowded, 0, sizeof(table->is_crowded));
    table->rest_length = 0;
}

/* The item's bucket must not be in it yet; no more than SPARSE_ITEMS_MAX. */
static inline void sparse_table_put(struct sparse_table *table, uint32_t item)
{
    const size_t at = sparse_bucket(item) % SPARSE_TABLE_SLOTS;
    if (table->slots[at] == 0) {
        table->slots[at] = item;
    } else {
        table->is_crowded[at] = 1;
        table->rest[table->rest_length++] = item;
    }
}

static inline void sparse_table_fill(struct sparse_table *table, const struct sparse_vector *vector)
{
    sparse_table_clear(table);
    for (size_t i = 0; i < vector->length; i++) {
        sparse_table_put(table, vector->items[i]);
    }
}

/* The item's weight if it is of this bucket, else 0: by its bits, not by a branch. */
static inline uint32_t sparse_weight_in(uint32_t item, uint32_t bucket)
{
    const uint64_t difference = sparse_bucket(item) ^ bucket;
    return sparse_weight(item) & (uint32_t)((difference - 1) >> 32);
}

/* 0: the bucket is not in it. */
static inline uint32_t sparse_table_weight(const struct sparse_table *table, uint32_t bucket)
{
    const size_t at = bucket % SPARSE_TABLE_SLOTS;
    uint32_t weight = sparse_weight_in(table->slots[at], bucket);
    for (size_t i = 0; table->is_crowded[at] != 0 && i < table->rest_length; i++) {
        weight |= sparse_weight_in(table->rest[i], bucket);
    }
    return weight;
}

static inline uint32_t sparse_table_dot(const struct sparse_table *table, const uint32_t *items,
                                        size_t length)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < length; i++) {
        sum += sparse_weight(items[i]) * sparse_table_weight(table, sparse_bucket(items[i]));
    }
    return sum;
}
