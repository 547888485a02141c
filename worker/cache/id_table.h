/*
 * id_table: blocks of a block_pool by an id of 16 bytes.
 *
 * Linear hashing: it grows by one chain at each insertion, so none of them is slow, and takes four
 * bytes a block. Ids are hashes already: their first bytes choose the chain.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/cache/block_pool.h"

enum { ID_BYTES = 16 };

/* Every block in a table begins with this. */
struct id_node {
    uint8_t id[ID_BYTES];
    uint32_t next; /* the table's */
};

struct id_table {
    struct block_pool *pool;
    uint32_t *segments; /* blocks of chains' heads */
    uint32_t segments_length;
    uint32_t segments_capacity;
    uint32_t chains;
    uint32_t length;
};

/* Keeps the pool. */
void id_table_init(struct id_table *table, struct block_pool *pool);
/* The blocks that are in it stay. */
void id_table_finish(struct id_table *table);

/* 0: it is not there. */
uint32_t id_table_find(const struct id_table *table, const uint8_t id[ID_BYTES]);
/* Its id, not in the table yet, is set. Errors: -ENOMEM, for the first block only. */
MUST_USE int id_table_insert(struct id_table *table, uint32_t block);
/* The block is there. */
void id_table_remove(struct id_table *table, uint32_t block);

/* Calls for each block, in no order; `visit` may free it. */
typedef void id_table_fn(void *context, uint32_t block);
void id_table_visit(const struct id_table *table, id_table_fn *visit, void *context);

/* Memory of its own, outside the pool. */
size_t id_table_directory_bytes(const struct id_table *table);
