#include "common/slab.h"
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "common/large_page.h"
#include "common/poison.h"

enum { BLOCK_BYTES = LARGE_PAGE_BYTES, CACHE_LINE_BYTES = 64, ELEMENT_BYTES_MAX = 64 << 10 };

/* An element that was freed. */
struct vacancy {
    struct vacancy *next;
};

/* At the begin of its memory, which is aligned to its size: the block of an element is known by the
 * address. */
struct block {
    struct list_link link;
    struct vacancy *vacancies;
    uint32_t used;  /* handed out now */
    uint32_t fresh; /* the first that never was */
    _Alignas(CACHE_LINE_BYTES) unsigned char elements[];
};

void slab_init(struct slab *slab, size_t element_bytes)
{
    assert(element_bytes > 0);
    assert(element_bytes <= ELEMENT_BYTES_MAX);
    slab->element_bytes = (element_bytes + CACHE_LINE_BYTES - 1) & ~(size_t)(CACHE_LINE_BYTES - 1);
    list_init(&slab->with_room);
    list_init(&slab->full);
    slab->spare = NULL;
}

static uint32_t block_length(const struct slab *slab)
{
    return (uint32_t)((BLOCK_BYTES - offsetof(struct block, elements)) / slab->element_bytes);
}

static struct block *block_of(const void *element)
{
    const char *at = element;
    return (struct block *)(void *)(uintptr_t)(at - (uintptr_t)at % BLOCK_BYTES);
}

static void free_block(struct block *block)
{
    ASAN_UNPOISON_MEMORY_REGION(block, BLOCK_BYTES);
    free(block);
}

static void free_blocks(struct list *list)
{
    struct list_link *link;
    while ((link = list_first(list)) != NULL) {
        list_remove(list, link);
        free_block(CONTAINER_OF(link, struct block, link));
    }
}

void slab_finish(struct slab *slab)
{
    free_blocks(&slab->with_room);
    free_blocks(&slab->full);
    if (slab->spare != NULL) {
        free_block(TAKE(slab->spare));
    }
}

static struct block *add_block(struct slab *slab)
{
    struct block *block = slab->spare == NULL ? large_page_alloc() : TAKE(slab->spare);
    if (block == NULL) {
        return NULL;
    }
    memset(block, 0, sizeof(*block));
    ASAN_POISON_MEMORY_REGION(block->elements, BLOCK_BYTES - offsetof(struct block, elements));
    list_prepend(&slab->with_room, &block->link);
    return block;
}

static void *take_element(struct slab *slab, struct block *block)
{
    void *element;
    if (block->vacancies != NULL) {
        element = block->vacancies;
        ASAN_UNPOISON_MEMORY_REGION(element, slab->element_bytes);
        block->vacancies = block->vacancies->next;
    } else {
        element = block->elements + block->fresh++ * slab->element_bytes;
        ASAN_UNPOISON_MEMORY_REGION(element, slab->element_bytes);
    }
    block->used++;
    return memset(element, 0, slab->element_bytes);
}

void *slab_alloc(struct slab *slab)
{
    struct block *block = list_is_empty(&slab->with_room)
                              ? add_block(slab)
                              : CONTAINER_OF(list_first(&slab->with_room), struct block, link);
    if (block == NULL) {
        return NULL;
    }
    void *element = take_element(slab, block);
    if (block->used == block_length(slab)) {
        list_remove(&slab->with_room, &block->link);
        list_append(&slab->full, &block->link);
    }
    return element;
}

/* A queue that moves on empties a block about as often as it wants one: one is kept for that. */
static void give_back(struct slab *slab, struct block *block)
{
    if (slab->spare == NULL) {
        slab->spare = block;
    } else {
        free_block(block);
    }
}

/* What was freed last is handed out next: it is in the processor's cache. */
void slab_free(struct slab *slab, void *element)
{
    struct block *block = block_of(element);
    if (block->used == block_length(slab)) {
        list_remove(&slab->full, &block->link);
        list_prepend(&slab->with_room, &block->link);
    }
    struct vacancy *vacancy = element;
    vacancy->next = block->vacancies;
    block->vacancies = vacancy;
    ASAN_POISON_MEMORY_REGION(element, slab->element_bytes);
    block->used--;
    if (block->used == 0) {
        list_remove(&slab->with_room, &block->link);
        give_back(slab, block);
    }
}
