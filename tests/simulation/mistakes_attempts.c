/* Mistakes about attempts, leases, workers, shares and tenants. */
#include <string.h>
#include "broker/core/attempt.h"
#include "broker/core/client.h"
#include "broker/core/conclude.h"
#include "broker/core/dispatch.h"
#include "broker/core/flight.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/pause.h"
#include "broker/core/result.h"
#include "broker/core/submit.h"
#include "broker/core/upstream.h"
#include "broker/core/worker.h"
#include "tests/simulation/mistakes.h"
#include "tests/simulation/mistakes_wrap.h"

/* What is under way, for what is called deeper in. */
static struct {
    bool is_attempt_result, is_promotion;
} within;

/* ---- attempts ---- */

static bool is_of_lost_lease(const struct core *core, const struct event *event)
{
    const struct event_attempt_result *result = &event->as.attempt_result;
    const struct job *job = job_find(core, &result->lease.job_id);
    return result->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED && job != NULL &&
           job_is_pending(job) && worker_find(core, event->peer) != NULL &&
           (job->place != PLACE_LEASED || job->at.lease->worker == NULL ||
            job->at.lease->worker->peer != event->peer ||
            job->at.lease->attempt != result->lease.attempt);
}

static Wire__AttemptOutcome mistaken(Wire__AttemptOutcome outcome)
{
    const bool is_final = outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED ||
                          outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID ||
                          outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED;
    const bool is_limited = outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED;
    return (is_final && mistake_is_on(MISTAKE_REJECTED_IS_RETRIED)) ||
                   (is_limited && mistake_is_on(MISTAKE_LIMIT_COSTS_ATTEMPT))
               ? WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE
               : outcome;
}

REPLACES(void, attempt_result, struct core *core, const struct event *event)
{
    struct event changed = *event;
    changed.as.attempt_result.outcome = mistaken(event->as.attempt_result.outcome);
    if (mistake_is_on(MISTAKE_UNSUPPORTED_IS_FINAL) &&
        strcmp(event->as.attempt_result.error_code, "unsupported") == 0) {
        changed.as.attempt_result.error_code = "rejected";
    }
    Wire__Usage usage;
    if (mistake_is_on(MISTAKE_LOST_NOT_COUNTED) && event->as.attempt_result.usage != NULL) {
        usage = *event->as.attempt_result.usage;
        usage.quality_lost = 0;
        changed.as.attempt_result.usage = &usage;
    }
    if (mistake_is_on(MISTAKE_LATE_ANSWER_IGNORED) && is_of_lost_lease(core, event)) {
        effects_add(core->effects, EFFECT_ATTEMPT_CONCLUDED, event->peer, 0)->as.attempt.lease =
            event->as.attempt_result.lease;
        return;
    }
    within.is_attempt_result = true;
    __real_attempt_result(core, &changed);
    within.is_attempt_result = false;
}

REPLACES(void, attempt_try_again, struct core *core, struct job *job)
{
    if (mistake_is_on(MISTAKE_DEADLINE_RENEWED)) {
        job->deadline_ms = core->now_ms + job_tier(job)->deadline_ms;
        job_rearm(core, job);
    }
    __real_attempt_try_again(core, job);
}

REPLACES(bool, upstream_is_down, struct core *core, struct upstream *upstream)
{
    return !mistake_is_on(MISTAKE_OUTAGE_COSTS_ATTEMPT) && __real_upstream_is_down(core, upstream);
}

REPLACES(uint16_t, upstream_bit, const struct core *core, const struct queue *queue,
         const struct upstream *upstream)
{
    return mistake_is_on(MISTAKE_TRIED_FORGOTTEN) && within.is_attempt_result
               ? 0
               : __real_upstream_bit(core, queue, upstream);
}

REPLACES(void, conclude_update_record, struct core *core, struct job *job)
{
    if (mistake_is_on(MISTAKE_FAILURES_FORGOTTEN)) {
        job->failures = 0;
    }
    __real_conclude_update_record(core, job);
}

