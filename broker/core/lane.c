#include "broker/core/lane.h"
#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>
#include "broker/core/crowd.h"
#include "broker/core/flight.h"
#include "broker/core/worker.h"

enum {
    PASS_SCALE = 1 << 20,     /* of a queue: divided by its weight */
    DISPATCHES_OWED_MAX = 16, /* to a tier that could not dispatch for a while */
};

/* ---- shares of tiers ---- */

static void share_the_rest(const struct config_tier *tiers, size_t length, const bool *is_fixed,
                           uint64_t rest, uint32_t *ret_shares)
{
    uint64_t weights = 0;
    for (size_t i = 0; i < length; i++) {
        weights += is_fixed[i] ? 0 : tiers[i].weight;
    }
    for (size_t i = 0; i < length; i++) {
        if (!is_fixed[i]) {
            ret_shares[i] = weights == 0 ? 1 : (uint32_t)(rest * tiers[i].weight / weights);
            ret_shares[i] = ret_shares[i] == 0 ? 1 : ret_shares[i];
        }
    }
}

/*
 * Raises those below their minimum, one pass after the other, since the rest gets smaller with
 * each.
 */
void lane_compute_shares(const struct config_tier *tiers, size_t length, uint32_t *ret_shares)
{
    bool is_fixed[CONFIG_TIERS_MAX] = {false};
    uint64_t rest = SHARE_ALL;
    bool has_changed = true;
    while (has_changed) {
        has_changed = false;
        share_the_rest(tiers, length, is_fixed, rest, ret_shares);
        for (size_t i = 0; i < length; i++) {
            const uint64_t least = (uint64_t)SHARE_ALL * tiers[i].share_min_percent / 100;
            if (!is_fixed[i] && ret_shares[i] < least) {
                is_fixed[i] = true;
                has_changed = true;
                ret_shares[i] = (uint32_t)least;
                rest = rest > least ? rest - least : 0;
            }
        }
    }
}

/* ---- queues and flows ---- */

struct lane *lane_of(const struct core *core, const struct tier *tier, const struct pool *pool)
{
    return &core->lanes[(size_t)(pool - core->pool) * core->tiers_length + tier->index];
}

static uint64_t queue_key_hash(const struct lane *lane, const struct name *route, uint64_t seed)
{
    const void *key[2] = {lane, route};
    return XXH3_64bits_withSeed(key, sizeof(key), seed);
}

uint64_t lane_queue_hash(const struct table_link *link, uint64_t seed)
{
    const struct queue *queue = CONTAINER_OF((struct table_link *)link, struct queue, by_key);
    return queue_key_hash(queue->lane, queue->route, seed);
}

static struct queue *find_queue(const struct core *core, const struct lane *lane,
                                const struct name *route)
{
    struct table_link *link =
        table_first(&core->queue_table, queue_key_hash(lane, route, core->queue_table.seed));
    for (; link != NULL; link = link->next) {
        struct queue *queue = CONTAINER_OF(link, struct queue, by_key);
        if (queue->lane == lane && queue->route == route) {
            return queue;
        }
    }
    return NULL;
}

static struct queue *make_queue(struct core *core, struct lane *lane, struct name *route)
{
    struct queue **queues =
        reallocarray(core->queues, core->queues_length + 1, sizeof(struct queue *));
    if (queues == NULL) {
        return NULL;
    }
    core->queues = queues;
    uint32_t of_lane = 1;
    for (size_t i = 0; i < core->queues_length; i++) {
        of_lane += queues[i]->lane == lane;
    }
    const uint32_t gates = (uint32_t)core->queues_length + 1;
    if (heap_reserve(&lane->queues, of_lane - lane->queues.length) < 0 ||
        heap_reserve(&core->gates, gates - core->gates.length) < 0) {
        return NULL;
    }
    struct queue *queue = calloc(1, sizeof(*queue));
    if (queue == NULL) {
        return NULL;
    }
    queue->lane = lane;
    queue->route = route;
    queue->position = HEAP_NONE;
    queue->gate_position = HEAP_NONE;
    list_init(&queue->ring);
    drain_rate_init(&queue->drain, core->now_ms);
    queues[core->queues_length++] = queue;
    table_insert(&core->queue_table, &queue->by_key);
    return queue;
}

static bool make_room_for_flow(struct queue *queue, size_t index)
{
    if (index < queue->flows_length) {
        return true;
    }
    struct flow **flows = reallocarray(queue->flows, index + 1, sizeof(struct flow *));
    if (flows == NULL) {
        return false;
    }
    for (size_t i = queue->flows_length; i <= index; i++) {
        flows[i] = NULL;
    }
    queue->flows = flows;
    queue->flows_length = index + 1;
    return true;
}

