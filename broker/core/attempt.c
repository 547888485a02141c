#include "broker/core/attempt.h"
#include <string.h>
#include "broker/core/client.h"
#include "broker/core/conclude.h"
#include "broker/core/decision.h"
#include "broker/core/flight.h"
#include "broker/core/hedge.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/stream.h"
#include "broker/core/upstream.h"
#include "broker/core/worker.h"

enum {
    DEFERRED_WAIT_MS = 20, /* another worker may have room; the same one was set aside */
    RETRY_AFTER_SPREAD_PERCENT = 10,
    RETRY_HELD_MS = 100, /* the least that a retry waits for the budget */
};

/* What it used has to be on the disk, too. */
static void confirm(struct core *core, uint64_t peer, const struct lease_ref *lease, uint64_t batch)
{
    const uint64_t charged = charge_batch(core);
    struct effect *effect = effects_add(core->effects, EFFECT_ATTEMPT_CONCLUDED, peer,
                                        charged > batch ? charged : batch);
    effect->as.attempt.lease = *lease;
    effect->as.attempt.reason = "concluded";
}

static void count_usage(struct tier *tier, const Wire__Usage *usage)
{
    if (usage == NULL) {
        return;
    }
    struct core_tier_stats *stats = &tier->stats;
    stats->input_tokens += usage->input_tokens;
    stats->output_tokens += usage->output_tokens;
    stats->cost_nanousd += usage->cost_nanousd;
    hedge_earn_cost(tier, usage->cost_nanousd);
    stats->saved_nanousd += usage->saved_nanousd;
    stats->cache_hits += usage->cache == WIRE__CACHE_STATUS__CACHE_HIT;
    stats->cache_near_hits += usage->cache == WIRE__CACHE_STATUS__CACHE_NEAR_HIT;
    stats->cache_stale_hits += usage->cache == WIRE__CACHE_STATUS__CACHE_STALE_HIT;
    stats->cache_misses += usage->cache == WIRE__CACHE_STATUS__CACHE_MISS;
}

/*
 * An answer to what is concluded. The one that concluded it comes again when its worker has not
 * heard that it was taken; any other was paid for twice. Counted at the tier of the job; at the
 * first one when that is not known any more.
 */
static void note_answer_after_end(struct core *core, const struct event *event)
{
    const struct event_attempt_result *result = &event->as.attempt_result;
    const struct concluded_entry *entry = concluded_find(&core->concluded, &result->lease.job_id);
    struct tier *tier = &core->tier[entry == NULL ? 0 : concluded_tier(entry)];
    if (entry != NULL && entry->attempt != 0 && entry->attempt == result->lease.attempt) {
        tier->stats.duplicate_results++;
        return;
    }
    const uint64_t cost = result->usage == NULL ? 0 : result->usage->cost_nanousd;
    tier->stats.late_results++;
    tier->stats.late_cost_nanousd += cost;
    struct effect *effect = effects_add(core->effects, EFFECT_NOTE, 0, 0);
    effect->as.note.note = NOTE_LATE_RESULT;
    effect->as.note.has_job = true;
    effect->as.note.job_id = result->lease.job_id;
    effect->as.note.tenant = effect->as.note.subject = "";
    effect->as.note.text = "answered after the job was concluded";
    effect->as.note.number = (int64_t)cost;
}

/*
 * Exponential with full jitter: otherwise all jobs of a route wake in the same second after an
 * outage.
 */
static int64_t backoff_ms(struct core *core, const struct job *job)
{
    const struct tier *tier = job_tier(job);
    const unsigned doublings = job->backoffs > 0 ? job->backoffs - 1u : 0;
    int64_t longest_ms = tier->backoff_first_ms;
    for (unsigned i = 0; i < doublings && longest_ms < tier->backoff_max_ms; i++) {
        longest_ms *= 2;
    }
    longest_ms = longest_ms < tier->backoff_max_ms ? longest_ms : tier->backoff_max_ms;
    return 1 + (int64_t)core_random_below(core, (uint64_t)longest_ms);
}

