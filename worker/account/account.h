/*
 * account: what an attempt used and what it cost, in tokens and integer nano-dollars.
 *
 * Prices are nano-dollars per million tokens; the product is taken in 128 bits and rounded up once,
 * at the end, so that the sum over jobs is never below what the provider charges. No floating point
 * anywhere.
 */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include "worker/operation.h"

struct prices {
    uint64_t input_nanousd_per_mtok;
    uint64_t cached_input_nanousd_per_mtok;
    uint64_t output_nanousd_per_mtok;
};

struct token_counts {
    uint64_t input;        /* all of the prompt, the cached part included */
    uint64_t cached_input; /* never more than input */
    uint64_t output;       /* all of the answer, reasoning included */
    uint64_t reasoning;    /* never more than output */
    uint64_t counted;      /* input and output as far as the provider counted them itself */
};

/* Saturates at UINT64_MAX. */
uint64_t account_cost_nanousd(const struct prices *prices, const struct token_counts *tokens);

/*
 * Reads `usage` of an answer in OpenAI form, of a response by its own names. A count that is
 * missing or no number is estimated: the prompt from request_bytes, the answer from its text, at
 * ACCOUNT_BYTES_PER_TOKEN.
 */
enum { ACCOUNT_BYTES_PER_TOKEN = 4 };
uint64_t account_estimate_tokens(size_t bytes);
void account_read_usage(const json_t *answer, enum operation operation, size_t request_bytes,
                        struct token_counts *ret_tokens);