REPLACES(void, job_wait_until, struct core *core, struct job *job, int64_t not_before_ms)
{
    const bool is_skipped = mistake_is_on(MISTAKE_BACKOFF_SKIPPED) && within.is_attempt_result;
    __real_job_wait_until(core, job, is_skipped ? core->now_ms + 1 : not_before_ms);
}

REPLACES(void, job_destroy, struct core *core, struct job **job)
{
    if (!mistake_is_on(MISTAKE_ANSWERED_STAYS_QUEUED) || !within.is_attempt_result ||
        (*job)->place != PLACE_READY) {
        __real_job_destroy(core, job);
    }
}

/* ---- leases ---- */

REPLACES(struct lease *, lease_grant, struct core *core, struct job *job, struct worker *worker,
         uint32_t attempt)
{
    if (mistake_is_on(MISTAKE_LOSSES_FORGIVEN)) {
        job->losses = 0;
    }
    const bool is_reused = mistake_is_on(MISTAKE_ATTEMPT_REUSED) && job->attempt > 0;
    return __real_lease_grant(core, job, worker, is_reused ? job->attempt : attempt);
}

REPLACES(void, lease_end, struct core *core, struct lease *lease)
{
    struct job *job = lease->job;
    if (mistake_is_on(MISTAKE_PAYLOAD_FORGOTTEN) && (job->flags & JOB_DURABLE) == 0) {
        job_drop_payload(core, job);
    }
    __real_lease_end(core, lease);
}

static int64_t mistaken_lease_ms(int64_t lease_ms)
{
    return mistake_is_on(MISTAKE_LEASE_SHORT)     ? lease_ms / 2
           : mistake_is_on(MISTAKE_LEASE_FOREVER) ? INT64_MAX / 2
                                                  : lease_ms;
}

REPLACES(bool, lease_tick, struct core *core)
{
    const int64_t lease_ms = core->limits.lease_ms;
    core->limits.lease_ms = mistaken_lease_ms(lease_ms);
    const bool is_done = __real_lease_tick(core);
    core->limits.lease_ms = lease_ms;
    return is_done;
}

REPLACES(void, lease_hand_over, struct core *core, struct lease *lease, struct worker *worker,
         uint32_t attempt)
{
    if (!mistake_is_on(MISTAKE_LEASE_NOT_RENEWED) || lease->worker != worker) {
        __real_lease_hand_over(core, lease, worker, attempt);
    }
}

/* ---- workers ---- */

REPLACES(struct permit, upstream_take, struct core *core, struct upstream *upstream,
         const struct job *job)
{
    /* The one call of dispatch.c beside counting the dispatch. */
    job->at.lease->worker->dispatched -= mistake_is_on(MISTAKE_CREDIT_NOT_COUNTED);
    return __real_upstream_take(core, upstream, job);
}

REPLACES(void, worker_refresh, struct core *core, struct worker *worker)
{
    if (mistake_is_on(MISTAKE_RESERVATIONS_IGNORED)) {
        memset(worker->reserved, 0, sizeof(worker->reserved));
    }
    __real_worker_refresh(core, worker);
}

REPLACES(void, worker_set_aside, struct core *core, struct worker *worker)
{
    if (!mistake_is_on(MISTAKE_SET_ASIDE_IGNORED)) {
        __real_worker_set_aside(core, worker);
    }
}

REPLACES(void, worker_hello, struct core *core, const struct event *event)
{
    struct event changed = *event;
    if (mistake_is_on(MISTAKE_ANSWER_RUN_AGAIN)) {
        changed.as.worker_hello.answered_length = 0;
    }
    changed.as.worker_hello.cache_sequence +=
        event->as.worker_hello.cache_sequence > 0 && mistake_is_on(MISTAKE_WELCOME_SKIPS);
    if (event->as.worker_hello.cache_sequence > 0 && mistake_is_on(MISTAKE_WELCOME_TRUSTS)) {
        changed.as.worker_hello.cache_epoch = core->cache_log.epoch;
    }
    __real_worker_hello(core, &changed);
}

