/* stats: what operators see of the core. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "broker/core/flight.h"
#include "broker/core/lane.h"
#include "broker/core/lease.h"
#include "broker/core/pause.h"
#include "broker/core/state.h"
#include "broker/core/stream.h"
#include "broker/core/upstream.h"
#include "broker/core/status.h"
#include "broker/core/worker.h"

static int64_t oldest_ms(const struct tier *tier, int64_t now_ms)
{
    struct list_link *link = list_first(&tier->waiting);
    if (link == NULL) {
        return 0;
    }
    const int64_t age_ms = now_ms - CONTAINER_OF(link, struct job, link)->submitted_ms;
    return age_ms > 0 ? age_ms : 0;
}

const char *core_step_name(enum core_step step)
{
    static const char *const names[CORE_STEPS] = {
        [STEP_MODEL] = "model", [STEP_STALE] = "stale", [STEP_NEAR] = "near"};
    return names[step];
}

void core_read_stats(struct core *core, struct core_time now, struct core_stats *ret_stats)
{
    for (size_t i = 0; i < core->tiers_length; i++) {
        struct tier *tier = &core->tier[i];
        drain_rate_update(&tier->drain, tier->waiting.length > 0, now.now_ms);
        core->stats[i] = tier->stats;
        core->stats[i].name = tier->name->text;
        core->stats[i].payload_bytes = tier->bytes;
        core->stats[i].oldest_ms = oldest_ms(tier, now.now_ms);
        core->stats[i].drain_per_s = tier->drain.conclusions_per_s;
    }
    *ret_stats = (struct core_stats){
        .tiers_length = core->tiers_length,
        .tiers = core->stats,
        .jobs = core->jobs_pending,
        .jobs_bytes = core->jobs.length * sizeof(struct job),
        .payload_memory_bytes = core->payload_memory_bytes,
        .results = core->concluded.results_on_disk + core->results.length,
        .results_bytes = core->concluded.results_disk_bytes + core->results_memory_bytes,
        .concluded_ids = concluded_length(&core->concluded),
        .dead_letters = core->dead.length,
        .clients = core->clients.length,
        .workers = core->workers.length,
        .slots = core->slots,
        .slots_free = core->slots_free,
        .streams = core->streams.length,
        .streams_held = stream_count_held(core),
        .stream_rests = core->stream_rests.length,
        .stream_log_bytes = core->stream_log_bytes - core->stream_rest_bytes,
        .stream_rest_bytes = core->stream_rest_bytes,
        .dead_codes_length = core->dead.codes.length,
        .is_draining = core->is_draining,
        .store_is_down = core->store_is_down,
    };
    for (size_t i = 0; i < core->dead.codes.length; i++) {
        ret_stats->dead_codes[i] = core->dead.codes.items[i]->text;
    }
}

static const char *worker_of(const struct job *job)
{
    const struct lease *lease = job->place == PLACE_LEASED ? job->at.lease : NULL;
    return lease == NULL || lease->worker == NULL ? "" : lease->worker->name;
}

int core_find_job(const struct core *core, const struct id *job_id, Wire__JobState *ret_state,
                  const char **ret_worker)
{
    const struct job *job = job_find(core, job_id);
    if (job == NULL) {
        return -ENOENT;
    }
    *ret_state = job_state(job);
    *ret_worker = worker_of(job);
    return 0;
}

int core_view_job(const struct core *core, const struct id *job_id, struct core_time now,
                  struct core_job_view *ret_view)
{
    const struct job *job = job_find(core, job_id);
    if (job == NULL) {
        return -ENOENT;
    }
    const struct queue *queue = job->flow->queue;
    struct status_view status = {0};
    if (job_is_pending(job)) {
        status_read(core, job, now.now_ms, &status);
    }
    const struct job *leader = job->place == PLACE_FOLLOWING ? flight_leader(job) : NULL;
    *ret_view = (struct core_job_view){
        .id = job->id,
        .state = job_state(job),
        .tenant = job->flow->tenant->name->text,
        .tier = queue->lane->tier->name->text,
        .route = queue->route->text,
        .pool = queue->lane->pool->name->text,
        .worker = worker_of(job),
        .priority = job->priority,
        .attempts = job_attempts(job),
        .attempts_max = job->attempts_max,
        .age_ms = now.now_ms - job->submitted_ms,
        .waits_ms = status.waits_ms,
        .deadline_in_ms = job->deadline_ms == INT64_MAX ? 0 : job->deadline_ms - now.now_ms,
        .payload_bytes = job->payload_bytes,
        .position = status.position,
        .has_estimate = status.has_estimate,
        .starts_in_ms = status.starts_in_ms,
        .has_leader = leader != NULL,
        .followers = flight_followers(core, job),
    };
    if (leader != NULL) {
        ret_view->led_by = leader->id;
    }
    memcpy(ret_view->why, status.why, sizeof(ret_view->why));
    return 0;
}

void core_visit_workers(const struct core *core, struct core_time now,
                        void (*visit)(void *context, const struct core_worker_view *view),
                        void *context)
{
    list_for_each (&core->workers_heard, link) {
        const struct worker *worker = CONTAINER_OF(link, struct worker, heard_link);
        const struct core_worker_view view = {
            .name = worker->name,
            .peer = worker->peer,
            .slots = worker->slots,
            .free = (uint32_t)worker_free(worker),
            .leases = (uint32_t)worker->leases.length,
            .is_draining = worker->is_draining || worker->is_drained,
            .is_set_aside = worker->is_set_aside || worker->is_held,
            .silent_ms = now.now_ms - worker->heard_ms,
        };
        visit(context, &view);
    }
}

static uint64_t tenants_waiting(const struct queue *queue)
{
    uint64_t tenants = 0;
    for (size_t i = 0; i < queue->flows_length; i++) {
        tenants += queue->flows[i] != NULL && queue->flows[i]->jobs > 0;
    }
    return tenants;
}

static uint64_t tighter(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

void core_visit_upstreams(const struct core *core, struct core_time now,
                          void (*visit)(void *context, const struct core_upstream_view *view),
                          void *context)
{
    for (size_t i = 0; i < core->upstreams_length; i++) {
        const struct upstream *upstream = core->upstreams[i];
        if (!upstream->is_configured) {
            continue;
        }
        const int64_t until_ms = upstream_blocked_until_ms(upstream);
        const struct core_upstream_view view = {
            .provider = upstream->provider,
            .model = upstream->model,
            .error_code = upstream->error_code,
            .state = upstream_state(upstream, now.now_ms),
            .blocked_ms = until_ms > now.now_ms ? until_ms - now.now_ms : 0,
            .requests_per_min =
                tighter(upstream->limits->requests.per_min, upstream->requests.per_min),
            .tokens_per_min = tighter(upstream->limits->tokens.per_min, upstream->tokens.per_min),
            .pace_per_s = upstream->pace.is_free ? 0 : upstream->pace.per_s,
            .typical_ms = upstream->typical_ms,
            .answered_per_s = pace_answered_per_s(&upstream->pace, now.now_ms),
            .counts = upstream->counts,
        };
        visit(context, &view);
    }
}

void core_visit_queues(const struct core *core,
                       void (*visit)(void *context, const struct core_queue_view *view),
                       void *context)
{
    for (size_t i = 0; i < core->queues_length; i++) {
        const struct queue *queue = core->queues[i];
        const struct core_queue_view view = {
            .tier = queue->lane->tier->name->text,
            .pool = queue->lane->pool->name->text,
            .route = queue->route->text,
            .ready = queue->ready,
            .backing_off = queue->backing_off,
            .leased = queue->leased,
            .tenants = tenants_waiting(queue),
            .is_paused = queue->route->is_held || queue->lane->tier->name->is_held,
            .is_blocked = queue->is_blocked,
            .gated_ms = queue_is_gated(queue) && queue->gated_until_ms > core->now_ms
                            ? queue->gated_until_ms - core->now_ms
                            : 0,
            .queue = queue,
        };
        visit(context, &view);
    }
}

const char *core_name_upstreams(const struct core *core, const struct queue *queue, char *ret_text,
                                size_t bytes)
{
    const struct candidates *candidates = upstream_candidates(core, queue);
    size_t length = 0;
    ret_text[0] = '\0';
    for (size_t i = 0; i < candidates->length && length < bytes; i++) {
        const int added = snprintf(ret_text + length, bytes - length, "%s%s", i > 0 ? " " : "",
                                   candidates->items[i]->subject);
        length += added > 0 ? (size_t)added : 0;
    }
    return ret_text;
}

void core_visit_pauses(const struct core *core,
                       void (*visit)(void *context, const struct core_pause_view *view),
                       void *context)
{
    list_for_each (&core->pauses, link) {
        const struct pause *pause = CONTAINER_OF(link, struct pause, link);
        const struct core_pause_view view = {
            .subject = pause->subject,
            .mode = pause->mode,
            .name = pause->name,
            .reason = pause->reason,
            .since_unix_ms = pause->since_unix_ms,
        };
        visit(context, &view);
    }
}
