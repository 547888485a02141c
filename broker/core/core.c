#include "broker/core/core.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/attempt.h"
#include "broker/core/cache_evidence.h"
#include "broker/core/cache_log.h"
#include "broker/core/client.h"
#include "broker/core/conclude.h"
#include "broker/core/configure.h"
#include "broker/core/crowd.h"
#include "broker/core/dead.h"
#include "broker/core/decision.h"
#include "broker/core/dispatch.h"
#include "broker/core/estimate.h"
#include "broker/core/feedback.h"
#include "broker/core/flight.h"
#include "broker/core/gate.h"
#include "broker/core/hedge.h"
#include "broker/core/history.h"
#include "broker/core/keys.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/lessons.h"
#include "broker/core/overload.h"
#include "broker/core/pause.h"
#include "broker/core/quality.h"
#include "broker/core/record.h"
#include "broker/core/result.h"
#include "broker/core/state.h"
#include "broker/core/stream.h"
#include "broker/core/stream_rest.h"
#include "broker/core/submit.h"
#include "broker/core/upstream.h"
#include "broker/core/worker.h"

enum { RECORD_ARENA_BYTES_MAX = 64 << 20 };

/* ---- for the modules ---- */

/* splitmix64: small, and every seed is a good one. */
static uint64_t random_next(struct core *core)
{
    uint64_t z = core->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

uint64_t core_random_below(struct core *core, uint64_t bound)
{
    const uint64_t number = random_next(core);
    return bound == 0 ? 0 : number % bound;
}

uint64_t core_pending_batch(const struct core *core)
{
    return core->batch_last > core->batch_durable ? core->batch_last : 0;
}

static struct effect *add_change(struct core *core, enum effect_kind kind, enum store_family family,
                                 const void *key, size_t key_bytes)
{
    assert(key_bytes <= STORE_KEY_BYTES_MAX);
    core->batch_last = effects_batch(core->effects);
    struct effect *effect = effects_add(core->effects, kind, 0, 0);
    effect->as.put.family = family;
    effect->as.put.key_bytes = (uint8_t)key_bytes;
    memcpy(effect->as.put.key, key, key_bytes);
    return effect;
}

void core_put(struct core *core, enum store_family family, const void *key, size_t key_bytes,
              const void *value, size_t value_bytes, struct blob *blob)
{
    struct effect *effect = add_change(core, EFFECT_PUT, family, key, key_bytes);
    effect->as.put.value = value;
    effect->as.put.value_bytes = value_bytes;
    effect->as.put.blob = blob == NULL ? NULL : blob_ref(blob);
}

void core_put_record(struct core *core, enum store_family family, const void *key, size_t key_bytes,
                     const ProtobufCMessage *message)
{
    const size_t bytes = record_bytes(message);
    uint8_t *value = effects_alloc(core->effects, bytes);
    record_write(message, value);
    core_put(core, family, key, key_bytes, value, bytes, NULL);
}

void core_delete(struct core *core, enum store_family family, const void *key, size_t key_bytes)
{
    (void)add_change(core, EFFECT_DELETE, family, key, key_bytes);
}

void core_note(struct core *core, enum note_kind note, const struct job *job, const char *subject,
               const char *text, int64_t number)
{
    const char *subject_copy = effects_text(core->effects, subject);
    const char *text_copy = effects_text(core->effects, text);
    struct effect *effect = effects_add(core->effects, EFFECT_NOTE, 0, 0);
    effect->as.note.note = note;
    effect->as.note.has_job = job != NULL;
    effect->as.note.tenant = "";
    if (job != NULL) {
        effect->as.note.job_id = job->id;
        effect->as.note.tenant = job_tenant(job)->name->text;
    }
    effect->as.note.subject = subject_copy;
    effect->as.note.text = text_copy;
    effect->as.note.number = number;
}

void core_publish(struct core *core, Wire__Event__Kind kind, const char *subject_kind,
                  const char *subject, const char *text)
{
    const char *subject_copy = effects_text(core->effects, subject);
    const char *text_copy = effects_text(core->effects, text);
    struct effect *effect = effects_add(core->effects, EFFECT_PUBLISH, 0, 0);
    effect->as.publish.kind = kind;
    effect->as.publish.subject_kind = subject_kind;
    effect->as.publish.subject = subject_copy;
    effect->as.publish.text = text_copy;
}

/* ---- creating, destroying ---- */

static void init_lists(struct core *core)
{
    list_init(&core->accepting);
    list_init(&core->aliases);
    list_init(&core->recovered);
    list_init(&core->loading);
    list_init(&core->histories_by_age);
    list_init(&core->parked);
    list_init(&core->flights_ending);
    list_init(&core->streams);
    list_init(&core->streams_late);
    list_init(&core->stream_rests);
    list_init(&core->workers_heard);
    list_init(&core->leases);
    list_init(&core->leases_young);
    list_init(&core->results_by_age);
    list_init(&core->pauses);
    slab_init(&core->job_memory, sizeof(struct job));
    cache_log_init(core);
    cache_evidence_init(core);
    quality_init(core);
    budget_init(core);
    heap_init(&core->timers, offsetof(struct job, timer_position));
    heap_init(&core->gates, offsetof(struct queue, gate_position));
    crowd_init(core);
    upkeep_init(core);
    core->aside_until_ms = INT64_MAX;
}

static int init_tables(struct core *core)
{
    const struct {
        struct table *table;
        table_hash_fn *hash;
    } tables[] = {
        {&core->jobs, job_hash},
        {&core->queue_table, lane_queue_hash},
        {&core->clients, client_hash},
        {&core->workers, worker_peer_hash},
        {&core->worker_names, worker_name_hash},
        {&core->leaders, flight_key_hash},
        {&core->flights, flight_leader_hash},
        {&core->keys, key_hash},
        {&core->keys_by_job, key_job_hash},
        {&core->results, result_hash},
        {&core->histories, history_hash},
        {&core->evidence.classes, cache_evidence_hash},
        {&core->quality.sums, quality_hash},
    };
    int r = 0;
    for (size_t i = 0; r == 0 && i < ARRAY_LENGTH(tables); i++) {
        r = table_init(tables[i].table, random_next(core), tables[i].hash);
    }
    struct names *names[] = {&core->routes, &core->pools,       &core->tenants,
                             &core->tiers,  &core->residencies, &core->models};
    for (size_t i = 0; r == 0 && i < ARRAY_LENGTH(names); i++) {
        r = names_init(names[i], random_next(core));
    }
    return r;
}

static int build(struct core *core, const struct config *config)
{
    int r = init_tables(core);
    if (r == 0) {
        r = concluded_init(&core->concluded, config->broker.dedup_ids_max, random_next(core));
    }
    if (r == 0) {
        r = dead_init(core);
    }
    if (r == 0) {
        r = loads_init(&core->loads);
    }
    if (r == 0) {
        r = ledger_init(core, random_next(core));
    }
    if (r == 0) {
        r = charge_init(core, random_next(core));
    }
    if (r == 0) {
        r = arena_create(RECORD_ARENA_BYTES_MAX, &core->arena);
    }
    if (r == 0) {
        r = lessons_init(core, random_next(core));
    }
    return r < 0 ? r : configure_first(core, config);
}

int core_create(const struct config *config, uint64_t seed, struct core_time now,
                struct core **ret_core)
{
    if (!configure_is_usable(config)) {
        return -EINVAL;
    }
    CLEANUP(core_destroy) struct core *core = calloc(1, sizeof(*core));
    if (core == NULL) {
        return -ENOMEM;
    }
    core->random = seed;
    core->now_ms = now.now_ms;
    core->unix_ms = now.unix_ms;
    core->housekeeping_at_ms = now.now_ms + HOUSEKEEPING_MS;
    init_lists(core);
    int r = build(core, config);
    if (r < 0) {
        return r;
    }
    *ret_core = TAKE(core);
    return 0;
}

static void free_leases(struct core *core)
{
    struct list_link *link;
    while ((link = list_first(&core->leases)) != NULL) {
        struct lease *lease = CONTAINER_OF(link, struct lease, by_renewal);
        list_remove(&core->leases, link);
        stream_end(core, lease);
        free(lease);
    }
}

static void free_jobs(struct core *core)
{
    table_settle(&core->jobs);
    for (size_t i = 0; i < core->jobs.buckets_length; i++) {
        struct table_link *link = table_bucket_at(&core->jobs, i)->first;
        while (link != NULL) {
            struct table_link *next = link->next;
            struct job *job = CONTAINER_OF(link, struct job, by_id);
            blob_unref(&job->payload);
            dead_free_letter(job);
            waiters_forget(job);
            link = next;
        }
    }
    slab_finish(&core->job_memory);
}

static void free_tables(struct core *core)
{
    struct table *tables[] = {
        &core->jobs,    &core->queue_table, &core->clients, &core->workers,     &core->worker_names,
        &core->leaders, &core->flights,     &core->keys,    &core->keys_by_job, &core->results,
        &core->histories, &core->evidence.classes, &core->quality.sums};
    for (size_t i = 0; i < ARRAY_LENGTH(tables); i++) {
        table_finish(tables[i]);
    }
    names_finish(&core->routes);
    names_finish(&core->pools);
    names_finish(&core->tenants);
    names_finish(&core->tiers);
    names_finish(&core->residencies);
    names_finish(&core->models);
}

static void destroy_tenant(struct tenant *tenant)
{
    free(tenant->allowed);
    names_finish(&tenant->tasks);
    free(tenant);
}

void core_destroy(struct core **core)
{
    struct core *dead = TAKE(*core);
    if (dead == NULL) {
        return;
    }
    stream_rest_destroy_all(dead);
    free_leases(dead);
    free_jobs(dead);
    submit_forget_aliases(dead, 0, UINT64_MAX);
    flight_destroy_all(dead);
    client_destroy_all(dead);
    worker_destroy_all(dead);
    key_destroy_all(dead);
    result_destroy_all(dead);
    history_destroy_all(dead);
    dead_finish(dead);
    pause_destroy_all(dead);
    cache_log_destroy(dead);
    cache_evidence_destroy(dead);
    quality_destroy(dead);
    lessons_destroy(dead);
    charge_destroy(dead);
    ledger_destroy(dead);
    upkeep_destroy(dead);
    lane_destroy_queues(dead);
    upstreams_destroy(dead);
    decision_destroy(dead);
    for (size_t i = 0; dead->lanes != NULL && i < dead->pools.length * dead->tiers_length; i++) {
        heap_finish(&dead->lanes[i].queues);
    }
    for (size_t i = 0; i < dead->tenants.length; i++) {
        destroy_tenant(dead->tenant[i]);
    }
    heap_finish(&dead->timers);
    heap_finish(&dead->gates);
    crowd_finish(dead);
    concluded_finish(&dead->concluded);
    loads_finish(&dead->loads);
    arena_destroy(&dead->arena);
    free_tables(dead);
    free(dead->lanes);
    free(dead->tenant);
    free(dead->pool);
    free(dead->tier);
    free(dead->stats);
    free(dead);
}

/* ---- a step ---- */

static struct job *next_timer(const struct core *core)
{
    return heap_peek_key(&core->timers) <= heap_key_from_ms(core->now_ms) ? heap_peek(&core->timers)
                                                                          : NULL;
}

static void timer_is_due(struct core *core, struct job *job)
{
    if (job->deadline_ms > core->now_ms) {
        attempt_try_again(core, job);
        return;
    }
    conclude_expire(core, job);
}

static bool tick_timers(struct core *core)
{
    struct job *job;
    for (int i = 0; (job = next_timer(core)) != NULL; i++) {
        if (i == TIMERS_PER_TICK) {
            return false;
        }
        timer_is_due(core, job);
    }
    return true;
}

/* The time to reclaim is over: what nobody reclaimed is ready. */
static bool tick_recovered(struct core *core)
{
    for (int i = 0; core->recovered.length > 0 && core->now_ms >= core->reclaim_until_ms; i++) {
        if (i == TIMERS_PER_TICK) {
            return false;
        }
        flight_enter(core, CONTAINER_OF(list_first(&core->recovered), struct job, link));
    }
    return true;
}

static void note_damage(struct core *core)
{
    if (core->records_damaged > 0) {
        core_note(core, NOTE_RECORD_DAMAGED, NULL, "store",
                  "stored records could not be decoded and were skipped",
                  (int64_t)core->records_damaged);
        core->records_damaged = 0;
    }
}

static void tick(struct core *core)
{
    core->turn++;
    note_damage(core);
    bool is_done = conclude_bound_dead_letters(core);
    is_done &= flight_tick(core);
    is_done &= stream_tick(core);
    is_done &= tick_timers(core);
    is_done &= lease_tick(core);
    worker_forget_silent(core);
    worker_take_back(core);
    is_done &= tick_recovered(core);
    result_tick(core);
    dead_tick(core);
    gate_tick(core);
    is_done &= crowd_tick(core);
    dispatch_tick(core);
    overload_tick(core);
    estimate_tick(core);
    is_done &= cache_evidence_tick(core);
    is_done &= lessons_tick(core);
    charge_tick(core);
    budget_tick(core);
    ledger_tick(core);
    core->has_more |= !is_done;
}

static void handle(struct core *core, const struct event *event)
{
    switch (event->kind) {
    case EVENT_CLIENT_HELLO:
        client_hello(core, event);
        break;
    case EVENT_CLIENT_GONE:
        client_gone(core, event);
        break;
    case EVENT_SUBMIT:
        submit(core, event);
        break;
    case EVENT_CANCEL:
        conclude_cancel(core, event);
        break;
    case EVENT_WAIT:
        result_wait(core, event);
        break;
    case EVENT_COLLECTED:
        result_collected(core, event);
        break;
    case EVENT_WORKER_HELLO:
        worker_hello(core, event);
        break;
    case EVENT_WORKER_CREDIT:
        worker_credit(core, event);
        break;
    case EVENT_WORKER_HEARTBEAT:
        worker_heartbeat(core, event);
        break;
    case EVENT_WORKER_DRAINING:
        worker_draining(core, event);
        break;
    case EVENT_WORKER_GONE:
        worker_gone(core, event);
        break;
    case EVENT_ATTEMPT_RESULT:
        attempt_result(core, event);
        break;
    case EVENT_HEDGE_ASKED:
        hedge_asked(core, event);
        break;
    case EVENT_CHUNK:
        attempt_chunk(core, event);
        break;
    case EVENT_STREAM_CREDIT:
        waiter_credit(core, event);
        break;
    case EVENT_UNDELIVERABLE:
        worker_undeliverable(core, event);
        break;
    case EVENT_DURABLE:
        submit_durable(core, event);
        break;
    case EVENT_STORE_DOWN:
        submit_store_down(core, event);
        break;
    case EVENT_STORE_UP:
        submit_store_up(core);
        break;
    case EVENT_LOADED:
        dispatch_loaded(core, event);
        break;
    case EVENT_PAUSE:
        pause_add(core, event);
        break;
    case EVENT_RESUME:
        pause_end(core, event);
        break;
    case EVENT_UPSTREAM_RESET:
        upstream_reset(core, event);
        break;
    case EVENT_DEAD_ONE:
        dead_one(core, event);
        break;
    case EVENT_DEAD_SWEEP:
        dead_sweep_begin(core, event);
        break;
    case EVENT_DEAD_STOP:
        dead_sweep_stop(core, event);
        break;
    case EVENT_CACHE_INVALIDATE:
        cache_log_invalidate(core, event);
        break;
    case EVENT_CACHE_EVIDENCE:
        cache_evidence_take(core, event);
        break;
    case EVENT_CACHE_FEEDBACK:
        cache_evidence_feedback(core, event);
        break;
    case EVENT_FEEDBACK:
        feedback_take(core, event);
        break;
    case EVENT_UPKEEP:
        upkeep_told(core, event);
        break;
    case EVENT_DRAIN:
        core->is_draining = true;
        cache_evidence_drain(core);
        break;
    case EVENT_TICK:
        tick(core);
        break;
    }
}

/*
 * Neither time runs backwards here, whatever the clock does: ids and leases are remembered in order
 * of time.
 */
void core_step(struct core *core, struct core_time now, const struct event *event,
               struct effects *effects)
{
    core->now_ms = now.now_ms > core->now_ms ? now.now_ms : core->now_ms;
    core->unix_ms = now.unix_ms > core->unix_ms ? now.unix_ms : core->unix_ms;
    core->effects = effects;
    handle(core, event);
    core->effects = NULL;
}

void core_expect(const struct core *core, const struct id *job_id)
{
    table_fetch(&core->jobs, id_hash(job_id, core->jobs.seed));
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t core_next_deadline_ms(const struct core *core)
{
    if (core->has_more) {
        return core->now_ms;
    }
    int64_t at_ms = sooner(lease_next_deadline_ms(core), result_next_deadline_ms(core));
    at_ms = sooner(at_ms, worker_next_deadline_ms(core));
    at_ms = sooner(at_ms, dead_next_deadline_ms(core));
    at_ms = sooner(at_ms, stream_next_deadline_ms(core));
    at_ms = sooner(at_ms, gate_next_deadline_ms(core));
    at_ms = sooner(at_ms, crowd_next_deadline_ms(core));
    at_ms = sooner(at_ms, core->evidence.due_ms);
    at_ms = sooner(at_ms, lessons_next_deadline_ms(core));
    at_ms = sooner(at_ms, charge_next_deadline_ms(core));
    if (core->timers.length > 0) {
        at_ms = sooner(at_ms, heap_ms_from_key(heap_peek_key(&core->timers)));
    }
    return core->recovered.length > 0 ? sooner(at_ms, core->reclaim_until_ms) : at_ms;
}

bool core_is_idle(const struct core *core)
{
    return core->leases_running == 0 && list_is_empty(&core->flights_ending);
}
