#include "broker/core/attempt.h"
#include <string.h>
#include "broker/core/client.h"
#include "broker/core/conclude.h"
#include "broker/core/lease.h"
#include "broker/core/worker.h"

enum {
    DEFERRED_WAIT_MS = 20, /* another worker may have room; the same one was set aside */
    RETRY_AFTER_SPREAD_PERCENT = 10,
};

static void confirm(struct core *core, uint64_t peer, const struct lease_ref *lease, uint64_t batch)
{
    struct effect *effect = effects_add(core->effects, EFFECT_ATTEMPT_CONCLUDED, peer, batch);
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
    stats->saved_nanousd += usage->saved_nanousd;
    stats->cache_hits += usage->cache == WIRE__CACHE_STATUS__CACHE_HIT;
    stats->cache_near_hits += usage->cache == WIRE__CACHE_STATUS__CACHE_NEAR_HIT;
    stats->cache_stale_hits += usage->cache == WIRE__CACHE_STATUS__CACHE_STALE_HIT;
    stats->cache_misses += usage->cache == WIRE__CACHE_STATUS__CACHE_MISS;
}

/* Counted at the tier of the job; at the first one when nothing is known of it any more. */
static void note_late(struct core *core, const struct event *event)
{
    const struct concluded_entry *entry =
        concluded_find(&core->concluded, &event->as.attempt_result.lease.job_id);
    struct tier *tier = &core->tier[entry == NULL ? 0 : concluded_tier(entry)];
    const struct event_attempt_result *result = &event->as.attempt_result;
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
static int64_t wait_ms(struct core *core, struct job *job, int64_t retry_after_ms)
{
    if (job->backoffs < UINT16_MAX) {
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

static void back_off(struct core *core, struct job *job, const struct event *event)
{
    const int64_t wait = wait_ms(core, job, event->as.attempt_result.retry_after_ms);
    record(core, job, event, RECORD__ATTEMPT_NEXT__NEXT_BACKOFF, wait);
    lease_end(core, job->at.lease);
    job_wait_until(core, job, core->now_ms + wait);
    conclude_update_record(core, job);
    confirm(core, event->peer, &event->as.attempt_result.lease, 0);
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
    worker_set_aside(core, worker);
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

static void fail(struct core *core, struct job *job, const struct event *event)
{
    note_failure(core, job, event);
    if ((uint32_t)job->failures + 1 >= job->attempts_max) {
        die(core, job, event, "attempts_exhausted");
        return;
    }
    job->failures++;
    back_off(core, job, event);
}

/* Its lease, at this worker: only then a failure says something about the job now. */
static bool is_holder(const struct core *core, const struct job *job, const struct event *event)
{
    return job->place == PLACE_LEASED && job->at.lease->worker != NULL &&
           job->at.lease->worker == worker_find(core, event->peer) &&
           job->at.lease->attempt == event->as.attempt_result.lease.attempt;
}

static void holder_result(struct core *core, struct job *job, const struct event *event)
{
    switch (event->as.attempt_result.outcome) {
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED:
        break; /* concluded before, whoever answers */
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED:
        note_failure(core, job, event);
        back_off(core, job, event);
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_NONE:
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE:
        fail(core, job, event);
        break;
    case WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED:
        note_failure(core, job, event);
        die(core, job, event, "rejected");
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

void attempt_result(struct core *core, const struct event *event)
{
    const struct event_attempt_result *result = &event->as.attempt_result;
    if (worker_heard(core, event->peer) == NULL) {
        return; /* it says hello and sends its answers again */
    }
    struct job *job = job_find(core, &result->lease.job_id);
    if (job == NULL || !job_is_pending(job)) {
        if (is_answer(event)) {
            note_late(core, event);
        }
        confirm(core, event->peer, &result->lease, core_pending_batch(core));
        return;
    }
    if (is_answer(event)) {
        count_usage(job_tier(job), result->usage);
        finish(core, job, event, WIRE__JOB_STATE__JOB_STATE_SUCCEEDED, "", job_attempts(job));
    } else if (is_holder(core, job, event)) {
        count_usage(job_tier(job), result->usage);
        holder_result(core, job, event);
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
        waiters_stream(core, job, event);
    }
}
