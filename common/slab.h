/*
 * slab: memory for very many elements of one size that come and go one by one.
 *
 * Blocks of 2 MiB, so that the kernel can back each with one large page: a million elements of 200 bytes are a hundred blocks, and
 * walking through them costs no walk through page tables. Elements lie on cache lines of their own and side by side, whatever is
 * allocated between them. What is freed last is used again first; a block that is empty goes back to the system, but for one. Not
 * for threads.
 */
#pragma once
#include <stddef.h>
#include "common/list.h"

struct block;
struct slab {
    size_t element_bytes; /* rounded up to cache lines */
    struct list with_room;
    struct list full;
    struct block *spare; /* empty; NULL: none */
};

/* `element_bytes` is at most 64 KiB. */
void slab_init(struct slab *slab, size_t element_bytes);
void slab_finish(struct slab *slab); /* elements that were not freed go with it */
/* All zero; NULL: no memory. */
void *slab_alloc(struct slab *slab);
void slab_free(struct slab *slab, void *element);
