#include "tests/simulation/faults.h"
#include <inttypes.h>
#include "tests/simulation/broker.h"
#include "tests/simulation/client.h"
#include "tests/simulation/worker.h"

enum {
    WALL_JUMP_MS_MAX = 600000,
    STALL_MS_MAX = 180000, /* the broker's process stood still */
    BACK_MS_MAX = 500,     /* monotonic time goes back, which it must not */
    PAUSE_MS_MAX = 120000,
    CUT_MS_MIN = 5000,
    CUT_MS_MAX = 240000,
    LOADS_FAIL_MS_MAX = 60000,
    SWEEPS_AT_ONCE = 18, /* more than there may be */
    TRIES = 16,          /* of other kinds, when one cannot happen now */
    RETRY_MS = 1000,     /* when nothing could happen */
};

static const char *const names[FAULTS] = {
    [FAULT_CRASH] = "crashes",
    [FAULT_STORE_DOWN] = "commits failing",
    [FAULT_LOADS_FAIL] = "loads failing",
    [FAULT_WALL_JUMP] = "wall clock jumps",
    [FAULT_MONO_JUMP] = "monotonic jumps",
    [FAULT_PARTITION] = "partitions",
    [FAULT_CLIENT_BREAK] = "clients cut",
    [FAULT_WORKER_BREAK] = "workers cut",
    [FAULT_WORKER_KILL] = "workers killed",
    [FAULT_WORKERS_KILL] = "mass deaths",
    [FAULT_UPSTREAM] = "upstreams in trouble",
    [FAULT_RESTART] = "restarts",
    [FAULT_RELOAD] = "reloads",
    [FAULT_PAUSE] = "pauses",
    [FAULT_WORKER_LEAVE] = "workers leaving",
    [FAULT_DEAD_ONE] = "dead letters handled",
    [FAULT_DEAD_SWEEP] = "sweeps",
};

const char *faults_name(enum fault_kind kind)
{
    return names[kind];
}

/* ---- single ones; false: it cannot happen now ---- */

static bool jump_wall(struct simulation *simulation)
{
    const int64_t jump_ms = dice_between(&simulation->dice, -WALL_JUMP_MS_MAX, WALL_JUMP_MS_MAX);
    simulation->broker.unix_offset_ms += jump_ms;
    simulation->clock_jumped_ms += jump_ms < 0 ? -jump_ms : jump_ms;
    simulation_trace(simulation, "wall clock jumps, now off by %" PRId64 " ms",
                     (uint64_t)simulation->broker.unix_offset_ms, 0, 0);
    return true;
}

static bool jump_mono(struct simulation *simulation)
{
    struct dice *dice = &simulation->dice;
    if (!simulation->broker.is_up) {
        return false;
    }
    const int64_t jump_ms = dice_hit(dice, 200) ? -dice_between(dice, 1, BACK_MS_MAX)
                                                : dice_between(dice, 1, STALL_MS_MAX);
    sim_broker_jump(simulation, jump_ms);
    return true;
}

static bool fail_loads(struct simulation *simulation)
{
    struct sim_broker *broker = &simulation->broker;
    if (broker->loads_fail_until_ms > simulation->now_ms) {
        return false;
    }
    broker->loads_fail_until_ms =
        simulation->now_ms + dice_between(&simulation->dice, 1, LOADS_FAIL_MS_MAX);
    simulation_trace(simulation, "loads fail until %" PRIu64 "",
                     (uint64_t)broker->loads_fail_until_ms, 0, 0);
    return true;
}

/* Some peers, by the same chance each, hear and say nothing for a while. */
static bool cut_off(struct simulation *simulation)
{
    struct dice *dice = &simulation->dice;
    const int64_t until_ms = simulation->now_ms + dice_between(dice, CUT_MS_MIN, CUT_MS_MAX);
    const uint32_t permille = (uint32_t)dice_between(dice, 50, 900);
    uint64_t cut = 0;
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        if (dice_hit(dice, permille)) {
            simulation->clients[i].cut_until_ms = until_ms;
            cut++;
        }
    }
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        if (dice_hit(dice, permille)) {
            simulation->workers[i].cut_until_ms = until_ms;
            cut++;
        }
    }
    simulation_trace(simulation, "%" PRIu64 " peers are cut off until %" PRIu64 "", cut,
                     (uint64_t)until_ms, 0);
    return cut > 0;
}

static bool break_client(struct simulation *simulation)
{
    struct sim_client *client =
        &simulation->clients[dice_below(&simulation->dice, simulation->scenario.clients)];
    if (!client->is_welcome) {
        return false;
    }
    sim_client_break(simulation, client);
    return true;
}

static struct sim_worker *some_worker(struct simulation *simulation)
{
    return &simulation
                ->workers[dice_below(&simulation->dice, simulation->scenario.options.workers)];
}

static bool break_worker(struct simulation *simulation)
{
    struct sim_worker *worker = some_worker(simulation);
    if (!worker->is_welcome) {
        return false;
    }
    sim_worker_break(simulation, worker);
    return true;
}

