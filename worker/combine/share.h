/*
 * share: what one call used, divided among the jobs that it was made for.
 *
 * Whole tokens and whole nano-dollars; the shares add up to what was used, to the token. Each share
 * is within one of its exact part.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "worker/account/account.h"

struct token_share {
    struct token_counts tokens;
    uint64_t cost_nanousd;
};

/* In proportion to the weights, whose sum is below 2^64; of no weight at all: in equal parts. */
void share_split(uint64_t total, const uint64_t *weights, size_t length, uint64_t *ret_shares);
/*
 * `input_weights` are of what each job has sent, `output_weights` of what was written for it. The
 * cost is that of the call, rounded once. Works on SHARES_MAX jobs at most.
 */
enum { SHARES_MAX = 256 };
void share_usage(const struct price *price, const struct token_counts *total,
                 const uint64_t *input_weights, const uint64_t *output_weights, size_t length,
                 struct token_share *ret_shares);
