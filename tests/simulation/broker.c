#include "tests/simulation/broker.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/core.h"
#include "tests/simulation/allocations.h"
#include "tests/simulation/attempts.h"
#include "tests/simulation/bill.h"
#include "tests/simulation/client.h"
#include "tests/simulation/damage.h"
#include "tests/simulation/defect.h"
#include "tests/simulation/degradation.h"
#include "tests/simulation/fairness.h"
#include "tests/simulation/evidence.h"
#include "tests/simulation/faults.h"
#include "tests/simulation/invalidations.h"
#include "tests/simulation/lives.h"
#include "tests/simulation/memory.h"
#include "tests/simulation/needs.h"
#include "tests/simulation/network.h"
#include "tests/simulation/oracle.h"
#include "tests/simulation/settings.h"
#include "tests/simulation/upkeep.h"
#include "tests/simulation/worker.h"

enum {
    EVENTS_PER_TURN = 64,
    TURNS_AT_ONCE_MAX = 10000, /* in one millisecond: more is no progress */
    DOWN_MS_MAX = 20000,       /* between a crash and the next start */
    DRAIN_MS = 5000,
    STORE_DOWN_MS_MAX = 60000,
    LOAD_MS_MAX = 50,
    STORE_LAZY_MS = 100, /* what nobody waits for is written as late as this */
    SPARED_EFFECTS = 256,
    LACKING_TICKS = 50,      /* permille: what a tick lacks may be anybody's */
    ALLOCATIONS_OF_STEP = 8, /* about as many as there are */
    ALLOCATIONS_OF_START = 120,
    CREATED_IN_VAIN = 8,
    RELOADED_IN_VAIN = 4,
    ALLOCATIONS_OF_RELOAD = 16,
    SWEEP_UNTIL_MS = 120000,        /* times what it is told */
    UNDERWAY_BYTES_MAX = 256 << 10, /* the list of effects that has to grow asks for more */
};

static int64_t mono_offset_ms(const struct simulation *simulation)
{
    return simulation->broker.mono_base_ms + simulation->broker.mono_jumped_ms;
}

struct core_time sim_broker_now(const struct simulation *simulation)
{
    return (struct core_time){simulation->now_ms + mono_offset_ms(simulation),
                              UNIX_BEGIN_MS + simulation->now_ms +
                                  simulation->broker.unix_offset_ms};
}

int64_t sim_broker_ms(const struct simulation *simulation)
{
    const int64_t now_ms = simulation->now_ms + simulation->broker.mono_jumped_ms;
    return now_ms > simulation->broker.told_ms ? now_ms : simulation->broker.told_ms;
}

/* A later alarm than one that is set already is set when that one rings: deadlines mostly move
 * away. */
static void set_alarm(struct simulation *simulation, int64_t at_ms)
{
    struct sim_broker *broker = &simulation->broker;
    const uint32_t length = broker->alarms_length;
    if (length > 0 && broker->alarms_ms[length - 1] <= at_ms) {
        return;
    }
    assert(length < ALARMS_MAX); /* each is sooner than the one before */
    broker->alarms_ms[broker->alarms_length++] = at_ms;
    schedule_add(&simulation->schedule, at_ms, TASK_BROKER_TURN, 0, broker->incarnation, NULL);
}

static void plan_turn(struct simulation *simulation, int64_t at_ms)
{
    struct sim_broker *broker = &simulation->broker;
    at_ms = at_ms < simulation->now_ms ? simulation->now_ms : at_ms;
    if (broker->is_up && at_ms < broker->turn_at_ms) {
        broker->turn_at_ms = at_ms;
        set_alarm(simulation, at_ms);
    }
}

static void hear(struct simulation *simulation, const struct message *message)
{
    message_list_add(&simulation->broker.inbox, message);
    plan_turn(simulation, simulation->now_ms + simulation->scenario.turn_ms);
}

static void hear_own(struct simulation *simulation, enum event_kind kind, uint64_t total)
{
    const struct message message = {
        .to_broker = true, .event = kind, .job = NO_JOB, .total = total};
    hear(simulation, &message);
}

/* --------------------------------------------------------------------------------------- the
 * store, in its time */

static void plan_sync(struct simulation *simulation, int64_t after_ms)
{
    const int64_t at_ms = simulation->now_ms + after_ms;
    if (at_ms < simulation->broker.sync_at_ms) {
        simulation->broker.sync_at_ms = at_ms;
        schedule_add(&simulation->schedule, at_ms, TASK_STORE_SYNC, 0,
                     simulation->broker.incarnation, NULL);
    }
}

void sim_broker_store_sync(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    const uint64_t pending =
        storage_latest(broker->storage) + 1 - storage_first_pending(broker->storage);
    if (broker->sync_at_ms != simulation->now_ms) {
        return; /* an earlier one has planned anew */
    }
    broker->sync_at_ms = INT64_MAX;
    if (broker->store_is_down || pending == 0) {
        return;
    }
    const uint64_t synced = 1 + dice_below(&simulation->dice, pending);
    for (uint64_t i = 0; i < synced; i++) {
        if (simulation_plant(simulation, PLANT_LYING_SYNC) && dice_hit(&simulation->dice, 50)) {
            storage_lose_one(broker->storage);
        } else {
            storage_sync_one(broker->storage);
        }
    }
    hear_own(simulation, EVENT_DURABLE, storage_first_pending(broker->storage) - 1);
    if (synced < pending) {
        plan_sync(simulation, dice_between(&simulation->dice, 0, simulation->scenario.sync_ms_max));
    }
}

static bool go_down(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    const uint64_t first = storage_first_pending(broker->storage);
    if (!broker->is_up || broker->store_is_down || first > storage_latest(broker->storage)) {
        return false; /* only a commit fails */
    }
    simulation_trace(simulation, "store is down from batch %" PRIu64 "", first, 0, 0);
    broker->store_is_down = true;
    hear_own(simulation, EVENT_STORE_DOWN, first);
    schedule_add(&simulation->schedule,
                 simulation->now_ms + dice_between(&simulation->dice, 1, STORE_DOWN_MS_MAX),
                 TASK_STORE_UP, 0, broker->incarnation, NULL);
    return true;
}

bool sim_broker_store_down(struct simulation *simulation)
{
    if (dice_hit(&simulation->dice, 500)) { /* when it hurts most, and not now */
        simulation->broker.fails_at_submission = true;
        return false;
    }
    return go_down(simulation);
}

/* Behind it, and mostly in the same turn: what was just accepted is refused after all. */
static void fail_at_submission(struct simulation *simulation, const struct message *message)
{
    struct sim_broker *broker = &simulation->broker;
    if (broker->fails_at_submission && !simulation->is_quiet && message->event == EVENT_SUBMIT &&
        go_down(simulation)) {
        broker->fails_at_submission = false;
        simulation->tally.faults[FAULT_STORE_DOWN]++;
    }
}

void sim_broker_hear(struct simulation *simulation, const struct message *message)
{
    hear(simulation, message);
    fail_at_submission(simulation, message);
}

void sim_broker_store_up(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    if (!broker->store_is_down) {
        return;
    }
    broker->store_is_down = false;
    while (storage_first_pending(broker->storage) <= storage_latest(broker->storage)) {
        storage_sync_one(broker->storage);
    }
    hear_own(simulation, EVENT_DURABLE, storage_latest(broker->storage));
    hear_own(simulation, EVENT_STORE_UP, 0);
}

/* ----------------------------------------------------------------------------------------------
 * carrying effects out */