static bool kill_worker(struct simulation *simulation)
{
    struct sim_worker *worker = some_worker(simulation);
    if (worker->state == WORKER_DOWN) {
        return false;
    }
    sim_worker_kill(simulation, worker, dice_hit(&simulation->dice, 300));
    return true;
}

static bool kill_workers(struct simulation *simulation)
{
    const uint32_t permille = (uint32_t)dice_between(&simulation->dice, 100, 1000);
    const bool are_heard = dice_hit(&simulation->dice, 500);
    bool has_killed = false;
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        struct sim_worker *worker = &simulation->workers[i];
        if (worker->state != WORKER_DOWN && dice_hit(&simulation->dice, permille)) {
            sim_worker_kill(simulation, worker, are_heard);
            has_killed = true;
        }
    }
    return has_killed;
}

static bool drain_worker(struct simulation *simulation)
{
    struct sim_worker *worker = some_worker(simulation);
    if (worker->state != WORKER_UP || !worker->is_welcome) {
        return false;
    }
    if (dice_hit(&simulation->dice, 500)) { /* it has no time for that */
        sim_worker_leave(simulation, worker);
    } else {
        sim_worker_drain(simulation, worker);
    }
    return true;
}

static uint64_t subjects(const struct simulation *simulation, enum pause_subject subject)
{
    switch (subject) {
    case PAUSE_ROUTE:
        return SCENARIO_ROUTES;
    case PAUSE_TIER:
        return SCENARIO_TIERS;
    case PAUSE_TENANT:
        return SCENARIO_TENANTS;
    case PAUSE_WORKER:
        return simulation->scenario.options.workers;
    }
    return 0;
}

static bool pause_something(struct simulation *simulation)
{
    struct dice *dice = &simulation->dice;
    if (!simulation->broker.is_up) {
        return false;
    }
    const int subject = (int)dice_below(dice, PAUSE_WORKER + 1);
    struct message message = {
        .to_broker = true,
        .event = EVENT_PAUSE,
        .job = NO_JOB,
        .number = subject,
        .second = dice_hit(dice, 700) ? PAUSE_HOLD : PAUSE_DRAIN,
        .total = dice_below(dice, subjects(simulation, (enum pause_subject)subject)),
    };
    sim_broker_hear(simulation, &message);
    message.event = EVENT_RESUME;
    schedule_add(&simulation->schedule, simulation->now_ms + dice_between(dice, 1, PAUSE_MS_MAX),
                 TASK_RESUME, 0, 0, &message);
    return true;
}

static int throw_action(struct simulation *simulation)
{
    return dice_hit(&simulation->dice, 700) ? DEAD_REQUEUE : DEAD_DROP;
}

/* Mostly the first dead letter behind some job; sometimes what is none. */
static bool handle_dead_letter(struct simulation *simulation)
{
    struct dice *dice = &simulation->dice;
    if (!simulation->broker.is_up || simulation->jobs_length == 0) {
        return false;
    }
    uint32_t job = (uint32_t)dice_below(dice, simulation->jobs_length);
    for (uint32_t i = 0; i < simulation->jobs_length && dice_hit(dice, 999) &&
                         simulation->jobs[job].shown != WIRE__JOB_STATE__JOB_STATE_DEAD;
         i++) {
        job = (job + 1) % simulation->jobs_length;
    }
    const struct message message = {
        .to_broker = true, .event = EVENT_DEAD_ONE, .job = job, .number = throw_action(simulation)};
    sim_broker_hear(simulation, &message);
    return true;
}

static bool sweep(struct simulation *simulation)
{
    struct dice *dice = &simulation->dice;
    if (!simulation->broker.is_up) {
        return false;
    }
    const bool stops = dice_hit(dice, 200);
    const int sweeps = !stops && dice_hit(dice, 50) ? SWEEPS_AT_ONCE : 1;
    const struct message message = {
        .to_broker = true,
        .event = stops ? EVENT_DEAD_STOP : EVENT_DEAD_SWEEP,
        .job = NO_JOB,
        .number = throw_action(simulation),
        /* parts of the filter */
        .second = (int)dice_below(dice, 8) | dice_hit(dice, 200) * 8 | dice_hit(dice, 200) * 16,
        .total = stops ? core_latest_sweep(simulation->broker.core) - dice_below(dice, 3)
                       : dice_below(dice, 20),
    };
    for (int i = 0; i < sweeps; i++) {
        sim_broker_hear(simulation, &message);
    }
    return true;
}

