#include "broker/core/hedge.h"
#include "broker/core/budget.h"
#include "broker/core/charge.h"
#include "broker/core/decision.h"
#include "broker/core/effects.h"
#include "broker/core/event.h"
#include "broker/core/job.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/worker.h"

static const double LATE_QUANTILE = 0.95;
static const double PERMILLE = 1000.0;

static double share_of(const struct tier *tier)
{
    return tier->hedge_share_permille / PERMILLE;
}

const char *core_hedge_outcome_name(enum core_hedge_outcome outcome)
{
    static const char *const names[] = {
        [HEDGE_WON] = "won", [HEDGE_LOST] = "lost", [HEDGE_FAILED] = "failed"};
    return names[outcome];
}

const char *core_hedge_refusal_name(enum core_hedge_refusal refusal)
{
    static const char *const names[] = {[HEDGE_NO_CALLS] = "budget",
                                        [HEDGE_NO_MONEY] = "cost",
                                        [HEDGE_NOBODY] = "nobody",
                                        [HEDGE_TOO_LATE] = "late"};
    return names[refusal];
}

/* ---- when ---- */

/* One that fails it no more than the chosen one, or may be called later. */
static bool has_other_provider(const struct decision *decision)
{
    for (size_t i = 0; i < decision->length; i++) {
        const struct decision_item *item = &decision->items[i];
        if (item->lost < LOST_TRIED && item->upstream->limits != decision->chosen->limits) {
            return true;
        }
    }
    return false;
}

int64_t hedge_after_ms(const struct core *core, const struct job *job,
                       const struct decision *decision, bool is_stream)
{
    const struct upstream *upstream = decision->chosen;
    if (job_tier(job)->hedge_share_permille == 0 || upstream == NULL ||
        upstream->breaker.state != BREAKER_CLOSED || !has_other_provider(decision)) {
        return 0;
    }
    const uint32_t size = latency_size_of(job_input_tokens(job));
    const double after_ms = latency_quantile_ms(
        is_stream ? &upstream->first_token : &upstream->latency, size, LATE_QUANTILE);
    const double left_ms = (double)job->deadline_ms - (double)core->now_ms;
    return after_ms < left_ms ? (int64_t)after_ms : 0;
}

/* ---- granting ---- */

/* The answer would come too late. */
static bool is_too_late(const struct core *core, const struct job *job,
                        const struct upstream *upstream)
{
    const double left_ms = (double)job->deadline_ms - (double)core->now_ms;
    return left_ms <= 0 || left_ms < upstream->typical_ms;
}

static void refuse(struct tier *tier, enum core_hedge_refusal refusal)
{
    tier->stats.hedges_refused[refusal]++;
}

static void send_grant(struct core *core, const struct lease *lease,
                       const struct decision *decision)
{
    struct effect *effect = effects_add(core->effects, EFFECT_HEDGE, lease->worker->peer, 0);
    effect->as.hedge.lease =
        (struct lease_ref){.job_id = lease->job->id, .attempt = lease->attempt};
    effect->as.hedge.provider = lease->hedge.upstream->provider;
    effect->as.hedge.model = lease->hedge.upstream->model;
    effect->as.hedge.quality_lost = decision->quality_lost;
}

static void grant(struct core *core, struct lease *lease, const struct decision *decision)
{
    struct tier *tier = job_tier(lease->job);
    const uint64_t cost = choice_cost_nanousd(&decision->job, &decision->chosen->traits);
    if (!charge_may_open(core) || !budget_has_second(core, lease->job, decision->chosen) ||
        !hedge_budget_take(&tier->hedges, cost)) {
        refuse(tier, HEDGE_NO_MONEY);
        return;
    }
    lease->hedge = upstream_take(core, decision->chosen, lease->job);
    lease->hedge_nanousd = cost;
    charge_open_second(core, lease);
    tier->stats.hedges_granted++;
    decision_explain_second(core, lease->job, decision->chosen);
    send_grant(core, lease, decision);
}

static void consider(struct core *core, struct lease *lease)
{
    struct job *job = lease->job;
    struct tier *tier = job_tier(job);
    if (job->deadline_ms <= core->now_ms) {
        refuse(tier, HEDGE_TOO_LATE);
        return;
    }
    if (!hedge_budget_has_call(&tier->hedges)) {
        refuse(tier, HEDGE_NO_CALLS);
        return;
    }
    struct decision decision;
    decision_make_beside(core, job, lease->permit.upstream, &decision);
    if (decision.chosen == NULL || lane_is_held(core, job)) {
        refuse(tier, HEDGE_NOBODY);
    } else if (is_too_late(core, job, decision.chosen)) {
        refuse(tier, HEDGE_TOO_LATE);
    } else {
        grant(core, lease, &decision);
    }
}

void hedge_asked(struct core *core, const struct event *event)
{
    const struct lease_ref *asked = &event->as.hedge_asked.lease;
    const struct worker *worker = worker_heard(core, event->peer);
    const struct job *job = job_find(core, &asked->job_id);
    if (worker == NULL || job == NULL || job->place != PLACE_LEASED) {
        return;
    }
    struct lease *lease = job->at.lease;
    const bool is_probe = lease->permit.probe != 0;
    if (lease->worker != worker || lease->attempt != asked->attempt ||
        lease->permit.upstream == NULL || lease->hedge.upstream != NULL || is_probe ||
        job_tier(job)->hedge_share_permille == 0 || !effects_reserve(core->effects, 2)) {
        return;
    }
    consider(core, lease);
}

/* ---- settling ---- */

static enum core_hedge_outcome outcome_of(const Wire__Call *call)
{
    return call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED    ? HEDGE_WON
           : call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED ? HEDGE_LOST
                                                                       : HEDGE_FAILED;
}

static void settle_second(struct tier *tier, const struct lease *lease, const Wire__Call *call)
{
    if (call == NULL) {
        hedge_budget_give_back(&tier->hedges, lease->hedge_nanousd);
        return;
    }
    /* What one that was ended has cost is not always said: it counts as what was expected then. */
    const bool is_known =
        call->cost_nanousd > 0 || call->outcome != WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED;
    hedge_budget_settle(&tier->hedges, lease->hedge_nanousd,
                        is_known ? call->cost_nanousd : lease->hedge_nanousd);
    tier->stats.hedges[outcome_of(call)]++;
    tier->stats.hedge_cost_nanousd += call->cost_nanousd;
}

void hedge_settle(const struct lease *lease, const struct event_attempt_result *result)
{
    struct tier *tier = job_tier(lease->job);
    if (lease->permit.upstream != NULL &&
        upstream_call_in(lease->permit.upstream, result) != NULL) {
        hedge_budget_earn_call(&tier->hedges, share_of(tier));
    }
    if (lease->hedge.upstream != NULL) {
        settle_second(tier, lease, upstream_call_in(lease->hedge.upstream, result));
    }
}

void hedge_earn_cost(struct tier *tier, uint64_t cost_nanousd)
{
    hedge_budget_earn_cost(&tier->hedges, share_of(tier), cost_nanousd);
}
