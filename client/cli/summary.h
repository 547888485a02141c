/*
 * summary: what became of the jobs of one run: counts by tier and outcome, latencies, cache, tokens, cost.
 */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include "client/tiermq.h"
#include "common/attributes.h"
#include "common/histogram.h"

enum { SUMMARY_TIERS_MAX = 32 };

/* What one line of input came to. Those of enum tiermq_state, and two that no broker gives. */
enum outcome {
    OUTCOME_SUCCEEDED,
    OUTCOME_ACCEPTED,  /* nobody waits for its answer (--no-wait) */
    OUTCOME_DEAD,
    OUTCOME_CANCELLED,
    OUTCOME_EXPIRED,
    OUTCOME_REJECTED,
    OUTCOME_INVALID,   /* the line is no job */
    OUTCOME_LOST,
    OUTCOME_PENDING,   /* given up while it had no answer */
    OUTCOMES,
};

struct summary_tier {
    char *name; /* owned */
    uint64_t jobs;
    uint64_t outcomes[OUTCOMES];
    uint64_t cache[TIERMQ_CACHE_STALE_HIT + 1];
    uint64_t input_tokens, output_tokens, cost_nanousd, saved_nanousd;
    struct histogram latency_us; /* of those that succeeded, from submission to answer */
};

struct summary {
    struct summary_tier *tiers[SUMMARY_TIERS_MAX]; /* in the order of first appearance */
    size_t tiers_length;
    uint64_t jobs;
    uint64_t outcomes[OUTCOMES];
};

enum outcome summary_outcome(enum tiermq_state state);
const char *summary_outcome_name(enum outcome outcome);
/* `answer` NULL: a line that never became a job. Errors: -ENOMEM, -ENOBUFS too many tiers. */
MUST_USE int summary_add(struct summary *summary, const char *tier, enum outcome outcome,
                         const struct tiermq_answer *answer);
void summary_print(const struct summary *summary, double seconds, FILE *out);
/* Gives: a new reference; NULL when out of memory. */
json_t *summary_json(const struct summary *summary, double seconds);
/* EXIT_OK only when every line succeeded, or was accepted where no more was asked for. */
int summary_exit_code(const struct summary *summary);
void summary_finish(struct summary *summary);
