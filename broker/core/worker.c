#include "broker/core/worker.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/cache_evidence.h"
#include "broker/core/estimate.h"
#include "broker/core/flight.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/pause.h"
#include "broker/core/upkeep.h"
#include "broker/core/stream.h"
#include "broker/core/upstream.h"

enum {
    ATTEMPTS_UNKNOWN_MAX = 4096
}; /* how far a worker's attempt number may be ahead of what was recorded */

/* ---- finding ---- */

static uint64_t peer_hash(uint64_t peer, uint64_t seed)
{
    return XXH3_64bits_withSeed(&peer, sizeof(peer), seed);
}

uint64_t worker_peer_hash(const struct table_link *link, uint64_t seed)
{
    return peer_hash(CONTAINER_OF((struct table_link *)link, struct worker, by_peer)->peer, seed);
}

static uint64_t text_hash(const char *text, uint64_t seed)
{
    return XXH3_64bits_withSeed(text, strlen(text), seed);
}

uint64_t worker_name_hash(const struct table_link *link, uint64_t seed)
{
    return text_hash(CONTAINER_OF((struct table_link *)link, struct worker, by_name)->name, seed);
}

struct worker *worker_find(const struct core *core, uint64_t peer)
{
    struct table_link *link = table_first(&core->workers, peer_hash(peer, core->workers.seed));
    for (; link != NULL; link = link->next) {
        struct worker *worker = CONTAINER_OF(link, struct worker, by_peer);
        if (worker->peer == peer) {
            return worker;
        }
    }
    return NULL;
}

struct worker *worker_find_name(const struct core *core, const char *name)
{
    struct table_link *link =
        table_first(&core->worker_names, text_hash(name, core->worker_names.seed));
    for (; link != NULL; link = link->next) {
        struct worker *worker = CONTAINER_OF(link, struct worker, by_name);
        if (strcmp(worker->name, name) == 0) {
            return worker;
        }
    }
    return NULL;
}

static void error(struct core *core, uint64_t peer, Wire__ProtocolError__Code code,
                  const char *text)
{
    struct effect *effect = effects_add(core->effects, EFFECT_WORKER_ERROR, peer, 0);
    effect->as.error.code = code;
    effect->as.error.text = text;
}

static void refuse_for_now(struct core *core, uint64_t peer, int64_t wait_ms, const char *text)
{
    const int64_t retry_after_ms = estimate_retry_after_ms(core, wait_ms);
    struct effect *effect = effects_add(core->effects, EFFECT_WORKER_ERROR, peer, 0);
    effect->as.error.code = WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED;
    effect->as.error.text = text;
    effect->as.error.retry_after_ms = retry_after_ms;
}

struct worker *worker_heard(struct core *core, uint64_t peer)
{
    struct worker *worker = worker_find(core, peer);
    if (worker == NULL) {
        error(
            core, peer, WIRE__PROTOCOL_ERROR__CODE__ERROR_HELLO_REQUIRED,
            "this connection has not said hello, or was silent for too long; say it, then repeat");
        return NULL;
    }
    worker->heard_ms = core->now_ms;
    list_remove(&core->workers_heard, &worker->heard_link);
    list_append(&core->workers_heard, &worker->heard_link);
    return worker;
}

/* ---- slots and credit ---- */

uint64_t worker_free(const struct worker *worker)
{
    const uint64_t free =
        worker->credit_total > worker->dispatched ? worker->credit_total - worker->dispatched : 0;
    return free < worker->slots ? free : worker->slots;
}

/* Reservations leave at least one slot to everybody. */
void worker_reserve_slots(struct core *core, struct worker *worker)
{
    uint32_t left = worker->slots > 0 ? worker->slots - 1 : 0;
    for (size_t i = 0; i < core->tiers_length; i++) {
        uint32_t wanted =
            (uint32_t)((uint64_t)worker->slots * core->tier[i].slots_reserved_percent / 100);
        wanted += wanted == 0 && core->tier[i].slots_reserved_percent > 0;
        worker->reserved[i] = wanted < left ? wanted : left;
        left -= worker->reserved[i];
    }
}

