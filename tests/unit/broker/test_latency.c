/* Quantiles of how long calls take. */
#include <criterion/criterion.h>
#include "broker/core/latency.h"

Test(latency, sizes_grow_eightfold)
{
    cr_assert_eq(latency_size_of(0), 0);
    cr_assert_eq(latency_size_of(255), 0);
    cr_assert_eq(latency_size_of(256), 1);
    cr_assert_eq(latency_size_of(2048), 2);
    cr_assert_eq(latency_size_of(16384), 3);
    cr_assert_eq(latency_size_of(UINT32_MAX), 3);
}

Test(latency, nothing_is_known_of_few_calls)
{
    struct latency latency = {0};
    for (int i = 0; i < 7; i++) {
        latency_add(&latency, 1, 100);
    }
    cr_assert_eq(latency_quantile_ms(&latency, 1, 0.5), 0);
    latency_add(&latency, 1, 100);
    cr_assert_gt(latency_quantile_ms(&latency, 1, 0.5), 99);
}

Test(latency, quantiles_are_right_to_a_quarter)
{
    struct latency latency = {0};
    for (uint32_t ms = 1; ms <= 400; ms++) {
        latency_add(&latency, 0, ms * 10);
    }
    static const double shares[] = {0.1, 0.5, 0.95, 1};
    for (size_t i = 0; i < 4; i++) {
        const double exact = shares[i] * 4000;
        const double found = latency_quantile_ms(&latency, 0, shares[i]);
        cr_assert(found >= exact * 0.99 && found <= exact * 1.26, "%f: %f", exact, found);
    }
}

Test(latency, nearest_size_stands_in)
{
    struct latency latency = {0};
    for (int i = 0; i < 10; i++) {
        latency_add(&latency, 3, 1000);
    }
    cr_assert_gt(latency_quantile_ms(&latency, 0, 0.5), 900);
}

Test(latency, old_calls_fade)
{
    struct latency latency = {0};
    for (int i = 0; i < 400; i++) {
        latency_add(&latency, 0, 10000);
    }
    for (int i = 0; i < 3000; i++) {
        latency_add(&latency, 0, 10);
    }
    cr_assert_lt(latency_quantile_ms(&latency, 0, 0.95), 20);
}

Test(latency, endless_call_is_the_last_bucket)
{
    struct latency latency = {0};
    for (int i = 0; i < 10; i++) {
        latency_add(&latency, 0, UINT32_MAX);
    }
    cr_assert_gt(latency_quantile_ms(&latency, 0, 0.5), 1000000);
}