static uint64_t result_digest(Wire__JobState state, uint32_t attempts, const char *error_code,
                              const struct blob *payload)
{
    const uint64_t parts[] = {
        (uint64_t)state, attempts,
        error_code == NULL ? 0 : XXH3_64bits(error_code, strlen(error_code)),
        payload == NULL ? 0 : XXH3_64bits(blob_data(payload), blob_bytes(payload))};
    return XXH3_64bits(parts, sizeof(parts));
}

/* What identical jobs have in common. */
static uint64_t answer_digest(Wire__JobState state, const char *error_code,
                              const struct blob *payload)
{
    return result_digest(state, 0, error_code, payload);
}

static uint32_t leader_of(const struct simulation *simulation, const Wire__Result *result)
{
    struct id id;
    return result->led_by.len == ID_BYTES && id_from_bytes(result->led_by.data, ID_BYTES, &id) == 0
               ? simulation_job_of(simulation, &id)
               : NO_JOB;
}

static void read_result(struct simulation *simulation, const struct effect_result *result,
                        struct message *message)
{
    message->payload = result->payload == NULL ? NULL : blob_ref(result->payload);
    if (result->packed == NULL) {
        message->number = (int)result->state;
        message->time_ms = result->retry_after_ms;
        message->digest =
            result_digest(result->state, result->attempts, result->error_code, result->payload);
        message->total = answer_digest(result->state, result->error_code, result->payload);
        message->other_job =
            result->has_leader ? simulation_job_of(simulation, &result->led_by) : NO_JOB;
        return;
    }
    Wire__Result *unpacked = wire__result__unpack(NULL, result->packed_bytes, result->packed);
    if (unpacked == NULL || unpacked->job_id.len != ID_BYTES ||
        memcmp(unpacked->job_id.data, result->job_id.bytes, ID_BYTES) != 0) {
        simulation_violate(simulation, "a stored result cannot be read or is another job's");
    } else {
        message->number = (int)unpacked->state;
        message->time_ms = (int64_t)unpacked->retry_after_ms;
        message->digest = result_digest(unpacked->state, unpacked->attempts, unpacked->error_code,
                                        result->payload);
        message->total = answer_digest(unpacked->state, unpacked->error_code, result->payload);
        message->other_job = leader_of(simulation, unpacked);
    }
    if (unpacked != NULL) {
        wire__result__free_unpacked(unpacked, NULL);
    }
}

static struct message message_of(struct simulation *simulation, const struct effect *effect)
{
    struct message message = {.effect = effect->kind,
                              .peer = effect->peer,
                              .batch = effect->batch,
                              .job = NO_JOB,
                              .other_job = NO_JOB};
    switch (effect->kind) {
    case EFFECT_ACCEPTED:
        message.job = simulation_job_of(simulation, &effect->as.accepted.job_id);
        message.second = (int)defect_of_id(&effect->as.accepted.job_id);
        message.flag = effect->as.accepted.duplicate;
        if (effect->as.accepted.has_known_as) {
            message.other_job = simulation_job_of(simulation, &effect->as.accepted.known_as);
        }
        break;
    case EFFECT_REJECTED:
        message.job = simulation_job_of(simulation, &effect->as.rejected.job_id);
        message.second = (int)defect_of_id(&effect->as.rejected.job_id);
        message.number = (int)effect->as.rejected.reason;
        message.time_ms = effect->as.rejected.retry_after_ms;
        break;
    case EFFECT_RESULT:
        message.job = simulation_job_of(simulation, &effect->as.result.job_id);
        read_result(simulation, &effect->as.result, &message);
        message.second = message.job == NO_JOB ? 0 : (int)lives_of_effect(simulation, message.job);
        break;
    case EFFECT_STATUS:
        message.job = simulation_job_of(simulation, &effect->as.status.job_id);
        message.number = (int)effect->as.status.state;
        message.flag =
            oracle_knows(simulation, message.job); /* now: the answer may be let go later */
        break;
    case EFFECT_CHUNK:
        message.job = simulation_job_of(simulation, &effect->as.chunk.header.job_id);
        message.attempt = effect->as.chunk.header.attempt;
        message.total = effect->as.chunk.header.index;
        message.payload = effect->as.chunk.data == NULL ? NULL : blob_ref(effect->as.chunk.data);
        break;
    case EFFECT_DISPATCH:
        message.job = simulation_job_of(simulation, &effect->as.dispatch.lease.job_id);
        message.attempt = effect->as.dispatch.lease.attempt;
        message.upstream = degradation_upstream_of(simulation, effect);
        message.flag = effect->as.dispatch.stream;
        message.time_ms = effect->as.dispatch.hedge_after_ms;
        break;
    case EFFECT_HEDGE:
        message.job = simulation_job_of(simulation, &effect->as.hedge.lease.job_id);
        message.attempt = effect->as.hedge.lease.attempt;
        message.upstream = scenario_upstream(effect->as.hedge.provider, effect->as.hedge.model);
        break;
    case EFFECT_STREAM_ALLOWANCE:
        message.job = simulation_job_of(simulation, &effect->as.stream_allowance.lease.job_id);
        message.attempt = effect->as.stream_allowance.lease.attempt;
        break;
    case EFFECT_ATTEMPT_CONCLUDED:
    case EFFECT_ATTEMPT_CANCEL:
        message.job = simulation_job_of(simulation, &effect->as.attempt.lease.job_id);
        message.attempt = effect->as.attempt.lease.attempt;
        break;
    case EFFECT_WORKER_WELCOME:
    case EFFECT_CACHE_INVALIDATE:
    case EFFECT_CACHE_INVALIDATED:
        invalidations_fill_release(simulation, effect, &message);
        break;
    case EFFECT_CACHE_EVIDENCE:
        evidence_fill_release(simulation, effect, &message);
        break;
    case EFFECT_FEEDBACK_TAKEN:
        message.job = simulation_job_of(simulation, &effect->as.feedback_taken.job_id);
        message.number = (int)effect->as.feedback_taken.outcome;
        break;
    case EFFECT_CLIENT_WELCOME:
    case EFFECT_CLIENT_ERROR:
    case EFFECT_WORKER_ERROR:
    case EFFECT_WORKER_DRAIN:
    case EFFECT_PUT:
    case EFFECT_DELETE:
    case EFFECT_DELETE_RANGE:
    case EFFECT_LOAD:
    case EFFECT_PUBLISH:
    case EFFECT_NOTE:
        break;
    }
    return message;
}

/* An answer goes out: from now on it is a promise. Takes the message. */
static void let_go(struct simulation *simulation, struct message *message)
{
    simulation_trace(simulation, message_format(message), message->peer, message->job,
                     message->attempt != 0 ? message->attempt : (uint64_t)message->number);
    if (simulation_plant(simulation, PLANT_CHANGE_RESULT) && message->effect == EFFECT_RESULT &&
        message->job != NO_JOB && simulation->jobs[message->job].shown != 0) {
        message->digest++;
    }
    if (message->effect == EFFECT_CHUNK && simulation_plant(simulation, PLANT_LOSE_CHUNK) &&
        dice_hit(&simulation->dice, 100)) {
        message_finish(message);
        return;
    }
    if (message->effect == EFFECT_RESULT && message->other_job != NO_JOB &&
        simulation_plant(simulation, PLANT_WRONG_LEADER)) {
        message->other_job = message->other_job / 2;
    }
    oracle_see_release(simulation, message);
    invalidations_see_release(simulation, message);
    evidence_see_release(simulation, message);
    network_send(simulation, message);
}

/* Of a job that a worker made: nobody hears of it, but from now on it is as promised as others. */
static void release_made(struct simulation *simulation, const struct message *message)
{
    oracle_see_made(simulation, message);
    if (message->effect == EFFECT_ACCEPTED) {
        sim_client_wait_again(simulation, message->job);
    }
}

