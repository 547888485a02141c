#include <criterion/criterion.h>

#include "worker/cache/sparse_table.h"

enum { ROUNDS = 60 };

static uint64_t state = 42;

/* splitmix64 */
static uint32_t some_number(void)
{
    uint64_t x = state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((x ^ (x >> 31)) >> 32);
}

static bool has_bucket(const struct sparse_vector *vector, uint32_t bucket)
{
    for (size_t i = 0; i < vector->length; i++) {
        if (sparse_bucket(vector->items[i]) == bucket) {
            return true;
        }
    }
    return false;
}

/* Buckets are of the bits of `mask` alone. */
static void make(struct sparse_vector *vector, size_t length, uint32_t mask)
{
    *vector = (struct sparse_vector){.length = 0};
    while (vector->length < length) {
        const uint32_t bucket = some_number() & mask;
        if (!has_bucket(vector, bucket)) {
            const uint32_t weight = 1 + some_number() % SPARSE_WEIGHT_MAX;
            vector->items[vector->length++] = sparse_item(bucket, weight);
        }
    }
}

static uint32_t dot_of(const struct sparse_vector *a, const struct sparse_vector *b)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < a->length; i++) {
        for (size_t j = 0; j < b->length; j++) {
            if (sparse_bucket(a->items[i]) == sparse_bucket(b->items[j])) {
                sum += sparse_weight(a->items[i]) * sparse_weight(b->items[j]);
            }
        }
    }
    return sum;
}

static void check(const struct sparse_vector *a, const struct sparse_vector *b, size_t round)
{
    struct sparse_table table;
    sparse_table_fill(&table, a);
    cr_assert_eq(sparse_table_dot(&table, b->items, b->length), dot_of(a, b), "seed 42, round %zu",
                 round);
    for (size_t i = 0; i < a->length; i++) {
        cr_assert_eq(sparse_table_weight(&table, sparse_bucket(a->items[i])),
                     sparse_weight(a->items[i]), "seed 42, round %zu", round);
    }
}

Test(sparse_table, dot_is_that_of_all_pairs)
{
    struct sparse_vector a, b;
    for (size_t round = 0; round < ROUNDS; round++) {
        /* many in common; both ends of the lengths */
        make(&a, round % 3 == 0 ? SPARSE_ITEMS_MAX : some_number() % 200, 0x3FF);
        make(&b, some_number() % (SPARSE_ITEMS_MAX + 1), 0x3FF);
        check(&a, &b, round);
    }
}

Test(sparse_table, items_that_meet_in_a_slot_count)
{
    struct sparse_vector a, b;
    for (size_t round = 0; round < ROUNDS; round++) {
        /* sixteen slots for a hundred items */
        make(&a, 100, 0x924924);
        make(&b, 100, 0x924924);
        check(&a, &b, round);
    }
}

Test(sparse_table, bucket_0_and_the_last_are_told_from_no_item)
{
    struct sparse_table table;
    const struct sparse_vector none = {.length = 0};
    const struct sparse_vector ends = {
        .length = 2, .items = {sparse_item(0, 3), sparse_item(SPARSE_BUCKETS - 1, 5)}};
    sparse_table_fill(&table, &none);
    cr_assert_eq(sparse_table_dot(&table, ends.items, ends.length), 0);
    sparse_table_fill(&table, &ends);
    cr_assert_eq(sparse_table_dot(&table, ends.items, ends.length), 9 + 25);
    cr_assert_eq(sparse_table_weight(&table, 0), 3);
    cr_assert_eq(sparse_table_weight(&table, 1), 0);
}
