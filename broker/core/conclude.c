#include "broker/core/conclude.h"
#include <assert.h>
#include <string.h>
#include "broker/core/charge.h"
#include "broker/core/client.h"
#include "broker/core/dead.h"
#include "broker/core/decision.h"
#include "broker/core/estimate.h"
#include "broker/core/flight.h"
#include "broker/core/history.h"
#include "broker/core/keys.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/record.h"
#include "broker/core/result.h"
#include "broker/core/stream.h"
#include "broker/core/stream_rest.h"
#include "broker/core/upstream.h"
#include "broker/core/status.h"
#include "broker/core/worker.h"

/* ---- records ---- */

static int64_t unix_of(const struct core *core, int64_t at_ms)
{
    return core->unix_ms + (at_ms - core->now_ms);
}

static int64_t not_negative(int64_t value)
{
    return value > 0 ? value : 0;
}

static void fill_record(const struct core *core, const struct job *job, Record__JobRecord *record)
{
    const struct queue *queue = job->flow->queue;
    const struct idempotency *key =
        (job->flags & JOB_HAS_KEY) != 0 ? key_of_job(core, &job->id) : NULL;
    record->job_id = (ProtobufCBinaryData){ID_BYTES, (uint8_t *)job->id.bytes};
    record->sequence = job->sequence;
    record->tenant = job->flow->tenant->name->text;
    record->tier = queue->lane->tier->name->text;
    record->route = queue->route->text;
    record->pool = queue->lane->pool->name->text;
    record->priority = job->priority;
    record->state = job_state(job);
    record->attempts = job->failures;
    record->lost_leases = job->losses;
    record->history = job->history;
    record->attempt_last = job->attempt;
    record->attempts_max = job->attempts_max;
    record->submitted_unix_ms = not_negative(unix_of(core, job->submitted_ms));
    record->deadline_unix_ms =
        job->deadline_ms == INT64_MAX ? 0 : not_negative(unix_of(core, job->deadline_ms));
    if (job->place == PLACE_BACKING_OFF) {
        record->not_before_unix_ms = not_negative(unix_of(core, job->at.not_before_ms));
    } else if (job->place == PLACE_ACCEPTING && job->delay_ms > 0) {
        record->not_before_unix_ms = not_negative(unix_of(core, job->submitted_ms + job->delay_ms));
    }
    if (key != NULL) {
        record->idempotency_hash = (ProtobufCBinaryData){sizeof(key->hash), (uint8_t *)key->hash};
    }
    if ((job->flags & JOB_HAS_CANONICAL) != 0) {
        record->canonical_key =
            (ProtobufCBinaryData){sizeof(job->canonical_key), (uint8_t *)job->canonical_key};
    }
    if ((job->flags & JOB_HAS_TRACE) != 0) {
        record->trace_parent =
            (ProtobufCBinaryData){sizeof(job->trace_parent), (uint8_t *)job->trace_parent};
    }
    record->estimated_tokens = job->estimated_tokens;
    record->max_tokens = job->max_tokens;
    record->payload_bytes = job->payload_bytes;
    record->complexity = job->needs.complexity;
    record->abilities = job->needs.abilities;
    record->prefix = job->prefix;
    record->input_tokens = job_input_tokens(job);
    record->residency = (char *)decision_residency_name(core, job->needs.residency);
    record->task = (char *)decision_task_name(job_tenant(job), job->task);
    record->flags = job->flags & JOB_STORED_FLAGS;
}

void conclude_write_new(struct core *core, const struct job *job)
{
    Record__JobRecord record = RECORD__JOB_RECORD__INIT;
    fill_record(core, job, &record);
    core_put_record(core, STORE_JOBS, job->id.bytes, ID_BYTES, &record.base);
    core_put(core, STORE_PAYLOADS, job->id.bytes, ID_BYTES, NULL, 0, job->payload);
    effects_set_urgent(core->effects);
}

void conclude_update_record(struct core *core, struct job *job)
{
    if ((job->flags & JOB_DURABLE) != 0) {
        Record__JobRecord record = RECORD__JOB_RECORD__INIT;
        fill_record(core, job, &record);
        core_put_record(core, STORE_JOBS, job->id.bytes, ID_BYTES, &record.base);
    }
}

