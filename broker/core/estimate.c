#include "broker/core/estimate.h"
#include "broker/core/lane.h"

enum {
    RUNS_SMOOTHED = 8,
    REOPENED_MS = 15000, /* a queue that was paused fills again slowly: its rate says little for so long */
};

/* Whether nothing but workers' time keeps its ready jobs waiting. */
static bool queue_is_served(const struct core *core, const struct queue *queue)
{
    const struct lane *lane = queue->lane;
    return !list_is_empty(&queue->ring) && !queue->route->is_held && !lane->tier->name->is_held &&
           !queue->is_blocked && lane->pool->slots > 0 && !core->is_draining &&
           !(lane->tier->is_durable && core->store_is_down);
}

/* What waits may be in queues that nobody can serve, which says nothing about the tier. */
static bool all_is_blocked(const struct core *core, const struct tier *tier)
{
    for (size_t i = 0; core->gates.length > 0 && i < core->queues_length; i++) {
        const struct queue *queue = core->queues[i];
        if (queue->lane->tier == tier && queue->ready > 0 && !queue->is_blocked) {
            return false;
        }
    }
    return core->gates.length > 0;
}

static bool tier_is_served(const struct core *core, const struct tier *tier)
{
    return tier->waiting.length > 0 && !all_is_blocked(core, tier) && !tier->name->is_held &&
           core->slots > 0 && !core->is_draining && !(tier->is_durable && core->store_is_down);
}

/* Queues can be many (routes times tiers), so they are looked at as often as there is a sample to
 * take. */
void estimate_tick(struct core *core)
{
    for (size_t i = 0; i < core->tiers_length; i++) {
        drain_rate_update(&core->tier[i].drain, tier_is_served(core, &core->tier[i]), core->now_ms);
    }
    if (core->now_ms < core->queue_rates_at_ms) {
        return;
    }
    core->queue_rates_at_ms = core->now_ms + DRAIN_RATE_SAMPLE_MS;
    for (size_t i = 0; i < core->queues_length; i++) {
        struct queue *queue = core->queues[i];
        drain_rate_update(&queue->drain, queue_is_served(core, queue), core->now_ms);
    }
}

void estimate_note_run(struct queue *queue, int64_t run_ms)
{
    const int64_t ms = run_ms > 0 ? run_ms : 1;
    queue->run_ms = queue->run_ms == 0 ? ms : queue->run_ms + (ms - queue->run_ms) / RUNS_SMOOTHED;
}

/* ---- waiting ---- */

static uint64_t own_jobs_ahead(const struct flow *flow, uint32_t priority)
{
    const bool goes_first =
        flow->ready.length > 0 && heap_peek_key(&flow->ready) >> 56 > 9 - priority;
    return goes_first ? 0 : flow->ready.length;
}

/* Each job before it, and itself, waits for a turn of every other tenant. */
static uint64_t ahead_in_queue(const struct flow *flow, uint64_t own_ahead)
{
    const struct queue *queue = flow->queue;
    const uint64_t turns = (own_ahead + 1) * (queue->ring.length + !flow->is_in_ring) - 1;
    return turns < queue->ready ? turns : queue->ready;
}

/* And for a turn of every other route, where only the tier's rate is known. */
static uint64_t ahead_in_tier(const struct flow *flow, uint64_t own_ahead)
{
    const struct queue *queue = flow->queue;
    const struct lane *lane = queue->lane;
    const uint64_t turns = (own_ahead + 1) * (queue->ring.length + !flow->is_in_ring) *
                               (lane->queues.length + !heap_contains(&lane->queues, queue)) -
                           1;
    const uint64_t waiting = lane->tier->waiting.length;
    return turns < waiting ? turns : waiting;
}

/* While jobs are shed, none that is served has waited longer than this, however many are ahead of
 * it. */
static int64_t at_most_limit(const struct flow *flow, int64_t wait_ms)
{
    const int64_t limit_ms = SHED_LIMIT_TARGETS * flow->queue->lane->tier->shed_target_ms;
    return flow->shed.is_shedding && limit_ms > 0 && wait_ms > limit_ms ? limit_ms : wait_ms;
}

static bool has_just_reopened(const struct queue *queue, int64_t now_ms)
{
    return !queue->is_blocked && queue->opened_ms > 0 && now_ms - queue->opened_ms < REOPENED_MS;
}

int64_t estimate_wait_ms(const struct flow *flow, uint64_t own_ahead, int64_t now_ms)
{
    const struct queue *queue = flow->queue;
    const struct tier *tier = queue->lane->tier;
    int64_t wait_ms = -1;
    if (has_just_reopened(queue, now_ms)) {
        return -1;
    }
    if (queue->ready > 0) {
        wait_ms = drain_rate_wait_ms(&queue->drain, ahead_in_queue(flow, own_ahead), now_ms);
    }
    if (wait_ms < 0 && tier->waiting.length == 0) {
        wait_ms = 0;
    }
    if (wait_ms < 0) {
        wait_ms = drain_rate_wait_ms(&tier->drain, ahead_in_tier(flow, own_ahead), now_ms);
    }
    wait_ms = at_most_limit(flow, wait_ms);
    const int64_t closed_ms = queue->open_at_ms > now_ms ? queue->open_at_ms - now_ms : 0;
    return wait_ms < 0 && closed_ms == 0 ? -1 : closed_ms + (wait_ms > 0 ? wait_ms : 0);
}

int64_t queue_expected_wait_ms(const struct flow *flow, uint32_t priority, int64_t now_ms)
{
    return estimate_wait_ms(flow, own_jobs_ahead(flow, priority), now_ms);
}

static int64_t at_rate_ms(uint64_t jobs, double per_s)
{
    const double ms = (double)jobs * 1000.0 / per_s;
    return per_s <= 0.01 ? -1 : ms > 1e12 ? INT64_C(1000000000000) : (int64_t)ms;
}

int64_t estimate_drain_ms(const struct core *core, const struct tier *tier, const struct flow *flow,
                          uint64_t jobs)
{
    int64_t wait_ms = -1;
    if (flow != NULL) {
        const uint64_t tenants = flow->queue->ring.length > 0 ? flow->queue->ring.length : 1;
        wait_ms = drain_rate_wait_ms(&flow->queue->drain, jobs * tenants, core->now_ms);
    }
    if (wait_ms < 0) {
        wait_ms = drain_rate_wait_ms(&tier->drain, jobs, core->now_ms);
    }
    return wait_ms < 0 ? at_rate_ms(jobs, tier->drain.conclusions_per_s) : wait_ms;
}

int64_t estimate_retry_after_ms(struct core *core, int64_t wait_ms)
{
    int64_t wait = wait_ms < 0 ? RETRY_AFTER_UNKNOWN_MS : wait_ms;
    wait = wait < RETRY_AFTER_LEAST_MS ? RETRY_AFTER_LEAST_MS : wait;
    wait = wait > RETRY_AFTER_MOST_MS ? RETRY_AFTER_MOST_MS : wait;
    return wait + (int64_t)core_random_below(core, (uint64_t)wait / 4 + 1);
}
