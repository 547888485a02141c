#include "tests/simulation/fairness.h"
#include <assert.h>
#include <inttypes.h>
#include <string.h>
#include "broker/core/core.h"
#include "broker/core/lane.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/needs.h"
#include "tests/simulation/network.h"

enum {
    LOOKS_MAX = 4,    /* at jobs, to find a witness */
    OWED_MAX = 16,    /* lane.c: DISPATCHES_OWED_MAX */
    TENANT_SCALE = 6, /* a multiple of every weight: served tokens stay whole numbers */
    TIER_SCALE = 60,
    GATED_MS_MAX = 2000, /* by a pace that has ended: of one call a second, at least */
    LOAD_MS_MAX =
        300, /* until a load is answered, the retry after an outage of the store included */
};

/* ---- who waits ---- */

static struct fair_lane *lane_of_job(struct simulation *simulation, const struct sim_job *job)
{
    return &simulation->fairness.lanes[job->pool][job->tier];
}

static struct fair_flow *flow_of_job(struct simulation *simulation, const struct sim_job *job)
{
    return &lane_of_job(simulation, job)->queues[job->route].flows[job->tenant];
}

static void set_chosen(struct simulation *simulation, struct sim_job *job, bool is_chosen)
{
    if (is_chosen && !job->is_chosen) {
        list_append(&simulation->fairness.chosen, &job->chosen_link);
    } else if (!is_chosen && job->is_chosen) {
        list_remove(&simulation->fairness.chosen, &job->chosen_link);
    }
    job->is_chosen = is_chosen;
}

void fairness_join(struct simulation *simulation, struct sim_job *job)
{
    if (!job->is_waiting) {
        job->is_waiting = true;
        list_append(&flow_of_job(simulation, job)->waiting, &job->waiting_link);
    }
}

void fairness_leave(struct simulation *simulation, struct sim_job *job)
{
    set_chosen(simulation, job, false);
    if (job->is_waiting) {
        job->is_waiting = false;
        list_remove(&flow_of_job(simulation, job)->waiting, &job->waiting_link);
    }
}

/* As the core has it; UNKNOWN: it is not in its table. */
static Wire__JobState state_of(const struct simulation *simulation, const struct sim_job *job)
{
    Wire__JobState state;
    const char *worker;
    return core_find_job(simulation->broker.core, &job->id, &state, &worker) < 0
               ? WIRE__JOB_STATE__JOB_STATE_UNKNOWN
               : state;
}

/* Ready, as the core says; one that is out of the table or runs is not looked at again. */
static bool is_ready(struct simulation *simulation, struct sim_job *job)
{
    if (!job->is_waiting || job->is_chosen) {
        return false;
    }
    const Wire__JobState state = state_of(simulation, job);
    if (state == WIRE__JOB_STATE__JOB_STATE_UNKNOWN || state == WIRE__JOB_STATE__JOB_STATE_LEASED ||
        state == WIRE__JOB_STATE__JOB_STATE_DEAD) {
        fairness_leave(simulation, job);
        return false;
    }
    return state == WIRE__JOB_STATE__JOB_STATE_QUEUED;
}

/*
 * It may have waited by itself between two looks, for an upstream that others do not need, and so
 * not beside them.
 */
static bool waits_by_itself(const struct simulation *simulation, const struct sim_job *job)
{
    return needs_are_picky(simulation, (uint32_t)(job - simulation->jobs));
}

/* Of the latest few, the one with the lowest priority: it is served last. `is_sure`: it has waited
 * beside others all the time. */
