/*
 * restore: the core as the records say it was. Jobs wait for their workers to come back before they
 * are dispatched again; a job that has a lease record is leased, to a worker that is not known yet.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "broker/core/cache_evidence.h"
#include "broker/core/cache_log.h"
#include "broker/core/dead.h"
#include "broker/core/decision.h"
#include "broker/core/feedback.h"
#include "broker/core/keys.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/lessons.h"
#include "broker/core/pause.h"
#include "broker/core/record.h"
#include "broker/core/result.h"
#include "broker/core/state.h"
#include "broker/core/upstream.h"
#include "broker/core/worker.h"

#define SPAN_MOST_MS                                                                               \
    (INT64_C(1) << 40) /* nothing is further away: keeps a damaged time from overflowing */

static int64_t monotonic_of(const struct core *core, int64_t at_unix_ms)
{
    int64_t span_ms = at_unix_ms - core->unix_ms;
    span_ms = span_ms > SPAN_MOST_MS    ? SPAN_MOST_MS
              : span_ms < -SPAN_MOST_MS ? -SPAN_MOST_MS
                                        : span_ms;
    return core->now_ms + span_ms;
}

static int restore_cache(struct core *core, const uint8_t *key, size_t key_bytes,
                         const uint8_t *value, size_t value_bytes)
{
    uint64_t sequence;
    if (key[5] == 2) {
        return cache_evidence_restore(core, key, key_bytes, value, value_bytes);
    }
    if (key_bytes == 6 && key[5] == 0) {
        return cache_log_restore(core, value, value_bytes);
    }
    if (key_bytes == 6 + sizeof(sequence) && key[5] == 1) {
        memcpy(&sequence, key + 6, sizeof(sequence));
        return cache_log_restore_entry(core, value, value_bytes, be64toh(sequence));
    }
    return 0;
}

static int restore_meta(struct core *core, const uint8_t *key, size_t key_bytes,
                        const uint8_t *value, size_t value_bytes)
{
    if (key_bytes >= 5 && memcmp(key, "pause", 5) == 0) {
        return pause_restore(core, value, value_bytes);
    }
    if (key_bytes >= 8 && memcmp(key, "upstream", 8) == 0) {
        return upstream_restore(core, value, value_bytes);
    }
    if (key_bytes >= 6 && memcmp(key, "cache", 5) == 0) {
        return restore_cache(core, key, key_bytes, value, value_bytes);
    }
    if (key_bytes >= 5 && memcmp(key, "learn", 5) == 0) {
        return lessons_restore(core, value, value_bytes);
    }
    if (key_bytes > 7 && memcmp(key, "ledger", 6) == 0) {
        return ledger_restore(core, value, value_bytes);
    }
    if (key_bytes > 7 && memcmp(key, "upkeep", 7) == 0) {
        return upkeep_restore(core, value, value_bytes);
    }
    if (key_bytes > 6 && memcmp(key, "budget", 6) == 0) {
        return budget_restore(core, value, value_bytes);
    }
    if (key_bytes > 6 && memcmp(key, "charge", 6) == 0) {
        return charge_restore(core, key, key_bytes, value, value_bytes);
    }
    if (key_bytes == 7 && memcmp(key, "horizon", 7) == 0) {
        uint64_t horizon;
        if (value_bytes != 1 + sizeof(horizon) || value[0] != RECORD_VERSION) {
            return -EBADMSG;
        }
        memcpy(&horizon, value + 1, sizeof(horizon));
        horizon = be64toh(horizon);
        if (horizon > INT64_MAX) {
            return -EBADMSG;
        }
        core->concluded.horizon_unix_ms = (int64_t)horizon;
    }
    return 0; /* others are not the core's */
}

/* The conclusion before it has no result any more. */
static int restore_collected(struct core *core, const void *key)
{
    int64_t unix_ms;
    struct id job_id;
    int r = record_read_time_key(key, RECORD_TIME_KEY_BYTES, &unix_ms, &job_id);
    if (r < 0) {
        return r;
    }
    struct concluded_entry *entry = concluded_find(&core->concluded, &job_id);
    if (entry != NULL) { /* else it was forgotten to keep a bound */
        concluded_drop_disk_result(&core->concluded, entry);
    }
    return 0;
}