static void let_go_or_release(struct simulation *simulation, struct message *message)
{
    if (message->peer == 0) {
        release_made(simulation, message);
    } else {
        let_go(simulation, message);
    }
}

static void send(struct simulation *simulation, const struct effect *effect)
{
    struct message message = message_of(simulation, effect);
    if (message.batch > simulation->broker.batch_durable &&
        !simulation_plant(simulation, PLANT_EARLY_RELEASE)) {
        message_list_add(&simulation->broker.held, &message);
        return;
    }
    let_go_or_release(simulation, &message);
}

static void release_durable(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    size_t kept = 0;
    for (size_t i = 0; i < broker->held.length; i++) {
        struct message *message = &broker->held.items[i];
        if (message->batch <= broker->batch_durable) {
            let_go_or_release(simulation, message);
        } else {
            broker->held.items[kept++] = *message;
        }
    }
    broker->held.length = kept;
}

/* The core refuses these submissions itself: effects.h. */
static void forget_accepted(struct simulation *simulation, uint64_t first_batch)
{
    struct sim_broker *broker = &simulation->broker;
    size_t kept = 0;
    for (size_t i = 0; i < broker->held.length; i++) {
        struct message *message = &broker->held.items[i];
        if (message->effect == EFFECT_ACCEPTED && message->batch >= first_batch) {
            message_finish(message);
        } else {
            broker->held.items[kept++] = *message;
        }
    }
    broker->held.length = kept;
}

static void dispatch(struct simulation *simulation, const struct effect *effect)
{
    struct message message = message_of(simulation, effect);
    const struct link *link = network_link(simulation, effect->peer);
    const bool is_gone = simulation->workers[link->owner].peer != effect->peer;
    if (simulation_hit(simulation, simulation->scenario.faults.undeliverable) ||
        (is_gone && dice_hit(&simulation->dice, 500))) {
        simulation->tally.undeliverable++;
        message.to_broker = true;
        message.event = EVENT_UNDELIVERABLE;
        sim_broker_hear(simulation, &message);
        return;
    }
    let_go(simulation, &message);
}

static struct blob *join(const void *value, size_t value_bytes, const struct blob *rest)
{
    const size_t rest_bytes = rest == NULL ? 0 : blob_bytes(rest);
    uint8_t *bytes = must(malloc(value_bytes + rest_bytes + 1));
    struct blob *joined;
    if (value_bytes > 0) {
        memcpy(bytes, value, value_bytes);
    }
    if (rest_bytes > 0) {
        memcpy(bytes + value_bytes, blob_data(rest), rest_bytes);
    }
    if (blob_create(bytes, value_bytes + rest_bytes, &joined) < 0) {
        (void)must(NULL);
    }
    free(bytes);
    return joined;
}

static bool is_dropped(struct simulation *simulation, const struct storage_change *change)
{
    return (simulation_plant(simulation, PLANT_DROP_PUT) && change->kind == STORAGE_PUT &&
            change->family == STORE_JOBS && dice_hit(&simulation->dice, 50)) ||
           (simulation_plant(simulation, PLANT_LOSE_RESULT) && change->kind == STORAGE_PUT &&
            change->family == STORE_RESULTS && dice_hit(&simulation->dice, 200)) ||
           (simulation_plant(simulation, PLANT_KEEP_CONCLUSION) && change->kind == STORAGE_DELETE &&
            change->family == STORE_CONCLUDED) ||
           (simulation_plant(simulation, PLANT_KEEP_PAYLOAD) && change->kind == STORAGE_DELETE &&
            change->family == STORE_PAYLOADS);
}

static void change_record(struct simulation *simulation, const struct effect *effect)
{
    struct storage_change change = {.kind = STORAGE_PUT};
    if (effect->kind == EFFECT_DELETE_RANGE) {
        change.kind = STORAGE_DELETE_RANGE;
        change.family = effect->as.range.family;
        change.key_bytes = effect->as.range.from_bytes;
        change.to_bytes = effect->as.range.to_bytes;
        memcpy(change.key, effect->as.range.from, change.key_bytes);
        memcpy(change.to, effect->as.range.to, change.to_bytes);
    } else {
        change.kind = effect->kind == EFFECT_PUT ? STORAGE_PUT : STORAGE_DELETE;
        change.family = effect->as.put.family;
        change.key_bytes = effect->as.put.key_bytes;
        memcpy(change.key, effect->as.put.key, change.key_bytes);
    }
    if (effect->kind == EFFECT_PUT) {
        change.value = join(effect->as.put.value, effect->as.put.value_bytes, effect->as.put.blob);
    }
    oracle_see_change(simulation, &change);
    needs_see_change(simulation, &change);
    if (is_dropped(simulation, &change)) {
        blob_unref(&change.value);
        return;
    }
    storage_add(simulation->broker.storage, &change);
}

/* Results are loaded too, under keys of another kind. */
static uint32_t job_of_load(const struct simulation *simulation, const struct effect *effect)
{
    struct id id;
    if (effect->as.load.family != STORE_PAYLOADS || effect->as.load.key_bytes != ID_BYTES) {
        return NO_JOB;
    }
    memcpy(id.bytes, effect->as.load.key, ID_BYTES);
    return simulation_job_of(simulation, &id);
}

static void load(struct simulation *simulation, const struct effect *effect)
{
    struct blob *value =
        storage_find(simulation->broker.storage, STORAGE_CURRENT, effect->as.load.family,
                     effect->as.load.key, effect->as.load.key_bytes);
    struct message message = {.to_broker = true,
                              .event = EVENT_LOADED,
                              .job = job_of_load(simulation, effect),
                              .total = effect->as.load.token};
    if (simulation->now_ms < simulation->broker.loads_fail_until_ms ||
        simulation_hit(simulation, simulation->scenario.faults.load_error)) {
        simulation->tally.loads_failed++;
        message.number = -EIO;
    } else if (value == NULL) {
        message.number = -ENOENT;
    } else {
        message.payload = blob_ref(value);
        if (simulation_hit(simulation, simulation->scenario.faults.spoilt)) {
            damage_load(simulation, effect, &message);
        }
    }
    schedule_add(&simulation->schedule,
                 simulation->now_ms + dice_between(&simulation->dice, 0, LOAD_MS_MAX),
                 TASK_STORE_LOADED, 0, simulation->broker.incarnation, &message);
}

static void carry_out(struct simulation *simulation, const struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_CLIENT_WELCOME:
    case EFFECT_CLIENT_ERROR:
    case EFFECT_ACCEPTED:
    case EFFECT_REJECTED:
    case EFFECT_RESULT:
    case EFFECT_STATUS:
    case EFFECT_CHUNK:
    case EFFECT_HEDGE:
    case EFFECT_STREAM_ALLOWANCE:
    case EFFECT_WORKER_WELCOME:
    case EFFECT_WORKER_ERROR:
    case EFFECT_ATTEMPT_CONCLUDED:
    case EFFECT_ATTEMPT_CANCEL:
    case EFFECT_WORKER_DRAIN:
    case EFFECT_CACHE_INVALIDATE:
    case EFFECT_CACHE_EVIDENCE:
    case EFFECT_CACHE_INVALIDATED:
    case EFFECT_FEEDBACK_TAKEN:
        send(simulation, effect);
        break;
    case EFFECT_DISPATCH:
        dispatch(simulation, effect);
        break;
    case EFFECT_PUT:
    case EFFECT_DELETE:
    case EFFECT_DELETE_RANGE:
        change_record(simulation, effect);
        break;
    case EFFECT_LOAD:
        load(simulation, effect);
        break;
    case EFFECT_NOTE:
        simulation_trace(simulation, "core notes %" PRIu64 " of job %" PRIu64 ", number %" PRIu64,
                         (uint64_t)effect->as.note.note,
                         effect->as.note.has_job
                             ? simulation_job_of(simulation, &effect->as.note.job_id)
                             : NO_JOB,
                         (uint64_t)effect->as.note.number);
        break;
    case EFFECT_PUBLISH:
        break;
    }
}