struct flow *lane_flow(struct core *core, struct lane *lane, struct name *route,
                       struct tenant *tenant)
{
    struct queue *queue = find_queue(core, lane, route);
    if (queue == NULL) {
        queue = make_queue(core, lane, route);
    }
    if (queue == NULL || !make_room_for_flow(queue, tenant->name->index)) {
        return NULL;
    }
    struct flow **at = &queue->flows[tenant->name->index];
    if (*at == NULL) {
        struct flow *flow = calloc(1, sizeof(*flow));
        if (flow == NULL) {
            return NULL;
        }
        flow->queue = queue;
        flow->tenant = tenant;
        heap_init(&flow->ready, offsetof(struct job, ready_position));
        *at = flow;
    }
    return *at;
}

bool flow_reserve(struct flow *flow)
{
    return heap_reserve(&flow->ready, flow->jobs + 1 - flow->ready.length) == 0;
}

void lane_destroy_queues(struct core *core)
{
    for (size_t i = 0; i < core->queues_length; i++) {
        struct queue *queue = core->queues[i];
        for (size_t j = 0; j < queue->flows_length; j++) {
            if (queue->flows[j] != NULL) {
                crowd_destroy_all(queue->flows[j]);
                heap_finish(&queue->flows[j]->ready);
                free(queue->flows[j]);
            }
        }
        free(queue->flows);
        free(queue);
    }
    free(core->queues);
    core->queues = NULL;
    core->queues_length = 0;
}

/* A queue that comes back is not owed the time it was away. */
static void queue_join(struct queue *queue)
{
    struct lane *lane = queue->lane;
    if (queue->pass < lane->virtual_time) {
        queue->pass = lane->virtual_time;
    }
    const int r = heap_push(&lane->queues, queue, queue->pass);
    assert(r == 0); /* reserved by make_queue() */
}

void queue_refresh(struct queue *queue)
{
    const bool wants =
        !list_is_empty(&queue->ring) && !queue->route->is_held && !queue_is_gated(queue);
    const bool is_in = heap_contains(&queue->lane->queues, queue);
    if (wants && !is_in) {
        queue_join(queue);
    } else if (!wants && is_in) {
        heap_remove(&queue->lane->queues, queue);
    }
}

static bool has_turn_before(const struct flow *flow, const struct flow *other)
{
    return flow->turn != 0 && flow->turn < other->turn;
}

/* Before all that have come since, and behind those whose turn came before. */
static void take_turn_back(struct flow *flow)
{
    struct list *ring = &flow->queue->ring;
    struct list_link *link = ring->head.next;
    while (link != &ring->head && has_turn_before(CONTAINER_OF(link, struct flow, in_ring), flow)) {
        link = link->next;
    }
    list_insert_before(ring, &flow->in_ring, link);
}

static void flow_refresh(struct flow *flow)
{
    const bool wants = flow->ready.length > 0 && !flow->tenant->name->is_held;
    if (wants && !flow->is_in_ring && flow->keeps_turn) {
        take_turn_back(flow);
        flow->is_in_ring = true;
        flow->keeps_turn = false;
    } else if (wants && !flow->is_in_ring) {
        /*
         * A debt stays, so that a tenant cannot shed it by letting its flow run empty; savings do
         * not.
         */
        flow->deficit_tokens = flow->deficit_tokens > 0 ? 0 : flow->deficit_tokens;
        list_append(&flow->queue->ring, &flow->in_ring);
        flow->is_in_ring = true;
    } else if (!wants && flow->is_in_ring) {
        list_remove(&flow->queue->ring, &flow->in_ring);
        flow->is_in_ring = false;
        flow->turn = flow->keeps_turn ? flow->turn : 0;
    }
    queue_refresh(flow->queue);
}

/* Within the heap of its flow, so that the flow keeps its turn. */
void lane_raise(struct job *job, uint32_t priority)
{
    struct heap *ready = &job->flow->ready;
    heap_remove(ready, job);
    const int r = heap_push(ready, job, lane_rank(priority, job->sequence));
    assert(r == 0); /* its own room */
}

void lane_push(struct core *core, struct job *job)
{
    struct flow *flow = job->flow;
    const uint64_t key = lane_rank(flight_priority(core, job), job->sequence);
    const int r = heap_push(&flow->ready, job, key);
    assert(r == 0); /* reserved by flow_reserve() */
    flow->queue->ready++;
    if (flow->ready.length == 1) {
        flow_refresh(flow);
    }
}

void lane_remove(struct core *core, struct job *job)
{
    (void)core;
    struct flow *flow = job->flow;
    heap_remove(&flow->ready, job);
    flow->queue->ready--;
    flow->queue->drain.ran_empty |= flow->queue->ready == 0;
    if (flow->ready.length == 0) {
        shed_rest(&flow->shed);
        flow_refresh(flow);
    }
}

bool lane_is_held(const struct core *core, const struct job *job)
{
    (void)core;
    const struct queue *queue = job->flow->queue;
    return queue->route->is_held || queue->lane->tier->name->is_held ||
           job->flow->tenant->name->is_held || queue_is_gated(queue);
}