REPLACES(void, worker_gone, struct core *core, const struct event *event)
{
    struct event changed = *event;
    changed.as.worker_gone.said_goodbye &= !mistake_is_on(MISTAKE_GOODBYE_IS_CRASH);
    __real_worker_gone(core, &changed);
}

REPLACES(void, worker_undeliverable, struct core *core, const struct event *event)
{
    if (!mistake_is_on(MISTAKE_UNDELIVERABLE_IGNORED)) {
        __real_worker_undeliverable(core, event);
    }
}

/* ---- order, shares, pauses ---- */

REPLACES(uint32_t, flight_priority, const struct core *core, const struct job *job)
{
    return mistake_is_on(MISTAKE_PRIORITY_IGNORED) ? 5 : __real_flight_priority(core, job);
}

REPLACES(void, lane_charge, struct lane *lane, struct job *job)
{
    const int64_t deficit_tokens = job->flow->deficit_tokens;
    __real_lane_charge(lane, job);
    if (mistake_is_on(MISTAKE_TENANTS_NOT_CHARGED)) {
        job->flow->deficit_tokens = deficit_tokens;
    }
}

REPLACES(void, lane_charge_tier, struct lane *lane)
{
    if (!mistake_is_on(MISTAKE_TIERS_NOT_CHARGED)) {
        __real_lane_charge_tier(lane);
    }
}

REPLACES(void, lane_refresh_holds, struct core *core)
{
    if (!mistake_is_on(MISTAKE_PAUSE_NOT_APPLIED)) {
        __real_lane_refresh_holds(core);
    }
}

REPLACES(void, dispatch_put_back_held, struct core *core)
{
    if (!mistake_is_on(MISTAKE_PAUSE_FORGETS_LOADED)) {
        __real_dispatch_put_back_held(core);
    }
}

REPLACES(void, pause_apply_to_worker, struct core *core, struct worker *worker)
{
    if (!mistake_is_on(MISTAKE_PAUSE_FORGETS_WORKER)) {
        __real_pause_apply_to_worker(core, worker);
    }
}

REPLACES(void, dispatch_tick, struct core *core)
{
    const bool is_draining = core->is_draining;
    core->is_draining = is_draining && !mistake_is_on(MISTAKE_DRAINING_DISPATCHES);
    __real_dispatch_tick(core);
    core->is_draining = is_draining;
}

/* ---- tenants ---- */

/* Takes the client for one of the tenant whose job this is, and gives its own back. NULL: leave it.
 */
static struct tenant *disguise(const struct core *core, uint64_t peer, const struct id *job_id)
{
    struct client *client = client_find(core, peer);
    const struct job *job = job_find(core, job_id);
    const struct concluded_entry *entry = concluded_find(&core->concluded, job_id);
    if (client == NULL || (job == NULL && entry == NULL)) {
        return NULL;
    }
    struct tenant *own = client->tenant;
    client->tenant = job != NULL ? job_tenant(job) : core->tenant[entry->tenant];
    return own;
}

static void end_disguise(const struct core *core, uint64_t peer, struct tenant *own)
{
    if (own != NULL) {
        client_find(core, peer)->tenant = own;
    }
}

static struct tenant *disguise_if(enum mistake mistake, const struct core *core, uint64_t peer,
                                  const struct id *job_id)
{
    return mistake_is_on(mistake) ? disguise(core, peer, job_id) : NULL;
}

REPLACES(void, result_wait, struct core *core, const struct event *event)
{
    struct tenant *own =
        disguise_if(MISTAKE_WAIT_CROSSES_TENANTS, core, event->peer, &event->as.job.job_id);
    __real_result_wait(core, event);
    end_disguise(core, event->peer, own);
}