/*
 * What the provider asks for is the least; a little more, spread, keeps its next window from
 * opening to all at once.
 */
static int64_t wait_ms(struct core *core, struct job *job, int64_t retry_after_ms, bool is_counted)
{
    if (job->backoffs < JOB_BACKOFFS_MAX && (is_counted || job->backoffs == 0)) {
        job->backoffs++;
    }
    const int64_t backoff = backoff_ms(core, job);
    if (retry_after_ms <= 0) {
        return backoff;
    }
    const int64_t most = INT64_C(1) << 40; /* 35 years: keeps the sums below from overflowing */
    const int64_t asked = retry_after_ms < most ? retry_after_ms : most;
    const int64_t spread =
        (int64_t)core_random_below(core, (uint64_t)(asked * RETRY_AFTER_SPREAD_PERCENT / 100 + 1));
    return asked + spread > backoff ? asked + spread : backoff;
}

static void record(struct core *core, struct job *job, const struct event *event,
                   Record__AttemptNext next, int64_t wait_ms)
{
    const struct event_attempt_result *result = &event->as.attempt_result;
    conclude_record_attempt(core, job,
                            &(struct attempt_report){.outcome = result->outcome,
                                                     .error_code = result->error_code,
                                                     .error_text = result->error_text,
                                                     .worker = worker_find(core, event->peer)->name,
                                                     .usage = result->usage,
                                                     .calls = result->calls,
                                                     .calls_length = result->calls_length,
                                                     .retry_after_ms = result->retry_after_ms,
                                                     .next = next,
                                                     .wait_ms = wait_ms});
}

/* What was not the job's fault does not make its next wait longer. */
static void back_off(struct core *core, struct job *job, const struct event *event, bool is_counted)
{
    const int64_t asked_at_ms =
        core->now_ms + wait_ms(core, job, event->as.attempt_result.retry_after_ms, is_counted);
    const int64_t back_at_ms = upstream_back_for_failed_at_ms(core, job->flow->queue);
    const int64_t at_ms = asked_at_ms > back_at_ms ? asked_at_ms : back_at_ms;
    record(core, job, event, RECORD__ATTEMPT_NEXT__NEXT_BACKOFF, at_ms - core->now_ms);
    job->tried = 0; /* a new round */
    lease_end(core, job->at.lease);
    job_wait_until(core, job, at_ms);
    conclude_update_record(core, job);
    confirm(core, event->peer, &event->as.attempt_result.lease, 0);
}

static struct retry_budget *budget_of(const struct core *core, const struct job *job)
{
    const struct name *route = job->flow->queue->route;
    return route->index < core->route_length ? &core->route[route->index].budget : NULL;
}

static bool may_retry(struct core *core, const struct job *job)
{
    struct retry_budget *budget = budget_of(core, job);
    return budget == NULL || retry_budget_take(budget, &core->retries, core->now_ms);
}

/*
 * Another upstream may answer at once. Whether the retry budget grants that is asked last, since
 * asking takes from it; what an outage or a limit sent back is no retry.
 */
static bool fail_over(struct core *core, struct job *job, const struct event *event,
                      bool is_counted)
{
    int64_t at_ms;
    if (job->deadline_ms <= core->now_ms || decision_choose(core, job, &at_ms) == NULL ||
        (is_counted && !may_retry(core, job))) {
        return false;
    }
    job_tier(job)->stats.failovers++;
    job_tier(job)->stats.retries += is_counted;
    record(core, job, event, RECORD__ATTEMPT_NEXT__NEXT_FAILOVER, 0);
    lease_end(core, job->at.lease);
    flight_enter(core, job);
    conclude_update_record(core, job);
    confirm(core, event->peer, &event->as.attempt_result.lease, 0);
    return true;
}

