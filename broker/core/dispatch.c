#include "broker/core/dispatch.h"
#include <errno.h>
#include <string.h>
#include "broker/core/budget.h"
#include "broker/core/conclude.h"
#include "broker/core/crowd.h"
#include "broker/core/decision.h"
#include "broker/core/flight.h"
#include "broker/core/gate.h"
#include "broker/core/hedge.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/lessons.h"
#include "broker/core/overload.h"
#include "broker/core/result.h"
#include "broker/core/stream.h"
#include "broker/core/upstream.h"
#include "broker/core/worker.h"

enum {
    LOAD_RETRY_MS = 1000,
    SUSPECT_RETRY_MS = 100,   /* until a job that may end workers is tried again */
    SUSPECTS_PER_RETRY = 256, /* more of them in one turn wait longer, so that they are no load */
};

static const uint8_t *copy_bytes(struct core *core, const uint8_t *bytes, size_t length)
{
    return memcpy(effects_alloc(core->effects, length), bytes, length);
}

static void send_dispatch(struct core *core, const struct job *job, const struct worker *worker,
                          const struct decision *decision)
{
    const struct queue *queue = job->flow->queue;
    const bool has_canonical = (job->flags & JOB_HAS_CANONICAL) != 0;
    const bool has_trace = (job->flags & JOB_HAS_TRACE) != 0;
    struct effect_dispatch *dispatch =
        &effects_add(core->effects, EFFECT_DISPATCH, worker->peer, 0)->as.dispatch;
    dispatch->lease = (struct lease_ref){.job_id = job->id, .attempt = job->attempt};
    dispatch->tenant = job->flow->tenant->name->text;
    dispatch->route = queue->route->text;
    dispatch->tier = queue->lane->tier->name->text;
    dispatch->pool = queue->lane->pool->name->text;
    dispatch->is_of_worker = (job->flags & JOB_OF_WORKER) != 0;
    dispatch->tier_index = queue->lane->tier->index;
    dispatch->deadline_in_ms = job->deadline_ms == INT64_MAX ? 0 : job->deadline_ms - core->now_ms;
    dispatch->queue_ms = core->now_ms - job->submitted_ms;
    dispatch->stream = stream_is_asked_for(core, job);
    dispatch->stream_bytes = job->at.lease->stream_bytes =
        dispatch->stream ? stream_allowance(core) : 0;
    dispatch->canonical_key =
        has_canonical ? copy_bytes(core, job->canonical_key, sizeof(job->canonical_key)) : NULL;
    dispatch->trace_parent =
        has_trace ? copy_bytes(core, job->trace_parent, sizeof(job->trace_parent)) : NULL;
    dispatch->estimated_tokens = job->estimated_tokens;
    dispatch->max_tokens = job->max_tokens;
    const struct permit *permit = &job->at.lease->permit;
    if (permit->upstream != NULL) {
        dispatch->provider = permit->upstream->provider;
        dispatch->model = permit->upstream->model;
        dispatch->is_probe = permit->probe != 0;
    }
    dispatch->reason = decision_explain(core, job, decision);
    dispatch->quality_lost = decision->quality_lost;
    dispatch->complexity = job->needs.complexity;
    dispatch->abilities = job->needs.abilities;
    dispatch->input_tokens = job_input_tokens(job);
    dispatch->residency = decision_residency_name(core, job->needs.residency);
    dispatch->tenant_residency = decision_residency_name(core, job_tenant(job)->residency);
    dispatch->is_last_choice = decision->chosen != NULL && !decision->has_other;
    dispatch->is_last_attempt = (uint32_t)job->failures + 1 >= job->attempts_max;
    dispatch->is_budgeted = budget_is_limited(core, budget_scope_of(job));
    dispatch->hedge_after_ms = hedge_after_ms(core, job, decision, dispatch->stream);
    dispatch->payload = blob_ref(job->payload);
}

static void count_dispatch(struct tier *tier, struct queue *queue)
{
    tier->stats.dispatched++;
    tier->drain.dispatches++;
    queue->drain.dispatches++;
}

/* For a suspect: with a worker that runs no other one, and of those where the fewest jobs are.
 * NULL: there is none. */
static struct worker_seat *seat_for_suspect(const struct lane *lane)
{
    struct worker_seat *best = NULL;
    list_for_each (&lane->available, link) {
        struct worker_seat *seat = CONTAINER_OF(link, struct worker_seat, link);
        if (seat->worker->suspects == 0 &&
            (best == NULL || seat->worker->leases.length < best->worker->leases.length)) {
            best = seat;
        }
    }
    return best;
}