/* A call that it shared with others tells what all of them used; its usage has its own part. */
static void fill_calls(Record__AttemptRecord *record, const struct attempt_report *report)
{
    for (size_t i = 0; i < report->calls_length; i++) {
        record->cost_nanousd += report->calls[i]->cost_nanousd;
        record->call_ms += report->calls[i]->call_ms;
    }
    if (report->usage != NULL) {
        record->cost_nanousd = report->usage->cost_nanousd;
    }
    const Wire__Upstream *last = report->calls[report->calls_length - 1]->upstream;
    record->provider = last->provider;
    record->model = last->model;
    record->calls = (uint32_t)report->calls_length;
}

static void fill_usage(Record__AttemptRecord *record, const Wire__Usage *usage)
{
    record->provider = usage->provider;
    record->model = usage->model;
    record->cost_nanousd = usage->cost_nanousd;
    record->call_ms = usage->call_ms;
}

static int64_t run_ms(const struct core *core, const struct job *job,
                      const struct attempt_report *report)
{
    const struct lease *lease = job->place == PLACE_LEASED ? job->at.lease : NULL;
    return report->run_ms > 0 || lease == NULL ? report->run_ms : core->now_ms - lease->granted_ms;
}

static uint32_t at_most_u32(int64_t value)
{
    return value > UINT32_MAX ? UINT32_MAX : (uint32_t)not_negative(value);
}

void conclude_record_attempt(struct core *core, struct job *job,
                             const struct attempt_report *report)
{
    Record__AttemptRecord record = RECORD__ATTEMPT_RECORD__INIT;
    record.attempt = job->attempt;
    record.outcome = report->outcome;
    record.error_code = (char *)report->error_code;
    record.error_text = (char *)report->error_text;
    record.worker = (char *)report->worker;
    record.ended_unix_ms = core->unix_ms;
    record.retry_after_ms = (uint64_t)not_negative(report->retry_after_ms);
    record.run_ms = at_most_u32(run_ms(core, job, report));
    record.lost = report->is_lost;
    record.next = report->next;
    record.wait_ms = (uint64_t)not_negative(report->wait_ms);
    if (report->calls_length > 0) {
        fill_calls(&record, report);
    } else if (report->usage != NULL) {
        fill_usage(&record, report->usage);
    }
    history_add(core, job, &record);
}

/* Lease records go with their lease. */
void conclude_delete_records(struct core *core, const struct job *job)
{
    core_delete(core, STORE_JOBS, job->id.bytes, ID_BYTES);
    core_delete(core, STORE_PAYLOADS, job->id.bytes, ID_BYTES);
    history_delete(core, job);
}

static void write_dead_letter(struct core *core, const struct job *job, const struct death *death)
{
    Record__JobRecord record = RECORD__JOB_RECORD__INIT;
    fill_record(core, job, &record);
    record.state = WIRE__JOB_STATE__JOB_STATE_DEAD;
    record.error_code = (char *)death->code;
    record.error_text = (char *)death->text;
    record.died_unix_ms = not_negative(death->unix_ms);
    record.died_worker = (char *)death->worker;
    record.died_provider = (char *)death->provider;
    core_put_record(core, STORE_JOBS, job->id.bytes, ID_BYTES, &record.base);
}

/* ---- answering ---- */

static const Wire__Usage *copy_usage(struct core *core, const Wire__Usage *usage)
{
    if (usage == NULL) {
        return NULL;
    }
    Wire__Usage *copy = effects_alloc(core->effects, sizeof(*copy));
    *copy = *usage;
    copy->base.n_unknown_fields = 0;
    copy->base.unknown_fields = NULL;
    copy->provider = (char *)effects_text(core->effects, usage->provider);
    copy->model = (char *)effects_text(core->effects, usage->model);
    return copy;
}

static struct effect_result make_result(struct core *core, const struct job *job,
                                        const struct outcome *outcome)
{
    const struct lease *lease = job->place == PLACE_LEASED ? job->at.lease : NULL;
    const int64_t dispatched_ms = lease == NULL ? core->now_ms : lease->granted_ms;
    struct effect_result result = {
        .job_id = job->id,
        .state = outcome->state,
        .error_code =
            outcome->error_code == NULL ? "" : effects_text(core->effects, outcome->error_code),
        .error_text =
            outcome->error_text == NULL ? "" : effects_text(core->effects, outcome->error_text),
        .attempts = outcome->attempts > 0 ? outcome->attempts : job_attempts(job),
        .attempt = outcome->state == WIRE__JOB_STATE__JOB_STATE_SUCCEEDED && outcome->led_by == NULL
                       ? outcome->attempt
                       : 0,
        .queue_ms = not_negative(dispatched_ms - job->submitted_ms),
        .run_ms = core->now_ms - dispatched_ms,
        .complexity = job->needs.complexity,
        .abilities = job->needs.abilities,
        .usage = copy_usage(core, outcome->usage),
        .worker = outcome->worker == NULL ? "" : effects_text(core->effects, outcome->worker),
        .tier = job_tier(job)->index,
        .retry_after_ms = outcome->retry_after_ms,
        .payload = outcome->payload,
        .has_leader = outcome->led_by != NULL,
    };
    if (result.has_leader) {
        result.led_by = *outcome->led_by;
    }
    return result;
}