static uint32_t reserved_unused(const struct worker *worker, size_t tier)
{
    return worker->reserved[tier] > worker->used[tier] ? worker->reserved[tier] - worker->used[tier]
                                                       : 0;
}

static void seat_refresh(struct worker_seat *seat, bool can)
{
    if (can && !seat->is_listed) {
        list_append(&seat->lane->available, &seat->link);
    } else if (!can && seat->is_listed) {
        list_remove(&seat->lane->available, &seat->link);
    }
    seat->is_listed = can;
}

void worker_refresh(struct core *core, struct worker *worker)
{
    const bool is_open =
        !worker->is_draining && !worker->is_set_aside && !worker->is_held && !worker->is_drained &&
        worker->aside_until_ms <= core->now_ms;
    const uint64_t free = is_open ? worker_free(worker) : 0;
    core->slots_free += free - worker->free_counted;
    worker->free_counted = free;
    uint64_t reserved = 0;
    for (size_t i = 0; i < core->tiers_length; i++) {
        reserved += reserved_unused(worker, i);
    }
    for (size_t i = 0; i < worker->seats_length; i++) {
        struct worker_seat *seat = &worker->seats[i];
        seat_refresh(seat, free > reserved - reserved_unused(worker, seat->lane->tier->index));
    }
}

void worker_set_aside(struct core *core, struct worker *worker)
{
    worker->is_set_aside = true;
    worker_refresh(core, worker);
}

void worker_set_aside_for(struct core *core, struct worker *worker, int64_t for_ms)
{
    worker->aside_until_ms = core->now_ms + for_ms;
    core->aside_until_ms = worker->aside_until_ms < core->aside_until_ms ? worker->aside_until_ms
                                                                         : core->aside_until_ms;
    core_note(core, NOTE_WORKER_SET_ASIDE, NULL, worker->name,
              "its calls fail while those of others are answered", for_ms);
    worker_refresh(core, worker);
}

void worker_take_back(struct core *core)
{
    if (core->now_ms < core->aside_until_ms) {
        return;
    }
    core->aside_until_ms = INT64_MAX;
    list_for_each (&core->workers_heard, link) {
        struct worker *worker = CONTAINER_OF(link, struct worker, heard_link);
        if (worker->aside_until_ms > core->now_ms && worker->aside_until_ms < core->aside_until_ms) {
            core->aside_until_ms = worker->aside_until_ms;
        }
        worker_refresh(core, worker);
    }
}

void worker_credit(struct core *core, const struct event *event)
{
    struct worker *worker = worker_heard(core, event->peer);
    if (worker == NULL) {
        return;
    }
    if (event->as.worker_credit.total > worker->credit_total) {
        worker->credit_total = event->as.worker_credit.total;
    }
    worker->is_set_aside = false;
    worker_refresh(core, worker);
}

void worker_draining(struct core *core, const struct event *event)
{
    struct worker *worker = worker_heard(core, event->peer);
    if (worker != NULL) {
        worker->is_draining = true;
        worker_refresh(core, worker);
    }
}

/* ---- coming back ---- */

/*
 * Whether the worker may go on with what it says it runs or has answered: its own lease; one that
 * nobody holds since a restart; one that was lost and not given to another. `before` is its earlier
 * connection, whose leases it inherits; `chunks` were sent of its stream.
 */