void lane_refresh_holds(struct core *core)
{
    for (size_t i = 0; i < core->queues_length; i++) {
        struct queue *queue = core->queues[i];
        for (size_t j = 0; j < queue->flows_length; j++) {
            if (queue->flows[j] != NULL) {
                flow_refresh(queue->flows[j]);
            }
        }
        queue_refresh(queue);
    }
}

/* ---- choosing ---- */

bool lane_may_dispatch(const struct core *core, const struct lane *lane)
{
    const struct tier *tier = lane->tier;
    return (lane->queues.length > 0 || !list_is_empty(&lane->loaded)) &&
           lane->stalled_in_turn != core->turn && !tier->name->is_held &&
           !(tier->is_durable && core->store_is_down);
}

static int64_t tier_stride(const struct lane *lane)
{
    return (INT64_C(1) << 32) / lane->tier->share;
}

static int64_t tier_turn(const struct lane *lane)
{
    const int64_t owed_most = lane->pool->virtual_time - DISPATCHES_OWED_MAX * tier_stride(lane);
    return lane->pass > owed_most ? lane->pass : owed_most;
}

struct lane *lane_choose(struct core *core, struct pool *pool)
{
    struct lane *best = NULL;
    for (size_t i = 0; i < core->tiers_length; i++) {
        struct lane *lane = lane_of(core, &core->tier[i], pool);
        if (!list_is_empty(&lane->available) && lane_may_dispatch(core, lane) &&
            (best == NULL || tier_turn(lane) < tier_turn(best))) {
            best = lane;
        }
    }
    return best;
}

void lane_charge_tier(struct lane *lane)
{
    const int64_t turn = tier_turn(lane);
    if (turn > lane->pool->virtual_time) {
        lane->pool->virtual_time = turn;
    }
    lane->pass = turn + tier_stride(lane);
}

/* The only one that waits. What is in a crowd waits, too, though it is in no ring now. */
static bool is_alone(const struct queue *queue)
{
    return queue->ring.length == 1 && queue->crowds == 0;
}

static void end_turn(struct flow *flow)
{
    list_remove(&flow->queue->ring, &flow->in_ring);
    list_append(&flow->queue->ring, &flow->in_ring);
    flow->turn = 0;
}

/*
 * The flow at the head of the ring once it may spend; those that may not get their quantum and go
 * to the end.
 */
static struct flow *next_flow(struct queue *queue)
{
    for (;;) {
        struct flow *flow = CONTAINER_OF(list_first(&queue->ring), struct flow, in_ring);
        if (is_alone(queue)) {
            flow->deficit_tokens = 1; /* nobody is owed anything */
        }
        if (flow->deficit_tokens <= 0) {
            flow->deficit_tokens += (int64_t)QUANTUM_TOKENS * flow->tenant->weight;
        }
        if (flow->deficit_tokens > 0) {
            return flow;
        }
        end_turn(flow);
    }
}

struct job *lane_peek(struct lane *lane)
{
    struct queue *queue = heap_peek(&lane->queues);
    return queue == NULL ? NULL : heap_peek(&next_flow(queue)->ready);
}

void lane_keep_turn(const struct job *job)
{
    struct flow *flow = job->flow;
    assert(job->place == PLACE_READY);
    flow->keeps_turn = flow->ready.length == 1 && flow->deficit_tokens > 0;
    if (flow->keeps_turn && flow->turn == 0) {
        flow->turn = ++flow->queue->turns_kept;
    }
}

static int64_t cost_tokens(const struct job *job)
{
    const uint32_t tokens =
        job->estimated_tokens > 0 ? job->estimated_tokens : job->payload_bytes / 4;
    return tokens == 0 ? 1 : tokens > COST_TOKENS_MAX ? COST_TOKENS_MAX : (int64_t)tokens;
}

void lane_give_back(const struct job *job)
{
    struct flow *flow = job->flow;
    const int64_t most = (int64_t)QUANTUM_TOKENS * flow->tenant->weight;
    const int64_t tokens = flow->deficit_tokens + cost_tokens(job);
    flow->deficit_tokens = tokens < most ? tokens : most;
}

/* A queue's weight among the routes of its lane: 1 for one job, 21 for a million. */
static uint64_t backlog_weight(const struct queue *queue)
{
    return queue->ready == 0 ? 1 : 64 - (uint64_t)__builtin_clzll(queue->ready);
}

void lane_charge(struct lane *lane, struct job *job)
{
    struct flow *flow = job->flow;
    struct queue *queue = flow->queue;
    flow->deficit_tokens -= cost_tokens(job);
    if (is_alone(queue) && flow->deficit_tokens < 0) {
        flow->deficit_tokens = 0;
    }
    if (flow->deficit_tokens <= 0) {
        end_turn(flow);
    }
    lane->virtual_time = queue->pass > lane->virtual_time ? queue->pass : lane->virtual_time;
    heap_remove(&lane->queues, queue);
    queue->pass += PASS_SCALE / backlog_weight(queue);
    const int r = heap_push(&lane->queues, queue, queue->pass);
    assert(r == 0); /* its own room */
}
