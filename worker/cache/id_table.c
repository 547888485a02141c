/*
 * Chains 0 … chains − 1, of which the first chains − 2^k, with 2^k ≤ chains < 2^(k+1), were split
 * already. Heads lie in segments, so that growing copies no more than the list of segments.
 */
#include "worker/cache/id_table.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SEGMENT_HEADS = 1024, SEGMENTS_FIRST = 16 };

void id_table_init(struct id_table *table, struct block_pool *pool)
{
    *table = (struct id_table){.pool = pool};
}

void id_table_finish(struct id_table *table)
{
    for (uint32_t i = 0; i < table->segments_length; i++) {
        block_pool_free(table->pool, table->segments[i]);
    }
    free(table->segments);
    id_table_init(table, table->pool);
}

static uint32_t *head_at(const struct id_table *table, uint32_t chain)
{
    uint32_t *heads = block_pool_at(table->pool, table->segments[chain / SEGMENT_HEADS]);
    return &heads[chain % SEGMENT_HEADS];
}

static uint32_t chain_of(const struct id_table *table, const uint8_t *id)
{
    uint32_t hash;
    memcpy(&hash, id, sizeof(hash));
    const uint32_t whole = 1U << (31 - __builtin_clz(table->chains));
    const uint32_t chain = hash & (2 * whole - 1);
    return chain < table->chains ? chain : hash & (whole - 1);
}

static struct id_node *node_at(const struct id_table *table, uint32_t block)
{
    return block_pool_at(table->pool, block);
}

static bool segment_add(struct id_table *table)
{
    if (table->segments_length == table->segments_capacity) {
        const uint32_t capacity =
            table->segments_capacity == 0 ? SEGMENTS_FIRST : table->segments_capacity * 2;
        uint32_t *segments = realloc(table->segments, capacity * sizeof(*segments));
        if (segments == NULL) {
            return false;
        }
        table->segments = segments;
        table->segments_capacity = capacity;
    }
    const uint32_t block = block_pool_alloc(table->pool, SEGMENT_HEADS * sizeof(uint32_t));
    if (block == 0) {
        return false;
    }
    memset(block_pool_at(table->pool, block), 0, SEGMENT_HEADS * sizeof(uint32_t));
    table->segments[table->segments_length++] = block;
    return true;
}

/* One chain more. Without memory for it the others only get longer. */
static bool table_grow(struct id_table *table)
{
    if (table->chains == UINT32_MAX / 4 ||
        (table->chains == table->segments_length * SEGMENT_HEADS && !segment_add(table))) {
        return false;
    }
    const uint32_t added = table->chains++;
    if (added == 0) {
        return true;
    }
    const uint32_t whole = 1U << (31 - __builtin_clz(added));
    uint32_t *place = head_at(table, added - whole);
    uint32_t *moved = head_at(table, added);
    while (*place != 0) {
        const uint32_t block = *place;
        struct id_node *node = node_at(table, block);
        if (chain_of(table, node->id) == added) {
            *place = node->next;
            node->next = *moved;
            *moved = block;
        } else {
            place = &node->next;
        }
    }
    return true;
}

uint32_t id_table_find(const struct id_table *table, const uint8_t id[ID_BYTES])
{
    uint32_t block = table->chains == 0 ? 0 : *head_at(table, chain_of(table, id));
    while (block != 0 && memcmp(node_at(table, block)->id, id, ID_BYTES) != 0) {
        block = node_at(table, block)->next;
    }
    return block;
}

int id_table_insert(struct id_table *table, uint32_t block)
{
    if (table->length >= table->chains && !table_grow(table) && table->chains == 0) {
        return -ENOMEM;
    }
    struct id_node *node = node_at(table, block);
    uint32_t *head = head_at(table, chain_of(table, node->id));
    node->next = *head;
    *head = block;
    table->length++;
    return 0;
}

void id_table_remove(struct id_table *table, uint32_t block)
{
    const struct id_node *node = node_at(table, block);
    uint32_t *place = head_at(table, chain_of(table, node->id));
    while (*place != block) {
        assert(*place != 0);
        place = &node_at(table, *place)->next;
    }
    *place = node->next;
    table->length--;
}

void id_table_visit(const struct id_table *table, id_table_fn *visit, void *context)
{
    for (uint32_t chain = 0; chain < table->chains; chain++) {
        uint32_t block = *head_at(table, chain);
        while (block != 0) {
            const uint32_t next = node_at(table, block)->next;
            visit(context, block);
            block = next;
        }
    }
}

size_t id_table_directory_bytes(const struct id_table *table)
{
    return table->segments_capacity * sizeof(uint32_t);
}