static bool reclaim(struct core *core, struct worker *worker, const struct worker *before,
                    const struct lease_ref *held, uint32_t chunks)
{
    struct job *job = job_find(core, &held->job_id);
    if (job == NULL || !job_is_pending(job) || held->attempt == 0) {
        return false;
    }
    if (job->place == PLACE_LEASED) {
        struct lease *lease = job->at.lease;
        const bool is_heir =
            lease->worker == NULL || lease->worker == before || lease->worker == worker;
        if (!is_heir || (lease->worker != NULL && lease->attempt != held->attempt) ||
            held->attempt < lease->attempt) {
            return false;
        }
        const bool is_back = lease->worker != worker; /* else it is a heartbeat */
        lease_hand_over(core, lease, worker, held->attempt);
        if (is_back) {
            stream_handed_over(core, lease, chunks);
        }
        charge_open(core, lease);
        return true;
    }
    const bool is_unknown =
        held->attempt > job->attempt && held->attempt - job->attempt <= ATTEMPTS_UNKNOWN_MAX;
    const bool is_lost = held->attempt == job->attempt && (job->flags & JOB_LEASE_LOST) != 0;
    const bool is_open = job_may_become(job->place, PLACE_LEASED);
    if (!is_open || !(is_unknown || is_lost) ||
        lease_grant(core, job, worker, held->attempt) == NULL) {
        return false;
    }
    stream_handed_over(core, job->at.lease, chunks);
    charge_open(core, job->at.lease);
    flight_hand_on(core, job);
    return true;
}

static void cancel(struct core *core, const struct worker *worker, const struct lease_ref *held,
                   const char *reason)
{
    struct effect *effect = effects_add(core->effects, EFFECT_ATTEMPT_CANCEL, worker->peer, 0);
    effect->as.attempt.lease = *held;
    effect->as.attempt.reason = reason;
}

/* `chunks`: of each; NULL: not said. */
static void reclaim_held(struct core *core, struct worker *worker, const struct worker *before,
                         const struct lease_ref *held, const uint32_t *chunks, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (!reclaim(core, worker, before, &held[i], chunks == NULL ? 0 : chunks[i])) {
            cancel(core, worker, &held[i],
                   job_find(core, &held[i].job_id) == NULL ? "concluded" : "lease lost");
        }
    }
}

/*
 * What it answered and somebody waits for is its again. It sends all of it after the welcome, also
 * what nobody waits for: what it used has to be heard.
 */
static void reclaim_answered(struct core *core, struct worker *worker, const struct worker *before,
                             const struct lease_ref *answered, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        const struct job *job = job_find(core, &answered[i].job_id);
        if (job != NULL && job_is_pending(job)) {
            (void)reclaim(core, worker, before, &answered[i], 0);
        }
    }
}

void worker_heartbeat(struct core *core, const struct event *event)
{
    struct worker *worker = worker_heard(core, event->peer);
    if (worker == NULL) {
        return;
    }
    worker->is_set_aside = false; /* it has had its pause, and may have no credit to tell of */
    worker_refresh(core, worker);
    reclaim_held(core, worker, NULL, event->as.worker_heartbeat.held, NULL,
                 event->as.worker_heartbeat.held_length);
}

/* ---- joining, leaving ---- */

static void worker_free_memory(struct worker *worker)
{
    free(worker->pools);
    free(worker->name);
    free(worker);
}

static void worker_remove(struct core *core, struct worker *worker, bool is_crash, const char *why)
{
    worker->is_draining = true; /* nothing new while its leases end */
    cache_evidence_leave(core, worker);
    worker_refresh(core, worker);
    struct list_link *link;
    while ((link = list_first(&worker->leases)) != NULL) {
        lease_lose(core, CONTAINER_OF(link, struct lease, in_worker), is_crash, why);
    }
    const char *name = effects_text(core->effects, worker->name);
    core_note(core, NOTE_WORKER_LEFT, NULL, name, why, worker->slots);
    core_publish(core, WIRE__EVENT__KIND__EVENT_WORKER_LEFT, "worker", name, why);
    for (size_t i = 0; i < worker->pools_length; i++) {
        worker->pools[i]->slots -= worker->slots;
    }
    upkeep_leave(core, worker);
    core->slots -= worker->slots;
    list_remove(&core->workers_heard, &worker->heard_link);
    table_remove(&core->workers, &worker->by_peer);
    table_remove(&core->worker_names, &worker->by_name);
    worker_free_memory(worker);
}

void worker_gone(struct core *core, const struct event *event)
{
    struct worker *worker = worker_find(core, event->peer);
    if (worker != NULL) {
        worker_remove(core, worker, !event->as.worker_gone.said_goodbye, "the worker left");
    }
}