/* ------------------------------------------------------------------------------------------
 * messages to events */

struct lease_refs {
    struct lease_ref held[MESSAGE_LEASES_MAX], answered[MESSAGE_LEASES_MAX];
};

static void name_leases(const struct simulation *simulation, const struct message *message,
                        struct lease_refs *refs)
{
    for (uint8_t i = 0; i < message->leases->held_length; i++) {
        const struct job_lease *lease = &message->leases->held[i];
        refs->held[i] = (struct lease_ref){simulation->jobs[lease->job].id, lease->attempt};
    }
    for (uint8_t i = 0; i < message->leases->answered_length; i++) {
        const struct job_lease *lease = &message->leases->answered[i];
        refs->answered[i] = (struct lease_ref){simulation->jobs[lease->job].id, lease->attempt};
    }
}

struct submitted {
    char key[32];
    struct needs_words needs;
    uint8_t canonical[16], trace_parent[24];
};

static void fill_submit(const struct simulation *simulation, const struct message *message,
                        struct event *event, struct submitted *ret_submitted)
{
    const struct sim_job *job = &simulation->jobs[message->job];
    char *key = ret_submitted->key;
    *ret_submitted = (struct submitted){.canonical = {(uint8_t)job->canonical}};
    ret_submitted->trace_parent[0] = (uint8_t)(1 + job->priority);
    if (job->key != 0) {
        (void)snprintf(key, 32, "key-%u", job->key);
    }
    event->as.submit = (struct event_submit){
        .job_id = job->id,
        .tier = simulation->scenario.tiers[job->tier].name,
        .route = simulation->scenario.routes[job->route],
        .pool = job->pool == 0 ? "" : simulation->scenario.pools[job->pool],
        .idempotency_key = key,
        .canonical_key = job->canonical == 0 || simulation_plant(simulation, PLANT_IGNORE_KEY)
                             ? NULL
                             : ret_submitted->canonical,
        .trace_parent = job->priority % 2 == 0 ? NULL : ret_submitted->trace_parent,
        .stream = job->streams || simulation_plant(simulation, PLANT_STREAM_TO_ALL),
        .deadline_in_ms = simulation_plant(simulation, PLANT_IGNORE_DEADLINE) ? 24 * 3600000
                                                                              : job->deadline_in_ms,
        .delay_ms = simulation_plant(simulation, PLANT_IGNORE_DELAY) ? 0 : job->delay_ms,
        .priority = job->priority,
        .estimated_tokens = job->tokens,
        .attempts_max = job->attempts_max,
        .discard_result = job->discard_result,
        .payload = message->payload,
    };
    needs_fill(simulation, message->job, &event->as.submit, &ret_submitted->needs);
}

static void fill_pause(const struct simulation *simulation, const struct message *message,
                       struct event *event)
{
    const struct scenario *scenario = &simulation->scenario;
    const char *names[] = {
        [PAUSE_ROUTE] = scenario->routes[message->total % SCENARIO_ROUTES],
        [PAUSE_TIER] = scenario->tiers[message->total % SCENARIO_TIERS].name,
        [PAUSE_TENANT] = scenario->tenants[message->total % SCENARIO_TENANTS].name,
        [PAUSE_WORKER] = simulation->workers[message->total % scenario->options.workers].name,
    };
    event->as.pause.subject = (enum pause_subject)message->number;
    event->as.pause.mode = (enum pause_mode)message->second;
    event->as.pause.name = names[message->number];
    event->as.pause.reason = message->total % 2 == 0 ? NULL : "simulated";
}

bool sim_broker_may_refuse(enum event_kind kind)
{
    return kind == EVENT_CLIENT_HELLO || kind == EVENT_SUBMIT || kind == EVENT_WAIT ||
           kind == EVENT_WORKER_HELLO || kind == EVENT_CHUNK || kind == EVENT_STREAM_CREDIT ||
           kind == EVENT_PAUSE;
}

/*
 * What comes from outside may find no memory: it is refused. What is under way has a reserve and
 * may end the process beyond it (effects.h), so it runs short of small pieces alone; and a turn
 * with many effects, whose list has to grow, is spared.
 */
static bool lack_memory(struct simulation *simulation, enum event_kind kind)
{
    struct dice *dice = &simulation->dice;
    const bool is_from_outside = sim_broker_may_refuse(kind);
    if (effects_length(simulation->broker.effects) >= SPARED_EFFECTS ||
        (!is_from_outside && !simulation->scenario.faults.lacks_under_way) ||
        !simulation_hit(simulation, simulation->scenario.faults.allocation) ||
        (kind == EVENT_TICK && !dice_hit(dice, LACKING_TICKS))) {
        return false;
    }
    allocations_fail((uint32_t)dice_below(dice, ALLOCATIONS_OF_STEP),
                     (uint32_t)dice_between(dice, 1, ALLOCATIONS_OF_STEP),
                     is_from_outside ? SIZE_MAX : UNDERWAY_BYTES_MAX);
    return true;
}

static void step(struct simulation *simulation, const struct event *event)
{
    simulation->steps++;
    simulation->broker.told_ms = sim_broker_ms(simulation);
    upkeep_before_step(simulation);
    const bool lacks_memory = lack_memory(simulation, event->kind);
    core_step(simulation->broker.core, sim_broker_now(simulation), event,
              simulation->broker.effects);
    simulation->broker.has_lacked_memory = lacks_memory && allocations_end();
    simulation->tally.memory_short += simulation->broker.has_lacked_memory;
}

static void tell_upkeep(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    struct event event;
    if (upkeep_is_due(simulation, &event)) {
        broker->told_ms = sim_broker_ms(simulation);
        upkeep_before_step(simulation);
        core_step(broker->core, sim_broker_now(simulation), &event, broker->effects);
        upkeep_after_told(simulation);
    }
}

static const struct sim_worker *worker_of(const struct simulation *simulation,
                                          const struct message *message)
{
    return &simulation->workers[network_link(simulation, message->peer)->owner];
}

/* Calls as the wire has them: the one beside it first, since it has ended first. */
struct told_calls {
    struct told_call {
        Wire__Upstream upstream;
        Wire__RateLimits limits;
        Wire__Call call;
    } calls[2];
    const Wire__Call *refs[2];
    Wire__Usage usage;
};

/* Tokens in proportion; with every second answer also what is left of both. */
static void tell_limits(const struct call *call, Wire__RateLimits *limits)
{
    limits->requests_per_min = call->limit_per_min;
    limits->tokens_per_min = (uint64_t)call->limit_per_min * SCENARIO_TOKENS_MAX;
    limits->has_requests_left = limits->has_tokens_left = call->tokens % 2 == 0;
    limits->requests_left = call->limit_per_min / 4;
    limits->tokens_left = limits->requests_left * SCENARIO_TOKENS_MAX;
}

static void name_upstream(const struct simulation *simulation, const struct call *call,
                          Wire__Upstream *ret_name)
{
    *ret_name = (Wire__Upstream)WIRE__UPSTREAM__INIT;
    ret_name->provider = (char *)(uintptr_t)simulation->upstreams[call->upstream].provider;
    ret_name->model = (char *)(uintptr_t)simulation->upstreams[call->upstream].model;
}

