#include "worker/account/account.h"

#include <stdbool.h>

enum { TOKENS_A_PRICE_UNIT = 1000000 };

uint64_t account_cost_nanousd(const struct prices *prices, const struct token_counts *tokens)
{
    const uint64_t cached =
        tokens->cached_input < tokens->input ? tokens->cached_input : tokens->input;
    unsigned __int128 sum =
        (unsigned __int128)(tokens->input - cached) * prices->input_nanousd_per_mtok;
    sum += (unsigned __int128)cached * prices->cached_input_nanousd_per_mtok;
    sum += (unsigned __int128)tokens->output * prices->output_nanousd_per_mtok;
    const unsigned __int128 cost = sum / TOKENS_A_PRICE_UNIT + (sum % TOKENS_A_PRICE_UNIT != 0);
    return cost > UINT64_MAX ? UINT64_MAX : (uint64_t)cost;
}

static bool read_count(const json_t *object, const char *name, uint64_t *ret_count)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return false;
    }
    *ret_count = (uint64_t)json_integer_value(value);
    return true;
}

static uint64_t estimate(size_t bytes)
{
    return (bytes + ACCOUNT_BYTES_PER_TOKEN - 1) / ACCOUNT_BYTES_PER_TOKEN;
}

/* Bytes of text in all choices: what the model wrote, as far as it can be seen. */
static size_t answer_bytes(const json_t *answer)
{
    size_t bytes = 0;
    size_t index;
    json_t *choice;
    json_array_foreach (json_object_get(answer, "choices"), index, choice) {
        bytes += json_string_length(json_object_get(choice, "text"));
        bytes += json_string_length(json_object_get(json_object_get(choice, "message"), "content"));
    }
    return bytes;
}

void account_read_usage(const json_t *answer, enum operation operation, size_t request_bytes,
                        struct token_counts *ret_tokens)
{
    const json_t *usage = json_object_get(answer, "usage");
    struct token_counts tokens = {0};
    if (read_count(usage, "prompt_tokens", &tokens.input)) {
        tokens.counted += tokens.input;
    } else {
        tokens.input = estimate(request_bytes);
    }
    if (operation != OPERATION_EMBEDDINGS) {
        if (read_count(usage, "completion_tokens", &tokens.output)) {
            tokens.counted += tokens.output;
        } else {
            tokens.output = estimate(answer_bytes(answer));
        }
    }
    (void)read_count(json_object_get(usage, "prompt_tokens_details"), "cached_tokens",
                     &tokens.cached_input);
    (void)read_count(json_object_get(usage, "completion_tokens_details"), "reasoning_tokens",
                     &tokens.reasoning);
    tokens.cached_input = tokens.cached_input < tokens.input ? tokens.cached_input : tokens.input;
    tokens.reasoning = tokens.reasoning < tokens.output ? tokens.reasoning : tokens.output;
    *ret_tokens = tokens;
}