void worker_destroy_all(struct core *core)
{
    struct list_link *link;
    while ((link = list_first(&core->workers_heard)) != NULL) {
        list_remove(&core->workers_heard, link);
        worker_free_memory(CONTAINER_OF(link, struct worker, heard_link));
    }
}

/* The pools it names, each once. False: `ret_unknown` is not configured, or no memory (NULL). */
static bool resolve_pools(const struct core *core, const struct event *event,
                          struct pool **ret_pools, size_t *ret_length, const char **ret_unknown)
{
    static const char *const fallback[] = {"default"};
    const char *const *names =
        event->as.worker_hello.pools_length > 0 ? event->as.worker_hello.pools : fallback;
    const size_t names_length =
        event->as.worker_hello.pools_length > 0 ? event->as.worker_hello.pools_length : 1;
    size_t length = 0;
    for (size_t i = 0; i < names_length; i++) {
        const struct name *name = names_find(&core->pools, names[i]);
        if (name == NULL || !name->is_configured) {
            *ret_unknown = names[i];
            return false;
        }
        bool is_new = true;
        for (size_t j = 0; j < length; j++) {
            is_new = is_new && ret_pools[j]->name != name;
        }
        if (is_new) {
            ret_pools[length++] = &core->pool[name->index];
        }
    }
    *ret_length = length;
    return true;
}

static struct worker *make_worker(struct core *core, const struct event *event,
                                  struct pool *const *pools, size_t pools_length)
{
    const size_t seats_length = pools_length * core->tiers_length;
    struct worker *worker = calloc(1, sizeof(*worker) + seats_length * sizeof(struct worker_seat));
    if (worker == NULL) {
        return NULL;
    }
    worker->name = strdup(event->as.worker_hello.name);
    worker->pools = calloc(pools_length, sizeof(struct pool *));
    if (worker->name == NULL || worker->pools == NULL) {
        worker_free_memory(worker);
        return NULL;
    }
    worker->peer = event->peer;
    worker->slots = event->as.worker_hello.slots;
    worker->gpus = event->as.worker_hello.gpus;
    worker->brokers = event->as.worker_hello.brokers;
    worker->heard_ms = core->now_ms;
    list_init(&worker->leases);
    for (size_t i = 0; i < pools_length; i++) {
        worker->pools[i] = pools[i];
        for (size_t t = 0; t < core->tiers_length; t++) {
            struct worker_seat *seat = &worker->seats[worker->seats_length++];
            seat->worker = worker;
            seat->lane = lane_of(core, &core->tier[t], pools[i]);
        }
    }
    worker->pools_length = pools_length;
    return worker;
}

static void worker_insert(struct core *core, struct worker *worker)
{
    table_insert(&core->workers, &worker->by_peer);
    table_insert(&core->worker_names, &worker->by_name);
    list_append(&core->workers_heard, &worker->heard_link);
    upkeep_join(core, worker);
    core->slots += worker->slots;
    for (size_t i = 0; i < worker->pools_length; i++) {
        if (worker->pools[i]->slots == 0) {
            worker->pools[i]->served_since_ms = core->now_ms;
        }
        worker->pools[i]->slots += worker->slots;
    }
}

/* Its earlier connection, if any, has nothing left after the new one took over what it holds. */
static void worker_replace(struct core *core, struct worker *before, uint64_t peer)
{
    if (before == NULL) {
        return;
    }
    if (before->peer != peer) {
        error(core, before->peer, WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED,
              effects_format(core->effects,
                             "another worker says that it is \"%s\", too, and has its place now; "
                             "give each a worker.name of its own, or none",
                             before->name));
    }
    worker_remove(core, before, true, "its worker started anew");
}

static void welcome(struct core *core, const struct event *event)
{
    uint8_t *epoch = NULL;
    if (event->as.worker_hello.cache_epoch != NULL) {
        epoch = effects_alloc(core->effects, CACHE_EPOCH_BYTES);
        memcpy(epoch, event->as.worker_hello.cache_epoch, CACHE_EPOCH_BYTES);
    }
    struct effect *effect = effects_add(core->effects, EFFECT_WORKER_WELCOME, event->peer, 0);
    effect->as.worker_welcome.lease_ms = (uint32_t)core->limits.lease_ms;
    effect->as.worker_welcome.cache_epoch = epoch;
    effect->as.worker_welcome.cache_sequence = event->as.worker_hello.cache_sequence;
}