static uint64_t cost_of(const struct simulation *simulation, const struct call *call)
{
    return simulation_plant(simulation, PLANT_HIDE_COST)
               ? 0
               : call->tokens * (uint64_t)SCENARIO_TOKEN_NANOUSD;
}

static void tell_usage(const struct simulation *simulation, const struct message *message,
                       Wire__Upstream *upstream, Wire__Usage *usage)
{
    const struct call *call = &message->call;
    *usage = (Wire__Usage)WIRE__USAGE__INIT;
    usage->input_tokens = call->tokens;
    usage->cost_nanousd = cost_of(simulation, call) +
                          (message->other.is_made ? cost_of(simulation, &message->other) : 0);
    usage->hedge_cost_nanousd = message->other.is_made ? cost_of(simulation, &message->other) : 0;
    usage->provider = upstream->provider;
    usage->model = upstream->model;
    usage->cache = (Wire__CacheStatus)(call->tokens % 4);
    needs_fill_usage(call, usage);
}

static void tell_call(const struct simulation *simulation, const struct call *call,
                      struct told_calls *told, struct event *event)
{
    struct event_attempt_result *result = &event->as.attempt_result;
    struct told_call *item = &told->calls[result->calls_length];
    *item = (struct told_call){.limits = WIRE__RATE_LIMITS__INIT, .call = WIRE__CALL__INIT};
    name_upstream(simulation, call, &item->upstream);
    tell_limits(call, &item->limits);
    item->call.upstream = &item->upstream;
    item->call.outcome = call->outcome;
    item->call.error_code = (char *)(uintptr_t)call->error_code;
    item->call.call_ms = (uint32_t)call->call_ms;
    item->call.retry_after_ms = (uint64_t)call->retry_after_ms;
    item->call.tokens = call->tokens;
    item->call.cost_nanousd = cost_of(simulation, call);
    item->call.limits = call->limit_per_min > 0 ? &item->limits : NULL;
    told->refs[result->calls_length++] = &item->call;
    result->calls = told->refs;
}

static void tell_calls(const struct simulation *simulation, const struct message *message,
                       struct told_calls *told, struct event *event)
{
    const struct call *call = &message->call;
    const bool is_answer = call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED;
    event->as.attempt_result.error_code = call->error_code;
    event->as.attempt_result.run = call->run;
    if (message->other.is_made) {
        tell_call(simulation, &message->other, told, event);
    }
    if (call->is_made) {
        tell_call(simulation, call, told, event);
    }
    if (is_answer && (call->is_made || call->tokens > 0)) {
        Wire__Upstream upstream;
        name_upstream(simulation, call, &upstream);
        tell_usage(simulation, message, &upstream, &told->usage);
        event->as.attempt_result.usage = &told->usage;
    }
}

/* message->second says which parts the filter has. */
static void fill_sweep(const struct simulation *simulation, const struct message *message,
                       struct event *event)
{
    const struct scenario *scenario = &simulation->scenario;
    event->as.dead_sweep.action = (enum dead_action)message->number;
    event->as.dead_sweep.rate_per_s = (uint32_t)message->total;
    if ((message->second & 1) != 0) {
        event->as.dead_sweep.filter.tenant =
            scenario->tenants[message->total % SCENARIO_TENANTS].name;
        event->as.dead_sweep.filter.from_unix_ms = UNIX_BEGIN_MS;
    }
    if ((message->second & 2) != 0) {
        event->as.dead_sweep.filter.tier = scenario->tiers[message->total % SCENARIO_TIERS].name;
        event->as.dead_sweep.filter.route = scenario->routes[message->total % SCENARIO_ROUTES];
    }
    if ((message->second & 4) != 0) {
        event->as.dead_sweep.filter.code = message->total % 2 == 0 ? "rejected" : "poison";
        event->as.dead_sweep.filter.provider = scenario_upstreams[message->total % 2][0];
    }
    if ((message->second & 8) != 0) {
        event->as.dead_sweep.filter.worker =
            simulation->workers[message->total % scenario->options.workers].name;
    }
    if ((message->second & 16) != 0) {
        event->as.dead_sweep.filter.until_unix_ms =
            UNIX_BEGIN_MS + (int64_t)message->total * SWEEP_UNTIL_MS;
    }
}

/* Some say what they serve twice, and some nothing, which means the first pool. */
static void tell_pools(const struct simulation *simulation, const struct message *message,
                       bool is_stranger, struct event *event)
{
    static const char *const unknown[] = {"default", "tpu"}, *const twice[] = {"default",
                                                                               "default"};
    const struct sim_worker *worker = worker_of(simulation, message);
    event->as.worker_hello.gpus = is_stranger ? 0 : upkeep_gpus_of(worker);
    event->as.worker_hello.brokers = is_stranger ? 0 : upkeep_brokers_of(worker);
    event->as.worker_hello.pools = (const char *const *)simulation->scenario.pools;
    event->as.worker_hello.pools_length =
        simulation_plant(simulation, PLANT_IGNORE_POOL) ? SCENARIO_POOLS : worker->pools;
    if (is_stranger) {
        event->as.worker_hello.pools = unknown;
        event->as.worker_hello.pools_length = 2;
    } else if (event->as.worker_hello.pools_length == 1 && worker->index % 4 == 1) {
        event->as.worker_hello.pools_length = 0;
    } else if (event->as.worker_hello.pools_length == 1 && worker->index % 4 == 2) {
        event->as.worker_hello.pools = twice;
        event->as.worker_hello.pools_length = 2;
    }
}

/* Longer than what is kept of it, and cut between two bytes of a character, if it is cut there. */
static const char long_text[] = "abgelehnt: "
                                "\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4"
                                "\u00e4\u00e4\u00e4\u00e4\u00e4"
                                "\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4"
                                "\u00e4\u00e4\u00e4\u00e4\u00e4"
                                "\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4"
                                "\u00e4\u00e4\u00e4\u00e4\u00e4"
                                "\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4"
                                "\u00e4\u00e4\u00e4\u00e4\u00e4";

static const uint8_t foreign_epoch[16] = "another store's";

static void fill_evidence(const struct message *message, const struct evidence_words *words,
                          struct event *event)
{
    if (message->event == EVENT_CACHE_FEEDBACK) {
        event->as.cache_feedback.tier = words->tier;
        event->as.cache_feedback.embedder = words->embedder;
        event->as.cache_feedback.score = (double)message->total / 1000;
        event->as.cache_feedback.key = words->key;
        event->as.cache_feedback.is_right = message->flag;
        return;
    }
    event->as.cache_evidence.tenant = words->tenant;
    event->as.cache_evidence.tier = words->tier;
    event->as.cache_evidence.embedder = words->embedder;
    event->as.cache_evidence.counts = blob_data(message->payload);
    event->as.cache_evidence.counts_bytes = blob_bytes(message->payload);
    event->as.cache_evidence.seed = words->seed;
    event->as.cache_evidence.seed_bytes = words->seed_bytes;
}

