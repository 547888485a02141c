#include "tests/simulation/simulation.h"
#include <endian.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "tests/simulation/broker.h"
#include "tests/simulation/client.h"
#include "tests/simulation/faults.h"
#include "tests/simulation/memory.h"
#include "tests/simulation/network.h"
#include "tests/simulation/oracle.h"
#include "tests/simulation/worker.h"

enum {
    CHECK_EVERY = 512, /* tasks between two full checks, or as many as there are jobs */
    LINGER_MS = 5000,  /* after all is settled: for what nobody waits for */
};

void simulation_violate(struct simulation *simulation, const char *format, ...)
{
    if (simulation->violation[0] != '\0') {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(simulation->violation, sizeof(simulation->violation), format, arguments);
    va_end(arguments);
}

uint32_t simulation_job_of(const struct simulation *simulation, const struct id *id)
{
    uint32_t index;
    memcpy(&index, id->bytes + ID_BYTES - sizeof(index), sizeof(index));
    index = be32toh(index);
    return index < simulation->jobs_length && id_equal(&simulation->jobs[index].id, id) ? index
                                                                                        : NO_JOB;
}

void message_list_add(struct message_list *list, const struct message *message)
{
    if (list->length == list->capacity) {
        list->capacity = list->capacity * 2 + 16;
        list->items = must(reallocarray(list->items, list->capacity, sizeof(*list->items)));
    }
    list->items[list->length++] = *message;
}

void message_list_clear(struct message_list *list)
{
    for (size_t i = 0; i < list->length; i++) {
        message_finish(&list->items[i]);
    }
    list->length = 0;
}

/* ------------------------------------------------------------------------------------------------
 * what happens */

static void arrive(struct simulation *simulation)
{
    const struct options *options = &simulation->scenario.options;
    struct sim_client *client =
        &simulation->clients[dice_below(&simulation->dice, simulation->scenario.clients)];
    sim_client_add_job(simulation, client);
    if (simulation->jobs_length < options->jobs) {
        /* In bursts, and all of them within the time of trouble. */
        const int64_t mean_ms = (int64_t)options->minutes * 60000 / options->jobs;
        const int64_t wait_ms =
            dice_hit(&simulation->dice, 500) ? 0 : dice_between(&simulation->dice, 0, mean_ms * 3);
        schedule_add(&simulation->schedule, simulation->now_ms + wait_ms, TASK_ARRIVAL, 0, 0, NULL);
    }
}

static void deliver(struct simulation *simulation, struct task *task)
{
    struct message *message = &task->message;
    const struct link *link = network_link(simulation, message->peer);
    if (message->to_broker) {
        if (simulation->broker.is_up && link->incarnation == simulation->broker.incarnation) {
            const struct message taken = *message;
            *message = (struct message){0};
            sim_broker_hear(simulation, &taken);
        }
    } else if (link->is_worker) {
        sim_worker_hear(simulation, &simulation->workers[link->owner], message);
    } else {
        sim_client_hear(simulation, &simulation->clients[link->owner], message);
    }
}

static void hear_loaded(struct simulation *simulation, struct task *task)
{
    if (simulation->broker.store_is_down) {
        const struct message waiting = message_copy(&task->message);
        schedule_add(&simulation->schedule, simulation->now_ms + TICK_MS, TASK_STORE_LOADED, 0,
                     task->generation, &waiting);
        return;
    }
    const struct message taken = message_copy(&task->message);
    sim_broker_hear(simulation, &taken);
}

static void resume(struct simulation *simulation, const struct task *task)
{
    if (simulation->broker.is_up) {
        sim_broker_hear(simulation, &task->message);
    } else {
        schedule_add(&simulation->schedule, simulation->now_ms + TICK_MS, TASK_RESUME, 0, 0,
                     &task->message);
    }
}

static void run_task(struct simulation *simulation, struct task *task)
{
    const bool is_of_this_broker = task->generation == simulation->broker.incarnation;
    switch (task->kind) {
    case TASK_DELIVER:
        deliver(simulation, task);
        break;
    case TASK_BROKER_TURN:
        if (simulation->broker.is_up && is_of_this_broker) {
            sim_broker_turn(simulation);
        }
        break;
    case TASK_BROKER_START:
        sim_broker_start(simulation);
        break;
    case TASK_STORE_SYNC:
        if (simulation->broker.is_up && is_of_this_broker) {
            sim_broker_store_sync(simulation);
        }
        break;
    case TASK_STORE_UP:
        if (simulation->broker.is_up && is_of_this_broker) {
            sim_broker_store_up(simulation);
        }
        break;
    case TASK_STORE_LOADED:
        if (simulation->broker.is_up && is_of_this_broker) {
            hear_loaded(simulation, task);
        }
        break;
    case TASK_CLIENT_TICK:
        sim_client_tick(simulation, &simulation->clients[task->who]);
        break;
    case TASK_WORKER_TICK:
        sim_worker_tick(simulation, &simulation->workers[task->who]);
        break;
    case TASK_ATTEMPT_END:
        if (simulation->workers[task->who].life == task->generation) {
            const struct job_lease lease = {task->message.job, task->message.attempt};
            sim_worker_end_attempt(simulation, &simulation->workers[task->who], &lease);
        }
        break;
    case TASK_ARRIVAL:
        arrive(simulation);
        break;
    case TASK_FAULTS:
        faults_tick(simulation);
        break;
    case TASK_RESUME:
        resume(simulation, task);
        break;
    }
}

/* ------------------------------------------------------------------------------------------------------
 * a run */

static void begin(struct simulation *simulation, const struct options *options,
                  enum trace_mode mode)
{
    simulation->dice.state = options->seed;
    trace_init(&simulation->trace, mode);
    scenario_init(&simulation->scenario, options, &simulation->dice);
    schedule_init(&simulation->schedule);
    simulation->now_ms = BEGIN_MS;
    simulation->quiet_from_ms = BEGIN_MS + (int64_t)options->minutes * 60000;
    simulation->jobs = must(calloc(options->jobs, sizeof(*simulation->jobs)));
    const size_t keys = ((size_t)simulation->scenario.keys + 1) * SCENARIO_TENANTS;
    simulation->key_owners = must(malloc(keys * sizeof(*simulation->key_owners)));
    memset(simulation->key_owners, 0xff, keys * sizeof(*simulation->key_owners)); /* NO_JOB */
    simulation->workers = must(calloc(options->workers, sizeof(*simulation->workers)));
    sim_broker_init(simulation);
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        sim_client_init(simulation, i);
    }
    for (uint32_t i = 0; i < options->workers; i++) {
        sim_worker_init(simulation, i);
    }
    schedule_add(&simulation->schedule, BEGIN_MS, TASK_ARRIVAL, 0, 0, NULL);
    schedule_add(&simulation->schedule, BEGIN_MS + TICK_MS, TASK_FAULTS, 0, 0, NULL);
}