static struct worker_seat *choose_seat(const struct core *core, const struct lane *lane,
                                       const struct job *job)
{
    return lease_is_for_suspect(core, job)
               ? seat_for_suspect(lane)
               : CONTAINER_OF(list_first(&lane->available), struct worker_seat, link);
}

/* Out of the way of those behind it; what is on disk is read again. */
static void make_suspect_wait(struct core *core, struct job *job)
{
    const int64_t wait_ms =
        SUSPECT_RETRY_MS * (1 + (int64_t)(core->suspects_in_turn++ / SUSPECTS_PER_RETRY)) +
        (int64_t)core_random_below(core, SUSPECT_RETRY_MS);
    if ((job->flags & JOB_ON_DISK) != 0) {
        job_drop_payload(core, job);
    }
    job_wait_until(core, job, core->now_ms + wait_ms);
}

/* Its first one earns retries for others. */
static void count_attempt(struct core *core, const struct job *job)
{
    const struct name *route = job->flow->queue->route;
    if (job->attempt == 0 && route->index < core->route_length) {
        retry_budget_credit(&core->route[route->index].budget, &core->retries, core->now_ms);
    }
}

static bool give(struct core *core, struct lane *lane, struct job *job, struct worker_seat *seat,
                 const struct decision *decision)
{
    struct worker *worker = seat->worker;
    if (!charge_may_open(core)) {
        return false;
    }
    if (job->place == PLACE_READY) {
        lane_charge(lane, job);
    }
    if (decision->is_picky) { /* before the job leaves, so that their flow keeps its place */
        crowd_follow(core, job, decision_able(decision));
    }
    count_attempt(core, job);
    struct lease *lease = lease_grant(core, job, worker, job->attempt + 1);
    if (lease == NULL) {
        return false;
    }
    lease->permit = upstream_take(core, decision->chosen, job);
    charge_open(core, lease);
    core->budgets.counts.downgraded += decision->is_downgraded;
    lease->invalidations = core->cache_log.told;
    lane_charge_tier(lane);
    worker->dispatched++;
    worker_refresh(core, worker);
    if (seat->is_listed) { /* the next job goes to the next worker */
        list_remove(&lane->available, &seat->link);
        list_append(&lane->available, &seat->link);
    }
    count_dispatch(lane->tier, job->flow->queue);
    lessons_dispatched(core, job, decision->is_explored);
    send_dispatch(core, job, worker, decision);
    job_release_payload(core, job);
    return true;
}

/* ---- loading ---- */

static size_t loads_ahead_max(const struct lane *lane)
{
    const uint64_t slots = lane->pool->slots;
    return slots < LOADS_AHEAD_MIN   ? LOADS_AHEAD_MIN
           : slots > LOADS_AHEAD_MAX ? LOADS_AHEAD_MAX
                                     : (size_t)slots;
}

static bool may_load(const struct core *core, const struct lane *lane, const struct job *job)
{
    const size_t ahead = lane->loading + lane->loaded.length;
    const uint64_t bytes_max = core->limits.memory_payload_bytes_max / 4;
    return ahead == 0 ||
           (ahead < loads_ahead_max(lane) && lane->ahead_bytes + job->payload_bytes <= bytes_max);
}

uint64_t dispatch_ask_payload(struct core *core, const struct job *job)
{
    const uint64_t token = loads_open(&core->loads, LOAD_PAYLOAD, &job->id, 0);
    if (token != 0) {
        struct effect *effect = effects_add(core->effects, EFFECT_LOAD, 0, 0);
        effect->as.load.family = STORE_PAYLOADS;
        effect->as.load.token = token;
        effect->as.load.key_bytes = ID_BYTES;
        memcpy(effect->as.load.key, job->id.bytes, ID_BYTES);
    }
    return token;
}

static bool load(struct core *core, struct lane *lane, struct job *job)
{
    if (!may_load(core, lane, job)) {
        return false;
    }
    const uint64_t token = dispatch_ask_payload(core, job);
    if (token == 0) {
        return false;
    }
    lane_charge(lane, job);
    job_move(core, job, PLACE_LOADING);
    job->at.load_token = token;
    return true;
}

static void payload_came(struct core *core, struct job *job, struct blob *payload)
{
    job_keep_payload(core, job, payload);
    if (job->place == PLACE_WAITING) {
        crowd_payload_came(core, job);
    } else {
        job_move(core, job, lane_is_held(core, job) ? PLACE_READY : PLACE_LOADED);
    }
}

