/* counters: what the simulator served; read by tests to prove how often a provider was really called. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/attributes.h"
#include "tests/modelsim/faults.h"
#include "tests/modelsim/history.h"
#include "tests/modelsim/protocol.h"

struct key_set;

struct counters {
    uint64_t requests[API_COUNT];
    uint64_t statuses[600];      /* replies by HTTP status */
    uint64_t streams;
    uint64_t answered;           /* whole answers and streams that reached their end */
    uint64_t aborted;            /* the client went away, or a fault cut the reply */
    uint64_t in_flight, in_flight_max;
    uint64_t input_tokens, output_tokens;
    uint64_t repeated_keys;      /* requests whose Idempotency-Key had been answered before: double spending */
    uint64_t limited;            /* refused by the rate limits (not by a fault) */
    struct key_set *answered_keys;
    struct history history;
};

MUST_USE int counters_init(struct counters *counters); /* Errors: -ENOMEM */
void counters_finish(struct counters *counters);
void counters_reset(struct counters *counters);        /* keeps what is in flight */
void counters_begin(struct counters *counters, enum api api, const char *idempotency_key);
void counters_answered(struct counters *counters, const char *idempotency_key);
/* The request is over. `status` is that of its reply, 0: none; a refused one is no abortion. */
void counters_end(struct counters *counters, bool is_answered, int status);
json_t *counters_describe(const struct counters *counters, const struct faults *faults);
