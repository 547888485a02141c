/*
 * heap: a min-heap of pointers with a 64-bit key, used for ready queues, timers and deadlines.
 *
 * Four children a node, keys beside the pointers, so a comparison touches no foreign memory. Each
 * element holds its own position (a uint32_t field whose offset the heap knows), so any element is
 * removed in O(log n). Once there are many, those whose keys came in order are kept in runs beside
 * the tree, where everything is O(1) (heap_runs.h). Equal keys come out in no defined order: put the
 * age into the key.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/heap_runs.h"

#define HEAP_NONE UINT32_MAX /* the position of an element that is in no heap */
#define HEAP_LENGTH_MAX (INT32_MAX) /* positions above are those in runs */

struct heap {
    struct heap_node *nodes; /* the tree */
    uint32_t nodes_length;
    uint32_t length;   /* of tree and runs */
    uint32_t capacity; /* of the tree, which takes all if need be */
    struct heap_runs *runs; /* NULL: it was never long */
    size_t position_offset; /* of the element's uint32_t position */
};

void heap_init(struct heap *heap, size_t position_offset);
void heap_finish(struct heap *heap); /* releases the array; elements are not touched */
/* Makes room for `elements` more, so that so many pushes cannot fail. Errors: -ENOMEM. */
MUST_USE int heap_reserve(struct heap *heap, uint32_t elements);
MUST_USE int heap_push(struct heap *heap, void *element, uint64_t key); /* Errors: -ENOMEM */
void *heap_peek(const struct heap *heap);                               /* NULL when empty */
uint64_t heap_peek_key(const struct heap *heap);                        /* UINT64_MAX when empty */
void *heap_pop(struct heap *heap);                                      /* NULL when empty */
void heap_remove(struct heap *heap, void *element);                     /* asserts that it is in */
bool heap_contains(const struct heap *heap, const void *element);
/*
 * How many have a smaller key. Of a tree with more than `looked_at_max` nodes every nth stands for n of them: it holds its keys
 * in no order that a stride could follow, so this is as good as a random sample. Runs: heap_runs.h. So it takes the same time
 * however long the heap is.
 */
uint32_t heap_count_below(const struct heap *heap, uint64_t key, uint32_t looked_at_max);
/* A time that may be negative, as a key that sorts the same. */
static inline uint64_t heap_key_from_ms(int64_t ms)
{
    return (uint64_t)ms ^ (UINT64_C(1) << 63);
}
static inline int64_t heap_ms_from_key(uint64_t key)
{
    return (int64_t)(key ^ (UINT64_C(1) << 63));
}