void worker_hello(struct core *core, const struct event *event)
{
    struct pool *pools[CONFIG_POOLS_MAX];
    size_t pools_length = 0;
    const char *unknown = NULL;
    struct worker *before = worker_find_name(core, event->as.worker_hello.name);
    struct worker *same_peer = worker_find(core, event->peer);
    if (!resolve_pools(core, event, pools, &pools_length, &unknown)) {
        error(core, event->peer, WIRE__PROTOCOL_ERROR__CODE__ERROR_REFUSED,
              effects_format(core->effects,
                             "worker.pools: \"%.64s\" is not configured at the broker; add it "
                             "there under pools",
                             unknown));
        return;
    }
    if (before == NULL && core->workers.length >= core->limits.workers_max) {
        refuse_for_now(core, event->peer, RETRY_AFTER_CONNECTIONS_MS,
                       "broker.workers_max workers are connected; raise it");
        return;
    }
    struct worker *worker = make_worker(core, event, pools, pools_length);
    if (worker == NULL) {
        refuse_for_now(core, event->peer, RETRY_AFTER_UNKNOWN_MS, "the broker is out of memory");
        return;
    }
    worker_reserve_slots(core, worker);
    welcome(core, event);
    cache_evidence_welcome(core, worker);
    pause_apply_to_worker(core, worker);
    reclaim_held(core, worker, before, event->as.worker_hello.held,
                 event->as.worker_hello.held_chunks, event->as.worker_hello.held_length);
    reclaim_answered(core, worker, before, event->as.worker_hello.answered,
                     event->as.worker_hello.answered_length);
    worker_replace(core, before, event->peer);
    if (same_peer != NULL && same_peer != before) {
        worker_replace(core, same_peer, event->peer);
    }
    worker_insert(core, worker);
    worker_refresh(core, worker);
    const char *name = effects_text(core->effects, worker->name);
    core_note(core, NOTE_WORKER_JOINED, NULL, name, "", worker->slots);
    core_publish(core, WIRE__EVENT__KIND__EVENT_WORKER_JOINED, "worker", name, "");
}

void worker_undeliverable(struct core *core, const struct event *event)
{
    struct job *job = job_find(core, &event->as.undeliverable.lease.job_id);
    struct worker *worker = worker_find(core, event->peer);
    if (worker != NULL) {
        worker->dispatched -= worker->dispatched > 0;
        worker_set_aside(core, worker);
    }
    if (job == NULL || job->place != PLACE_LEASED || job->at.lease->worker != worker ||
        worker == NULL || job->at.lease->attempt != event->as.undeliverable.lease.attempt) {
        return;
    }
    upstream_give_back(core, &job->at.lease->permit);
    charge_give_back(core, job->at.lease);
    lease_end(core, job->at.lease);
    flight_enter(core, job);
}

/* ---- time ---- */

static struct worker *longest_silent(const struct core *core)
{
    struct list_link *link = list_first(&core->workers_heard);
    return link == NULL ? NULL : CONTAINER_OF(link, struct worker, heard_link);
}

void worker_forget_silent(struct core *core)
{
    struct worker *worker = longest_silent(core);
    while (worker != NULL && worker->heard_ms + core->limits.lease_ms <= core->now_ms) {
        worker_remove(core, worker, true,
                      effects_format(core->effects, "silent for %lld ms",
                                     (long long)(core->now_ms - worker->heard_ms)));
        worker = longest_silent(core);
    }
}

int64_t worker_next_deadline_ms(const struct core *core)
{
    const struct worker *worker = longest_silent(core);
    const int64_t silent_ms =
        worker == NULL ? INT64_MAX : worker->heard_ms + core->limits.lease_ms;
    return silent_ms < core->aside_until_ms ? silent_ms : core->aside_until_ms;
}
