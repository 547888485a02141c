#include "tests/simulation/faults.h"
#include <inttypes.h>
#include "tests/simulation/broker.h"
#include "tests/simulation/client.h"
#include "tests/simulation/worker.h"

enum { JUMP_MS_MAX = 120000, PAUSE_MS_MAX = 15000 };

static void jump_clock(struct simulation *simulation)
{
    const int64_t jump_ms = dice_between(&simulation->dice, -JUMP_MS_MAX, JUMP_MS_MAX);
    simulation->broker.unix_offset_ms += jump_ms;
    simulation->clock_jumped_ms += jump_ms < 0 ? -jump_ms : jump_ms;
    simulation_trace(simulation, "wall clock jumps, now off by %" PRId64 " ms%.0s%.0s",
                     (uint64_t)simulation->broker.unix_offset_ms, 0, 0);
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

static void pause_something(struct simulation *simulation)
{
    struct dice *dice = &simulation->dice;
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
}

static void trouble_clients(struct simulation *simulation)
{
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        if (simulation_hit(simulation, simulation->scenario.faults.client_break)) {
            sim_client_break(simulation, &simulation->clients[i]);
        }
    }
}

static void trouble_workers(struct simulation *simulation)
{
    const struct faults *faults = &simulation->scenario.faults;
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        struct sim_worker *worker = &simulation->workers[i];
        if (simulation_hit(simulation, faults->worker_break)) {
            sim_worker_break(simulation, worker);
        }
        if (simulation_hit(simulation, faults->worker_kill)) {
            sim_worker_kill(simulation, worker, dice_hit(&simulation->dice, 300));
        }
        if (simulation_hit(simulation, faults->worker_leave)) {
            sim_worker_drain(simulation, worker);
        }
    }
}

/* What an operator resumed just before a crash may be paused again after it. */
static void resume_everything(struct simulation *simulation)
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

void faults_tick(struct simulation *simulation)
{
    const struct faults *faults = &simulation->scenario.faults;
    schedule_add(&simulation->schedule, simulation->now_ms + TICK_MS, TASK_FAULTS, 0, 0, NULL);
    if (simulation->is_quiet) {
        resume_everything(simulation);
        return;
    }
    trouble_clients(simulation);
    trouble_workers(simulation);
    if (simulation_hit(simulation, faults->clock_jump)) {
        jump_clock(simulation);
    }
    if (simulation_hit(simulation, faults->store_down)) {
        sim_broker_store_down(simulation);
    }
    if (simulation->broker.is_up && simulation_hit(simulation, faults->pause)) {
        pause_something(simulation);
    }
    if (simulation_hit(simulation, faults->reload)) {
        sim_broker_reload(simulation);
    }
    if (simulation_hit(simulation, faults->crash)) {
        sim_broker_crash(simulation);
    }
    if (simulation_hit(simulation, faults->restart)) {
        sim_broker_restart(simulation);
    }
}

void faults_end(struct simulation *simulation)
{
    simulation->is_quiet = true;
    simulation_trace(simulation, "the world is quiet now%.0s%.0s%.0s", 0, 0, 0);
    if (!simulation->broker.is_up) {
        return; /* it starts soon */
    }
    sim_broker_store_up(simulation);
}