void attempt_try_again(struct core *core, struct job *job)
{
    struct tier *tier = job_tier(job);
    const int64_t back_at_ms =
        job->backoffs == 0 ? 0 : upstream_back_for_failed_at_ms(core, job->flow->queue);
    if (back_at_ms > core->now_ms) {
        job->at.not_before_ms = back_at_ms;
        job_rearm(core, job);
    } else if ((job->flags & JOB_RETRIES) == 0) {
        flight_enter(core, job);
    } else if (may_retry(core, job)) {
        job->flags &= (uint16_t)~JOB_RETRIES;
        tier->stats.retries++;
        flight_enter(core, job);
    } else {
        tier->stats.retries_held++;
        job->at.not_before_ms = core->now_ms + RETRY_HELD_MS + backoff_ms(core, job);
        job_rearm(core, job);
    }
}

/* The worker has heard that the upstream is down since: it is not at fault. */
static bool is_upstreams_fault(const struct event *event)
{
    return strcmp(event->as.attempt_result.error_code, "upstream_open") == 0;
}

static void give_back(struct core *core, struct job *job, const struct event *event)
{
    struct worker *worker = job->at.lease->worker;
    const int64_t asked_ms = event->as.attempt_result.retry_after_ms;
    const int64_t wait = asked_ms > DEFERRED_WAIT_MS ? asked_ms : DEFERRED_WAIT_MS;
    /* A worker without room says nothing more, and is no news; one that says how long, or why, is.
     */
    const bool is_news = asked_ms > 0 || event->as.attempt_result.error_code[0] != '\0';
    if (is_news) {
        record(core, job, event, RECORD__ATTEMPT_NEXT__NEXT_BACKOFF, wait);
    }
    lease_end(core, job->at.lease);
    if (!is_upstreams_fault(event)) {
        worker_set_aside(core, worker);
    }
    job_wait_until(core, job, core->now_ms + wait);
    if (is_news) {
        conclude_update_record(core, job);
    }
    confirm(core, event->peer, &event->as.attempt_result.lease, 0);
}

static const char *last_provider(const struct event_attempt_result *result)
{
    if (result->calls_length > 0) {
        return result->calls[result->calls_length - 1]->upstream->provider;
    }
    return result->usage == NULL ? NULL : result->usage->provider;
}

/*
 * Ends the job by this attempt. `attempts` counts it, whether it is counted as used up by now or
 * not.
 */
static void finish(struct core *core, struct job *job, const struct event *event,
                   Wire__JobState state, const char *error_code, uint32_t attempts)
{
    const struct event_attempt_result *result = &event->as.attempt_result;
    const bool is_durable = (job->flags & JOB_DURABLE) != 0;
    const struct outcome outcome = {
        .state = state,
        .error_code = error_code,
        .error_text = state == WIRE__JOB_STATE__JOB_STATE_SUCCEEDED ? "" : result->error_text,
        .usage = result->usage,
        .payload = result->payload,
        .worker = worker_find(core, event->peer)->name,
        .provider = last_provider(result),
        .attempts = attempts > 0
                        ? attempts
                        : 1, /* 0: recovered, and answered by a worker that was not asked anew */
        .peer = event->peer,
        .attempt = result->lease.attempt,
        .is_carried_on = result->made_by > 0,
    };
    conclude(core, job, &outcome);
    confirm(core, event->peer, &result->lease, is_durable ? effects_batch(core->effects) : 0);
}

static void note_failure(struct core *core, const struct job *job, const struct event *event)
{
    const struct event_attempt_result *result = &event->as.attempt_result;
    job_tier(job)->stats.attempts_failed++;
    core_note(core, NOTE_ATTEMPT_FAILED, job, result->error_code, result->error_text, job->attempt);
}

static void die(struct core *core, struct job *job, const struct event *event,
                const char *error_code)
{
    const uint32_t attempts = job_attempts(job);
    record(core, job, event, RECORD__ATTEMPT_NEXT__NEXT_DEAD, 0);
    job->failures++;
    finish(core, job, event, WIRE__JOB_STATE__JOB_STATE_DEAD, error_code, attempts);
}