struct answer {
    const struct effect_result *result;
    uint64_t batch;
};

static void answer_waiter(struct core *core, uint64_t peer, bool streams, const void *context)
{
    const struct answer *answer = context;
    struct effect *effect = effects_add(core->effects, EFFECT_RESULT, peer, answer->batch);
    effect->as.result = *answer->result;
    effect->as.result.chunks =
        streams ? stream_rest_chunks(core, peer, &answer->result->job_id) : 0;
    if (effect->as.result.payload != NULL) {
        effect->as.result.payload = blob_ref(effect->as.result.payload);
    }
}

static void count_quality(struct tier *tier, const Wire__Usage *usage)
{
    if (usage == NULL || usage->quality_lost == 0) {
        return;
    }
    const enum core_step step = usage->cache == WIRE__CACHE_STATUS__CACHE_STALE_HIT  ? STEP_STALE
                                : usage->cache == WIRE__CACHE_STATUS__CACHE_NEAR_HIT ? STEP_NEAR
                                                                                     : STEP_MODEL;
    tier->stats.quality_lost[step].jobs++;
    tier->stats.quality_lost[step].grades += usage->quality_lost;
}

static void count(const struct job *job, const struct outcome *outcome)
{
    struct tier *tier = job_tier(job);
    tier->stats.concluded[outcome->state]++;
    tier->drain.conclusions++;
    job->flow->queue->drain.conclusions++;
    if (outcome->state == WIRE__JOB_STATE__JOB_STATE_SUCCEEDED) {
        count_quality(tier, outcome->usage);
    }
}

static const char *cancel_reason(const struct outcome *outcome)
{
    if (outcome->state == WIRE__JOB_STATE__JOB_STATE_CANCELLED) {
        return outcome->error_text; /* a literal */
    }
    return outcome->state == WIRE__JOB_STATE__JOB_STATE_EXPIRED ? "deadline"
                                                                : "concluded elsewhere";
}

/* The attempt that still runs is told to stop, unless it is the one that concluded the job. */
static void end_attempt(struct core *core, struct job *job, const struct outcome *outcome)
{
    if (job->place != PLACE_LEASED || job->at.lease == NULL) {
        return;
    }
    const struct worker *worker = job->at.lease->worker;
    const uint32_t attempt = job->at.lease->attempt;
    if (worker != NULL && (worker->peer != outcome->peer || attempt != outcome->attempt)) {
        struct effect *effect = effects_add(core->effects, EFFECT_ATTEMPT_CANCEL, worker->peer, 0);
        effect->as.attempt.lease = (struct lease_ref){.job_id = job->id, .attempt = attempt};
        effect->as.attempt.reason = cancel_reason(outcome);
    }
    const bool is_expired =
        outcome->state == WIRE__JOB_STATE__JOB_STATE_EXPIRED && !stream_is_held(job->at.lease);
    charge_lease_ended(core, job->at.lease); /* its permits say what it may have called */
    upstream_settle_silent(core, &job->at.lease->permit, is_expired);
    upstream_settle_silent(core, &job->at.lease->hedge, is_expired);
    lease_end(core, job->at.lease);
}

static void note_conclusion(struct core *core, const struct job *job,
                            const struct effect_result *result)
{
    if (result->state == WIRE__JOB_STATE__JOB_STATE_DEAD) {
        core_note(core, NOTE_DEAD_LETTER, job, result->error_code, result->error_text,
                  result->attempts);
    } else if (result->state == WIRE__JOB_STATE__JOB_STATE_EXPIRED && !result_is_shed(result)) {
        core_note(core, NOTE_EXPIRED, job, result->error_code, result->error_text,
                  core->now_ms - job->submitted_ms);
    }
}

static void drop_oldest_dead_letter(struct core *core)
{
    struct job *job = dead_oldest(core);
    result_note_bound(core, BOUND_DEAD_LETTERS);
    job_tier(job)->stats.dead_evicted++;
    dead_drop(core, job);
}

