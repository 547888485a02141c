/* Mistakes about breakers, limits, paces and gates. */
#include "broker/core/breaker.h"
#include "broker/core/bucket.h"
#include "broker/core/gate.h"
#include "broker/core/hedge_budget.h"
#include "broker/core/lane.h"
#include "broker/core/pace.h"
#include "broker/core/retry_budget.h"
#include "broker/core/upstream.h"
#include "tests/simulation/mistakes.h"
#include "tests/simulation/mistakes_wrap.h"

enum { CALLS_MAX = 16 }; /* of one attempt: more than workers make */

/* ---- breakers ---- */

REPLACES(bool, breaker_report, struct breaker *breaker, const struct config_breaker *config,
         enum breaker_sample sample, bool is_probe, double jitter, int64_t now_ms)
{
    if (mistake_is_on(MISTAKE_BREAKER_NEVER_OPENS) && sample != SAMPLE_SUCCESS) {
        return false;
    }
    if (mistake_is_on(MISTAKE_BREAKER_NEVER_DOUBLES)) {
        breaker->opened_in_a_row = 0;
    }
    const bool is_any = mistake_is_on(MISTAKE_BREAKER_CLOSED_LATE) && sample == SAMPLE_SUCCESS;
    return __real_breaker_report(breaker, config, sample, is_probe || is_any, jitter, now_ms);
}

REPLACES(int64_t, breaker_closed_until_ms, const struct breaker *breaker)
{
    return mistake_is_on(MISTAKE_BREAKER_IGNORED) ? 0 : __real_breaker_closed_until_ms(breaker);
}

REPLACES(uint32_t, breaker_probe, struct breaker *breaker, const struct config_breaker *config,
         int64_t now_ms)
{
    const uint32_t probe = __real_breaker_probe(breaker, config, now_ms);
    breaker->is_probing = breaker->is_probing && !mistake_is_on(MISTAKE_TWO_PROBES);
    return probe;
}

REPLACES(void, breaker_forget_probe, struct breaker *breaker, uint32_t probe)
{
    if (!mistake_is_on(MISTAKE_PROBE_LOST)) {
        __real_breaker_forget_probe(breaker, probe);
    }
}

/* ---- limits ---- */

REPLACES(void, bucket_take, struct bucket *bucket, double amount, int64_t now_ms)
{
    const bool is_one_request = amount > 0.999 && amount < 1.001;
    if (!mistake_is_on(MISTAKE_LIMIT_NOT_TAKEN) || !is_one_request) {
        __real_bucket_take(bucket, amount, now_ms);
    }
}

struct copied_calls {
    Wire__Call calls[CALLS_MAX];
    const Wire__Call *refs[CALLS_MAX];
};

static void forget_tokens(struct event_attempt_result *result, struct copied_calls *copied)
{
    result->calls_length = result->calls_length < CALLS_MAX ? result->calls_length : CALLS_MAX;
    for (size_t i = 0; i < result->calls_length; i++) {
        copied->calls[i] = *result->calls[i];
        copied->calls[i].tokens = 0;
        copied->refs[i] = &copied->calls[i];
    }
    result->calls = copied->refs;
}

REPLACES(struct upstream *, upstream_settle, struct core *core, struct worker *worker,
         struct permit *permit, struct permit *hedge, const struct event_attempt_result *result)
{
    struct event_attempt_result changed = *result;
    struct copied_calls copied;
    if (mistake_is_on(MISTAKE_TOKENS_NOT_SETTLED)) {
        forget_tokens(&changed, &copied);
    }
    if (mistake_is_on(MISTAKE_LIMIT_GIVEN_BACK_TWICE) && result->calls_length == 0) {
        struct permit copy = *permit;
        upstream_give_back(core, &copy);
    }
    return __real_upstream_settle(core, worker, permit, hedge, &changed);
}

REPLACES(void, upstream_settle_silent, struct core *core, struct permit *permit, bool is_expired)
{
    if (mistake_is_on(MISTAKE_LIMIT_GIVEN_BACK_LOST)) {
        upstream_give_back(core, permit);
    } else {
        __real_upstream_settle_silent(core, permit, is_expired);
    }
}

REPLACES(bool, retry_budget_take, struct retry_budget *budget, const struct config_retries *config,
         int64_t now_ms)
{
    return mistake_is_on(MISTAKE_RETRIES_UNBOUNDED) ||
           __real_retry_budget_take(budget, config, now_ms);
}

/* ---- second calls ---- */

REPLACES(bool, hedge_budget_has_call, const struct hedge_budget *budget)
{
    return mistake_is_on(MISTAKE_HEDGES_UNBOUNDED) || __real_hedge_budget_has_call(budget);
}

REPLACES(bool, hedge_budget_take, struct hedge_budget *budget, uint64_t expected_nanousd)
{
    return mistake_is_on(MISTAKE_HEDGES_UNBOUNDED) ||
           __real_hedge_budget_take(budget, expected_nanousd);
}

/* ---- paces and gates ---- */

REPLACES(void, pace_start_slowly, struct pace *pace, double per_s, int64_t now_ms)
{
    if (!mistake_is_on(MISTAKE_NO_SLOW_START)) {
        __real_pace_start_slowly(pace, per_s, now_ms);
    }
}

/* An upstream's rest is not in a module of its own, so it is forgotten before each choice. */
REPLACES(bool, gate_pass, struct core *core, struct job *job, struct upstream **ret_upstream)
{
    const struct candidates *candidates = upstream_candidates(core, job->flow->queue);
    for (size_t i = 0; i < candidates->length && mistake_is_on(MISTAKE_REST_IGNORED); i++) {
        candidates->items[i]->limited_until_ms = 0;
    }
    return __real_gate_pass(core, job, ret_upstream);
}

REPLACES(void, gate_tick, struct core *core)
{
    if (!mistake_is_on(MISTAKE_GATE_NEVER_OPENS)) {
        __real_gate_tick(core);
    }
}

REPLACES(void, gate_look, struct core *core, const struct upstream *upstream)
{
    if (!mistake_is_on(MISTAKE_GATE_NOT_WOKEN)) {
        __real_gate_look(core, upstream);
    }
}