static int restore_concluded(struct core *core, const void *key, size_t key_bytes,
                             const void *value, size_t value_bytes)
{
    if (key_bytes == RECORD_MARK_KEY_BYTES) {
        return record_key_is_feedback(key) ? feedback_restore_mark(core, key, value, value_bytes)
                                           : restore_collected(core, key);
    }
    int64_t unix_ms;
    struct id job_id;
    int r = record_read_time_key(key, key_bytes, &unix_ms, &job_id);
    if (r < 0) {
        return r;
    }
    Record__ConcludedRecord *record;
    r = record_read_concluded(value, value_bytes, arena_protobuf_allocator(core->arena), &record);
    if (r < 0) {
        return r;
    }
    struct tenant *tenant;
    r = core_add_tenant(core, record->tenant, &tenant);
    if (r < 0) {
        return r;
    }
    if (unix_ms < core->concluded.last_unix_ms ||
        concluded_find(&core->concluded, &job_id) != NULL) {
        return -EBADMSG; /* out of the order of keys, or twice */
    }
    core->unix_ms = unix_ms > core->unix_ms ? unix_ms : core->unix_ms;
    result_make_room(core);
    struct concluded_entry *entry = concluded_add(&core->concluded, &job_id, unix_ms);
    if (entry == NULL) {
        return -ENOMEM;
    }
    entry->tenant = tenant->name->index;
    entry->attempt = record->attempt;
    concluded_set_state(entry, (uint8_t)record->state, false);
    entry->flags = CONCLUDED_DURABLE;
    feedback_restore(core, entry, record);
    if (record->result_bytes > 0) {
        concluded_keep_disk_result(&core->concluded, entry, record->result_bytes);
    }
    if (record->idempotency_hash.len == KEY_HASH_BYTES &&
        key_find(core, tenant->name->index, record->idempotency_hash.data) == NULL) {
        entry->flags |= CONCLUDED_HAS_KEY;
        return key_add(core, tenant->name->index, record->idempotency_hash.data, &job_id);
    }
    return 0;
}

/* A tier that is configured no more: its jobs go to the last one, rather than nowhere. */
static struct tier *tier_of(struct core *core, const char *text)
{
    const struct name *name = names_find(&core->tiers, text);
    return &core->tier[name == NULL ? core->tiers_length - 1 : name->index];
}

static int find_flow(struct core *core, const Record__JobRecord *record, struct flow **ret_flow)
{
    struct tenant *tenant;
    int r = core_add_tenant(core, record->tenant, &tenant);
    if (r < 0) {
        return r;
    }
    struct name *route;
    r = names_add(&core->routes, record->route, &route);
    if (r < 0) {
        return r;
    }
    struct tier *tier = tier_of(core, record->tier);
    const struct name *pool = names_find(&core->pools, record->pool);
    struct lane *lane =
        lane_of(core, tier, &core->pool[pool == NULL ? tier->pool->index : pool->index]);
    struct flow *flow = lane_flow(core, lane, route, tenant);
    if (flow == NULL) {
        return -ENOMEM;
    }
    *ret_flow = flow;
    return 0;
}

static uint32_t at_most(uint32_t value, uint32_t most)
{
    return value < most ? value : most;
}

