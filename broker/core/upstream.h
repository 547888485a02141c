/*
 * upstream: a model at a provider, as the whole cluster knows it: its breaker, its limits, its pace.
 *
 * Each dispatch names the one upstream that its attempt may call. That is a permit: one request and the job's
 * estimated tokens are taken from the provider's limit (configured), from the upstream's own (learned from what the
 * provider says) and from its pace, and settled by what the worker reports; an attempt that made no call gives them
 * back. So the sum over any number of workers stays within the limits, and a provider that is down gets single probes
 * and nothing else.
 *
 * The candidates of a queue (tier, pool, route) are, in order: the providers of the model that is asked for, then those
 * of the models that may stand in for it and meet the tier's quality floor; which of them a job gets is decision.h's. When none
 * of them can serve, the queue is paused: gate.h. See DESIGN.md, "Degradation".
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "broker/core/breaker.h"
#include "broker/core/bucket.h"
#include "broker/core/latency.h"
#include "broker/core/pace.h"
#include "broker/core/retry_budget.h"
#include "broker/core/state.h"
#include "common/price.h"

struct queue;
struct worker;

/* What a provider's key allows, as configured: shared by its upstreams. */
struct provider_limits {
    char *name;
    struct bucket requests, tokens;
    uint32_t calls; /* permits that are out */
};

struct upstream {
    char *provider, *model;
    char *subject;                  /* "provider/model" */
    struct provider_limits *limits;
    struct bucket requests, tokens; /* learned from the provider's answers */
    struct breaker breaker;
    struct pace pace;
    int64_t limited_until_ms;       /* it said when to come back */
    double typical_ms;              /* of an answered call, smoothed; 0: none yet */
    struct latency latency;         /* of answered calls, and of those ended while they were overdue */
    struct latency first_token;     /* the same of streams, until their first token */
    struct choice_model traits;     /* as configured; what is observed is filled in for a decision */
    struct price price;          /* as configured */
    uint32_t max_tokens_default; /* of output, when a job names no bound */
    size_t index;                   /* of core.upstreams */
    uint64_t answered_peer;         /* the worker that was answered last, and when; INT64_MIN never */
    int64_t answered_ms;
    char error_code[32];            /* of the last failure or limit */
    bool is_configured;
    bool is_recorded;               /* a record says that it is down */
    Wire__UpstreamState__State announced;
    struct core_upstream_counts counts;
};

enum { CANDIDATES_MAX = CONFIG_CANDIDATES_MAX }; /* struct job's `tried` has a bit for each; a configuration with more is refused */
struct candidates {
    size_t length;
    struct upstream *items[CANDIDATES_MAX];
    bool is_scored; /* else the first that can serve is chosen */
};

/* What the core keeps of a route. */
struct route {
    struct retry_budget budget;
    struct candidates by_tier[CONFIG_TIERS_MAX];
};

/* After tiers and routes. Errors: -ENOMEM. */
MUST_USE int upstreams_configure(struct core *core, const struct config *config);
/* NULL: there is none. */
struct upstream *upstream_find(const struct core *core, const char *provider, const char *model);
/* Of a route that is not configured: none. */
const struct candidates *upstream_candidates(const struct core *core, const struct queue *queue);
void upstreams_destroy(struct core *core);

/* When the job may call it; now or earlier: at once. */
int64_t upstream_open_at_ms(struct core *core, struct upstream *upstream, const struct job *job);
/* The share of its latest calls that failed, in the breaker's window; 0 of one that is down: a probe tells. */
double upstream_failing(const struct core *core, const struct upstream *upstream);
/* Every candidate is down, or has said when to come back: nobody can serve the queue. */
bool upstream_all_blocked(struct core *core, const struct queue *queue);
/* When the first that is blocked may be called or probed; at the latest now when one is not. */
int64_t upstream_back_at_ms(struct core *core, const struct queue *queue);
/*
 * The same for a job that has failed before: a moment after the others, who go first as probes. Otherwise a request that its upstream
 * cannot answer would be each probe, and keep the upstream down for everybody. Spread over a first backoff: otherwise all of them
 * would come back at once, each time.
 */
int64_t upstream_back_for_failed_at_ms(struct core *core, const struct queue *queue);
/* Of a queue that nobody can serve: the first to be back is down, and has not said when to come back. */
bool upstream_is_outage(const struct core *core, const struct queue *queue, int64_t now_ms);
/* Why nobody can serve it, in words; "" when a limit was the reason and is over. */
void upstream_why_blocked(const struct core *core, const struct queue *queue, int64_t now_ms, char *ret_text,
                          size_t bytes);
/* As workers and operators are told. */
Wire__UpstreamState__State upstream_state(const struct upstream *upstream, int64_t now_ms);
/* Until when its breaker or what it said itself lets no call through; now or earlier: they do. */
int64_t upstream_blocked_until_ms(const struct upstream *upstream);
bool upstream_is_down(struct core *core, struct upstream *upstream);
/* For struct job's `tried`; 0 when it is no candidate (any more). */
uint16_t upstream_bit(const struct core *core, const struct queue *queue, const struct upstream *upstream);

struct permit upstream_take(struct core *core, struct upstream *upstream, const struct job *job);
/*
 * The attempt is over and said what it called, under its permit and under the one for a second call, `hedge`. Empties both. Returns
 * the upstream that it was about: the last that it called, else the permit's, which a lease from before a restart has none of;
 * NULL: not known.
 */
struct upstream *upstream_settle(struct core *core, struct worker *worker, struct permit *permit, struct permit *hedge,
                                 const struct event_attempt_result *result);
/* What the attempt has called there; NULL: nothing. */
const Wire__Call *upstream_call_in(const struct upstream *upstream, const struct event_attempt_result *result);
/* Nothing was called, for certain. Empties the permit. */
void upstream_give_back(struct core *core, struct permit *permit);
/* The attempt ended without a word. `is_expired`: its time was over. Empties the permit. */
void upstream_settle_silent(struct core *core, struct permit *permit, bool is_expired);

/*
 * The event UPSTREAM_RESET: an operator knows better. What it said of when to come back is forgotten, and a breaker that
 * is not closed lets a probe through now: only an answer closes it. Jobs that back off from it come back, spread over
 * a first backoff. Looks at every pending job once for each upstream that was blocked.
 */
void upstream_reset(struct core *core, const struct event *event);

/* From a record. Errors: -EBADMSG. */
MUST_USE int upstream_restore(struct core *core, const void *value, size_t value_bytes);
