#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/key_sort.h"

enum { LENGTH_MAX = 600, ROUNDS = 200 };

static uint64_t state = 42;

/* splitmix64 */
static uint64_t some_number(void)
{
    uint64_t x = state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

Test(key_sort, sorts_as_qsort_does)
{
    uint64_t keys[LENGTH_MAX], wanted[LENGTH_MAX], scratch[LENGTH_MAX];
    for (size_t round = 0; round < ROUNDS; round++) {
        const size_t length = some_number() % (LENGTH_MAX + 1);
        /* few bits as well, so that keys are equal, and bytes are shared */
        const uint64_t mask = some_number() & some_number() & some_number();
        for (size_t i = 0; i < length; i++) {
            keys[i] = wanted[i] = round % 2 == 0 ? some_number() : some_number() & mask;
        }
        qsort(wanted, length, sizeof(*wanted), by_size);
        key_sort(keys, scratch, length);
        for (size_t i = 0; i < length; i++) {
            cr_assert_eq(keys[i], wanted[i], "seed 42, round %zu, place %zu", round, i);
        }
    }
}

Test(key_sort, leaves_none_and_one_alone)
{
    uint64_t key = 7, scratch = 0;
    key_sort(NULL, NULL, 0);
    key_sort(&key, &scratch, 1);
    cr_assert_eq(key, 7);
}
