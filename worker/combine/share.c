#include "worker/combine/share.h"

#include <assert.h>

/* The part of the first jobs, whose weights add up to `before`, is rounded down; a share is the
 * difference between two such parts, so that nothing is lost. */
void share_split(uint64_t total, const uint64_t *weights, size_t length, uint64_t *ret_shares)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < length; i++) {
        sum += weights[i];
    }
    const uint64_t whole = sum == 0 ? length : sum;
    uint64_t before = 0;
    uint64_t given = 0;
    for (size_t i = 0; i < length; i++) {
        before += sum == 0 ? 1 : weights[i];
        const uint64_t to = (uint64_t)((unsigned __int128)total * before / whole);
        ret_shares[i] = to - given;
        given = to;
    }
}

static void add_shares(uint64_t total, const uint64_t *weights, size_t length,
                       struct token_share *shares, size_t field_offset)
{
    uint64_t parts[SHARES_MAX];
    share_split(total, weights, length, parts);
    for (size_t i = 0; i < length; i++) {
        *(uint64_t *)(void *)((char *)&shares[i] + field_offset) += parts[i];
    }
}

#define FIELD(name) offsetof(struct token_share, name)

/* Of the call's own cost, and of the prompt: what remains when the answer is paid for. */
static uint64_t written_cost(const struct price *price, const struct token_counts *total,
                             uint64_t cost)
{
    struct token_counts without = *total;
    without.output = 0;
    const uint64_t rest = account_cost_nanousd(price, &without);
    return rest < cost ? cost - rest : 0;
}

/* A part of a count is divided beside the rest of it, so that it is never more than the whole. */
static void share_input(const struct token_counts *total, const uint64_t *weights, size_t length,
                        struct token_share *shares)
{
    const uint64_t apart = total->cached_input + total->cache_write + total->cache_write_long;
    add_shares(total->cached_input, weights, length, shares, FIELD(tokens.cached_input));
    add_shares(total->cache_write, weights, length, shares, FIELD(tokens.cache_write));
    add_shares(total->cache_write_long, weights, length, shares, FIELD(tokens.cache_write_long));
    for (size_t i = 0; i < length; i++) {
        struct token_counts *tokens = &shares[i].tokens;
        tokens->input = tokens->cached_input + tokens->cache_write + tokens->cache_write_long;
    }
    add_shares(total->input - apart, weights, length, shares, FIELD(tokens.input));
}

static void share_output(const struct token_counts *total, const uint64_t *weights, size_t length,
                         struct token_share *shares)
{
    add_shares(total->reasoning, weights, length, shares, FIELD(tokens.reasoning));
    for (size_t i = 0; i < length; i++) {
        shares[i].tokens.output = shares[i].tokens.reasoning;
    }
    add_shares(total->output - total->reasoning, weights, length, shares, FIELD(tokens.output));
}

void share_usage(const struct price *price, const struct token_counts *total,
                 const uint64_t *input_weights, const uint64_t *output_weights, size_t length,
                 struct token_share *ret_shares)
{
    assert(length <= SHARES_MAX);
    const uint64_t cost = account_cost_nanousd(price, total);
    const uint64_t written = written_cost(price, total, cost);
    for (size_t i = 0; i < length; i++) {
        ret_shares[i] = (struct token_share){
            .tokens = {.is_estimated = total->is_estimated, .service = total->service}};
    }
    share_input(total, input_weights, length, ret_shares);
    share_output(total, output_weights, length, ret_shares);
    add_shares(cost - written, input_weights, length, ret_shares, FIELD(cost_nanousd));
    add_shares(written, output_weights, length, ret_shares, FIELD(cost_nanousd));
}
