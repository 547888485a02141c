#include <criterion/criterion.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include "common/heap.h"

enum { ELEMENTS = 500, STEPS = 50000 };

struct element {
    int padding; /* so that the position does not lie at 0 */
    uint32_t position;
    uint64_t key;
};

static unsigned make_seed(void)
{
    const char *given = getenv("TEST_SEED");
    const unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
    cr_log_info("seed %u", seed);
    return seed;
}

static void check_invariants(const struct heap *heap, unsigned seed)
{
    for (uint32_t i = 0; i < heap->length; i++) {
        const struct element *element = heap->nodes[i].element;
        cr_assert_eq(element->position, i, "seed %u", seed);
        cr_assert_eq(element->key, heap->nodes[i].key, "seed %u", seed);
        cr_assert(i == 0 || heap->nodes[(i - 1) / 4].key <= heap->nodes[i].key, "seed %u", seed);
    }
}

static uint64_t smallest_key(const struct heap *heap)
{
    uint64_t smallest = UINT64_MAX;
    for (uint32_t i = 0; i < heap->length; i++) {
        smallest = heap->nodes[i].key < smallest ? heap->nodes[i].key : smallest;
    }
    return smallest;
}

/* Any mixture of pushes, pops and removals leaves a heap, and the smallest on top. */
Test(heap, stays_a_heap_under_random_operations)
{
    const unsigned seed = make_seed();
    srand(seed);
    static struct element elements[ELEMENTS];
    struct heap heap;
    heap_init(&heap, offsetof(struct element, position));
    for (size_t i = 0; i < ELEMENTS; i++) {
        elements[i].position = HEAP_NONE;
    }
    uint32_t length = 0;
    for (int step = 0; step < STEPS; step++) {
        struct element *element = &elements[rand() % ELEMENTS];
        if (rand() % 8 == 0) {
            const uint64_t smallest = smallest_key(&heap);
            const struct element *popped = heap_pop(&heap);
            cr_assert_eq(popped == NULL, length == 0);
            cr_assert(popped == NULL || popped->key == smallest, "seed %u", seed);
            cr_assert(popped == NULL || popped->position == HEAP_NONE, "seed %u", seed);
            length -= popped != NULL;
        } else if (heap_contains(&heap, element)) {
            heap_remove(&heap, element);
            cr_assert_not(heap_contains(&heap, element));
            length--;
        } else {
            element->key = (uint64_t)rand() % 1000;
            cr_assert_eq(heap_push(&heap, element, element->key), 0);
            length++;
        }
        cr_assert_eq(heap.length, length);
        if (step % 64 == 0) {
            check_invariants(&heap, seed);
        }
    }
    heap_finish(&heap);
}

Test(heap, gives_elements_in_order_of_their_keys)
{
    const unsigned seed = make_seed();
    srand(seed);
    static struct element elements[ELEMENTS];
    struct heap heap;
    heap_init(&heap, offsetof(struct element, position));
    for (size_t i = 0; i < ELEMENTS; i++) {
        elements[i].key = (uint64_t)rand();
        cr_assert_eq(heap_push(&heap, &elements[i], elements[i].key), 0);
    }
    uint64_t before = 0;
    for (size_t i = 0; i < ELEMENTS; i++) {
        cr_assert_eq(heap_peek_key(&heap), ((struct element *)heap_peek(&heap))->key);
        const struct element *element = heap_pop(&heap);
        cr_assert_geq(element->key, before, "seed %u", seed);
        before = element->key;
    }
    cr_assert_null(heap_pop(&heap));
    heap_finish(&heap);
}

enum { MANY = 6000 };

static struct element *make_elements(size_t length)
{
    struct element *elements = calloc(length, sizeof(*elements));
    cr_assert_not_null(elements);
    for (size_t i = 0; i < length; i++) {
        elements[i].position = HEAP_NONE;
    }
    return elements;
}

static struct element *smallest_of(struct element *elements, size_t length, const struct heap *heap)
{
    struct element *smallest = NULL;
    for (size_t i = 0; i < length; i++) {
        if (heap_contains(heap, &elements[i]) && (smallest == NULL || elements[i].key < smallest->key)) {
            smallest = &elements[i];
        }
    }
    return smallest;
}

/* Keys that grow, as those of three tiers do, and some that do not; then the smallest is taken, or any other. */
Test(heap, stays_a_heap_when_it_is_long_and_most_keys_grow)
{
    const unsigned seed = make_seed();
    srand(seed);
    struct element *elements = make_elements(MANY);
    struct heap heap;
    heap_init(&heap, offsetof(struct element, position));
    uint64_t clock = 0;
    uint32_t length = 0;
    for (int step = 0; step < 20 * MANY; step++) {
        struct element *element = &elements[rand() % MANY];
        const bool is_growing = step % (5 * MANY) < 3 * MANY;
        if (step % 97 == 0 && length > 0) {
            const struct element *smallest = smallest_of(elements, MANY, &heap);
            cr_assert_eq(heap_peek_key(&heap), smallest->key, "seed %u", seed);
            struct element *popped = heap_pop(&heap);
            cr_assert_eq(popped->key, smallest->key, "seed %u", seed);
            cr_assert_eq(popped->position, HEAP_NONE);
            length--;
        } else if (!heap_contains(&heap, element)) {
            static const uint64_t ahead[] = {0, 1000000, 50000000};
            element->key = rand() % 10 == 0 ? (uint64_t)rand() : ++clock + ahead[rand() % 3];
            cr_assert_eq(heap_push(&heap, element, element->key), 0);
            cr_assert(heap_contains(&heap, element));
            length++;
        } else if (!is_growing) {
            heap_remove(&heap, element);
            cr_assert_not(heap_contains(&heap, element));
            length--;
        }
        cr_assert_eq(heap.length, length);
    }
    uint64_t before = 0;
    for (; length > 0; length--) {
        const struct element *popped = heap_pop(&heap);
        cr_assert_geq(popped->key, before, "seed %u", seed);
        before = popped->key;
    }
    cr_assert_null(heap_pop(&heap));
    heap_finish(&heap);
    free(elements);
}