/*
 * Whether its upstream may answer nobody at all: all of the job's failures lie in a row of others, or
 * nobody was answered for long. Too little is asked of it for a breaker to open, then, and the last
 * attempt is not taken from the job: a quiet cluster would bury its jobs in an outage.
 */
static bool may_be_an_outage(const struct core *core, const struct job *job,
                             const struct upstream *called)
{
    return called != NULL && job->attempts_max > 1 &&
           (called->breaker.failures_in_a_row > job->failures ||
            called->answered_ms == INT64_MIN ||
            core->now_ms - called->answered_ms > core->breaker.window_ms);
}

/* An attempt that says something about the job: its upstream serves others. */
static void fail(struct core *core, struct job *job, const struct event *event,
                 const struct upstream *called)
{
    note_failure(core, job, event);
    const bool is_last = (uint32_t)job->failures + 1 >= job->attempts_max;
    if (is_last && may_be_an_outage(core, job, called)) {
        job_tier(job)->stats.attempts_spared++;
        job->flags |= JOB_RETRIES;
        back_off(core, job, event, true);
        return;
    }
    if (is_last) {
        die(core, job, event, "attempts_exhausted");
        return;
    }
    job->failures++;
    if (!fail_over(core, job, event, true)) {
        job->flags |= JOB_RETRIES;
        back_off(core, job, event, true);
    }
}

/* Its upstream is down, unreachable, or has had enough: no attempt is used up by that. */
static void spare(struct core *core, struct job *job, const struct event *event)
{
    note_failure(core, job, event);
    job_tier(job)->stats.attempts_spared++;
    if (!fail_over(core, job, event, false)) {
        back_off(core, job, event, false);
    }
}

/* The call has reached nobody (outcome.c of the worker): that says nothing about the job. */
static bool is_unreached(const struct event *event)
{
    const char *code = event->as.attempt_result.error_code;
    return strcmp(code, "connect") == 0 || strcmp(code, "tls") == 0;
}

/* Of all candidates that were called: there may have been a second one. */
static uint16_t bits_called(const struct core *core, const struct queue *queue,
                            const struct event_attempt_result *result)
{
    const struct candidates *candidates = upstream_candidates(core, queue);
    uint16_t bits = 0;
    for (size_t i = 0; i < candidates->length; i++) {
        const struct upstream *upstream = candidates->items[i];
        if (upstream_call_in(upstream, result) != NULL) {
            bits |= upstream_bit(core, queue, upstream);
        }
    }
    return bits;
}

static void fail_or_spare(struct core *core, struct job *job, const struct event *event,
                          struct upstream *called)
{
    const bool is_limited =
        event->as.attempt_result.outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED;
    if (called != NULL) {
        job->tried |= upstream_bit(core, job->flow->queue, called);
    }
    job->tried |= bits_called(core, job->flow->queue, &event->as.attempt_result);
    if (is_limited || (called != NULL && (is_unreached(event) || upstream_is_down(core, called)))) {
        spare(core, job, event);
    } else {
        fail(core, job, event, called);
    }
}

/* Its provider has no words for it, and was not called. */
static bool is_unsupported(const struct event *event)
{
    return strcmp(event->as.attempt_result.error_code, "unsupported") == 0;
}

/*
 * Another model, or provider, may be able to say it: it is asked, at once or when it is free. Who
 * has no words for it now has none in the next round: otherwise a job that waits for the others
 * would go to and fro for ever, since no attempt is used up. When it is not known who that was (its
 * route had no candidates then, or the lease is from before a restart), all of them are asked.
 */
static bool go_elsewhere(struct core *core, struct job *job, const struct event *event,
                         const struct upstream *called)
{
    const struct queue *queue = job->flow->queue;
    if (!is_unsupported(event) || upstream_candidates(core, queue)->length == 0) {
        return false;
    }
    if (called != NULL) {
        job->unsaid |= upstream_bit(core, queue, called);
    }
    if (decision_is_hopeless(core, job)) {
        return false;
    }
    if (!fail_over(core, job, event, false)) {
        back_off(core, job, event, false);
    }
    return true;
}

