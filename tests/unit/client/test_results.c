#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "client/cli/results.h"

static char *written;
static size_t bytes;

static void write_number(struct results *results, uint64_t place)
{
    char text[32];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)place);
    cr_assert_eq(results_write(results, place, strdup(text)), 0);
}

Test(results, input_order_holds_back_what_came_early)
{
    struct results results;
    FILE *out = open_memstream(&written, &bytes);
    cr_assert_eq(results_init(&results, out, true, 3), 0);
    for (uint64_t i = 0; i < 3; i++) {
        cr_assert(results_has_room(&results));
        cr_assert_eq(results_reserve(&results), i);
    }
    cr_assert_not(results_has_room(&results)); /* a line is read only when its result has a place */
    write_number(&results, 2);
    write_number(&results, 1);
    fflush(out);
    cr_assert_eq(bytes, 0);
    write_number(&results, 0);
    cr_assert(results_has_room(&results));
    cr_assert_eq(results_reserve(&results), 3);
    write_number(&results, 3);
    results_finish(&results);
    fclose(out);
    cr_assert_str_eq(written, "0\n1\n2\n3\n");
    free(written);
}

Test(results, arrival_order_holds_back_nothing)
{
    struct results results;
    FILE *out = open_memstream(&written, &bytes);
    cr_assert_eq(results_init(&results, out, false, 1), 0);
    cr_assert_eq(results_reserve(&results), 0);
    cr_assert_eq(results_reserve(&results), 1);
    write_number(&results, 1);
    write_number(&results, 0);
    results_finish(&results);
    fclose(out);
    cr_assert_str_eq(written, "1\n0\n");
    free(written);
}

Test(results, full_disk_is_an_error)
{
    struct results results;
    FILE *out = fopen("/dev/full", "w");
    setvbuf(out, NULL, _IONBF, 0);
    cr_assert_eq(results_init(&results, out, false, 1), 0);
    cr_assert_lt(results_write(&results, results_reserve(&results), strdup("x")), 0);
    results_finish(&results);
    fclose(out);
}
