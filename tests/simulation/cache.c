#include "tests/simulation/cache.h"
#include <inttypes.h>
#include "broker/core/core.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/evidence.h"
#include "tests/simulation/invalidations.h"
#include "tests/simulation/network.h"

enum {
    BURST_MAX = 20,
    FLOOD = CACHE_LOG_UNTOLD_MAX + 200,
    JUDGED = 300,
};

/* ---- clients ---- */

static void ask(struct simulation *simulation, const struct sim_client *client, struct ask *asked)
{
    asked->number = invalidations_ask(simulation, client->index);
    const struct message message = {.to_broker = true,
                                    .event = EVENT_CACHE_INVALIDATE,
                                    .peer = client->peer,
                                    .job = NO_JOB,
                                    .number = asked->salt,
                                    .total = asked->number};
    network_send(simulation, &message);
}

static int throw_salt(struct simulation *simulation)
{
    return (int)dice_below(&simulation->dice, 1 << 20);
}

static void invalidate_as_client(struct simulation *simulation, struct sim_client *client)
{
    if (client->asks_length < INVALIDATING_MAX) {
        struct ask *asked = &client->asks[client->asks_length++];
        *asked = (struct ask){.salt = throw_salt(simulation)};
        ask(simulation, client, asked);
    }
}

void cache_hear_client_welcome(struct simulation *simulation, struct sim_client *client)
{
    for (uint32_t i = 0; i < client->asks_length; i++) {
        ask(simulation, client, &client->asks[i]);
    }
}

/* What was refused for now. */
static void ask_again(struct simulation *simulation)
{
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        struct sim_client *client = &simulation->clients[i];
        for (uint32_t j = 0; j < client->asks_length && client->is_welcome; j++) {
            if (client->asks[j].number == 0) {
                ask(simulation, client, &client->asks[j]);
            }
        }
    }
}

void cache_hear_invalidated(struct sim_client *client, const struct message *message)
{
    uint32_t i = 0;
    while (i < client->asks_length && client->asks[i].number != message->total) {
        i++;
    }
    if (i == client->asks_length) {
        return; /* the answer has come twice */
    }
    if (message->flag && message->time_ms > 0) {
        client->asks[i].number = 0; /* later */
    } else {
        client->asks[i] = client->asks[--client->asks_length];
    }
}

static void give_feedback(struct simulation *simulation, const struct sim_client *client)
{
    struct dice *dice = &simulation->dice;
    const uint32_t of_tenant = SCENARIO_TIERS * EMBEDDERS;
    const struct message message = {
        .to_broker = true,
        .event = EVENT_CACHE_FEEDBACK,
        .peer = client->peer,
        .job = NO_JOB,
        .number = (int)(client->tenant * of_tenant + dice_below(dice, of_tenant)),
        .flag = dice_hit(dice, 500),
        .digest = dice_below(dice, dice_hit(dice, 500) ? 2 : 256), /* some are said twice */
        .total = dice_below(dice, 4000),
    };
    network_send(simulation, &message);
}

/* On one of the latest jobs, of whichever tenant. */
static void judge(struct simulation *simulation, const struct sim_client *client)
{
    struct dice *dice = &simulation->dice;
    if (simulation->jobs_length == 0) {
        return;
    }
    const uint32_t among = simulation->jobs_length < JUDGED ? simulation->jobs_length : JUDGED;
    const struct message message = {
        .to_broker = true,
        .event = EVENT_FEEDBACK,
        .peer = client->peer,
        .job = simulation->jobs_length - 1 - (uint32_t)dice_below(dice, among),
        .other_job = NO_JOB,
        .total = dice_below(dice, 1001),
        .flag = dice_hit(dice, 200),
    };
    network_send(simulation, &message);
}

/* ---- an operator ---- */

static void invalidate_as_operator(struct simulation *simulation)
{
    const struct message message = {.to_broker = true,
                                    .event = EVENT_CACHE_INVALIDATE,
                                    .job = NO_JOB,
                                    .number = throw_salt(simulation)};
    if (simulation->broker.is_up) {
        sim_broker_hear(simulation, &message);
    }
}

/* ---- workers ---- */

/* Mostly of the epoch that it knows; sometimes of one that nobody has announced, or over another
 * scale, or of a tier that is not there. */
static void report(struct simulation *simulation, const struct sim_worker *worker)
{
    struct dice *dice = &simulation->dice;
    const uint32_t which = (uint32_t)dice_below(dice, EVIDENCE_CLASSES);
    const uint64_t ahead = dice_hit(dice, 30) ? dice_below(dice, 3) : 0;
    const struct message message = {
        .to_broker = true,
        .event = EVENT_CACHE_EVIDENCE,
        .peer = worker->peer,
        .job = NO_JOB,
        .number = (int)(which + (dice_hit(dice, 20) ? EVIDENCE_CLASSES : 0)),
        .second = dice_hit(dice, 30) ? 2 : dice_hit(dice, 700),
        .payload = dice_hit(dice, 10)
                       ? evidence_spoilt()
                       : evidence_delta(simulation, which, worker->newest[which] + ahead,
                                        dice_hit(dice, 30)),
    };
    network_send(simulation, &message);
}

