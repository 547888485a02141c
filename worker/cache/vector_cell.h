/*
 * vector_cell: vectors of one scope of vector_index that lie near each other, and their centre.
 *
 * All are blocks of one pool: the cell with its centre, the list of its entries, the entries.
 * Vectors are padded with zeros to a multiple of VECTOR_PAD.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/block_pool.h"
#include "worker/cache/id_table.h"

enum {
    VECTOR_PAD = 64,
    CELL_SPLIT = 128,       /* as many are split */
    CELL_JOINED = 16,       /* so few go to the nearest cell */
    CELL_ENTRIES_MAX = 512, /* while there is no memory to split it */
};

struct vector_entry {
    struct id_node node; /* by key */
    uint32_t scope;      /* block */
    uint32_t cell;       /* block */
    uint32_t place;      /* in the cell's list */
    float inverse_norm;
    uint32_t note_bytes;
    int8_t values[]; /* padded; behind them is the note */
};

struct vector_cell {
    uint32_t entries; /* block: a list of blocks; 0: none yet */
    uint32_t length;
    uint32_t place;     /* in the scope's list; the scope's */
    float inverse_norm; /* of the centre */
    int8_t centre[];    /* padded */
};

struct vector_space {
    struct block_pool *pool;
    size_t padded; /* dimensions */
};

int32_t vector_dot(const int8_t *a, const int8_t *b, size_t padded);

/* Without entries, its centre undefined. 0: no memory. */
uint32_t vector_cell_create(const struct vector_space *space);
/* It has no entries. */
void vector_cell_destroy(const struct vector_space *space, uint32_t cell);
/* Sets the entry's cell and place. Errors: -ENOMEM. */
MUST_USE int vector_cell_add(const struct vector_space *space, uint32_t cell, uint32_t entry);
void vector_cell_remove(const struct vector_space *space, uint32_t entry);
/*
 * Moves about half of the entries, those that lie together, to a new cell; both get centres.
 * Returns the new cell; 0: no memory, nothing happened.
 */
uint32_t vector_cell_split(const struct vector_space *space, uint32_t cell);
/* Moves all entries to another. Errors: -ENOMEM: some have moved. */
MUST_USE int vector_cell_join(const struct vector_space *space, uint32_t from, uint32_t into);

static inline struct vector_cell *vector_cell_at(const struct vector_space *space, uint32_t cell)
{
    return block_pool_at(space->pool, cell);
}

static inline struct vector_entry *vector_entry_at(const struct vector_space *space, uint32_t entry)
{
    return block_pool_at(space->pool, entry);
}

static inline const uint32_t *vector_cell_entries(const struct vector_space *space,
                                                  const struct vector_cell *cell)
{
    return cell->length == 0 ? NULL : block_pool_at(space->pool, cell->entries);
}