static void step_message(struct simulation *simulation, const struct message *message)
{
    struct event event = {.kind = message->event, .peer = message->peer};
    struct lease_refs refs;
    struct submitted submitted;
    struct blob *other_payload = NULL;
    const bool is_stranger =
        message->peer != 0 && network_link(simulation, message->peer)->is_stranger;
    struct told_calls told_calls;
    struct invalidation_words invalidation;
    struct evidence_words evidence;
    if (message->leases != NULL) {
        name_leases(simulation, message, &refs);
    }
    switch (message->event) {
    case EVENT_CLIENT_HELLO:
        event.as.client_hello.tenant =
            is_stranger
                ? "nobody"
                : simulation->scenario
                      .tenants[simulation_plant(simulation, PLANT_CROSS_TENANTS) ? 0
                                                                                 : message->number]
                      .name;
        event.as.client_hello.name = "client";
        break;
    case EVENT_SUBMIT:
        fill_submit(simulation, message, &event, &submitted);
        if (network_link(simulation, message->peer)->is_worker) {
            event.peer = 0;
            event.as.submit.tenant =
                simulation->scenario.tenants[simulation->jobs[message->job].tenant].name;
        }
        if (message->second != DEFECT_NONE) {
            defect_apply(simulation, (enum defect)message->second, &event, &other_payload);
        }
        break;
    case EVENT_CANCEL:
    case EVENT_WAIT:
    case EVENT_COLLECTED:
        event.as.job.job_id = simulation->jobs[message->job].id;
        event.as.job.status_only = message->flag;
        event.as.job.stream = message->event == EVENT_WAIT && message->second != 0;
        break;
    case EVENT_FEEDBACK:
        event.as.feedback.job_id = simulation->jobs[message->job].id;
        event.as.feedback.score = (double)message->total / 1000;
        event.as.feedback.comment = message->flag ? "a comment" : "";
        break;
    case EVENT_WORKER_HELLO:
        assert(message->leases != NULL);
        event.as.worker_hello.name =
            is_stranger ? "stranger" : worker_of(simulation, message)->name;
        tell_pools(simulation, message, is_stranger, &event);
        event.as.worker_hello.slots = (uint32_t)message->number;
        event.as.worker_hello.held = refs.held;
        event.as.worker_hello.held_length = message->leases->held_length;
        event.as.worker_hello.answered = refs.answered;
        event.as.worker_hello.answered_length = message->leases->answered_length;
        event.as.worker_hello.cache_sequence = message->leases->cache_sequence;
        event.as.worker_hello.cache_epoch = message->leases->cache_sequence == 0 ? NULL
                                            : message->leases->cache_is_foreign
                                                ? foreign_epoch
                                                : simulation->invalidations.epoch;
        break;
    case EVENT_WORKER_CREDIT:
        event.as.worker_credit.total =
            message->total + (simulation_plant(simulation, PLANT_IGNORE_CREDIT) ? 3 : 0);
        break;
    case EVENT_WORKER_HEARTBEAT:
        assert(message->leases != NULL);
        event.as.worker_heartbeat.held = refs.held;
        event.as.worker_heartbeat.held_length = message->leases->held_length;
        break;
    case EVENT_ATTEMPT_RESULT:
        event.as.attempt_result = (struct event_attempt_result){
            .lease = {simulation->jobs[message->job].id, message->attempt},
            .outcome = (Wire__AttemptOutcome)message->number,
            .error_code = "",
            .error_text =
                message->number == WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED ? long_text : "",
            .retry_after_ms = message->time_ms,
            .payload = message->payload,
            .key_mismatch = simulation->jobs[message->job].is_mismatched &&
                            !simulation_plant(simulation, PLANT_HIDE_MISMATCH),
        };
        tell_calls(simulation, message, &told_calls, &event);
        break;
    case EVENT_WORKER_GONE:
        event.as.worker_gone.said_goodbye = message->flag;
        break;
    case EVENT_HEDGE_ASKED:
        event.as.hedge_asked.lease =
            (struct lease_ref){simulation->jobs[message->job].id, message->attempt};
        break;
    case EVENT_UNDELIVERABLE:
        event.as.undeliverable.lease =
            (struct lease_ref){simulation->jobs[message->job].id, message->attempt};
        break;
    case EVENT_DURABLE:
        event.as.durable.batch = message->total;
        break;
    case EVENT_STORE_DOWN:
        event.as.store_down.first_batch = message->total;
        event.as.store_down.why =
            message->total % 2 == 0 ? NULL : "simulated: no space left on device";
        break;
    case EVENT_LOADED:
        event.as.loaded.token = message->total;
        event.as.loaded.result = message->number;
        event.as.loaded.value = message->payload;
        break;
    case EVENT_PAUSE:
    case EVENT_RESUME:
        fill_pause(simulation, message, &event);
        break;
    case EVENT_CHUNK:
        event.as.chunk.header = (struct frame_chunk){.job_id = simulation->jobs[message->job].id,
                                                     .attempt = message->attempt,
                                                     .index = (uint32_t)message->total,
                                                     .flags = message->flag ? FRAME_CHUNK_LAST : 0};
        event.as.chunk.data = message->payload;
        break;
    case EVENT_STREAM_CREDIT:
        event.as.stream_credit.job_id = simulation->jobs[message->job].id;
        event.as.stream_credit.chunks = (uint32_t)message->total;
        break;
    case EVENT_CLIENT_GONE:
    case EVENT_WORKER_DRAINING:
    case EVENT_UPSTREAM_RESET: /* of all: none is named */
    case EVENT_STORE_UP:
    case EVENT_UPKEEP:
    case EVENT_DRAIN:
    case EVENT_TICK:
        break;
    case EVENT_CACHE_INVALIDATE:
        invalidations_fill(simulation, message, &invalidation);
        event.as.cache_invalidate.selector = &invalidation.selector;
        event.as.cache_invalidate.reason = invalidation.reason;
        event.as.cache_invalidate.number = message->total;
        break;
    case EVENT_CACHE_EVIDENCE:
    case EVENT_CACHE_FEEDBACK:
        evidence_fill(simulation, message, &evidence);
        fill_evidence(message, &evidence, &event);
        break;
    case EVENT_DEAD_ONE:
        event.as.dead_one.job_id = simulation->jobs[message->job].id;
        event.as.dead_one.action = (enum dead_action)message->number;
        break;
    case EVENT_DEAD_SWEEP:
        fill_sweep(simulation, message, &event);
        break;
    case EVENT_DEAD_STOP:
        event.as.dead_stop.number = message->total;
        break;
    }
    const bool is_lost =
        (message->event == EVENT_PAUSE && simulation_plant(simulation, PLANT_IGNORE_PAUSE)) ||
        (message->event == EVENT_WORKER_CREDIT && simulation_plant(simulation, PLANT_LOSE_CREDIT) &&
         dice_hit(&simulation->dice, 50));
    if (!is_lost) {
        step(simulation, &event);
    }
    blob_unref(&other_payload);
}

/* ----------------------------------------------------------------------------------------------------
 * the turn */

static void examine(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    while (broker->examined < effects_length(broker->effects)) {
        const struct effect *effect = effects_at(broker->effects, broker->examined++);
        lives_see_effect(simulation, effect);
        oracle_see_effect(simulation, effect);
        invalidations_see_effect(simulation, effect);
        evidence_see_effect(simulation, effect);
        needs_see_effect(simulation, effect);
        if (effect->kind == EFFECT_LOAD && job_of_load(simulation, effect) != NO_JOB) {
            fairness_see_load(simulation, &simulation->jobs[job_of_load(simulation, effect)]);
        }
        if (effect->kind == EFFECT_DISPATCH &&
            simulation_plant(simulation, PLANT_DOUBLE_DISPATCH) &&
            dice_hit(&simulation->dice, 50)) {
            struct effect again = *effect;
            again.as.dispatch.lease.attempt++;
            oracle_see_effect(simulation, &again);
        }
    }
}