REPLACES(void, conclude_cancel, struct core *core, const struct event *event)
{
    struct tenant *own =
        disguise_if(MISTAKE_CANCEL_CROSSES_TENANTS, core, event->peer, &event->as.job.job_id);
    __real_conclude_cancel(core, event);
    end_disguise(core, event->peer, own);
}

REPLACES(void, submit, struct core *core, const struct event *event)
{
    const bool is_draining = core->is_draining;
    core->is_draining = is_draining && !mistake_is_on(MISTAKE_DRAINING_ACCEPTS);
    struct tenant *own =
        disguise_if(MISTAKE_SUBMIT_CROSSES_TENANTS, core, event->peer, &event->as.submit.job_id);
    struct event changed = *event;
    if (event->peer == 0 && mistake_is_on(MISTAKE_MADE_FOR_ANOTHER)) {
        changed.as.submit.tenant = core->tenant[0]->name->text;
    }
    __real_submit(core, &changed);
    end_disguise(core, event->peer, own);
    core->is_draining = is_draining;
}

/* ---- identical jobs ---- */

REPLACES(bool, flight_tick, struct core *core)
{
    return mistake_is_on(MISTAKE_FOLLOWERS_FORGOTTEN) || __real_flight_tick(core);
}

REPLACES(void, flight_enter, struct core *core, struct job *job)
{
    const struct job_needs needs = job->needs;
    if (mistake_is_on(MISTAKE_FOLLOWERS_RUN)) {
        job_move(core, job, PLACE_READY);
        return;
    }
    /* While it is looked who leads it, the job has no label. */
    job->needs.residency = mistake_is_on(MISTAKE_LABELS_SHARE_ANSWERS) ? 0 : needs.residency;
    __real_flight_enter(core, job);
    job->needs = needs;
}

static const char cancelled[] = "cancelled";

static bool is_cancellation(const struct outcome *outcome)
{
    return outcome->error_code != NULL && strcmp(outcome->error_code, cancelled) == 0;
}

/* What makes it hold for all is taken back in conclude(). */
REPLACES(void, flight_conclude, struct core *core, struct job *job, const struct outcome *outcome)
{
    struct outcome changed = *outcome;
    if (mistake_is_on(MISTAKE_CANCEL_SHARED) && is_cancellation(outcome)) {
        changed.state = WIRE__JOB_STATE__JOB_STATE_DEAD;
        changed.peer = 1;
    }
    within.is_promotion = mistake_is_on(MISTAKE_PROMOTED_FORGOTTEN);
    __real_flight_conclude(core, job, &changed);
    within.is_promotion = false;
}

REPLACES(void, job_move, struct core *core, struct job *job, enum job_place next)
{
    if (within.is_promotion && next == PLACE_READY) {
        within.is_promotion = false;
        __real_job_move(core, job, next);
        __real_job_wait_until(core, job, INT64_MAX);
    } else {
        __real_job_move(core, job, next);
    }
}

/* Of the job whose answer has been kept in memory the longest; NULL: there is none. */
static struct blob *anothers_payload(const struct core *core)
{
    struct list_link *link = list_first(&core->results_by_age);
    return link == NULL ? NULL : CONTAINER_OF(link, struct kept_result, by_age)->payload;
}

REPLACES(void, conclude, struct core *core, struct job *job, const struct outcome *outcome)
{
    struct outcome changed = *outcome;
    if (mistake_is_on(MISTAKE_CANCEL_SHARED) && outcome->led_by != NULL &&
        is_cancellation(outcome)) {
        changed.state = WIRE__JOB_STATE__JOB_STATE_CANCELLED;
    }
    struct blob *other = anothers_payload(core);
    if (mistake_is_on(MISTAKE_ANOTHERS_ANSWER) && outcome->led_by != NULL && other != NULL) {
        changed.payload = other;
    }
    __real_conclude(core, job, &changed);
}
