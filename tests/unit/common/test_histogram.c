#include <criterion/criterion.h>
#include <stdlib.h>
#include "common/histogram.h"

enum { VALUES = 20000 };

static int compare(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

Test(histogram, quantiles_are_at_most_one_part_in_thirty_two_too_high)
{
    const unsigned seed = 7;
    srand(seed);
    static struct histogram histogram;
    static uint64_t values[VALUES];
    histogram_init(&histogram);
    for (size_t i = 0; i < VALUES; i++) {
        values[i] = (uint64_t)rand() >> (rand() % 31);
        histogram_record(&histogram, values[i]);
    }
    qsort(values, VALUES, sizeof(values[0]), compare);
    for (int permille = 0; permille <= 1000; permille++) {
        size_t rank = ((size_t)permille * VALUES + 999) / 1000;
        rank = rank == 0 ? 1 : rank;
        const uint64_t exact = values[rank - 1];
        const uint64_t found = histogram_quantile(&histogram, permille / 1000.0);
        cr_assert_geq(found, exact, "at %d", permille);
        cr_assert_leq(found, exact + exact / 32, "at %d: %lu for %lu", permille, found, exact);
    }
}

Test(histogram, empty_has_zero_quantiles)
{
    static struct histogram histogram;
    histogram_init(&histogram);
    cr_assert_eq(histogram_quantile(&histogram, 0.5), 0);
}

Test(histogram, small_values_are_exact)
{
    static struct histogram histogram;
    histogram_init(&histogram);
    for (uint64_t i = 0; i < 32; i++) {
        histogram_record(&histogram, i);
    }
    cr_assert_eq(histogram_quantile(&histogram, 0), 0);
    cr_assert_eq(histogram_quantile(&histogram, 0.5), 15);
    cr_assert_eq(histogram_quantile(&histogram, 1), 31);
}

Test(histogram, values_past_the_range_are_counted_and_the_maximum_is_kept)
{
    static struct histogram histogram;
    histogram_init(&histogram);
    histogram_record(&histogram, UINT64_MAX);
    histogram_record(&histogram, UINT64_C(1) << 40);
    cr_assert_eq(histogram.count, 2);
    cr_assert_eq(histogram_quantile(&histogram, 1), UINT64_MAX);
}

Test(histogram, merged_is_as_if_recorded_in_one)
{
    static struct histogram one, two, both;
    histogram_init(&one);
    histogram_init(&two);
    histogram_init(&both);
    for (uint64_t i = 1; i < 5000; i++) {
        histogram_record(i % 3 == 0 ? &one : &two, i * i);
        histogram_record(&both, i * i);
    }
    histogram_merge(&one, &two);
    cr_assert_arr_eq(&one, &both, sizeof(one));
}
