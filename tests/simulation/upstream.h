/*
 * upstream: a model at a simulated provider. It answers, is down, slow, talks nonsense, or has had
 * enough for this minute, and keeps its own count of what it was asked.
 *
 * Its count is the truth that limits, breakers and probes are measured by: workers may claim what
 * they like. A minute is sliding, in steps of a second.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "proto/wire.pb-c.h"

struct simulation;

enum { UPSTREAM_SECONDS = 60 };

enum upstream_state {
    UPSTREAM_HEALTHY,
    UPSTREAM_DOWN,
    UPSTREAM_SLOW,
    UPSTREAM_LIMITED, /* to few calls and tokens a minute */
    UPSTREAM_GARBAGE, /* answers with what is no answer */
};

struct upstream {
    const char *provider, *model;
    enum upstream_state state;
    uint64_t generation;                       /* of its trouble */
    int64_t since_ms;                          /* in that state */
    int64_t fails_after_ms;                    /* while it is down: refused at once, or timeouts */
    uint32_t requests_per_min, tokens_per_min; /* while it is limited */
    uint32_t limit_told_per_min; /* requests, along with its answers; 0: it says nothing */
    struct {
        int64_t second;
        uint32_t requests, tokens;
    } window[UPSTREAM_SECONDS]; /* what it let in, by second modulo their number */
    uint64_t calls, calls_while_down, calls_this_trouble;
    uint64_t answers, refusals; /* for the limit */
};

/* What comes of a call. */
struct call {
    bool is_made;      /* by the attempt; else it used nothing */
    uint32_t upstream; /* index */
    Wire__AttemptOutcome outcome;
    const char *error_code;
    int64_t call_ms;
    int64_t retry_after_ms; /* 0: not said */
    uint32_t tokens;
    uint32_t limit_per_min; /* told along; 0: nothing */
    uint64_t run;           /* of the attempt that made it: another for each */
};

void upstream_init(struct simulation *simulation, uint32_t index);
/* Asks it now; what it answers, and how long that takes. */
struct call upstream_call(struct simulation *simulation, struct upstream *upstream,
                          uint32_t tokens);
/* Let in within the last minute. */
uint64_t upstream_requests_in_minute(const struct upstream *upstream, int64_t now_ms);
uint64_t upstream_tokens_in_minute(const struct upstream *upstream, int64_t now_ms);
/* Falls into some trouble for a while. False: it is in trouble already. */
bool upstream_trouble(struct simulation *simulation, uint32_t index);
void upstream_heal(struct simulation *simulation, uint32_t index);