/* Its lease, at this worker: only then a failure says something about the job now. */
static bool is_holder(const struct core *core, const struct job *job, const struct event *event)
{
    return job->place == PLACE_LEASED && job->at.lease->worker != NULL &&
           job->at.lease->worker == worker_find(core, event->peer) &&
           job->at.lease->attempt == event->as.attempt_result.lease.attempt;
}

static void holder_result(struct core *core, struct job *job, const struct event *event,
                          struct upstream *called)
{
    switch (event->as.attempt_result.outcome) {
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED:
        break; /* concluded before, whoever answers */
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_NONE:
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED:
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE:
        fail_or_spare(core, job, event, called);
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED:
        note_failure(core, job, event);
        if (!go_elsewhere(core, job, event, called)) {
            die(core, job, event, "rejected");
        }
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID:
        note_failure(core, job, event);
        die(core, job, event, "invalid");
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED:
        note_failure(core, job, event);
        die(core, job, event, "refused");
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED:
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED:
        give_back(core, job, event);
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED:
        finish(core, job, event, WIRE__JOB_STATE__JOB_STATE_EXPIRED, "deadline", job_attempts(job));
        break;
    case _WIRE__ATTEMPT_OUTCOME_IS_INT_SIZE:
        break;
    }
}

static bool is_answer(const struct event *event)
{
    return event->as.attempt_result.outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED;
}

/* `lease` NULL: its worker does not hold the job any more. */
static struct upstream *settle(struct core *core, struct worker *worker, struct lease *lease,
                               const struct event_attempt_result *result)
{
    struct permit none[2] = {{.upstream = NULL}, {.upstream = NULL}};
    struct event_attempt_result called = *result;
    if (result->calls_are_old) {
        called.calls_length = 0;
    }
    if (lease == NULL) {
        return upstream_settle(core, worker, &none[0], &none[1], &called);
    }
    hedge_settle(lease, &called);
    return upstream_settle(core, worker, &lease->permit, &lease->hedge, &called);
}

void attempt_result(struct core *core, const struct event *event)
{
    const struct event_attempt_result *result = &event->as.attempt_result;
    struct worker *worker = worker_heard(core, event->peer);
    if (worker == NULL) {
        return; /* it says hello and sends its answers again */
    }
    struct job *job = job_find(core, &result->lease.job_id);
    const bool is_pending = job != NULL && job_is_pending(job);
    const bool holds = is_pending && is_holder(core, job, event);
    charge_result(core, worker, is_pending ? job : NULL, holds ? job->at.lease : NULL, result);
    struct upstream *called = settle(core, worker, holds ? job->at.lease : NULL, result);
    if (!is_pending) {
        if (is_answer(event)) {
            note_answer_after_end(core, event);
        }
        confirm(core, event->peer, &result->lease, core_pending_batch(core));
        return;
    }
    if (result->key_mismatch) {
        flight_split(core, job);
    }
    if (is_answer(event)) {
        count_usage(job_tier(job), result->usage);
        finish(core, job, event, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, "", job_attempts(job));
    } else if (holds) {
        count_usage(job_tier(job), result->usage);
        holder_result(core, job, event, called);
    } else {
        confirm(core, event->peer, &result->lease, 0); /* the job waits, or runs elsewhere */
    }
}

void attempt_chunk(struct core *core, const struct event *event)
{
    const struct worker *worker = worker_heard(core, event->peer);
    struct job *job = job_find(core, &event->as.chunk.header.job_id);
    if (worker != NULL && job != NULL && job->place == PLACE_LEASED &&
        job->at.lease->worker == worker &&
        job->at.lease->attempt == event->as.chunk.header.attempt) {
        stream_chunk(core, job, event);
    }
}