static struct sim_job *find_in_flow(struct simulation *simulation, struct fair_flow *flow,
                                    bool is_sure)
{
    struct sim_job *best = NULL;
    struct list_link *link = flow->waiting.head.previous;
    for (int i = 0; i < LOOKS_MAX && link != &flow->waiting.head; i++) {
        struct sim_job *job = CONTAINER_OF(link, struct sim_job, waiting_link);
        link = link->previous;
        if ((best == NULL || job->priority < best->priority) && is_ready(simulation, job) &&
            (!is_sure || !waits_by_itself(simulation, job))) {
            best = job;
        }
    }
    if (best == NULL && !list_is_empty(&flow->waiting)) { /* look at others next time */
        struct list_link *last = flow->waiting.head.previous;
        list_remove(&flow->waiting, last);
        list_prepend(&flow->waiting, last);
    }
    return best;
}

/* The queue of this name; NULL: it has a route that the scenario does not have. */
static struct fair_queue *queue_of_view(struct simulation *simulation,
                                        const struct core_queue_view *view)
{
    const struct scenario *scenario = &simulation->scenario;
    size_t pool = 0, tier = 0, route = 0;
    while (pool < SCENARIO_POOLS && strcmp(view->pool, scenario->pools[pool]) != 0) {
        pool++;
    }
    while (tier < SCENARIO_TIERS && strcmp(view->tier, scenario->tiers[tier].name) != 0) {
        tier++;
    }
    while (route < SCENARIO_ROUTES && strcmp(view->route, scenario->routes[route]) != 0) {
        route++;
    }
    return pool < SCENARIO_POOLS && tier < SCENARIO_TIERS && route < SCENARIO_ROUTES
               ? &simulation->fairness.lanes[pool][tier].queues[route]
               : NULL;
}

struct gate_look {
    struct simulation *simulation;
    size_t index; /* of the queue, as the core counts them */
    bool is_any_gated;
};

/* Names are compared once for each queue that the core makes: it is asked often. */
static void note_gate(void *context, const struct core_queue_view *view)
{
    struct gate_look *look = context;
    struct fairness *fairness = &look->simulation->fairness;
    if (look->index == fairness->queues_length) {
        assert(look->index < FAIR_QUEUES_MAX);
        fairness->queues[fairness->queues_length++] = queue_of_view(look->simulation, view);
    }
    struct fair_queue *queue = fairness->queues[look->index++];
    if (queue != NULL) {
        queue->gated_ms = view->gated_ms;
        queue->is_gated = view->gated_ms > 0;
        look->is_any_gated |= queue->is_gated;
    }
}

/* Nothing holds it back: it is up, at full pace, and has no limit. */
static void note_free(void *context, const struct core_upstream_view *view)
{
    uint32_t *free_ones = context;
    const uint32_t upstream = scenario_upstream(view->provider, view->model);
    const bool is_free = view->state == WIRE__UPSTREAM_STATE__STATE__UPSTREAM_CLOSED &&
                         view->blocked_ms == 0 && view->requests_per_min == 0 &&
                         view->tokens_per_min == 0 && view->pace_per_s <= 0.0;
    *free_ones |= is_free && upstream < SCENARIO_UPSTREAMS ? 1u << upstream : 0;
}

/* A queue waits for long only while none of its upstreams is free: else it starves. */
static void check_gates(struct simulation *simulation)
{
    const struct scenario *scenario = &simulation->scenario;
    uint32_t free_ones = 0;
    core_visit_upstreams(simulation->broker.core, sim_broker_now(simulation), note_free,
                         &free_ones);
    for (int i = 0; i < SCENARIO_POOLS * SCENARIO_TIERS * SCENARIO_ROUTES; i++) {
        const int pool = i % SCENARIO_POOLS, tier = i / SCENARIO_POOLS % SCENARIO_TIERS;
        const int route = i / SCENARIO_POOLS / SCENARIO_TIERS;
        const bool is_there = route < SCENARIO_ROUTES - 1 || scenario->config.routes_length > 0;
        const struct fair_queue *queue = &simulation->fairness.lanes[pool][tier].queues[route];
        if (queue->gated_ms > GATED_MS_MAX && is_there &&
            (scenario->candidates[route][tier] & free_ones) != 0) {
            simulation_violate(
                simulation,
                "queue %s/%s/%s waits for %" PRId64 " ms though an upstream of %x is free",
                scenario->tiers[tier].name, scenario->pools[pool], scenario->routes[route],
                queue->gated_ms, scenario->candidates[route][tier] & free_ones);
        }
    }
}