static void finish(struct simulation *simulation)
{
    sim_broker_finish(simulation);
    schedule_finish(&simulation->schedule);
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        sim_client_finish(&simulation->clients[i]);
    }
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        sim_worker_finish(&simulation->workers[i]);
    }
    free(simulation->workers);
    free(simulation->jobs);
    free(simulation->key_owners);
    free(simulation->links);
    trace_finish(&simulation->trace);
}

/* False when no time is left or a promise is broken. */
static bool advance(struct simulation *simulation, int64_t until_ms)
{
    if (schedule_next_ms(&simulation->schedule) > until_ms) {
        return false;
    }
    struct task *task = schedule_take(&simulation->schedule, &simulation->now_ms);
    run_task(simulation, task);
    schedule_release(&task);
    const uint32_t jobs = simulation->scenario.options.jobs;
    if (++simulation->events % (jobs > CHECK_EVERY ? jobs : CHECK_EVERY) == 0) {
        oracle_check(simulation);
    }
    return simulation->violation[0] == '\0';
}

static void name_unsettled(struct simulation *simulation)
{
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        if (simulation->clients[i].open_length > 0) {
            const uint32_t job = simulation->clients[i].open[0];
            simulation_violate(
                simulation, "job %u of tier %u has no outcome %" PRId64 " ms after the last fault",
                job, simulation->jobs[job].tier, simulation->now_ms - simulation->quiet_from_ms);
        }
    }
    simulation_violate(simulation, "the broker is not at rest %" PRId64 " ms after the last fault",
                       simulation->now_ms - simulation->quiet_from_ms);
}

/* Trouble, then peace until every client has every outcome, then a look at what is left. */
static void live(struct simulation *simulation)
{
    while (advance(simulation, simulation->quiet_from_ms)) {
    }
    if (simulation->violation[0] != '\0') {
        return;
    }
    faults_end(simulation);
    const int64_t end_ms = simulation->quiet_from_ms + QUIET_MS_MAX;
    while (!oracle_is_settled(simulation)) {
        if (!advance(simulation, end_ms)) {
            name_unsettled(simulation);
            return;
        }
    }
    const int64_t linger_ms = simulation->now_ms + LINGER_MS;
    while (advance(simulation, linger_ms)) {
    }
    oracle_check_end(simulation);
}

void simulation_run(const struct options *options, enum trace_mode mode,
                    struct outcome *ret_outcome)
{
    struct simulation *simulation = must(calloc(1, sizeof(*simulation)));
    begin(simulation, options, mode);
    live(simulation);
    *ret_outcome = (struct outcome){
        .events = simulation->events, .steps = simulation->steps, .hash = simulation->trace.hash};
    for (uint32_t i = 0; i < simulation->jobs_length; i++) {
        ret_outcome->acknowledged += simulation->jobs[i].acknowledged_incarnation != 0;
        ret_outcome->succeeded += simulation->jobs[i].shown == WIRE__JOB_STATE__JOB_STATE_SUCCEEDED;
    }
    memcpy(ret_outcome->violation, simulation->violation, sizeof(simulation->violation));
    if (simulation->violation[0] != '\0') {
        trace_print_tail(&simulation->trace);
    }
    finish(simulation);
    free(simulation);
}
