/* bill: what the simulated provider would charge, by model: the other side of a ledger. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tests/modelsim/protocol.h"
#include "tests/modelsim/server.h"

/* Of a model. What was cut off is apart, since its caller was not told what it used. */
struct bill_row {
    struct bill_sum {
        uint64_t calls, input_tokens, cached_tokens, cache_write_tokens, output_tokens; /* cached, cache_write: of the input, from and to the prompt cache */
    } answered, cut; /* cut: the caller hung up, or a fault ended the stream, after its work had begun */
};

struct bill {
    struct bill_row rows[SERVER_MODELS_MAX]; /* in the order of server_options.models */
};

/* Of a model that is not served: nothing. */
void bill_add(struct bill *bill, const struct server_options *options, const struct model_request *request, bool is_answered,
              uint64_t output_tokens);
/* {"models": {NAME: {"answered": {"calls", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens"}, "cut": {…}}}} */
json_t *bill_describe(const struct bill *bill, const struct server_options *options);
