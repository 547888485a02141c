#include "common/array.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

Test(array, keeps_what_is_in_it_as_it_grows)
{
    uint32_t *numbers = NULL;
    size_t capacity = 0;
    size_t moves = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        const size_t before = capacity;
        cr_assert_eq(array_reserve(&numbers, &capacity, i + 1, sizeof(*numbers), 4), 0);
        cr_assert_gt(capacity, i);
        moves += capacity != before;
        numbers[i] = i;
    }
    for (uint32_t i = 0; i < 10000; i++) {
        cr_assert_eq(numbers[i], i);
    }
    cr_assert_leq(moves, 13, "it doubles");
    free(numbers);
}

Test(array, grows_to_what_is_asked_where_that_is_more)
{
    char *text = NULL;
    size_t capacity = 0;
    cr_assert_eq(array_reserve(&text, &capacity, 1, 1, 16), 0);
    cr_assert_eq(capacity, 16);
    cr_assert_eq(array_reserve(&text, &capacity, 1000, 1, 16), 0);
    cr_assert_eq(capacity, 1000);
    free(text);
}

Test(array, is_as_it_was_when_there_is_no_memory)
{
    uint64_t *numbers = NULL;
    size_t capacity = 0;
    cr_assert_eq(array_reserve(&numbers, &capacity, 1, sizeof(*numbers), 4), 0);
    const uint64_t *before = numbers;
    cr_assert_eq(array_reserve(&numbers, &capacity, SIZE_MAX / 4, sizeof(*numbers), 4), -ENOMEM);
    cr_assert_eq(numbers, before);
    cr_assert_eq(capacity, 4);
    free(numbers);
}
