/*
 * A block's name is its page's number + 1, and in the low 12 bits its place in the page in
 * granules. Lists of pages and of regions are doubly linked by number + 1, so that 0 ends them.
 */
#include "worker/cache/block_pool.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/large_page.h"

enum {
    PAGE_GRANULES = BLOCK_PAGE_BYTES / BLOCK_GRANULE_BYTES,
    LINEAR_CLASSES = 8, /* 16, 32 … 128 bytes */
    REGIONS_FIRST = 16,
};
_Static_assert(BLOCK_REGION_PAGES *BLOCK_PAGE_BYTES == LARGE_PAGE_BYTES, "a region is one page");
_Static_assert(PAGE_GRANULES == 1 << 12, "a place in a page has 12 bits");

struct page {
    uint32_t next;
    uint32_t previous;
    uint16_t used;  /* blocks that are out */
    uint16_t fresh; /* granules that were never given out start here */
    uint16_t free;  /* place + 1 of a block that came back; its first bytes name the next */
    uint8_t class;
};

struct block_region {
    uint32_t next;
    uint32_t previous;
    uint32_t free_pages; /* one bit each */
    struct page pages[BLOCK_REGION_PAGES];
};

static const uint32_t ALL_PAGES = UINT32_MAX;

static uint32_t class_of(size_t bytes)
{
    const uint32_t granules = (uint32_t)((bytes + BLOCK_GRANULE_BYTES - 1) / BLOCK_GRANULE_BYTES);
    if (granules <= LINEAR_CLASSES) {
        return granules - 1;
    }
    const uint32_t doubling = 31U - (uint32_t)__builtin_clz(granules - 1);
    const uint32_t step = (granules - 1 - (1U << doubling)) >> (doubling - 2);
    return LINEAR_CLASSES + (doubling - 3) * 4 + step;
}

static uint32_t class_granules(uint32_t class)
{
    assert(class < BLOCK_CLASSES);
    if (class < LINEAR_CLASSES) {
        return class + 1;
    }
    const uint32_t doubling = 3 + (class - LINEAR_CLASSES) / 4;
    const uint32_t step = (class - LINEAR_CLASSES) % 4;
    return (1U << doubling) + ((step + 1) << (doubling - 2));
}

static struct page *page_at(const struct block_pool *pool, uint32_t number)
{
    return &pool->regions[number / BLOCK_REGION_PAGES]->pages[number % BLOCK_REGION_PAGES];
}

static bool page_has_room(const struct page *page)
{
    return page->free != 0 || page->fresh + class_granules(page->class) <= PAGE_GRANULES;
}

static void region_link(struct block_pool *pool, uint32_t number)
{
    struct block_region *region = pool->regions[number];
    region->previous = 0;
    region->next = pool->with_room;
    if (region->next != 0) {
        pool->regions[region->next - 1]->previous = number + 1;
    }
    pool->with_room = number + 1;
}

static void region_unlink(struct block_pool *pool, const struct block_region *region)
{
    if (region->next != 0) {
        pool->regions[region->next - 1]->previous = region->previous;
    }
    if (region->previous != 0) {
        pool->regions[region->previous - 1]->next = region->next;
    } else {
        pool->with_room = region->next;
    }
}

static void page_link(struct block_pool *pool, uint32_t number)
{
    struct page *page = page_at(pool, number);
    page->previous = 0;
    page->next = pool->partial[page->class];
    if (page->next != 0) {
        page_at(pool, page->next - 1)->previous = number + 1;
    }
    pool->partial[page->class] = number + 1;
}

static void page_unlink(struct block_pool *pool, const struct page *page)
{
    if (page->next != 0) {
        page_at(pool, page->next - 1)->previous = page->previous;
    }
    if (page->previous != 0) {
        page_at(pool, page->previous - 1)->next = page->next;
    } else {
        pool->partial[page->class] = page->next;
    }
}

static bool regions_reserve(struct block_pool *pool)
{
    if (pool->regions_length < pool->regions_capacity) {
        return true;
    }
    const uint32_t capacity =
        pool->regions_capacity == 0 ? REGIONS_FIRST : pool->regions_capacity * 2;
    uint8_t **memories = realloc(pool->memories, capacity * sizeof(*memories));
    if (memories == NULL) {
        return false;
    }
    pool->memories = memories;
    struct block_region **regions =
        realloc(pool->regions, capacity * sizeof(struct block_region *));
    if (regions == NULL) {
        return false;
    }
    pool->regions = regions;
    pool->regions_capacity = capacity;
    return true;
}

/* A number that is not in use; regions are few enough to look through. */
static bool region_number(struct block_pool *pool, uint32_t *ret_number)
{
    if (pool->regions_alive < pool->regions_length) {
        for (uint32_t i = 0; i < pool->regions_length; i++) {
            if (pool->memories[i] == NULL) {
                *ret_number = i;
                return true;
            }
        }
    }
    if (pool->regions_length == BLOCK_REGIONS_MAX || !regions_reserve(pool)) {
        return false;
    }
    pool->memories[pool->regions_length] = NULL;
    pool->regions[pool->regions_length] = NULL;
    *ret_number = pool->regions_length++;
    return true;
}