/* A queue that its upstreams keep waiting does not compete. Looked up once a turn at most: it is
 * dear. */
static void look_at_gates(struct simulation *simulation)
{
    if (simulation->fairness.gates_of_turn != simulation->fairness.turn) {
        simulation->fairness.gates_of_turn = simulation->fairness.turn;
        struct gate_look look = {.simulation = simulation};
        core_visit_queues(simulation->broker.core, note_gate, &look);
        if (look.is_any_gated) {
            check_gates(simulation);
        }
    }
}

static struct sim_job *find_in_lane(struct simulation *simulation, struct fair_lane *lane)
{
    for (int route = 0; route < SCENARIO_ROUTES; route++) {
        for (int tenant = 0; tenant < SCENARIO_TENANTS && !lane->queues[route].is_gated; tenant++) {
            struct sim_job *job =
                find_in_flow(simulation, &lane->queues[route].flows[tenant], false);
            if (job != NULL) {
                return job;
            }
        }
    }
    return NULL;
}

/*
 * Whether `backlog` may keep its epoch: its witness still waits, or was chosen in this very turn.
 * Whoever waits at the end of that turn has waited beside it: within a turn jobs become ready
 * before any is chosen.
 */
static bool goes_on(struct simulation *simulation, const struct backlog *backlog, bool *ret_waits)
{
    struct sim_job *job = backlog->witness;
    *ret_waits = job != NULL && is_ready(simulation, job);
    return *ret_waits || (job != NULL && job->chosen_in_turn == simulation->fairness.turn);
}

static void refresh_flow(struct simulation *simulation, struct fair_flow *flow)
{
    bool waits;
    bool may_go_on = goes_on(simulation, &flow->backlog, &waits);
    if (waits && waits_by_itself(simulation, flow->backlog.witness)) { /* since a reload */
        may_go_on = waits = false;
    }
    if (!waits) {
        flow->backlog.witness = find_in_flow(simulation, flow, true);
        flow->backlog.epoch += !may_go_on || flow->backlog.witness == NULL;
    }
}

static void refresh_lane(struct simulation *simulation, struct fair_lane *lane)
{
    bool waits;
    bool may_go_on = goes_on(simulation, &lane->backlog, &waits);
    look_at_gates(simulation);
    if (lane->backlog.witness != NULL && lane->queues[lane->backlog.witness->route].is_gated) {
        may_go_on = waits = false;
    }
    if (!waits) {
        lane->backlog.witness = find_in_lane(simulation, lane);
        lane->backlog.epoch += !may_go_on || lane->backlog.witness == NULL;
    }
}

/* ---- intervals ---- */

/* Notes where the difference is now. False: the interval is not open. */
static bool measure(struct interval *interval, const struct backlog *a, const struct backlog *b,
                    int64_t difference)
{
    if (a->witness == NULL || b->witness == NULL) {
        interval->is_open = false;
        return false;
    }
    if (!interval->is_open || interval->epochs[0] != a->epoch || interval->epochs[1] != b->epoch) {
        *interval = (struct interval){
            .is_open = true, .epochs = {a->epoch, b->epoch}, .low = difference, .high = difference};
    }
    interval->latest = difference;
    interval->low = difference < interval->low ? difference : interval->low;
    interval->high = difference > interval->high ? difference : interval->high;
    return true;
}

