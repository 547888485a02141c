#include <criterion/criterion.h>

#include "common/config.h"
#include "common/price.h"

static const struct price cheap = {
    .nanousd_per_mtok = {[PRICE_INPUT] = 1, [PRICE_CACHE_WRITE] = 3, [PRICE_OUTPUT] = 1},
    .permille = {1000, 500, 500, 2000},
};

static uint64_t cost(const struct price *price, uint64_t input, uint64_t output)
{
    const struct price_tokens tokens = {.of = {[PRICE_INPUT] = input, [PRICE_OUTPUT] = output}};
    return price_cost_nanousd(price, &tokens, SERVICE_STANDARD);
}

Test(price, a_fraction_of_a_nano_dollar_is_rounded_up_once)
{
    cr_assert_eq(cost(&cheap, 0, 0), 0);
    cr_assert_eq(cost(&cheap, 1, 0), 1);
    cr_assert_eq(cost(&cheap, 500000, 500000), 1);
    cr_assert_eq(cost(&cheap, 500000, 500001), 2);
}

Test(price, a_cached_token_of_a_cheap_model_costs_ten_nano_dollars)
{
    const struct price price = {.nanousd_per_mtok = {[PRICE_CACHED_INPUT] = 10000000},
                                .permille = {1000}};
    const struct price_tokens one = {.of = {[PRICE_CACHED_INPUT] = 1}};
    cr_assert_eq(price_cost_nanousd(&price, &one, SERVICE_STANDARD), 10);
}

Test(price, the_service_tier_multiplies_all_of_it)
{
    const struct price price = {.nanousd_per_mtok = {[PRICE_INPUT] = 1000000},
                                .request_nanousd = 7,
                                .permille = {1000, 500, 250, 2000}};
    const struct price_tokens three = {.of = {[PRICE_INPUT] = 3}};
    cr_assert_eq(price_cost_nanousd(&price, &three, SERVICE_STANDARD), 10);
    cr_assert_eq(price_cost_nanousd(&price, &three, SERVICE_BATCH), 5);
    cr_assert_eq(price_cost_nanousd(&price, &three, SERVICE_FLEX), 3, "2.5, rounded up");
    cr_assert_eq(price_cost_nanousd(&price, &three, SERVICE_PRIORITY), 20);
}

Test(price, large_numbers_saturate_and_do_not_wrap)
{
    const struct price dear = {
        .nanousd_per_mtok = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX},
        .request_nanousd = UINT64_MAX,
        .permille = {UINT32_MAX}};
    const struct price_tokens many = {
        .of = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    cr_assert_eq(price_cost_nanousd(&dear, &many, SERVICE_STANDARD), UINT64_MAX);
    cr_assert_eq(price_add(UINT64_MAX, 1), UINT64_MAX);
    cr_assert_eq(price_add(40, 2), 42);
}

Test(price, the_worst_case_takes_the_dearest_class_of_input)
{
    cr_assert_eq(price_worst_nanousd(&cheap, 2000000, 1000000), 2 * 3 + 1);
    cr_assert_geq(price_worst_nanousd(&cheap, 77, 31), cost(&cheap, 77, 31));
}

Test(price, a_model_has_its_prices_from_the_configuration)
{
    const struct config_model model = {.input_nanousd_per_mtok = 1,
                                       .cached_input_nanousd_per_mtok = 2,
                                       .cache_write_nanousd_per_mtok = 3,
                                       .cache_write_long_nanousd_per_mtok = 4,
                                       .output_nanousd_per_mtok = 5,
                                       .request_nanousd = 6,
                                       .batch_permille = 500};
    const struct price price = price_of_model(&model);
    for (size_t i = 0; i < PRICE_CLASSES; i++) {
        cr_assert_eq(price.nanousd_per_mtok[i], i + 1);
    }
    cr_assert_eq(price.request_nanousd, 6);
    cr_assert_eq(price.permille[SERVICE_STANDARD], 1000);
    cr_assert_eq(price.permille[SERVICE_BATCH], 500);
}

Test(price, service_tiers_have_the_names_of_providers)
{
    cr_assert_eq(price_service_find("flex"), SERVICE_FLEX);
    cr_assert_eq(price_service_find("default"), SERVICE_STANDARD);
    cr_assert_eq(price_service_find(NULL), SERVICE_STANDARD);
}
