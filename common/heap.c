#include "common/heap.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
    CHILDREN = 4,
    CAPACITY_FIRST = 16,
    RUNS_FROM = 1024, /* elements; fewer are in the cache, whatever their order */
};

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

/* The child with the smallest key, or `nodes_length` when there is none. */
static uint32_t smallest_child(const struct heap *heap, uint32_t position)
{
    const uint64_t first = (uint64_t)position * CHILDREN + 1;
    if (first >= heap->nodes_length) {
        return heap->nodes_length;
    }
    const uint64_t end =
        first + CHILDREN < heap->nodes_length ? first + CHILDREN : heap->nodes_length;
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
        if (child == heap->nodes_length || node.key <= heap->nodes[child].key) {
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
    heap_runs_destroy(&heap->runs);
    *heap = (struct heap){.position_offset = heap->position_offset};
}

int heap_reserve(struct heap *heap, uint32_t elements)
{
    if (elements <= heap->capacity - heap->length) {
        return 0;
    }
    if (elements > HEAP_LENGTH_MAX - heap->length) {
        return -ENOMEM;
    }
    uint64_t capacity = heap->capacity == 0 ? CAPACITY_FIRST : (uint64_t)heap->capacity * 2;
    if (capacity < (uint64_t)heap->length + elements) {
        capacity = (uint64_t)heap->length + elements;
    }
    if (capacity > HEAP_LENGTH_MAX) {
        capacity = HEAP_LENGTH_MAX;
    }
    struct heap_node *nodes = reallocarray(heap->nodes, capacity, sizeof(*nodes));
    if (nodes == NULL) {
        return -ENOMEM;
    }
    heap->nodes = nodes;
    heap->capacity = (uint32_t)capacity;
    return 0;
}

static bool push_in_order(struct heap *heap, struct heap_node node)
{
    if (heap->length <= RUNS_FROM) {
        return false;
    }
    if (heap->runs == NULL) {
        heap->runs = heap_runs_create();
    }
    return heap->runs != NULL && heap_runs_push(heap->runs, node, position_of(heap, node.element));
}

int heap_push(struct heap *heap, void *element, uint64_t key)
{
    const int r = heap_reserve(heap, 1);
    if (r < 0) {
        return r;
    }
    const struct heap_node node = {.key = key, .element = element};
    heap->length++;
    if (!push_in_order(heap, node)) {
        sift_up(heap, heap->nodes_length++, node);
    }
    return 0;
}

static const struct heap_node *first_of(const struct heap *heap)
{
    const struct heap_node *in_tree = heap->nodes_length == 0 ? NULL : &heap->nodes[0];
    const struct heap_node *in_runs = heap->runs == NULL ? NULL : heap_runs_first(heap->runs);
    if (in_tree == NULL || in_runs == NULL) {
        return in_tree == NULL ? in_runs : in_tree;
    }
    return in_runs->key < in_tree->key ? in_runs : in_tree;
}

void *heap_peek(const struct heap *heap)
{
    const struct heap_node *first = first_of(heap);
    return first == NULL ? NULL : first->element;
}

uint64_t heap_peek_key(const struct heap *heap)
{
    const struct heap_node *first = first_of(heap);
    return first == NULL ? UINT64_MAX : first->key;
}

void *heap_pop(struct heap *heap)
{
    void *element = heap_peek(heap);
    if (element != NULL) {
        heap_remove(heap, element);
    }
    return element;
}

/* Its room was reserved when it was pushed. */
static void move_to_tree(void *context, struct heap_node node)
{
    struct heap *heap = context;
    sift_up(heap, heap->nodes_length++, node);
}

static void remove_from_tree(struct heap *heap, uint32_t hole)
{
    const struct heap_node last = heap->nodes[--heap->nodes_length];
    if (hole == heap->nodes_length) {
        return;
    }
    if (hole > 0 && last.key < heap->nodes[(hole - 1) / CHILDREN].key) {
        sift_up(heap, hole, last);
    } else {
        sift_down(heap, hole, last);
    }
}

void heap_remove(struct heap *heap, void *element)
{
    assert(heap_contains(heap, element));
    const uint32_t position = *position_of(heap, element);
    *position_of(heap, element) = HEAP_NONE;
    heap->length--;
    if (position < heap->nodes_length) {
        remove_from_tree(heap, position);
    } else {
        heap_runs_remove(heap->runs, position, move_to_tree, heap);
    }
}

bool heap_contains(const struct heap *heap, const void *element)
{
    const uint32_t position =
        *(const uint32_t *)(const void *)((const char *)element + heap->position_offset);
    if (position < heap->nodes_length) {
        return heap->nodes[position].element == element;
    }
    return heap->runs != NULL && heap_runs_contain(heap->runs, position, element);
}

uint32_t heap_count_below(const struct heap *heap, uint64_t key, uint32_t looked_at_max)
{
    const uint32_t stride = heap->nodes_length / looked_at_max + 1;
    uint32_t below = 0;
    for (uint32_t i = 0; i < heap->nodes_length; i += stride) {
        below += heap->nodes[i].key < key ? stride : 0;
    }
    below = below < heap->nodes_length ? below : heap->nodes_length;
    return below + (heap->runs == NULL ? 0 : heap_runs_count_below(heap->runs, key, looked_at_max));
}