static void close_all(struct simulation *simulation)
{
    struct fairness *fairness = &simulation->fairness;
    for (int pool = 0; pool < SCENARIO_POOLS; pool++) {
        for (int tier = 0; tier < SCENARIO_TIERS; tier++) {
            struct fair_lane *lane = &fairness->lanes[pool][tier];
            lane->backlog.witness = NULL;
            lane->backlog.epoch++;
            lane->hungry_since_ms = INT64_MAX;
            for (int route = 0; route < SCENARIO_ROUTES; route++) {
                for (int tenant = 0; tenant < SCENARIO_TENANTS; tenant++) {
                    struct backlog *backlog = &lane->queues[route].flows[tenant].backlog;
                    backlog->witness = NULL;
                    backlog->epoch++;
                }
            }
        }
    }
}

/* ---- tenants ---- */

static void check_tenants(struct simulation *simulation, struct fair_queue *queue, int a, int b)
{
    const struct config_tenant *tenants = simulation->scenario.tenants;
    struct fair_flow *flow_a = &queue->flows[a], *flow_b = &queue->flows[b];
    struct interval *interval = &queue->intervals[a + b - 1];
    const int64_t bound = TENANT_SCALE * 3 * (int64_t)QUANTUM_TOKENS +
                          TENANT_SCALE * (int64_t)SCENARIO_TOKENS_MAX / tenants[a].weight +
                          TENANT_SCALE * (int64_t)SCENARIO_TOKENS_MAX / tenants[b].weight;
    if (measure(interval, &flow_a->backlog, &flow_b->backlog, flow_a->served - flow_b->served)) {
        simulation->tally.fair_tenants++;
        if (interval->high - interval->low > bound) {
            simulation_violate(simulation,
                               "tenants %d and %d of one queue wait both, and one was served "
                               "%" PRId64 " tokens more for its weight",
                               a, b, (interval->high - interval->low) / TENANT_SCALE);
        }
    }
}

static void check_queue(struct simulation *simulation, struct fair_queue *queue)
{
    for (int tenant = 0; tenant < SCENARIO_TENANTS; tenant++) {
        refresh_flow(simulation, &queue->flows[tenant]);
    }
    for (int a = 0; a < SCENARIO_TENANTS; a++) {
        for (int b = a + 1; b < SCENARIO_TENANTS; b++) {
            check_tenants(simulation, queue, a, b);
        }
    }
}

/* ---- tiers ---- */

static int64_t served_of_tier(const struct simulation *simulation, const struct fair_lane *lane,
                              int tier)
{
    return (int64_t)lane->dispatched * TIER_SCALE / simulation->scenario.tiers[tier].weight;
}

static void check_tiers(struct simulation *simulation, int pool, int a, int b)
{
    const struct config_tier *tiers = simulation->scenario.tiers;
    struct fairness *fairness = &simulation->fairness;
    struct fair_lane *lane_a = &fairness->lanes[pool][a], *lane_b = &fairness->lanes[pool][b];
    struct interval *interval = &fairness->intervals[pool][a + b - 1];
    const int64_t difference =
        served_of_tier(simulation, lane_a, a) - served_of_tier(simulation, lane_b, b);
    const int64_t bound = (OWED_MAX + 2) * (int64_t)TIER_SCALE / tiers[a].weight +
                          (OWED_MAX + 2) * (int64_t)TIER_SCALE / tiers[b].weight;
    if (!measure(interval, &lane_a->backlog, &lane_b->backlog, difference)) {
        return;
    }
    simulation->tally.fair_tiers++;
    const bool has_own_slots = tiers[a].slots_reserved_percent > 0;
    const int64_t behind = interval->high - interval->latest;
    const int64_t ahead = interval->latest - interval->low;
    if (behind > bound || (ahead > bound && !has_own_slots)) {
        simulation_violate(simulation,
                           "tiers %s and %s of a pool wait both, and %s was served too little",
                           tiers[a].name, tiers[b].name, tiers[behind > bound ? a : b].name);
    }
}

static void check_pool(struct simulation *simulation, int pool)
{
    struct fairness *fairness = &simulation->fairness;
    for (int a = 0; a < SCENARIO_TIERS; a++) {
        for (int b = a + 1; b < SCENARIO_TIERS; b++) {
            if (fairness->loading[pool] > 0) {
                fairness->intervals[pool][a + b - 1].is_open = false;
            } else {
                check_tiers(simulation, pool, a, b);
            }
        }
    }
}