static void hear_one(struct simulation *simulation, struct message *message)
{
    struct sim_broker *broker = &simulation->broker;
    simulation_trace(simulation, message_format(message), message->peer, message->job,
                     message->attempt != 0 ? message->attempt : (uint64_t)message->number);
    oracle_before_step(simulation, message);
    invalidations_before_step(simulation, message);
    evidence_before_step(simulation, message);
    needs_before_step(simulation, message);
    bill_before_step(simulation, message);
    step_message(simulation, message);
    oracle_after_step(simulation, message);
    invalidations_after_step(simulation, message);
    evidence_after_step(simulation, message);
    needs_after_step(simulation, message);
    if (message->event == EVENT_STORE_DOWN) {
        broker->examined =
            effects_length(broker->effects); /* it drops earlier ones, and dispatches nothing */
    }
    examine(simulation);
    if (message->event == EVENT_DURABLE) {
        broker->batch_durable = message->total;
        release_durable(simulation);
    } else if (message->event == EVENT_STORE_DOWN) {
        forget_accepted(simulation, message->total);
    }
    message_finish(message);
}

static void commit(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    if (!effects_have_records(broker->effects)) {
        return;
    }
    storage_commit(broker->storage);
    broker->batch_next++;
    plan_sync(simulation, effects_are_urgent(broker->effects)
                              ? dice_between(&simulation->dice, 0, simulation->scenario.sync_ms_max)
                              : STORE_LAZY_MS);
}

static bool is_drained(const struct simulation *simulation)
{
    const struct sim_broker *broker = &simulation->broker;
    return broker->is_draining &&
           (core_is_idle(broker->core) || simulation->now_ms >= broker->drain_until_ms);
}

static void stop(struct simulation *simulation, uint64_t batches_kept);

void sim_broker_turn(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    const struct event tick = {.kind = EVENT_TICK};
    assert(broker->alarms_length > 0);
    broker->alarms_length--;
    if (broker->turn_at_ms > simulation->now_ms) {
        if (broker->turn_at_ms != INT64_MAX) {
            set_alarm(simulation, broker->turn_at_ms);
        }
        return;
    }
    broker->turn_at_ms = INT64_MAX;
    broker->turns_at_once = broker->turned_ms == simulation->now_ms ? broker->turns_at_once + 1 : 0;
    broker->turned_ms = simulation->now_ms;
    if (broker->turns_at_once == TURNS_AT_ONCE_MAX) {
        simulation_violate(simulation, "the core asks for turn after turn and time stands still");
        return;
    }
    effects_reset(broker->effects, broker->batch_next);
    broker->turns++;
    broker->examined = 0;
    size_t heard = 0;
    while (heard < broker->inbox.length && heard < EVENTS_PER_TURN) {
        hear_one(simulation, &broker->inbox.items[heard++]);
    }
    broker->inbox.length -= heard;
    if (broker->inbox.length > 0) {
        memmove(broker->inbox.items, broker->inbox.items + heard,
                broker->inbox.length * sizeof(*broker->inbox.items));
    }
    tell_upkeep(simulation);
    fairness_before_tick(simulation);
    step(simulation, &tick);
    oracle_after_tick(simulation);
    lives_after_tick(simulation);
    examine(simulation);
    fairness_after_tick(simulation);
    for (size_t i = 0; i < effects_length(broker->effects); i++) {
        carry_out(simulation, effects_at(broker->effects, i));
    }
    commit(simulation);
    oracle_check_turn(simulation);
    needs_check_turn(simulation);
    invalidations_check_turn(simulation);
    if (is_drained(simulation)) {
        stop(simulation, UINT64_MAX);
        return;
    }
    const int64_t deadline_ms = core_next_deadline_ms(broker->core);
    if (deadline_ms != INT64_MAX) {
        plan_turn(simulation, deadline_ms - mono_offset_ms(simulation));
    }
    if (broker->inbox.length > 0) {
        plan_turn(simulation, simulation->now_ms);
    }
    if (broker->is_draining) {
        plan_turn(simulation, broker->drain_until_ms);
    }
}

/* ------------------------------------------------------------------------------------------
 * beginning and end */

struct restoring {
    struct simulation *simulation;
    enum store_family family;
    bool lacks_memory; /* at one of the records */
    bool has_ended;    /* for lack of it */
};

static void restore_record(void *context, const void *key, size_t key_bytes, struct blob *value)
{
    struct restoring *restoring = context;
    struct simulation *simulation = restoring->simulation;
    if (restoring->has_ended) {
        return;
    }
    const bool lacks_memory = restoring->lacks_memory && dice_hit(&simulation->dice, 50);
    if (lacks_memory) {
        allocations_fail((uint32_t)dice_below(&simulation->dice, ALLOCATIONS_OF_STEP), 1, SIZE_MAX);
    }
    const int r = core_restore(simulation->broker.core, restoring->family, key, key_bytes,
                               blob_data(value), blob_bytes(value), sim_broker_now(simulation));
    if (lacks_memory && allocations_end() && r == -ENOMEM) {
        simulation->tally.memory_short++;
        restoring->has_ended = true;
    } else if (r < 0) {
        simulation_violate(simulation, "a record of family %d cannot be restored: %s",
                           (int)restoring->family, strerrorname_np(-r));
    } else if (dice_hit(&simulation->dice, simulation->scenario.faults.damage)) {
        damage_restore(simulation, restoring->family, key, key_bytes, value);
    }
}

/* The configuration as the core is told of it: as it is, but for planted mistakes. */
struct told {
    struct config config;
    struct config_tier tiers[SCENARIO_TIERS];
    struct config_tenant tenants[SCENARIO_TENANTS];
};

static void tell_config(const struct simulation *simulation, struct told *told)
{
    const struct scenario *scenario = &simulation->scenario;
    told->config = scenario->config;
    memcpy(told->tiers, scenario->tiers, sizeof(told->tiers));
    memcpy(told->tenants, scenario->tenants, sizeof(told->tenants));
    if (simulation_plant(simulation, PLANT_BLAME_INNOCENTS)) {
        told->config.broker.losses_max = 1;
    }
    told->config.tiers = told->tiers;
    told->config.tenants = told->tenants;
    for (int i = 0; i < SCENARIO_TENANTS && simulation_plant(simulation, PLANT_EQUAL_TENANTS);
         i++) {
        told->tenants[i].weight = 1;
    }
    for (int i = 0; i < SCENARIO_TIERS && simulation_plant(simulation, PLANT_EQUAL_TIERS); i++) {
        told->tiers[i].weight = 1;
    }
    if (scenario->lacks_tenant) {
        told->config.tenants++;
        told->config.tenants_length--;
    }
}

static int create_once(struct simulation *simulation, const struct config *config, uint64_t seed)
{
    struct sim_broker *broker = &simulation->broker;
    const int r = core_create(config, seed, sim_broker_now(simulation), &broker->core);
    return r < 0 ? r : effects_create(&broker->effects);
}

/* Memory runs out on the way; what was made by then is released without a trace. */
static void create_in_vain(struct simulation *simulation, const struct config *config)
{
    struct sim_broker *broker = &simulation->broker;
    allocations_fail((uint32_t)dice_below(&simulation->dice, ALLOCATIONS_OF_START), 1, SIZE_MAX);
    const int r = create_once(simulation, config, 1);
    const bool has_failed = allocations_end();
    core_destroy(&broker->core);
    effects_destroy(&broker->effects);
    simulation->tally.memory_short += has_failed && r < 0; /* else it does without */
    if (r < 0 && (!has_failed || r != -ENOMEM)) {
        simulation_violate(simulation, "the core is not created: %s", strerrorname_np(-r));
    }
}

static int create(struct simulation *simulation, const struct config *config)
{
    const bool lacks_memory = simulation_hit(simulation, simulation->scenario.faults.allocation);
    for (int i = 0; lacks_memory && i < CREATED_IN_VAIN; i++) {
        create_in_vain(simulation, config);
    }
    return create_once(simulation, config, dice_next(&simulation->dice));
}