/* By itself, so that others of its crowd go on. */
static void read_later(struct core *core, struct job *job)
{
    if (job->place == PLACE_WAITING) {
        job_move(core, job, PLACE_READY);
    }
    job_wait_until(core, job, core->now_ms + LOAD_RETRY_MS);
}

static void payload_loaded(struct core *core, struct job *job, int error, struct blob *value)
{
    if (error == 0 && blob_bytes(value) == job->payload_bytes) {
        payload_came(core, job, value);
    } else if (error == 0 || error == -ENOENT || error == -EBADMSG) {
        conclude(core, job,
                 &(struct outcome){.state = WIRE__JOB_STATE__JOB_STATE_DEAD,
                                   .error_code = "payload_lost",
                                   .error_text = "the stored payload is missing or damaged"});
    } else {
        read_later(core, job);
    }
}

/* A crowd's job may have left and come back since: each answer has the same bytes. */
static bool is_asked_for(const struct job *job, uint64_t token)
{
    return job->place == PLACE_LOADING ? job->at.load_token == token : crowd_is_reading(job);
}

void dispatch_loaded(struct core *core, const struct event *event)
{
    struct load answered;
    if (!loads_close(&core->loads, event->as.loaded.token, &answered)) {
        return;
    }
    if (answered.kind == LOAD_RESULT) {
        result_loaded(core, &answered, event->as.loaded.result, event->as.loaded.value);
        return;
    }
    struct job *job = job_find(core, &answered.job_id);
    if (job != NULL && is_asked_for(job, event->as.loaded.token)) {
        payload_loaded(core, job, event->as.loaded.result, event->as.loaded.value);
    }
}

void dispatch_put_back_held(struct core *core)
{
    const size_t lanes = core->pools.length * core->tiers_length;
    for (size_t i = 0; i < lanes; i++) {
        struct list_link *link = core->lanes[i].loaded.head.next;
        while (link != &core->lanes[i].loaded.head) {
            struct job *job = CONTAINER_OF(link, struct job, link);
            link = link->next;
            if (lane_is_held(core, job)) {
                job_move(core, job, PLACE_READY);
            }
        }
    }
}

/* ---- choosing ---- */

static struct job *next_job(struct lane *lane)
{
    struct list_link *loaded = list_first(&lane->loaded);
    return loaded != NULL ? CONTAINER_OF(loaded, struct job, link) : lane_peek(lane);
}

/* Who needs what others do not is charged when it goes, not for the reading: crowd.h. */
static bool load_for(struct core *core, struct lane *lane, struct job *job,
                     const struct decision *decision)
{
    return (decision->is_picky && crowd_read(core, job, decision_able(decision))) ||
           load(core, lane, job);
}

/* One job of a lane that has a worker and work: given, expired, or sent for its payload. */
static void dispatch_one(struct core *core, struct lane *lane)
{
    struct job *job = next_job(lane);
    if (job->deadline_ms <= core->now_ms) {
        conclude_expire(core, job);
        return;
    }
    struct worker_seat *seat = choose_seat(core, lane, job);
    if (seat == NULL) {
        make_suspect_wait(core, job);
        return;
    }
    struct decision decision;
    if (!gate_pass(core, job, &decision) || overload_sheds(core, job)) {
        return;
    }
    const bool is_done = job->payload != NULL ? give(core, lane, job, seat, &decision)
                                              : load_for(core, lane, job, &decision);
    if (!is_done) {
        lane->stalled_in_turn = core->turn;
    }
}

/* Reads ahead for a lane whose workers are all busy, so that the next free slot finds a payload. */
static void load_ahead(struct core *core, struct lane *lane)
{
    for (int i = 0; i < LOADS_AHEAD_MIN && lane->pool->slots > 0 && lane_may_dispatch(core, lane);
         i++) {
        struct job *job = lane_peek(lane);
        if (job == NULL || job->payload != NULL || !load(core, lane, job)) {
            return;
        }
    }
}

void dispatch_tick(struct core *core)
{
    core->has_more = false;
    core->suspects_in_turn = 0;
    if (core->is_draining) {
        return;
    }
    int left = DISPATCHES_PER_TICK;
    for (size_t i = 0; i < core->pools.length; i++) {
        /* Another pool first each time, so that a bound that is reached does not favour one. */
        struct pool *pool = &core->pool[(i + core->turn) % core->pools.length];
        struct lane *lane;
        while (left > 0 && (lane = lane_choose(core, pool)) != NULL) {
            dispatch_one(core, lane);
            left--;
        }
        for (size_t t = 0; t < core->tiers_length; t++) {
            load_ahead(core, lane_of(core, &core->tier[t], pool));
        }
    }
    core->has_more = left == 0;
}