/* ---- slots of a tier's own ---- */

/*
 * What is kept free for others than `tier`: what is reserved for them, less what they use of that.
 * `used` NULL: nothing. Reservations leave at least one slot to everybody: worker_reserve_slots().
 */
static uint32_t reserved_for_others(const struct simulation *simulation,
                                    const struct sim_worker *worker, int tier, const uint32_t *used)
{
    uint32_t reserved = 0, left = worker->slots - 1;
    for (int i = 0; i < SCENARIO_TIERS; i++) {
        const uint32_t percent = simulation->scenario.tiers[i].slots_reserved_percent;
        uint32_t wanted = worker->slots * percent / 100;
        wanted += wanted == 0 && percent > 0;
        wanted = wanted < left ? wanted : left;
        left -= wanted;
        const uint32_t in_use = used == NULL ? 0 : used[i];
        reserved += i == tier || in_use >= wanted ? 0 : wanted - in_use;
    }
    return reserved;
}

static void count_used(const struct sim_worker *worker, uint32_t *ret_used)
{
    const struct list_link *link = worker->leases.head.next;
    for (; link != &worker->leases.head; link = link->next) {
        ret_used[CONTAINER_OF((struct list_link *)link, struct sim_job, lease.link)->tier]++;
    }
}

/* As the core has it, who may know of more leases than were seen here: at least `used`. */
static void raise_used(const struct simulation *simulation, const struct sim_worker *worker,
                       uint32_t *used)
{
    uint32_t known[SCENARIO_TIERS] = {0};
    for (uint32_t i = 0; i < simulation->jobs_length; i++) {
        const struct sim_job *job = &simulation->jobs[i];
        Wire__JobState state;
        const char *holder;
        known[job->tier] +=
            core_find_job(simulation->broker.core, &job->id, &state, &holder) == 0 &&
            state == WIRE__JOB_STATE__JOB_STATE_LEASED && strcmp(holder, worker->name) == 0;
    }
    for (int i = 0; i < SCENARIO_TIERS; i++) {
        used[i] = known[i] > used[i] ? known[i] : used[i];
    }
}

struct free_look {
    uint64_t peer;
    uint32_t free;
};

static void look_at_free(void *context, const struct core_worker_view *view)
{
    struct free_look *look = context;
    look->free = view->peer == look->peer ? view->free : look->free;
}

/* As the core had it before the dispatch that is being looked at. */
static uint32_t free_before(const struct simulation *simulation, uint64_t peer)
{
    const struct sim_broker *broker = &simulation->broker;
    struct free_look look = {.peer = peer};
    core_visit_workers(broker->core, sim_broker_now(simulation), look_at_free, &look);
    for (size_t i = broker->examined - 1; i < effects_length(broker->effects); i++) {
        const struct effect *effect = effects_at(broker->effects, i);
        look.free += effect->kind == EFFECT_DISPATCH && effect->peer == peer;
    }
    return look.free;
}

/* Looked at by what is known here first: the core's own view is dear. */
static void check_reserved(struct simulation *simulation, const struct sim_job *job, uint64_t peer)
{
    const struct link *link = network_link(simulation, peer);
    const struct sim_worker *worker = &simulation->workers[link->owner];
    const uint64_t credit =
        link->credit_total >= link->dispatched ? link->credit_total - link->dispatched + 1 : 1;
    const uint64_t free = credit < worker->slots ? credit : worker->slots;
    const int tier = (int)job->tier;
    if (free > reserved_for_others(simulation, worker, tier, NULL)) {
        return;
    }
    uint32_t used[SCENARIO_TIERS] = {0};
    count_used(worker, used);
    if (free > reserved_for_others(simulation, worker, tier, used)) {
        return;
    }
    raise_used(simulation, worker, used);
    if (free_before(simulation, peer) <= reserved_for_others(simulation, worker, tier, used)) {
        simulation_violate(simulation, "job %td is dispatched to %s in a slot of another tier",
                           job - simulation->jobs, worker->name);
    }
}