static bool region_add(struct block_pool *pool)
{
    uint32_t number;
    if (!region_number(pool, &number)) {
        return false;
    }
    struct block_region *region = calloc(1, sizeof(*region));
    uint8_t *memory = large_page_alloc();
    if (region == NULL || memory == NULL) {
        free(region);
        free(memory);
        return false;
    }
    region->free_pages = ALL_PAGES;
    pool->memories[number] = memory;
    pool->regions[number] = region;
    pool->regions_alive++;
    pool->regions_empty++;
    region_link(pool, number);
    return true;
}

static void region_release(struct block_pool *pool, uint32_t number)
{
    free(pool->memories[number]);
    free(pool->regions[number]);
    pool->memories[number] = NULL;
    pool->regions[number] = NULL;
    pool->regions_alive--;
}

static bool page_take(struct block_pool *pool, uint32_t class)
{
    if (pool->with_room == 0 && !region_add(pool)) {
        return false;
    }
    const uint32_t number = pool->with_room - 1;
    struct block_region *region = pool->regions[number];
    const uint32_t at = (uint32_t)__builtin_ctz(region->free_pages);
    pool->regions_empty -= region->free_pages == ALL_PAGES;
    region->free_pages &= ~(1U << at);
    if (region->free_pages == 0) {
        region_unlink(pool, region);
    }
    region->pages[at] = (struct page){.class = (uint8_t) class};
    page_link(pool, number * BLOCK_REGION_PAGES + at);
    return true;
}

static void page_give_back(struct block_pool *pool, uint32_t page_number)
{
    const uint32_t number = page_number / BLOCK_REGION_PAGES;
    struct block_region *region = pool->regions[number];
    page_unlink(pool, page_at(pool, page_number));
    if (region->free_pages == 0) {
        region_link(pool, number);
    }
    region->free_pages |= 1U << page_number % BLOCK_REGION_PAGES;
    if (region->free_pages != ALL_PAGES) {
        return;
    }
    if (pool->regions_empty == 0) {
        pool->regions_empty = 1; /* kept: the next page may be asked for at once */
        return;
    }
    region_unlink(pool, region);
    region_release(pool, number);
}

void block_pool_init(struct block_pool *pool)
{
    *pool = (struct block_pool){.memories = NULL};
}

void block_pool_finish(struct block_pool *pool)
{
    for (uint32_t i = 0; i < pool->regions_length; i++) {
        free(pool->memories[i]);
        free(pool->regions[i]);
    }
    free(pool->memories);
    free(pool->regions);
    block_pool_init(pool);
}

uint32_t block_pool_alloc(struct block_pool *pool, size_t bytes)
{
    assert(bytes > 0);
    assert(bytes <= BLOCK_BYTES_MAX);
    const uint32_t class = class_of(bytes);
    if (pool->partial[class] == 0 && !page_take(pool, class)) {
        return 0;
    }
    const uint32_t number = pool->partial[class] - 1;
    struct page *page = page_at(pool, number);
    uint32_t place;
    if (page->free != 0) {
        place = page->free - 1U;
        memcpy(&page->free, block_pool_at(pool, (number + 1) << 12 | place), sizeof(page->free));
    } else {
        place = page->fresh;
        page->fresh = (uint16_t)(page->fresh + class_granules(class));
    }
    page->used++;
    if (!page_has_room(page)) {
        page_unlink(pool, page);
    }
    pool->bytes_used += (size_t)class_granules(class) * BLOCK_GRANULE_BYTES;
    return (number + 1) << 12 | place;
}

void block_pool_free(struct block_pool *pool, uint32_t block)
{
    const uint32_t number = (block >> 12) - 1;
    struct page *page = page_at(pool, number);
    assert(page->used > 0);
    const bool had_room = page_has_room(page);
    memcpy(block_pool_at(pool, block), &page->free, sizeof(page->free));
    page->free = (uint16_t)((block & 0xfff) + 1);
    page->used--;
    pool->bytes_used -= (size_t)class_granules(page->class) * BLOCK_GRANULE_BYTES;
    if (!had_room) {
        page_link(pool, number);
    }
    if (page->used == 0) {
        page_give_back(pool, number);
    }
}

size_t block_pool_capacity(const struct block_pool *pool, uint32_t block)
{
    return (size_t)class_granules(page_at(pool, (block >> 12) - 1)->class) * BLOCK_GRANULE_BYTES;
}

size_t block_pool_bytes(const struct block_pool *pool)
{
    return (size_t)pool->regions_alive * (LARGE_PAGE_BYTES + sizeof(struct block_region)) +
           (size_t)pool->regions_capacity * (sizeof(uint8_t *) + sizeof(struct block_region *));
}
