#include "common/heap.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { CHILDREN = 4, CAPACITY_FIRST = 16 };

static uint32_t *position_of(const struct heap *heap, void *element)
{
    return (uint32_t *)(void *)((char *)element + heap->position_offset);
}

static void place(struct heap *heap, uint32_t position, struct heap_node node)
{
    heap->nodes[position] = node;
    *position_of(heap, node.element) = position;
}

/* Moves the hole at `position` up until `node` fits into it. */
static void sift_up(struct heap *heap, uint32_t position, struct heap_node node)
{
    while (position > 0) {
        const uint32_t parent = (position - 1) / CHILDREN;
        if (heap->nodes[parent].key <= node.key) {
            break;
        }
        place(heap, position, heap->nodes[parent]);
        position = parent;
    }
    place(heap, position, node);
}

/* The child with the smallest key, or `length` when there is none. */
static uint32_t smallest_child(const struct heap *heap, uint32_t position)
{
    const uint64_t first = (uint64_t)position * CHILDREN + 1;
    if (first >= heap->length) {
        return heap->length;
    }
    const uint64_t end = first + CHILDREN < heap->length ? first + CHILDREN : heap->length;
    uint32_t best = (uint32_t)first;
    for (uint32_t child = best + 1; child < end; child++) {
        if (heap->nodes[child].key < heap->nodes[best].key) {
            best = child;
        }
    }
    return best;
}

static void sift_down(struct heap *heap, uint32_t position, struct heap_node node)
{
    for (;;) {
        const uint32_t child = smallest_child(heap, position);
        if (child == heap->length || node.key <= heap->nodes[child].key) {
            break;
        }
        place(heap, position, heap->nodes[child]);
        position = child;
    }
    place(heap, position, node);
}

void heap_init(struct heap *heap, size_t position_offset)
{
    *heap = (struct heap){.position_offset = position_offset};
}

void heap_finish(struct heap *heap)
{
    free(heap->nodes);
    *heap = (struct heap){.position_offset = heap->position_offset};
}

int heap_reserve(struct heap *heap, uint32_t elements)
{
    if (elements <= heap->capacity - heap->length) {
        return 0;
    }
    if (elements >= HEAP_NONE - heap->length) {
        return -ENOMEM; /* the largest position is HEAP_NONE - 1 */
    }
    uint64_t capacity = heap->capacity == 0 ? CAPACITY_FIRST : (uint64_t)heap->capacity * 2;
    if (capacity < (uint64_t)heap->length + elements) {
        capacity = (uint64_t)heap->length + elements;
    }
    if (capacity > HEAP_NONE) {
        capacity = HEAP_NONE;
    }
    struct heap_node *nodes = reallocarray(heap->nodes, capacity, sizeof(*nodes));
    if (nodes == NULL) {
        return -ENOMEM;
    }
    heap->nodes = nodes;
    heap->capacity = (uint32_t)capacity;
    return 0;
}

int heap_push(struct heap *heap, void *element, uint64_t key)
{
    const int r = heap_reserve(heap, 1);
    if (r < 0) {
        return r;
    }
    sift_up(heap, heap->length++, (struct heap_node){.key = key, .element = element});
    return 0;
}

void *heap_peek(const struct heap *heap)
{
    return heap->length == 0 ? NULL : heap->nodes[0].element;
}

uint64_t heap_peek_key(const struct heap *heap)
{
    return heap->length == 0 ? UINT64_MAX : heap->nodes[0].key;
}

void *heap_pop(struct heap *heap)
{
    void *element = heap_peek(heap);
    if (element != NULL) {
        heap_remove(heap, element);
    }
    return element;
}

void heap_remove(struct heap *heap, void *element)
{
    assert(heap_contains(heap, element));
    const uint32_t hole = *position_of(heap, element);
    *position_of(heap, element) = HEAP_NONE;
    const struct heap_node last = heap->nodes[--heap->length];
    if (hole == heap->length) {
        return;
    }
    if (hole > 0 && last.key < heap->nodes[(hole - 1) / CHILDREN].key) {
        sift_up(heap, hole, last);
    } else {
        sift_down(heap, hole, last);
    }
}

bool heap_contains(const struct heap *heap, const void *element)
{
    const uint32_t position =
        *(const uint32_t *)(const void *)((const char *)element + heap->position_offset);
    return position < heap->length && heap->nodes[position].element == element;
}