/* ---- starvation ---- */

static bool has_slot(const struct simulation *simulation, const struct sim_worker *worker, int pool,
                     int tier)
{
    if (worker->known_as == 0 || worker->pools <= (uint32_t)pool) {
        return false;
    }
    const struct link *link = network_link(simulation, worker->known_as);
    const uint64_t credit =
        link->credit_total > link->dispatched ? link->credit_total - link->dispatched : 0;
    const uint64_t free = credit < worker->slots ? credit : worker->slots;
    return !link->is_set_aside && !link->is_draining &&
           worker->aside_until_ms <= sim_broker_ms(simulation) &&
           link->heard_ms + simulation->scenario.config.broker.lease_ms >
               sim_broker_ms(simulation) &&
           free > reserved_for_others(simulation, worker, tier, NULL);
}

static const struct sim_worker *find_slot(const struct simulation *simulation, int pool, int tier)
{
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        if (has_slot(simulation, &simulation->workers[i], pool, tier)) {
            return &simulation->workers[i];
        }
    }
    return NULL;
}

static void check_starved(struct simulation *simulation, int pool, int tier)
{
    struct fair_lane *lane = &simulation->fairness.lanes[pool][tier];
    const struct sim_broker *broker = &simulation->broker;
    const int64_t now_ms = simulation->now_ms;
    const bool may_go =
        lane->backlog.witness != NULL && !broker->store_is_down && !broker->core_store_is_down;
    const struct sim_worker *worker = may_go ? find_slot(simulation, pool, tier) : NULL;
    if (worker == NULL || (lane->is_served && lane->loading > 0)) {
        lane->hungry_since_ms = INT64_MAX;
        return;
    }
    simulation->tally.fair_slots++;
    lane->hungry_since_ms = now_ms < lane->hungry_since_ms ? now_ms : lane->hungry_since_ms;
    /* In the turn in which the store comes back among thousands of jobs some may have to wait for
     * the next one. */
    const int64_t bound_ms = (lane->loading == 0 ? 0 : LOAD_MS_MAX) + simulation->scenario.turn_ms;
    if (now_ms - lane->hungry_since_ms > bound_ms) {
        simulation_violate(
            simulation, "job %td waits for %" PRId64 " ms though %s has a free slot for it",
            lane->backlog.witness - simulation->jobs, now_ms - lane->hungry_since_ms, worker->name);
    }
}

/* ---- order within a flow ---- */

/*
 * Who waits when the tick is over has waited in all of it, unless it was chosen before and put
 * back. Who leads others may go as one of them, and may have begun to lead only now: it is not
 * compared; nor is who waits by itself, and may have come back only when another one went. Nor is
 * anybody while recovered jobs wait for their workers.
 */
static void check_order(struct simulation *simulation, const struct sim_job *job)
{
    const struct fair_flow *flow = flow_of_job(simulation, job);
    const struct list_link *link = flow->waiting.head.previous;
    const bool is_compared =
        job->canonical == 0 && sim_broker_ms(simulation) >= simulation->fairness.from_ms;
    for (int i = 0; i < LOOKS_MAX && is_compared && link != &flow->waiting.head; i++) {
        struct sim_job *other =
            CONTAINER_OF((struct list_link *)link, struct sim_job, waiting_link);
        link = link->previous;
        if (other->priority > job->priority && other->canonical == 0 &&
            !waits_by_itself(simulation, other) && is_ready(simulation, other)) {
            simulation_violate(
                simulation, "job %td of priority %u goes before job %td of priority %u",
                job - simulation->jobs, job->priority, other - simulation->jobs, other->priority);
        }
    }
}

/* ---- what happens ---- */

