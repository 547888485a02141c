#include "tests/simulation/simulation.h"
#include <endian.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "tests/simulation/bill.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/cache.h"
#include "tests/simulation/client.h"
#include "tests/simulation/evidence.h"
#include "tests/simulation/faults.h"
#include "tests/simulation/invalidations.h"
#include "tests/simulation/memory.h"
#include "tests/simulation/network.h"
#include "tests/simulation/oracle.h"
#include "tests/simulation/worker.h"

enum {
    CHECK_STEPS = 10000, /* of the core between two full checks */
    RETRY_MS = 250,
    HELLO_PATIENCE_MS = 5000,
    HELLO_DOUBLINGS = 3,
    LINGER_MS = 5000, /* after all is settled: for what nobody waits for */
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

uint64_t tally_faults(const struct tally *tally)
{
    uint64_t faults = 0;
    for (int kind = 0; kind < FAULTS_OF_OPERATORS; kind++) {
        faults += tally->faults[kind];
    }
    return faults;
}

int64_t simulation_patience_ms(struct simulation *simulation, uint32_t hellos)
{
    const int64_t ms = (int64_t)HELLO_PATIENCE_MS
                       << (hellos < HELLO_DOUBLINGS ? hellos : HELLO_DOUBLINGS);
    return dice_between(&simulation->dice, ms, 2 * ms);
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
    do {
        struct sim_client *client =
            &simulation->clients[dice_below(&simulation->dice, simulation->scenario.clients)];
        sim_client_add_job(simulation, client);
    } while (simulation->jobs_length < simulation->scenario.crowd ||
             (simulation->jobs_length < options->jobs &&
              dice_hit(&simulation->dice, simulation->scenario.burst)));
    if (simulation->jobs_length < options->jobs) {
        /* On average so that all of them come within the time of trouble. */
        const int64_t all_ms = (int64_t)options->minutes * 60000;
        const int64_t bursts = (int64_t)options->jobs * (1000 - simulation->scenario.burst) / 1000;
        const int64_t wait_ms =
            dice_between(&simulation->dice, 0, all_ms * 9 / 5 / (bursts > 0 ? bursts : 1));
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

/* Owner of a connection on which something was lost: it notices now. */
static void notice_break(struct simulation *simulation, uint64_t peer)
{
    const struct link *link = network_link(simulation, peer);
    if (link->is_worker && simulation->workers[link->owner].peer == peer) {
        sim_worker_break(simulation, &simulation->workers[link->owner]);
    } else if (!link->is_worker && simulation->clients[link->owner].peer == peer) {
        sim_client_break(simulation, &simulation->clients[link->owner]);
    }
}

static void hear_loaded(struct simulation *simulation, struct task *task)
{
    if (simulation->broker.store_is_down) {
        const struct message waiting = message_copy(&task->message);
        schedule_add(&simulation->schedule, simulation->now_ms + RETRY_MS, TASK_STORE_LOADED, 0,
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
        schedule_add(&simulation->schedule, simulation->now_ms + RETRY_MS, TASK_RESUME, 0, 0,
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
    case TASK_CLIENT_WAKE:
        sim_client_wake(simulation, &simulation->clients[task->who], task->generation);
        break;
    case TASK_WORKER_WAKE:
        sim_worker_wake(simulation, &simulation->workers[task->who], task->generation);
        break;
    case TASK_LINK_BROKEN:
        notice_break(simulation, task->generation);
        break;
    case TASK_ATTEMPT_END:
        if (simulation->workers[task->who].life == task->generation) {
            const struct job_lease lease = {task->message.job, task->message.attempt};
            sim_worker_end_attempt(simulation, &simulation->workers[task->who], &lease);
        }
        break;
    case TASK_HEDGE:
        if (simulation->workers[task->who].life == task->generation) {
            const struct job_lease lease = {task->message.job, task->message.attempt};
            sim_worker_ask_hedge(simulation, &simulation->workers[task->who], &lease);
        }
        break;
    case TASK_CHUNK:
        if (simulation->workers[task->who].life == task->generation) {
            sim_worker_chunk(simulation, &simulation->workers[task->who], &task->message);
        }
        break;
    case TASK_ARRIVAL:
        arrive(simulation);
        break;
    case TASK_CACHE:
        cache_act(simulation);
        break;
    case TASK_MEDDLE:
        sim_client_meddle(simulation);
        break;
    case TASK_FAULT:
        faults_strike(simulation);
        break;
    case TASK_OPERATOR:
        faults_operate(simulation);
        break;
    case TASK_UPSTREAM:
        if (simulation->upstreams[task->who].generation == task->generation) {
            upstream_heal(simulation, task->who);
        }
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
    simulation->jobs = must(calloc(simulation->scenario.options.jobs, sizeof(*simulation->jobs)));
    const size_t keys = ((size_t)simulation->scenario.keys + 1) * SCENARIO_TENANTS;
    simulation->key_owners = must(malloc(keys * sizeof(*simulation->key_owners)));
    memset(simulation->key_owners, 0xff, keys * sizeof(*simulation->key_owners)); /* NO_JOB */
    simulation->workers = must(calloc(options->workers, sizeof(*simulation->workers)));
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        upstream_init(simulation, i);
    }
    sim_broker_init(simulation);
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        sim_client_init(simulation, i);
    }
    for (uint32_t i = 0; i < options->workers; i++) {
        sim_worker_init(simulation, i);
    }
    schedule_add(&simulation->schedule, BEGIN_MS, TASK_ARRIVAL, 0, 0, NULL);
    schedule_add(&simulation->schedule, BEGIN_MS, TASK_MEDDLE, 0, 0, NULL);
    schedule_add(&simulation->schedule, BEGIN_MS, TASK_CACHE, 0, 0, NULL);
    faults_begin(simulation);
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
    invalidations_finish(simulation);
    evidence_finish(simulation);
    bill_finish(simulation);
    free(simulation->key_owners);
    for (uint64_t i = 0; i < simulation->links_length; i++) {
        free(simulation->links[i]);
    }
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
    schedule_release(&simulation->schedule, &task);
    simulation->events++;
    if (simulation->steps >= simulation->checked_steps + CHECK_STEPS) {
        simulation->checked_steps = simulation->steps;
        oracle_check(simulation);
    }
    return simulation->violation[0] == '\0';
}

static void name_unsettled(struct simulation *simulation)
{
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        if (simulation->clients[i].asks_length > 0) {
            simulation_violate(simulation, "client %u has no answer to its invalidation", i);
        }
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

/* A run in which little went wrong proves little. */
static void check_faults(struct simulation *simulation)
{
    const uint64_t faults = tally_faults(&simulation->tally);
    if (faults < FAULTS_MIN && simulation->scenario.options.minutes >= FAULTS_MINUTES) {
        simulation_violate(simulation, "only %" PRIu64 " faults happened in %u minutes", faults,
                           simulation->scenario.options.minutes);
    }
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
    check_faults(simulation);
    const int64_t end_ms = simulation->quiet_from_ms + QUIET_MS_MAX;
    while (!oracle_is_settled(simulation)) {
        if (!advance(simulation, end_ms)) {
            name_unsettled(simulation);
            return;
        }
    }
    const int64_t linger_ms = simulation->now_ms + LINGER_MS + bill_settles_ms(simulation);
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
        .events = simulation->events,
        .steps = simulation->steps,
        .hash = simulation->trace.hash,
        .tally = simulation->tally,
    };
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