static void hear_told(struct simulation *simulation, struct sim_worker *worker,
                      const struct message *message)
{
    const uint64_t sequence = worker->cache.sequence;
    if (!worker->is_welcome || message->total <= sequence) {
        return;
    }
    if (message->total > sequence + 1) {
        simulation_violate(simulation,
                           "%s hears of invalidation %" PRIu64 " and has come to %" PRIu64,
                           worker->name, message->total, sequence);
    }
    worker->cache.sequence = message->total;
    if (dice_hit(&simulation->dice, 500)) {
        worker->cache.saved = worker->cache.sequence;
    }
}

/* Behind it clears its cache, and has nothing that could be older. */
static void hear_welcome(struct sim_worker *worker, const struct message *message)
{
    worker->cache.sequence = worker->cache.saved = message->total;
    worker->cache.is_foreign = false;
}

void cache_hear_worker(struct simulation *simulation, struct sim_worker *worker,
                       const struct message *message)
{
    if (message->effect == EFFECT_WORKER_WELCOME && !worker->is_welcome) {
        hear_welcome(worker, message);
    } else if (message->effect == EFFECT_CACHE_INVALIDATE) {
        hear_told(simulation, worker, message);
    } else if (message->effect == EFFECT_CACHE_EVIDENCE && message->number < EVIDENCE_CLASSES) {
        worker->newest[message->number] = message->total;
    }
}

/* It has what it saved; or an older copy of its disk; or nothing; or what it had of another broker,
 * or of this one before its store was lost. */
void cache_restart_worker(struct simulation *simulation, struct sim_worker *worker)
{
    struct dice *dice = &simulation->dice;
    worker->cache.sequence = worker->cache.saved;
    if (dice_hit(dice, 200)) {
        worker->cache.sequence = dice_below(dice, worker->cache.saved + 1);
    } else if (dice_hit(dice, 100)) {
        worker->cache.sequence = worker->cache.saved + 1 + dice_below(dice, 50);
        worker->cache.is_foreign = dice_hit(dice, 500);
    }
    worker->cache.saved = worker->cache.sequence;
}

/* ---- who does what ---- */

static void act_once(struct simulation *simulation)
{
    struct dice *dice = &simulation->dice;
    struct sim_client *client =
        &simulation->clients[dice_below(dice, simulation->scenario.clients)];
    const struct sim_worker *worker =
        &simulation->workers[dice_below(dice, simulation->scenario.options.workers)];
    const uint64_t what = dice_below(dice, 10);
    if (what < 3 && client->is_welcome) {
        invalidate_as_client(simulation, client);
    } else if (what == 3) {
        invalidate_as_operator(simulation);
    } else if (what < 6 && client->is_welcome) {
        give_feedback(simulation, client);
    } else if (what < 8 && worker->is_welcome) { /* many hear of what each says */
        report(simulation, worker);
    } else if (what == 8 && client->is_welcome) {
        judge(simulation, client);
    }
}

/* More than may wait for the disk, and than one tenant may ask for: clients are refused for now. */
static void flood(struct simulation *simulation)
{
    for (int i = 0; i < FLOOD; i++) {
        invalidate_as_operator(simulation);
    }
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        for (int j = 0; j < INVALIDATING_MAX && simulation->clients[i].is_welcome; j++) {
            invalidate_as_client(simulation, &simulation->clients[i]);
            give_feedback(simulation, &simulation->clients[i]);
        }
    }
}

void cache_act(struct simulation *simulation)
{
    struct dice *dice = &simulation->dice;
    const int64_t every_ms_max = simulation->scenario.cache.every_ms_max;
    if (every_ms_max == 0) {
        return;
    }
    ask_again(simulation);
    const uint64_t times = dice_hit(dice, 100) ? 1 + dice_below(dice, BURST_MAX) : 1;
    for (uint64_t i = 0; i < times && !simulation->is_quiet; i++) {
        act_once(simulation);
    }
    if (simulation->scenario.cache.floods && simulation->broker.store_is_down &&
        !simulation->is_quiet) {
        flood(simulation);
        simulation->scenario.cache.floods = false;
    }
    schedule_add(&simulation->schedule, simulation->now_ms + dice_between(dice, 1, every_ms_max),
                 TASK_CACHE, 0, 0, NULL);
}
