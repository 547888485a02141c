#include <criterion/criterion.h>

#include "worker/account/account.h"

static const struct prices prices = {
    .input_nanousd_per_mtok = 150000000,       /* USD 0.15 */
    .cached_input_nanousd_per_mtok = 75000000, /* USD 0.075 */
    .output_nanousd_per_mtok = 600000000,      /* USD 0.60 */
};

Test(account, cost_is_exact_in_nano_dollars)
{
    const struct token_counts tokens = {.input = 1000, .cached_input = 400, .output = 500};
    cr_assert_eq(account_cost_nanousd(&prices, &tokens), 600 * 150 + 400 * 75 + 500 * 600);
}

Test(account, a_fraction_of_a_nano_dollar_is_rounded_up_once)
{
    const struct prices cheap = {.input_nanousd_per_mtok = 1, .output_nanousd_per_mtok = 1};
    const struct token_counts one = {.input = 1};
    const struct token_counts both = {.input = 500000, .output = 500000};
    cr_assert_eq(account_cost_nanousd(&cheap, &one), 1);
    cr_assert_eq(account_cost_nanousd(&cheap, &both), 1);
    cr_assert_eq(account_cost_nanousd(&cheap, &(struct token_counts){0}), 0);
}

Test(account, large_counts_saturate_and_do_not_wrap)
{
    const struct prices dear = {.input_nanousd_per_mtok = UINT64_MAX};
    const struct token_counts many = {.input = UINT64_MAX};
    const struct token_counts some = {.input = 1000000};
    cr_assert_eq(account_cost_nanousd(&dear, &many), UINT64_MAX);
    cr_assert_eq(account_cost_nanousd(&dear, &some), UINT64_MAX);
}

static struct token_counts read_usage(const char *answer, enum operation operation)
{
    struct token_counts tokens;
    json_t *json = json_loads(answer, 0, NULL);
    account_read_usage(json, operation, 40, &tokens);
    json_decref(json);
    return tokens;
}

Test(account, usage_is_read_with_its_parts)
{
    const struct token_counts tokens =
        read_usage("{\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":30,\"prompt_tokens_"
                   "details\":{\"cached_tokens\":16},"
                   "\"completion_tokens_details\":{\"reasoning_tokens\":12}}}",
                   OPERATION_CHAT);
    cr_assert_eq(tokens.input, 20);
    cr_assert_eq(tokens.output, 30);
    cr_assert_eq(tokens.cached_input, 16);
    cr_assert_eq(tokens.reasoning, 12);
    cr_assert_eq(tokens.counted, 50);
}

Test(account, missing_usage_is_estimated_from_the_texts)
{
    const struct token_counts tokens =
        read_usage("{\"choices\":[{\"message\":{\"content\":\"twelve bytes\"}}]}", OPERATION_CHAT);
    cr_assert_eq(tokens.input, 10);
    cr_assert_eq(tokens.output, 3);
    cr_assert_eq(tokens.counted, 0, "an estimate is no count");
    cr_assert_eq(read_usage("{\"data\":[]}", OPERATION_EMBEDDINGS).output, 0);
}

Test(account, nonsense_from_a_provider_is_bounded)
{
    const struct token_counts tokens =
        read_usage("{\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":-3,\"prompt_tokens_"
                   "details\":{\"cached_tokens\":99}}}",
                   OPERATION_CHAT);
    cr_assert_eq(tokens.cached_input, 5);
    cr_assert_eq(tokens.output, 0);
}