/* A few that stay keep no chunk for themselves each. */
Test(heap, what_is_left_of_a_long_queue_goes_to_the_tree)
{
    enum { LONG = 100000, EVERY = 50 };
    struct element *elements = make_elements(LONG);
    struct heap heap;
    heap_init(&heap, offsetof(struct element, position));
    for (size_t i = 0; i < LONG; i++) {
        cr_assert_eq(heap_push(&heap, &elements[i], i), 0);
    }
    const uint32_t before = heap.nodes_length;
    for (size_t i = 0; i < LONG; i++) {
        if (i % EVERY != 0) {
            heap_remove(&heap, &elements[i]);
        }
    }
    cr_assert_eq(heap.length, LONG / EVERY);
    cr_assert_lt(before, LONG / 50);
    cr_assert_geq(heap.nodes_length, LONG / EVERY - 100);
    for (size_t i = 0; i < LONG; i += EVERY) {
        cr_assert_eq(heap_pop(&heap), &elements[i]);
    }
    heap_finish(&heap);
    free(elements);
}

/* Pushed in order, as jobs are, and a third of them removed; the first ones are counted one by one. */
Test(heap, counting_below_is_exact_at_both_ends_and_near_between)
{
    enum { LENGTH = 300000, LOOKED_AT_MAX = 16384 };
    struct element *elements = calloc(LENGTH, sizeof(*elements));
    struct heap heap;
    heap_init(&heap, offsetof(struct element, position));
    for (size_t i = 0; i < LENGTH; i++) {
        elements[i] = (struct element){.position = HEAP_NONE, .key = 3 * i + 7};
        cr_assert_eq(heap_push(&heap, &elements[i], elements[i].key), 0);
    }
    for (size_t i = 0; i < LENGTH; i += 3) {
        heap_remove(&heap, &elements[i]);
    }
    uint32_t below = 0;
    for (size_t i = 0; i < LENGTH; i++) {
        const uint32_t counted = heap_count_below(&heap, elements[i].key, LOOKED_AT_MAX);
        const uint32_t off = counted > below ? counted - below : below - counted;
        cr_assert(off <= (below <= LOOKED_AT_MAX ? 0 : below / 50), "%u for %u", counted, below);
        below += i % 3 != 0;
    }
    cr_assert_eq(heap_count_below(&heap, UINT64_MAX, LOOKED_AT_MAX), heap.length);
    heap_finish(&heap);
    free(elements);
}

Test(heap, empty_heap_has_no_top_and_the_largest_key)
{
    struct heap heap;
    heap_init(&heap, 0);
    cr_assert_null(heap_peek(&heap));
    cr_assert_eq(heap_peek_key(&heap), UINT64_MAX);
    heap_finish(&heap);
}

Test(heap, an_element_that_was_never_in_is_not_contained)
{
    struct heap heap;
    heap_init(&heap, offsetof(struct element, position));
    struct element in = {.position = HEAP_NONE}, out = {.position = 0};
    cr_assert_not(heap_contains(&heap, &out));
    cr_assert_eq(heap_push(&heap, &in, 5), 0);
    cr_assert_not(heap_contains(&heap, &out), "its position belongs to another");
    heap_finish(&heap);
}

Test(heap, reserved_room_takes_pushes_without_moving)
{
    struct heap heap;
    heap_init(&heap, offsetof(struct element, position));
    cr_assert_eq(heap_reserve(&heap, ELEMENTS), 0);
    const struct heap_node *nodes = heap.nodes;
    static struct element elements[ELEMENTS];
    for (size_t i = 0; i < ELEMENTS; i++) {
        cr_assert_eq(heap_push(&heap, &elements[i], i), 0);
    }
    cr_assert_eq(heap.nodes, nodes);
    heap_finish(&heap);
}

Test(heap, more_elements_than_positions_are_refused)
{
    struct heap heap;
    heap_init(&heap, 0);
    cr_assert_eq(heap_reserve(&heap, HEAP_NONE), -ENOMEM);
    cr_assert_null(heap.nodes);
}

Test(heap, keys_from_times_sort_like_the_times)
{
    const int64_t times[] = {INT64_MIN, -5, -1, 0, 1, 1000, INT64_MAX};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        cr_assert_eq(heap_ms_from_key(heap_key_from_ms(times[i])), times[i]);
        cr_assert(i == 0 || heap_key_from_ms(times[i - 1]) < heap_key_from_ms(times[i]));
    }
}
