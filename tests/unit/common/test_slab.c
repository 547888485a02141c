#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/slab.h"

enum { ELEMENTS = 50000, WORDS = 20, STEPS = 400000 };

struct element {
    uint64_t words[WORDS];
};

static unsigned make_seed(void)
{
    const char *given = getenv("TEST_SEED");
    const unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
    cr_log_info("seed %u", seed);
    return seed;
}

static void fill(struct element *element, uint64_t number)
{
    for (size_t i = 0; i < WORDS; i++) {
        element->words[i] = number + i;
    }
}

static bool holds(const struct element *element, uint64_t number)
{
    for (size_t i = 0; i < WORDS; i++) {
        if (element->words[i] != number + i) {
            return false;
        }
    }
    return true;
}

static struct element *allocate(struct slab *slab)
{
    static const struct element zero;
    struct element *element = slab_alloc(slab);
    cr_assert_not_null(element);
    cr_assert_eq((uintptr_t)element % 64, 0);
    cr_assert_eq(memcmp(element, &zero, sizeof(zero)), 0);
    return element;
}

/* Nothing is handed out twice, and what is handed out is zero. */
Test(slab, elements_keep_what_is_in_them_whatever_comes_and_goes)
{
    const unsigned seed = make_seed();
    srand(seed);
    struct slab slab;
    slab_init(&slab, sizeof(struct element));
    struct element **elements = calloc(ELEMENTS, sizeof(struct element *));
    for (int step = 0; step < STEPS; step++) {
        const size_t i = (size_t)rand() % ELEMENTS;
        if (elements[i] == NULL) {
            elements[i] = allocate(&slab);
            fill(elements[i], i);
        } else {
            cr_assert(holds(elements[i], i), "seed %u", seed);
            slab_free(&slab, elements[i]);
            elements[i] = NULL;
        }
    }
    slab_finish(&slab);
    free(elements);
}

Test(slab, blocks_that_are_empty_go_back_but_for_one)
{
    struct slab slab;
    slab_init(&slab, sizeof(struct element));
    struct element **elements = calloc(ELEMENTS, sizeof(struct element *));
    for (size_t i = 0; i < ELEMENTS; i++) {
        elements[i] = allocate(&slab);
    }
    const size_t blocks = slab.full.length + slab.with_room.length;
    cr_assert_geq(blocks, 4);
    for (size_t i = 0; i < ELEMENTS; i++) {
        slab_free(&slab, elements[i]);
    }
    cr_assert_eq(slab.full.length, 0);
    cr_assert_eq(slab.with_room.length, 0);
    cr_assert_not_null(slab.spare);
    slab_finish(&slab);
    free(elements);
}

/* A queue whose oldest leave while new ones come stays in as many blocks as it needs. */
Test(slab, a_queue_that_moves_on_takes_no_more_blocks)
{
    struct slab slab;
    slab_init(&slab, sizeof(struct element));
    struct element **elements = calloc(ELEMENTS, sizeof(struct element *));
    size_t blocks_most = 0;
    for (size_t i = 0; i < 10 * ELEMENTS; i++) {
        struct element **at = &elements[i % ELEMENTS];
        if (*at != NULL) {
            slab_free(&slab, *at);
        }
        *at = allocate(&slab);
        const size_t blocks = slab.full.length + slab.with_room.length;
        blocks_most = blocks > blocks_most ? blocks : blocks_most;
    }
    cr_assert_leq(blocks_most, ELEMENTS * sizeof(struct element) / (2 << 20) * 5 / 4 + 3);
    slab_finish(&slab);
    free(elements);
}
