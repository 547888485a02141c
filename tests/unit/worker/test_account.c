#include <criterion/criterion.h>

#include "worker/account/account.h"

static const struct price price = {
    .nanousd_per_mtok = {[PRICE_INPUT] = 150000000,       /* USD 0.15 */
                         [PRICE_CACHED_INPUT] = 75000000, /* USD 0.075 */
                         [PRICE_CACHE_WRITE] = 187500000, /* USD 0.1875 */
                         [PRICE_CACHE_WRITE_LONG] = 300000000,
                         [PRICE_OUTPUT] = 600000000}, /* USD 0.60 */
    .permille = {1000, 500, 500, 2000},
};

Test(account, each_class_of_tokens_has_its_price)
{
    struct token_counts tokens = {.input = 1000, .cached_input = 400, .output = 500};
    cr_assert_eq(account_cost_nanousd(&price, &tokens), 600 * 150 + 400 * 75 + 500 * 600);
    tokens.cache_write = 100;
    tokens.cache_write_long = 200;
    cr_assert_eq(account_cost_nanousd(&price, &tokens),
                 300 * 150 + 400 * 75 + 18750 + 200 * 300 + 500 * 600);
    tokens.service = SERVICE_BATCH;
    cr_assert_eq(account_cost_nanousd(&price, &tokens),
                 (300 * 150 + 400 * 75 + 18750 + 200 * 300 + 500 * 600) / 2);
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
    cr_assert_not(tokens.is_estimated);
}

Test(account, what_was_written_to_the_prompt_cache_is_read)
{
    const struct token_counts whole = read_usage(
        "{\"service_tier\":\"priority\",\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":1,"
        "\"prompt_tokens_details\":{\"cached_tokens\":10,\"cache_creation_input_tokens\":50}}}",
        OPERATION_CHAT);
    cr_assert_eq(whole.cache_write, 50);
    cr_assert_eq(whole.cache_write_long, 0);
    cr_assert_eq(whole.service, SERVICE_PRIORITY);
    const struct token_counts parts = read_usage(
        "{\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":1,\"prompt_tokens_details\":"
        "{\"cached_tokens\":10,\"cache_creation_input_tokens\":50,\"cache_creation\":"
        "{\"ephemeral_5m_input_tokens\":20,\"ephemeral_1h_input_tokens\":30}}}}",
        OPERATION_CHAT);
    cr_assert_eq(parts.cache_write, 20);
    cr_assert_eq(parts.cache_write_long, 30);
    cr_assert_eq(parts.service, SERVICE_STANDARD);
}

Test(account, parts_never_exceed_the_whole)
{
    const struct token_counts tokens = read_usage(
        "{\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":1,\"prompt_tokens_details\":"
        "{\"cached_tokens\":80,\"cache_creation\":{\"ephemeral_5m_input_tokens\":9000,"
        "\"ephemeral_1h_input_tokens\":15}}}}",
        OPERATION_CHAT);
    cr_assert_eq(tokens.cached_input, 80);
    cr_assert_eq(tokens.cache_write_long, 15);
    cr_assert_eq(tokens.cache_write, 5);
}

Test(account, missing_usage_is_estimated_from_the_texts)
{
    const struct token_counts tokens =
        read_usage("{\"choices\":[{\"message\":{\"content\":\"twelve bytes\"}}]}", OPERATION_CHAT);
    cr_assert_eq(tokens.input, 10);
    cr_assert_eq(tokens.output, 3);
    cr_assert_eq(tokens.counted, 0, "an estimate is no count");
    cr_assert(tokens.is_estimated);
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