static int64_t tokens_for_weight(const struct simulation *simulation, const struct sim_job *job)
{
    return (int64_t)job->tokens * TENANT_SCALE / simulation->scenario.tenants[job->tenant].weight;
}

static void choose(struct simulation *simulation, struct sim_job *job)
{
    flow_of_job(simulation, job)->served += tokens_for_weight(simulation, job);
    lane_of_job(simulation, job)->queues[job->route].is_touched = true;
    job->chosen_in_turn = simulation->fairness.turn;
    check_order(simulation, job);
}

/* It was loaded, and may have been put back since: then it does not count as served any more. One
 * that has to wait by itself is not there to be served either. */
static void look_whether_put_back(struct simulation *simulation, struct sim_job *job)
{
    const Wire__JobState state = state_of(simulation, job);
    const bool waits_by_itself = state == WIRE__JOB_STATE__JOB_STATE_BACKING_OFF;
    struct fair_flow *flow = flow_of_job(simulation, job);
    if (job->is_chosen && (state == WIRE__JOB_STATE__JOB_STATE_QUEUED || waits_by_itself)) {
        flow->served -= tokens_for_weight(simulation, job);
        flow->backlog.epoch += waits_by_itself;
    }
    if (state != WIRE__JOB_STATE__JOB_STATE_LOADING) {
        set_chosen(simulation, job, false);
    }
}

void fairness_see_load(struct simulation *simulation, struct sim_job *job)
{
    /* One that waits by itself has its payload read meanwhile, and is chosen when it goes. */
    if (state_of(simulation, job) != WIRE__JOB_STATE__JOB_STATE_BACKING_OFF && !job->is_chosen) {
        choose(simulation, job);
        set_chosen(simulation, job, true);
    }
    lane_of_job(simulation, job)->loading++;
    simulation->fairness.loading[job->pool]++;
}

void fairness_see_loaded(struct simulation *simulation, struct sim_job *job, bool has_failed)
{
    struct fair_lane *lane = lane_of_job(simulation, job);
    lane->loading--;
    simulation->fairness.loading[job->pool]--;
    lane->hungry_since_ms = has_failed ? INT64_MAX : lane->hungry_since_ms;
    look_whether_put_back(simulation, job);
}

void fairness_see_dispatch(struct simulation *simulation, struct sim_job *job, uint64_t peer)
{
    struct fair_lane *lane = lane_of_job(simulation, job);
    check_reserved(simulation, job, peer);
    if (!job->is_chosen) {
        choose(simulation, job);
    }
    job->chosen_in_turn = simulation->fairness.turn;
    lane->dispatched++;
    lane->is_served = true;
    fairness_leave(simulation, job);
}

static void look_at_chosen(struct simulation *simulation)
{
    struct list_link *link = simulation->fairness.chosen.head.next;
    while (link != &simulation->fairness.chosen.head) {
        struct sim_job *job = CONTAINER_OF(link, struct sim_job, chosen_link);
        link = link->next;
        look_whether_put_back(simulation, job);
    }
}

void fairness_see_pause(struct simulation *simulation)
{
    look_at_chosen(simulation);
}

/* ---- turns ---- */

static bool is_measurable(const struct simulation *simulation)
{
    const struct sim_broker *broker = &simulation->broker;
    return broker->holds_length == 0 && !broker->is_draining && !broker->has_lacked_memory &&
           sim_broker_ms(simulation) >= simulation->fairness.from_ms;
}

void fairness_before_tick(struct simulation *simulation)
{
    struct fairness *fairness = &simulation->fairness;
    fairness->turn++;
    for (int pool = 0; pool < SCENARIO_POOLS; pool++) {
        for (int tier = 0; tier < SCENARIO_TIERS; tier++) {
            fairness->lanes[pool][tier].is_served = false;
        }
    }
}

static bool is_waited_for(const struct fair_lane *lane)
{
    for (int route = 0; route < SCENARIO_ROUTES; route++) {
        for (int tenant = 0; tenant < SCENARIO_TENANTS; tenant++) {
            if (!list_is_empty(&lane->queues[route].flows[tenant].waiting)) {
                return true;
            }
        }
    }
    return false;
}

