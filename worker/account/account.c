#include "worker/account/account.h"

#include <stdbool.h>

#include "common/attributes.h"

void account_add_counts(struct token_counts *sum, const struct token_counts *tokens)
{
    sum->input += tokens->input;
    sum->cached_input += tokens->cached_input;
    sum->cache_write += tokens->cache_write;
    sum->cache_write_long += tokens->cache_write_long;
    sum->output += tokens->output;
    sum->reasoning += tokens->reasoning;
    sum->counted += tokens->counted;
    sum->is_estimated = sum->is_estimated || tokens->is_estimated;
}

uint64_t account_cost_nanousd(const struct price *price, const struct token_counts *tokens)
{
    const uint64_t apart = tokens->cached_input + tokens->cache_write + tokens->cache_write_long;
    const struct price_tokens classes = {
        .of =
            {
                [PRICE_INPUT] = tokens->input - apart,
                [PRICE_CACHED_INPUT] = tokens->cached_input,
                [PRICE_CACHE_WRITE] = tokens->cache_write,
                [PRICE_CACHE_WRITE_LONG] = tokens->cache_write_long,
                [PRICE_OUTPUT] = tokens->output,
            },
    };
    return price_cost_nanousd(price, &classes, tokens->service);
}

static uint64_t at_most(uint64_t value, uint64_t most)
{
    return value < most ? value : most;
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

uint64_t account_estimate_tokens(size_t bytes)
{
    return (bytes + ACCOUNT_BYTES_PER_TOKEN - 1) / ACCOUNT_BYTES_PER_TOKEN;
}

static size_t message_bytes(const json_t *message)
{
    static const char *const texts[] = {"content", "refusal", "reasoning_content"};
    size_t bytes = 0;
    size_t index;
    json_t *call;
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        bytes += json_string_length(json_object_get(message, texts[i]));
    }
    json_array_foreach (json_object_get(message, "tool_calls"), index, call) {
        bytes +=
            json_string_length(json_object_get(json_object_get(call, "function"), "arguments"));
    }
    return bytes;
}

/* Of a response's items. */
static size_t output_bytes(const json_t *output)
{
    size_t bytes = 0;
    size_t index;
    size_t part;
    json_t *item;
    json_t *content;
    json_array_foreach (output, index, item) {
        json_array_foreach (json_object_get(item, "content"), part, content) {
            bytes += json_string_length(json_object_get(content, "text"));
        }
        bytes += json_string_length(json_object_get(item, "arguments"));
    }
    return bytes;
}

/* Bytes of text in all choices: what the model wrote, as far as it can be seen. */
static size_t answer_bytes(const json_t *answer)
{
    size_t bytes = 0;
    size_t index;
    json_t *choice;
    json_array_foreach (json_object_get(answer, "choices"), index, choice) {
        bytes += json_string_length(json_object_get(choice, "text"));
        bytes += message_bytes(json_object_get(choice, "message"));
    }
    return bytes + output_bytes(json_object_get(answer, "output"));
}

/* What an operation calls its counts. */
static const struct count_names {
    const char *input, *input_details, *output, *output_details;
} chat_names = {"prompt_tokens", "prompt_tokens_details", "completion_tokens",
                "completion_tokens_details"},
  response_names = {"input_tokens", "input_tokens_details", "output_tokens",
                    "output_tokens_details"};

/* Parts of the input, in the order in which they have room there. */
static void read_input_parts(const json_t *details, struct token_counts *tokens)
{
    const json_t *written = json_object_get(details, "cache_creation");
    uint64_t room = tokens->input;
    (void)read_count(details, "cached_tokens", &tokens->cached_input);
    (void)read_count(written, "ephemeral_1h_input_tokens", &tokens->cache_write_long);
    if (!read_count(written, "ephemeral_5m_input_tokens", &tokens->cache_write)) {
        (void)read_count(details, "cache_creation_input_tokens", &tokens->cache_write);
    }
    uint64_t *const parts[] = {&tokens->cached_input, &tokens->cache_write_long,
                               &tokens->cache_write};
    for (size_t i = 0; i < ARRAY_LENGTH(parts); i++) {
        *parts[i] = at_most(*parts[i], room);
        room -= *parts[i];
    }
}

void account_read_usage(const json_t *answer, enum operation operation, size_t request_bytes,
                        struct token_counts *ret_tokens)
{
    const json_t *usage = json_object_get(answer, "usage");
    const struct count_names *names =
        operation == OPERATION_RESPONSES ? &response_names : &chat_names;
    struct token_counts tokens = {0};
    if (read_count(usage, names->input, &tokens.input)) {
        tokens.counted += tokens.input;
    } else {
        tokens.input = account_estimate_tokens(request_bytes);
        tokens.is_estimated = true;
    }
    if (operation != OPERATION_EMBEDDINGS) {
        if (read_count(usage, names->output, &tokens.output)) {
            tokens.counted += tokens.output;
        } else {
            tokens.output = account_estimate_tokens(answer_bytes(answer));
            tokens.is_estimated = true;
        }
    }
    read_input_parts(json_object_get(usage, names->input_details), &tokens);
    (void)read_count(json_object_get(usage, names->output_details), "reasoning_tokens",
                     &tokens.reasoning);
    tokens.reasoning = at_most(tokens.reasoning, tokens.output);
    tokens.service = price_service_find(json_string_value(json_object_get(answer, "service_tier")));
    *ret_tokens = tokens;
}

void account_estimate_cut(size_t request_bytes, uint32_t pieces, struct token_counts *ret_tokens)
{
    *ret_tokens = (struct token_counts){
        .input = account_estimate_tokens(request_bytes), .output = pieces, .is_estimated = true};
}
