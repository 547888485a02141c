/*
 * account: what an attempt used and what it cost, in tokens and integer nano-dollars
 * (common/price.h).
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/price.h"
#include "worker/operation.h"

struct token_counts {
    uint64_t input;             /* all of the prompt, the next three included */
    uint64_t cached_input;      /* these three are together never more than input */
    uint64_t cache_write;       /* that the provider put into its prompt cache, for minutes */
    uint64_t cache_write_long;  /* for an hour */
    uint64_t output;            /* all of the answer, reasoning included */
    uint64_t reasoning;         /* never more than output */
    uint64_t counted;           /* input and output as far as the provider counted them itself */
    bool is_estimated;          /* it did not count all of it */
    enum price_service service; /* the tier in which it answered */
};

void account_add_counts(struct token_counts *sum, const struct token_counts *tokens);

/* Saturates at UINT64_MAX. */
uint64_t account_cost_nanousd(const struct price *price, const struct token_counts *tokens);

/*
 * Reads `usage` of an answer in OpenAI form, of a response by its own names. A count that is
 * missing or no number is estimated: the prompt from request_bytes, the answer from its text, at
 * ACCOUNT_BYTES_PER_TOKEN.
 */
enum { ACCOUNT_BYTES_PER_TOKEN = 4 };
uint64_t account_estimate_tokens(size_t bytes);
void account_read_usage(const json_t *answer, enum operation operation, size_t request_bytes,
                        struct token_counts *ret_tokens);
/*
 * Of a call that was cut off, by us or by the network, after it had reached its provider: nobody
 * says what it is charged as. The prompt is estimated, and the answer a token for each piece that came.
 */
void account_estimate_cut(size_t request_bytes, uint32_t pieces, struct token_counts *ret_tokens);