static void fill(struct core *core, struct job *job, const Record__JobRecord *record)
{
    job->sequence = record->sequence;
    job->submitted_ms = monotonic_of(core, record->submitted_unix_ms);
    job->deadline_ms =
        record->deadline_unix_ms == 0 ? INT64_MAX : monotonic_of(core, record->deadline_unix_ms);
    job->payload_bytes = record->payload_bytes;
    job->estimated_tokens = record->estimated_tokens;
    job->max_tokens = at_most(record->max_tokens, JOB_OUTPUT_TOKENS_MAX) & JOB_OUTPUT_TOKENS_MAX;
    job->prefix = record->prefix & JOB_PREFIXES;
    job->attempt = record->attempt_last;
    job->attempts_max = (uint16_t)record->attempts_max;
    job->failures = (uint16_t)record->attempts;
    job->losses = at_most(record->lost_leases, JOB_LOSSES_MAX) & JOB_LOSSES_MAX;
    job->backoffs = at_most(record->attempts, JOB_BACKOFFS_MAX) & JOB_BACKOFFS_MAX;
    /* Older records have no count of their own: each failure and each loss made an entry. */
    const uint32_t counted = record->attempts + record->lost_leases;
    job->history = (uint16_t)(record->history > 0     ? record->history
                              : counted <= UINT16_MAX ? counted
                                                      : UINT16_MAX);
    job->priority = record->priority & 0xf;
    job->flags = (uint16_t)((record->flags & JOB_STORED_FLAGS) | JOB_DURABLE | JOB_ON_DISK);
    job->needs = (struct job_needs){
        .complexity = (uint8_t)record->complexity,
        .abilities = (uint8_t)record->abilities,
        .residency = decision_residency(core, record->residency),
        .input_size = job_input_size(record->input_tokens),
    };
    job->task = decision_task(core, job_tenant(job), record->task);
    if (record->canonical_key.len == sizeof(job->canonical_key)) {
        memcpy(job->canonical_key, record->canonical_key.data, sizeof(job->canonical_key));
        job->flags |= JOB_HAS_CANONICAL;
    }
    if (record->trace_parent.len == sizeof(job->trace_parent)) {
        memcpy(job->trace_parent, record->trace_parent.data, sizeof(job->trace_parent));
        job->flags |= JOB_HAS_TRACE;
    }
}

static int place_dead(struct core *core, struct job *job, const Record__JobRecord *record)
{
    const struct death death = {
        .unix_ms = record->died_unix_ms > 0 ? record->died_unix_ms : id_unix_ms(&job->id),
        .code = record->error_code,
        .text = record->error_text,
        .worker = record->died_worker,
        .provider = record->died_provider,
    };
    if (!dead_prepare(core, &death)) {
        return -ENOMEM;
    }
    job_move(core, job, PLACE_DEAD);
    return 0;
}

static void place(struct core *core, struct job *job, const Record__JobRecord *record)
{
    const int64_t not_before_ms = monotonic_of(core, record->not_before_unix_ms);
    if (not_before_ms > core->now_ms + core->limits.reclaim_ms) {
        job_wait_until(core, job, not_before_ms);
    } else {
        job_move(core, job, PLACE_RECOVERED);
    }
}

/* Records come in the order of their ids, so what follows the last one is not known yet, and
 * nothing has to be looked up. */
static bool follows_last(const struct core *core, const struct id *job_id)
{
    return core->jobs.later != NULL &&
           memcmp(job_id->bytes, CONTAINER_OF(core->jobs.later, struct job, by_id)->id.bytes,
                  ID_BYTES) > 0;
}

static bool is_known(struct core *core, const struct id *job_id)
{
    if (follows_last(core, job_id)) {
        return false;
    }
    table_settle(&core->jobs);
    return job_find(core, job_id) != NULL;
}