static void check_lane(struct simulation *simulation, int pool, int tier, bool is_pool_served)
{
    struct fair_lane *lane = &simulation->fairness.lanes[pool][tier];
    if (is_waited_for(lane) && (is_pool_served || find_slot(simulation, pool, tier) != NULL)) {
        refresh_lane(simulation, lane);
        check_starved(simulation, pool, tier);
    } else if (!is_waited_for(lane)) {
        lane->backlog.epoch += lane->backlog.witness != NULL;
        lane->backlog.witness = NULL;
        lane->hungry_since_ms = INT64_MAX;
    } else {
        lane->hungry_since_ms = INT64_MAX;
    }
    for (int route = 0; route < SCENARIO_ROUTES; route++) {
        if (lane->queues[route].is_touched) {
            lane->queues[route].is_touched = false;
            check_queue(simulation, &lane->queues[route]);
        }
    }
}

void fairness_after_tick(struct simulation *simulation)
{
    look_at_chosen(simulation);
    if (!is_measurable(simulation)) {
        close_all(simulation);
        return;
    }
    for (int pool = 0; pool < SCENARIO_POOLS; pool++) {
        bool is_served = false;
        for (int tier = 0; tier < SCENARIO_TIERS; tier++) {
            is_served |= simulation->fairness.lanes[pool][tier].is_served;
        }
        for (int tier = 0; tier < SCENARIO_TIERS; tier++) {
            check_lane(simulation, pool, tier, is_served);
        }
        if (is_served) {
            check_pool(simulation, pool);
        }
    }
}

/* ---- beginning and end ---- */

void fairness_init(struct simulation *simulation)
{
    list_init(&simulation->fairness.chosen);
    for (int pool = 0; pool < SCENARIO_POOLS; pool++) {
        for (int tier = 0; tier < SCENARIO_TIERS; tier++) {
            for (int route = 0; route < SCENARIO_ROUTES; route++) {
                for (int tenant = 0; tenant < SCENARIO_TENANTS; tenant++) {
                    list_init(&simulation->fairness.lanes[pool][tier]
                                   .queues[route]
                                   .flows[tenant]
                                   .waiting);
                }
            }
        }
    }
    close_all(simulation);
}

void fairness_stop(struct simulation *simulation)
{
    struct fairness *fairness = &simulation->fairness;
    for (uint32_t i = 0; i < simulation->jobs_length; i++) {
        fairness_leave(simulation, &simulation->jobs[i]);
    }
    for (int pool = 0; pool < SCENARIO_POOLS; pool++) {
        fairness->loading[pool] = 0;
        for (int tier = 0; tier < SCENARIO_TIERS; tier++) {
            fairness->lanes[pool][tier].loading = 0;
        }
    }
    close_all(simulation);
}

void fairness_restart(struct simulation *simulation)
{
    struct fairness *fairness = &simulation->fairness;
    fairness->queues_length = 0;
    for (int i = 0; i < SCENARIO_POOLS * SCENARIO_TIERS * SCENARIO_ROUTES; i++) {
        struct fair_queue *queue =
            &fairness->lanes[i % SCENARIO_POOLS][i / SCENARIO_POOLS % SCENARIO_TIERS]
                 .queues[i / SCENARIO_POOLS / SCENARIO_TIERS];
        queue->is_gated = false;
        queue->gated_ms = 0;
    }
    simulation->fairness.from_ms =
        sim_broker_ms(simulation) + simulation->scenario.config.broker.reclaim_ms + 1;
    for (uint32_t i = 0; i < simulation->jobs_length; i++) {
        struct sim_job *job = &simulation->jobs[i];
        if (state_of(simulation, job) != WIRE__JOB_STATE__JOB_STATE_UNKNOWN) {
            fairness_join(simulation, job);
        }
    }
}