static bool strike(struct simulation *simulation, enum fault_kind kind)
{
    switch (kind) {
    case FAULT_CRASH:
        return sim_broker_crash(simulation);
    case FAULT_STORE_DOWN:
        return sim_broker_store_down(simulation);
    case FAULT_LOADS_FAIL:
        return fail_loads(simulation);
    case FAULT_WALL_JUMP:
        return jump_wall(simulation);
    case FAULT_MONO_JUMP:
        return jump_mono(simulation);
    case FAULT_PARTITION:
        return cut_off(simulation);
    case FAULT_CLIENT_BREAK:
        return break_client(simulation);
    case FAULT_WORKER_BREAK:
        return break_worker(simulation);
    case FAULT_WORKER_KILL:
        return kill_worker(simulation);
    case FAULT_WORKERS_KILL:
        return kill_workers(simulation);
    case FAULT_UPSTREAM:
        return upstream_trouble(simulation,
                                (uint32_t)dice_below(&simulation->dice, SCENARIO_UPSTREAMS));
    case FAULT_RESTART:
        return sim_broker_restart(simulation);
    case FAULT_RELOAD:
        return sim_broker_reload(simulation);
    case FAULT_PAUSE:
        return pause_something(simulation);
    case FAULT_WORKER_LEAVE:
        return drain_worker(simulation);
    case FAULT_DEAD_ONE:
        return handle_dead_letter(simulation);
    case FAULT_DEAD_SWEEP:
        return sweep(simulation);
    case FAULTS:
        break;
    }
    return false;
}

/* ---- one after the other ---- */

static enum fault_kind choose(struct simulation *simulation, int first, int last)
{
    const uint32_t *weight = simulation->scenario.faults.weight;
    uint64_t weights = 0;
    for (int kind = first; kind < last; kind++) {
        weights += weight[kind];
    }
    uint64_t at = dice_below(&simulation->dice, weights);
    int kind = first;
    while (kind < last - 1 && at >= weight[kind]) {
        at -= weight[kind++];
    }
    return weights == 0 ? FAULTS : (enum fault_kind)kind;
}

/* False: of what was tried, nothing could happen. */
static bool strike_any(struct simulation *simulation, int first, int last)
{
    for (int i = 0; i < TRIES; i++) {
        const enum fault_kind kind = choose(simulation, first, last);
        if (strike(simulation, kind)) {
            simulation_trace(simulation, "fault of kind %" PRIu64 "", kind, 0, 0);
            simulation->tally.faults[kind]++;
            return true;
        }
    }
    return false;
}

/* Evenly, but for chance; a little more often than needed, so that all of them fit. */
static void plan(struct simulation *simulation, enum task_kind task, uint32_t count)
{
    const int64_t all_ms = (int64_t)simulation->scenario.options.minutes * 60000;
    if (count > 0) {
        schedule_add(&simulation->schedule,
                     simulation->now_ms +
                         dice_between(&simulation->dice, 1, all_ms * 8 / 5 / count),
                     task, 0, 0, NULL);
    }
}

static void plan_again(struct simulation *simulation, enum task_kind task, uint32_t count,
                       bool has_struck)
{
    if (has_struck) {
        plan(simulation, task, count);
    } else {
        schedule_add(&simulation->schedule, simulation->now_ms + RETRY_MS, task, 0, 0, NULL);
    }
}

void faults_begin(struct simulation *simulation)
{
    plan(simulation, TASK_FAULT, simulation->scenario.faults.count);
    plan(simulation, TASK_OPERATOR, simulation->scenario.faults.count_of_operators);
}

void faults_strike(struct simulation *simulation)
{
    if (!simulation->is_quiet) {
        plan_again(simulation, TASK_FAULT, simulation->scenario.faults.count,
                   strike_any(simulation, 0, FAULTS_OF_OPERATORS));
    }
}

void faults_operate(struct simulation *simulation)
{
    if (!simulation->is_quiet) {
        (void)strike_any(simulation, FAULTS_OF_OPERATORS, FAULTS);
        plan(simulation, TASK_OPERATOR, simulation->scenario.faults.count_of_operators);
    }
}

/* ---- the end ---- */

void faults_resume_all(struct simulation *simulation)
{
    const struct sim_broker *broker = &simulation->broker;
    for (uint32_t i = 0; i < broker->holds_length && broker->is_up; i++) {
        const struct message message = {.to_broker = true,
                                        .event = EVENT_RESUME,
                                        .job = NO_JOB,
                                        .number = (int)broker->holds[i].subject,
                                        .total = broker->holds[i].index};
        sim_broker_hear(simulation, &message);
    }
}

void faults_end(struct simulation *simulation)
{
    simulation->is_quiet = true;
    scenario_change_back(&simulation->scenario);
    (void)sim_broker_reload(simulation); /* else it reads them at its start */
    simulation_trace(simulation, "the world is quiet now", 0, 0, 0);
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        upstream_heal(simulation, i);
    }
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        simulation->clients[i].cut_until_ms = 0;
    }
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        simulation->workers[i].cut_until_ms = 0;
    }
    simulation->broker.loads_fail_until_ms = 0;
    if (simulation->broker.is_up) { /* else it starts soon */
        sim_broker_store_up(simulation);
    }
    faults_resume_all(simulation);
}