static int restore_job(struct core *core, const void *value, size_t value_bytes)
{
    Record__JobRecord *record;
    struct flow *flow = NULL;
    int r = record_read_job(value, value_bytes, arena_protobuf_allocator(core->arena), &record);
    if (r == 0) {
        r = find_flow(core, record, &flow);
    }
    if (r == 0) {
        r = decision_keep_residency(core, record->residency);
    }
    if (r < 0) {
        return r;
    }
    struct id job_id;
    memcpy(job_id.bytes, record->job_id.data, ID_BYTES);
    if (is_known(core, &job_id)) {
        return -EBADMSG;
    }
    struct job *job = job_create_later(core, &job_id, flow);
    if (job == NULL) {
        return -ENOMEM;
    }
    fill(core, job, record);
    const struct idempotency *known = NULL;
    /* A dead letter's key came with its conclusion, and went with it. */
    if (record->idempotency_hash.len == KEY_HASH_BYTES &&
        record->state != WIRE__JOB_STATE__JOB_STATE_DEAD) {
        known = key_find(core, job_tenant(job)->name->index, record->idempotency_hash.data);
        job->flags |= JOB_HAS_KEY;
    }
    core->sequence = job->sequence > core->sequence ? job->sequence : core->sequence;
    if (record->state == WIRE__JOB_STATE__JOB_STATE_DEAD) {
        return place_dead(core, job, record);
    }
    place(core, job, record);
    return (job->flags & JOB_HAS_KEY) == 0 || known != NULL
               ? 0
               : key_add(core, job_tenant(job)->name->index, record->idempotency_hash.data,
                         &job_id);
}

static int restore_lease(struct core *core, const void *key, size_t key_bytes, const void *value,
                         size_t value_bytes)
{
    struct id job_id;
    Record__LeaseRecord *record;
    int r = record_read_lease(value, value_bytes, arena_protobuf_allocator(core->arena), &record);
    if (r < 0 || id_from_bytes(key, key_bytes, &job_id) < 0) {
        return -EBADMSG;
    }
    table_settle(&core->jobs);
    struct job *job = job_find(core, &job_id);
    /*
     * A delayed job backs off here when the wall clock was set back since: its lease is as good as
     * any other.
     */
    if (job == NULL || !job_may_become(job->place, PLACE_LEASED)) {
        return 0;
    }
    struct lease *lease = lease_grant(core, job, NULL, record->attempt);
    if (lease == NULL) {
        return -ENOMEM;
    }
    list_remove(&core->leases_young, &lease->young);
    lease->is_young = false;
    lease->is_recorded = true;
    return 0;
}

static int restore(struct core *core, enum store_family family, const void *key, size_t key_bytes,
                   const void *value, size_t value_bytes)
{
    switch (family) {
    case STORE_META:
        return restore_meta(core, key, key_bytes, value, value_bytes);
    case STORE_CONCLUDED:
        return restore_concluded(core, key, key_bytes, value, value_bytes);
    case STORE_JOBS:
        return restore_job(core, value, value_bytes);
    case STORE_LEASES:
        return restore_lease(core, key, key_bytes, value, value_bytes);
    case STORE_PAYLOADS:
    case STORE_ATTEMPTS:
    case STORE_RESULTS:
    case STORE_FAMILIES:
        break;
    }
    return 0;
}

int core_restore(struct core *core, enum store_family family, const void *key, size_t key_bytes,
                 const void *value, size_t value_bytes, struct core_time now)
{
    core->now_ms = now.now_ms > core->now_ms ? now.now_ms : core->now_ms;
    core->unix_ms = now.unix_ms > core->unix_ms ? now.unix_ms : core->unix_ms;
    int r = restore(core, family, key, key_bytes, value, value_bytes);
    /* What cannot be decoded for lack of memory is not damaged: that would be skipped, and lost. */
    r = r == -EBADMSG && arena_lacks_memory(core->arena) ? -ENOMEM : r;
    arena_reset(core->arena);
    core->records_damaged += r == -EBADMSG;
    return r;
}

void core_restored(struct core *core, struct core_time now)
{
    core->now_ms = now.now_ms > core->now_ms ? now.now_ms : core->now_ms;
    dead_restored(core);
    cache_log_restored(core);
    charge_restored(core);
    pause_apply_to_names(core);
    table_settle(&core->jobs);
    core->reclaim_until_ms = core->now_ms + core->limits.reclaim_ms;
    core->housekeeping_at_ms =
        core->now_ms; /* results that a bound had dropped are in the records again */
    list_for_each (&core->leases, link) {
        CONTAINER_OF(link, struct lease, by_renewal)->renewed_ms = core->now_ms;
    }
}