/* Without memory for the letter there is none, as if it had been dropped to keep the bound. */
static void bury(struct core *core, struct job *job, const struct effect_result *result,
                 const char *provider)
{
    const bool is_durable = (job->flags & JOB_DURABLE) != 0;
    const struct death death = {
        .unix_ms = core->unix_ms,
        .code = result->error_code,
        .text = result->error_text,
        .worker = result->worker,
        .provider = provider == NULL ? "" : provider,
    };
    waiters_forget(job);
    if (is_durable || !dead_may_keep_payload(core, job)) {
        job_drop_payload(core, job);
    }
    if (!dead_prepare(core, &death)) {
        result_note_bound(core, BOUND_DEAD_LETTERS);
        job_tier(job)->stats.dead_evicted++;
        dead_drop(core, job);
        return;
    }
    if (is_durable) {
        write_dead_letter(core, job, &death);
    }
    job_move(core, job, PLACE_DEAD);
    job_tier(job)->stats.died[job->at.letter->code->index]++;
    if (core->dead.length > core->limits.dead_letters_max) {
        drop_oldest_dead_letter(core);
    }
}

void conclude(struct core *core, struct job *job, const struct outcome *outcome)
{
    assert(job_is_pending(job));
    const bool is_durable = (job->flags & JOB_DURABLE) != 0;
    const bool is_dead = outcome->state == WIRE__JOB_STATE__JOB_STATE_DEAD;
    const struct effect_result result = make_result(core, job, outcome);
    stream_conclude(core, job, outcome);
    flight_conclude(core, job, outcome); /* asks who holds the lease */
    end_attempt(core, job, outcome);
    count(job, outcome);
    if (outcome->state == WIRE__JOB_STATE__JOB_STATE_SUCCEEDED && !result.has_leader) {
        estimate_note_run(job->flow->queue, result.run_ms);
    }
    note_conclusion(core, job, &result);
    if (is_durable && !is_dead) {
        conclude_delete_records(core, job);
    }
    result_keep(core, job, &result);
    const struct answer answer = {.result = &result,
                                  .batch = is_durable ? effects_batch(core->effects) : 0};
    waiters_visit(core, job, answer_waiter, &answer);
    if (is_dead) {
        bury(core, job, &result, outcome->provider);
    } else {
        job_destroy(core, &job);
    }
    if (is_durable) {
        effects_set_urgent(core->effects);
    }
}

void conclude_expire(struct core *core, struct job *job)
{
    const struct queue *queue = job->flow->queue;
    const char *text = "its deadline passed while it waited";
    char why[CORE_WHY_BYTES] = "";
    if (job->place == PLACE_LEASED) {
        text = "its deadline passed while it ran";
    } else if (queue->is_blocked) {
        upstream_why_blocked(core, queue, core->now_ms, why, sizeof(why));
    }
    if (why[0] != '\0') {
        text = effects_format(core->effects, "%s: %s", text, why);
    }
    conclude(core, job,
             &(struct outcome){.state = WIRE__JOB_STATE__JOB_STATE_EXPIRED,
                               .error_code = "deadline",
                               .error_text = text});
}

bool conclude_bound_dead_letters(struct core *core)
{
    for (int i = 0; core->dead.length > core->limits.dead_letters_max; i++) {
        if (i == DEAD_JOBS_PER_TICK || !effects_reserve(core->effects, HISTORY_MAX + 8)) {
            return false;
        }
        drop_oldest_dead_letter(core);
    }
    return true;
}

/* Nobody (peer 0) is an operator, who may cancel any tenant's jobs and reads no answer. */
void conclude_cancel(struct core *core, const struct event *event)
{
    const bool is_operator = event->peer == 0;
    const struct client *client = is_operator ? NULL : client_expect(core, event->peer);
    if (client == NULL && !is_operator) {
        return;
    }
    struct job *job = job_find(core, &event->as.job.job_id);
    if (job != NULL && job_is_pending(job) && (is_operator || job_tenant(job) == client->tenant)) {
        conclude(core, job,
                 &(struct outcome){.state = WIRE__JOB_STATE__JOB_STATE_CANCELLED,
                                   .error_code = "cancelled",
                                   .error_text = is_operator ? "cancelled by an operator"
                                                             : "cancelled by the client"});
    }
    if (client != NULL) {
        status_send(core, client, &event->as.job.job_id);
    }
}
