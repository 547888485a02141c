/*
 * Blocks double in size, so that a large turn takes few of them, and the newest, the largest, is
 * the one that the next turn starts with. Under AddressSanitizer what is not handed out is
 * poisoned: a use after arena_reset() is reported.
 */
#include "common/arena.h"
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include "common/poison.h"

enum { ALIGNMENT = 16, BLOCK_FIRST_BYTES = 64 << 10 };

struct block {
    struct block *older;
    size_t bytes; /* of data */
    size_t used;
    _Alignas(ALIGNMENT) unsigned char data[];
};

struct arena {
    ProtobufCAllocator allocator;
    size_t bytes_max;
    size_t bytes; /* of all blocks */
    struct block *newest;
    bool lacks_memory; /* since the last reset: less than the bound was to be had */
};

static void *allocate_for_protobuf(void *context, size_t bytes)
{
    return arena_alloc(context, bytes);
}

static void free_for_protobuf(void *context, void *pointer)
{
    (void)context;
    (void)pointer;
}

int arena_create(size_t bytes_max, struct arena **ret_arena)
{
    struct arena *arena = calloc(1, sizeof(*arena));
    if (arena == NULL) {
        return -ENOMEM;
    }
    arena->bytes_max = bytes_max;
    arena->allocator = (ProtobufCAllocator){
        .alloc = allocate_for_protobuf, .free = free_for_protobuf, .allocator_data = arena};
    *ret_arena = arena;
    return 0;
}

static void free_blocks(struct block *block)
{
    while (block != NULL) {
        struct block *older = block->older;
        ASAN_UNPOISON_MEMORY_REGION(block->data, block->bytes);
        free(block);
        block = older;
    }
}

void arena_destroy(struct arena **arena)
{
    if (*arena == NULL) {
        return;
    }
    free_blocks((*arena)->newest);
    free(*arena);
    *arena = NULL;
}

/* Twice the newest block, if the bound leaves so much, and in any case room for `bytes`. */
static size_t next_block_bytes(const struct arena *arena, size_t bytes)
{
    const size_t left = arena->bytes_max - arena->bytes;
    if (bytes > left) {
        return 0;
    }
    size_t wanted = arena->newest == NULL ? BLOCK_FIRST_BYTES : arena->newest->bytes * 2;
    if (wanted < bytes) {
        wanted = bytes;
    }
    return wanted < left ? wanted : left;
}

static struct block *add_block(struct arena *arena, size_t bytes)
{
    const size_t block_bytes = next_block_bytes(arena, bytes);
    if (block_bytes == 0) {
        return NULL;
    }
    struct block *block = malloc(sizeof(*block) + block_bytes);
    if (block == NULL) {
        arena->lacks_memory = true;
        return NULL;
    }
    *block = (struct block){.older = arena->newest, .bytes = block_bytes};
    ASAN_POISON_MEMORY_REGION(block->data, block->bytes);
    arena->bytes += block_bytes;
    arena->newest = block;
    return block;
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    if (bytes > arena->bytes_max) {
        return NULL; /* also keeps the rounding below from overflowing */
    }
    const size_t rounded =
        bytes == 0 ? ALIGNMENT : (bytes + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    struct block *block = arena->newest;
    if (block == NULL || rounded > block->bytes - block->used) {
        block = add_block(arena, rounded);
        if (block == NULL) {
            return NULL;
        }
    }
    void *at = block->data + block->used;
    block->used += rounded;
    ASAN_UNPOISON_MEMORY_REGION(at, bytes);
    return at;
}

void arena_reset(struct arena *arena)
{
    struct block *kept = arena->newest;
    arena->lacks_memory = false;
    if (kept == NULL) {
        return;
    }
    free_blocks(kept->older);
    kept->older = NULL;
    kept->used = 0;
    arena->bytes = kept->bytes;
    ASAN_POISON_MEMORY_REGION(kept->data, kept->bytes);
}

bool arena_lacks_memory(const struct arena *arena)
{
    return arena->lacks_memory;
}

ProtobufCAllocator *arena_protobuf_allocator(struct arena *arena)
{
    return &arena->allocator;
}
