#include <criterion/criterion.h>
#include <stdlib.h>

#include "worker/combine/share.h"

static uint64_t sum_of(const uint64_t *numbers, size_t length)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < length; i++) {
        sum += numbers[i];
    }
    return sum;
}

Test(share, parts_are_in_proportion_and_lose_nothing)
{
    const uint64_t weights[] = {1, 1, 1, 0, 97};
    uint64_t shares[5];
    share_split(1000, weights, 5, shares);
    cr_expect_eq(shares[0], 10);
    cr_expect_eq(shares[3], 0);
    cr_expect_eq(shares[4], 970);
    share_split(7, weights, 5, shares);
    cr_expect_eq(sum_of(shares, 5), 7);
}

Test(share, without_weights_all_have_the_same)
{
    const uint64_t weights[3] = {0};
    uint64_t shares[3];
    share_split(8, weights, 3, shares);
    cr_expect_eq(sum_of(shares, 3), 8);
    cr_expect(shares[0] >= 2 && shares[1] >= 2 && shares[2] >= 2);
}

Test(share, large_totals_do_not_wrap)
{
    const uint64_t weights[] = {UINT32_MAX, UINT32_MAX};
    uint64_t shares[2];
    share_split(UINT64_MAX, weights, 2, shares);
    cr_expect_eq(shares[0] + shares[1], UINT64_MAX);
    cr_expect_eq(shares[0], UINT64_MAX / 2);
}

Test(share, usage_adds_up_in_every_count_whatever_it_was)
{
    const unsigned seed = 20;
    unsigned state = seed;
    for (int round = 0; round < 2000; round++) {
        struct token_share shares[SHARES_MAX];
        uint64_t sent[SHARES_MAX];
        uint64_t written[SHARES_MAX];
        const size_t length = 1 + (size_t)rand_r(&state) % 20;
        struct price price = {.request_nanousd = (uint64_t)rand_r(&state) % 5000,
                              .permille = {1000, 500, 500, 2000}};
        for (size_t i = 0; i < PRICE_CLASSES; i++) {
            price.nanousd_per_mtok[i] = (uint64_t)rand_r(&state);
        }
        struct token_counts total = {.input = (uint64_t)rand_r(&state) % 5000,
                                     .output = (uint64_t)rand_r(&state) % 300};
        total.cached_input = total.input == 0 ? 0 : (uint64_t)rand_r(&state) % total.input;
        total.cache_write = (total.input - total.cached_input) / 3;
        total.cache_write_long = total.cache_write / 2;
        total.reasoning = total.output / 2;
        for (size_t i = 0; i < length; i++) {
            sent[i] = (uint64_t)rand_r(&state) % 100;
            written[i] = (uint64_t)rand_r(&state) % 3;
        }
        share_usage(&price, &total, sent, written, length, shares);
        struct token_share sum = {.cost_nanousd = 0};
        for (size_t i = 0; i < length; i++) {
            account_add_counts(&sum.tokens, &shares[i].tokens);
            sum.cost_nanousd += shares[i].cost_nanousd;
            const struct token_counts *own = &shares[i].tokens;
            cr_assert(own->cached_input + own->cache_write + own->cache_write_long <= own->input,
                      "seed %u", seed);
            cr_assert(shares[i].tokens.reasoning <= shares[i].tokens.output, "seed %u", seed);
        }
        cr_assert_eq(sum.tokens.input, total.input, "seed %u", seed);
        cr_assert_eq(sum.tokens.cached_input, total.cached_input, "seed %u", seed);
        cr_assert_eq(sum.tokens.cache_write, total.cache_write, "seed %u", seed);
        cr_assert_eq(sum.tokens.output, total.output, "seed %u", seed);
        cr_assert_eq(sum.tokens.reasoning, total.reasoning, "seed %u", seed);
        cr_assert_eq(sum.cost_nanousd, account_cost_nanousd(&price, &total), "seed %u", seed);
    }
}
