/*
 * sparse_table: the items of one sparse vector by bucket, for its dot products with many others.
 *
 * Open addressing, at most a quarter full; on the stack. An item of the other vector that is in
 * none of its buckets costs one load.
 */
#pragma once
#include <string.h>
#include "worker/cache/sparse_vector.h"

enum { SPARSE_TABLE_SLOTS = 4 * SPARSE_ITEMS_MAX };

struct sparse_table {
    uint32_t slots[SPARSE_TABLE_SLOTS]; /* items; 0 is none, since no weight is 0 */
};

static inline void sparse_table_clear(struct sparse_table *table)
{
    memset(table, 0, sizeof(*table));
}

/* The item's bucket must not be in it yet; no more than SPARSE_ITEMS_MAX. */
static inline void sparse_table_put(struct sparse_table *table, uint32_t item)
{
    size_t at = sparse_bucket(item) % SPARSE_TABLE_SLOTS;
    while (table->slots[at] != 0) {
        at = (at + 1) % SPARSE_TABLE_SLOTS;
    }
    table->slots[at] = item;
}

static inline void sparse_table_fill(struct sparse_table *table, const struct sparse_vector *vector)
{
    sparse_table_clear(table);
    for (size_t i = 0; i < vector->length; i++) {
        sparse_table_put(table, vector->items[i]);
    }
}

/* 0: the bucket is not in it. */
static inline uint32_t sparse_table_weight(const struct sparse_table *table, uint32_t bucket)
{
    size_t at = bucket % SPARSE_TABLE_SLOTS;
    while (table->slots[at] != 0) {
        if (sparse_bucket(table->slots[at]) == bucket) {
            return sparse_weight(table->slots[at]);
        }
        at = (at + 1) % SPARSE_TABLE_SLOTS;
    }
    return 0;
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