/* False: memory ran out. */
static bool restore_all(struct simulation *simulation, bool may_lack_memory)
{
    static const enum store_family families[] = {STORE_META, STORE_CONCLUDED, STORE_JOBS,
                                                 STORE_LEASES};
    struct restoring restoring = {
        .simulation = simulation,
        .lacks_memory =
            may_lack_memory && simulation_hit(simulation, simulation->scenario.faults.allocation),
    };
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]) && !restoring.has_ended; i++) {
        restoring.family = families[i];
        if (families[i] != STORE_CONCLUDED ||
            !simulation_plant(simulation, PLANT_FORGET_CONCLUDED)) {
            storage_visit(simulation->broker.storage, STORAGE_DURABLE, families[i], restore_record,
                          &restoring);
        }
    }
    return !restoring.has_ended;
}

void sim_broker_start(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    struct told told;
    tell_config(simulation, &told);
    broker->incarnation++;
    broker->has_damage = false;
    broker->mono_base_ms = dice_between(&simulation->dice, 0, 1000000);
    broker->mono_jumped_ms = sim_broker_ms(simulation) - simulation->now_ms;
    broker->batch_next = 1;
    broker->batch_durable = 0;
    broker->turn_at_ms = broker->sync_at_ms = INT64_MAX;
    broker->alarms_length = 0;
    settings_try_to_start(simulation, &told.config);
    if (create(simulation, &told.config) < 0) {
        simulation_violate(simulation, "the core cannot be created");
        return;
    }
    if (!restore_all(simulation,
                     true)) { /* without memory for it the process ends, and starts anew */
        core_destroy(&broker->core);
        effects_destroy(&broker->effects);
        if (create(simulation, &told.config) < 0 || !restore_all(simulation, false)) {
            simulation_violate(simulation, "the core cannot be created anew");
            return;
        }
    }
    core_restored(broker->core, sim_broker_now(simulation));
    broker->is_up = true;
    upkeep_see_start(simulation);
    fairness_restart(simulation);
    invalidations_restart(simulation);
    evidence_restart(simulation);
    degradation_restart(simulation);
    attempts_restart(simulation);
    needs_restart(simulation);
    simulation_trace(simulation, "broker starts, incarnation %" PRIu64 ", %" PRIu64 " jobs on disk",
                     broker->incarnation,
                     storage_length(broker->storage, STORAGE_DURABLE, STORE_JOBS), 0);
    plan_turn(simulation, simulation->now_ms);
    if (simulation->is_quiet) {
        faults_resume_all(simulation);
    }
}

static void lose_connections(struct simulation *simulation)
{
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        if (simulation->clients[i].peer != 0) {
            network_break(simulation, simulation->clients[i].peer);
        }
    }
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        if (simulation->workers[i].peer != 0) {
            network_break(simulation, simulation->workers[i].peer);
        }
    }
}

static void stop(struct simulation *simulation, uint64_t batches_kept)
{
    struct sim_broker *broker = &simulation->broker;
    const uint64_t pending =
        storage_latest(broker->storage) + 1 - storage_first_pending(broker->storage);
    const uint64_t kept = batches_kept < pending ? batches_kept : pending;
    simulation_trace(simulation,
                     "broker stops; of %" PRIu64 " pending batches %" PRIu64 " are kept", pending,
                     kept, 0);
    bill_see_stop(simulation, storage_first_pending(broker->storage) + kept);
    upkeep_see_stop(simulation, storage_first_pending(broker->storage) + kept);
    storage_crash(broker->storage, kept);
    const bool is_orderly = batches_kept == UINT64_MAX && !broker->store_is_down &&
                            !broker->core_store_is_down &&
                            simulation->scenario.faults.allocation == 0;
    if (is_orderly) {
        evidence_see_shutdown(simulation);
    }
    core_destroy(&broker->core);
    effects_destroy(&broker->effects);
    message_list_clear(&broker->inbox);
    message_list_clear(&broker->held);
    broker->is_up = broker->is_draining = broker->store_is_down = false;
    oracle_see_crash(simulation);
    fairness_stop(simulation);
    oracle_check(simulation);
    lose_connections(simulation);
    schedule_add(&simulation->schedule,
                 simulation->now_ms + dice_between(&simulation->dice, 1, DOWN_MS_MAX),
                 TASK_BROKER_START, 0, broker->incarnation, NULL);
}

bool sim_broker_crash(struct simulation *simulation)
{
    const struct sim_broker *broker = &simulation->broker;
    if (!broker->is_up) {
        return false;
    }
    const uint64_t pending =
        storage_latest(broker->storage) + 1 - storage_first_pending(broker->storage);
    stop(simulation, broker->store_is_down ? 0 : dice_below(&simulation->dice, pending + 1));
    return true;
}

bool sim_broker_restart(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    if (!broker->is_up || broker->is_draining || broker->store_is_down) {
        return false;
    }
    broker->is_draining = true;
    broker->drain_until_ms = simulation->now_ms + DRAIN_MS;
    hear_own(simulation, EVENT_DRAIN, 0);
    return true;
}

/* Memory runs out on the way; the operator tries again. */
static void reload_in_vain(struct simulation *simulation, const struct config *config)
{
    allocations_fail((uint32_t)dice_below(&simulation->dice, ALLOCATIONS_OF_RELOAD), 1, SIZE_MAX);
    const int r = core_reconfigure(simulation->broker.core, config, sim_broker_now(simulation));
    const bool has_failed = allocations_end();
    simulation->tally.memory_short += has_failed && r < 0;
    if (r < 0 && (!has_failed || r != -ENOMEM)) {
        simulation_violate(simulation, "the settings are not taken: %s", strerrorname_np(-r));
    }
}

bool sim_broker_reload(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    struct told told;
    if (!broker->is_up) {
        return false;
    }
    if (!simulation->is_quiet && dice_hit(&simulation->dice, 500)) {
        scenario_change(&simulation->scenario, &simulation->dice);
        broker->is_to_shrink = true;
    }
    tell_config(simulation, &told);
    if (simulation_hit(simulation, simulation->scenario.faults.unusable)) {
        told.tiers[0].name = told.tiers[0].pool; /* tiers cannot change: this one stays */
    }
    settings_try_to_reload(simulation, &told.config);
    const bool lacks_memory = simulation_hit(simulation, simulation->scenario.faults.allocation);
    for (int i = 0; lacks_memory && i < RELOADED_IN_VAIN; i++) {
        reload_in_vain(simulation, &told.config);
    }
    if (core_reconfigure(broker->core, &told.config, sim_broker_now(simulation)) < 0) {
        simulation_violate(simulation, "the core refuses the configuration that it has");
    }
    needs_see_config(simulation);
    return true;
}

/* Records keep the wall clock's time, which need not jump with it. */
void sim_broker_jump(struct simulation *simulation, int64_t jump_ms)
{
    simulation->broker.mono_jumped_ms += jump_ms;
    simulation->clock_jumped_ms += jump_ms < 0 ? -jump_ms : jump_ms;
    simulation_trace(simulation, "the broker's monotonic clock jumps by %" PRId64 " ms",
                     (uint64_t)jump_ms, 0, 0);
    plan_turn(simulation, simulation->now_ms);
}

void sim_broker_init(struct simulation *simulation)
{
    fairness_init(simulation);
    simulation->broker.storage = storage_create(oracle_see_durable, simulation);
    sim_broker_start(simulation);
}

void sim_broker_finish(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    core_destroy(&broker->core);
    effects_destroy(&broker->effects);
    message_list_clear(&broker->inbox);
    message_list_clear(&broker->held);
    free(broker->inbox.items);
    free(broker->held.items);
    storage_destroy(&broker->storage);
}
