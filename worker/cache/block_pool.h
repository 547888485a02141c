/*
 * block_pool: memory for very many blocks of different sizes, each named by 32 bits.
 *
 * Sizes are rounded up to multiples of 16 bytes, above 128 bytes to the next of four steps within
 * each doubling: a tenth is lost. Blocks of one size share pages of 64 KiB, pages lie in regions of
 * 2 MiB that go back to the system when they are empty, but for one. Allocating and freeing take a
 * few steps, whatever is there. A block never moves. Not for threads.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum {
    BLOCK_BYTES_MAX = 8192,
    BLOCK_GRANULE_BYTES = 16,
    BLOCK_PAGE_BYTES = 64 << 10,
    BLOCK_REGION_PAGES = 32,
    BLOCK_REGIONS_MAX = 16383, /* 32 GiB; block names keep their highest bit 0 */
    BLOCK_CLASSES = 32,
};

struct block_region;

struct block_pool {
    uint8_t **memories;              /* of each region; NULL: it went back to the system */
    struct block_region **regions;   /* beside them: what is free in it */
    uint32_t regions_length;         /* of both */
    uint32_t regions_capacity;       /* of both */
    uint32_t with_room;              /* number + 1 of a region with a free page; 0: none */
    uint32_t partial[BLOCK_CLASSES]; /* number + 1 of a page with room for this size; 0: none */
    uint32_t regions_alive;
    uint32_t regions_empty;
    size_t bytes_used; /* of blocks that are out, rounded up as they are */
};

void block_pool_init(struct block_pool *pool);
void block_pool_finish(struct block_pool *pool); /* blocks that were not freed go with it */

/* Content undefined; aligned to 16 bytes. From 1 to BLOCK_BYTES_MAX. 0: no memory. */
uint32_t block_pool_alloc(struct block_pool *pool, size_t bytes);
void block_pool_free(struct block_pool *pool, uint32_t block);
/* What was asked for, rounded up. */
size_t block_pool_capacity(const struct block_pool *pool, uint32_t block);
/* All that the pool has from the system. */
size_t block_pool_bytes(const struct block_pool *pool);

static inline void *block_pool_at(const struct block_pool *pool, uint32_t block)
{
    const uint32_t page = (block >> 12) - 1;
    return pool->memories[page / BLOCK_REGION_PAGES] +
           (size_t)(page % BLOCK_REGION_PAGES) * BLOCK_PAGE_BYTES +
           (size_t)(block & 0xfff) * BLOCK_GRANULE_BYTES;
}
