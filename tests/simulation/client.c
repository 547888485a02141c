#include "tests/simulation/client.h"
#include <string.h>
#include <xxhash.h>
#include "tests/simulation/broker.h"
#include "tests/simulation/cache.h"
#include "tests/simulation/defect.h"
#include "tests/simulation/memory.h"
#include "tests/simulation/network.h"
#include "tests/simulation/worker.h"

enum {
    GONE_MS_MAX = 30000, /* until the broker learns of a client that is gone */
    ASKS_MAX = 8,        /* refusals for now that a client puts up with */
    REFUSED_MORE_MS = 5000,
    REFUSED_MS_MAX = 60000, /* until it comes again, whatever the broker said */
    DELAY_MS_MAX = 120000,
    DEADLINE_MS_MAX = 600000,
    CROWD_MS = 300000,
    MEDDLE_MS_MAX = 20000, /* between two surprises */
    /* Something lost breaks the connection, and a new one asks for everything; so this is rare. */
    ANSWER_PATIENCE_MS = 40000,
    OUTCOME_PATIENCE_MS = 120000,
    CREDIT_FIRST = 2, /* chunks */
};

/* Not later than planned already. */
static void wake_at(struct simulation *simulation, struct sim_client *client, int64_t at_ms)
{
    at_ms = at_ms > simulation->now_ms ? at_ms : simulation->now_ms;
    if (at_ms < client->wake_at_ms) {
        client->wake_at_ms = at_ms;
        schedule_add(&simulation->schedule, at_ms, TASK_CLIENT_WAKE, client->index,
                     ++client->wake_generation, NULL);
    }
}

static void ask_at(struct simulation *simulation, struct sim_client *client, uint32_t index,
                   int64_t at_ms)
{
    simulation->jobs[index].ask_at_ms = at_ms;
    if (client->is_welcome) { /* else it asks for everything when it is */
        wake_at(simulation, client, at_ms);
    }
}

void sim_client_init(struct simulation *simulation, uint32_t index)
{
    struct sim_client *client = &simulation->clients[index];
    *client = (struct sim_client){
        .index = index, .tenant = index % SCENARIO_TENANTS, .wake_at_ms = INT64_MAX};
    client->open = must(calloc(simulation->scenario.options.jobs, sizeof(*client->open)));
    wake_at(simulation, client, BEGIN_MS);
}

void sim_client_finish(struct sim_client *client)
{
    free(client->open);
    client->open = NULL;
}

/* ------------------------------------------------------------------------------------------------------
 * jobs */

struct id sim_client_make_id(int64_t at_ms, uint32_t index)
{
    struct id id = {0};
    const uint64_t unix_ms = (uint64_t)(UNIX_BEGIN_MS + at_ms);
    for (size_t i = 0; i < 6; i++) {
        id.bytes[i] = (uint8_t)(unix_ms >> (40 - 8 * i));
    }
    id.bytes[6] = 0x70;
    id.bytes[8] = 0x80;
    for (size_t i = 0; i < 4; i++) {
        id.bytes[12 + i] = (uint8_t)(index >> (24 - 8 * i));
    }
    return id;
}

struct blob *sim_client_payload(const struct simulation *simulation, uint32_t job)
{
    _Static_assert(SCENARIO_PAYLOAD_BYTES_MAX % sizeof(uint64_t) == 0, "it is made of whole words");
    uint8_t bytes[SCENARIO_PAYLOAD_BYTES_MAX];
    struct dice dice = {simulation->scenario.options.seed ^ ((uint64_t)job << 32)};
    const uint32_t length = simulation->jobs[job].payload_bytes;
    for (uint32_t i = 0; i < length; i += sizeof(uint64_t)) {
        const uint64_t eight = dice_next(&dice);
        memcpy(bytes + i, &eight, sizeof(eight));
    }
    struct blob *payload;
    if (blob_create(bytes, length, &payload) < 0) {
        (void)must(NULL);
    }
    return payload;
}

/* Half of them are to expire as soon as all have waited: when that moment is slept through, they
 * do. */
static void join_crowd(struct simulation *simulation, struct sim_job *job)
{
    job->tier = SCENARIO_TIERS - 1;
    job->is_durable = true;
    job->key = 0;
    job->delay_ms = CROWD_MS;
    job->deadline_in_ms = simulation->jobs_length % 2 == 0 ? 0 : CROWD_MS + 1;
}

void sim_client_add_job(struct simulation *simulation, struct sim_client *client)
{
    struct dice *dice = &simulation->dice;
    const uint32_t index = simulation->jobs_length++;
    struct sim_job *job = &simulation->jobs[index];
    const struct scenario *scenario = &simulation->scenario;
    const bool is_in_focus = dice_hit(dice, scenario->focus.permille);
    const uint32_t tier =
        is_in_focus ? scenario->focus.tier : (uint32_t)dice_below(dice, SCENARIO_TIERS);
    *job = (struct sim_job){
        .id = sim_client_make_id(simulation->now_ms, index),
        .client = client->index,
        .tenant = client->tenant,
        .tier = tier,
        .route = is_in_focus ? scenario->focus.route : (uint32_t)dice_below(dice, SCENARIO_ROUTES),
        .key = dice_hit(dice, 200) ? 1 + (uint32_t)dice_below(dice, simulation->scenario.keys) : 0,
        .priority = (uint32_t)dice_below(dice, 10),
        .pool = dice_hit(dice, 150),
        .payload_bytes = (uint32_t)dice_between(dice, 1, SCENARIO_PAYLOAD_BYTES_MAX),
        .attempts_max = dice_hit(dice, 200) ? (uint32_t)dice_between(dice, 1, 3) : 0,
        .delay_ms = dice_hit(dice, 100) ? dice_between(dice, 1, DELAY_MS_MAX) : 0,
        .deadline_in_ms = dice_hit(dice, 300) ? dice_between(dice, 500, DEADLINE_MS_MAX) : 0,
        .tokens = (uint32_t)dice_between(dice, 1, SCENARIO_TOKENS_MAX),
        .is_durable = simulation->scenario.tiers[tier].durability == DURABILITY_FSYNC,
        .discard_result = dice_hit(dice, 50),
        .is_poison = dice_hit(dice, simulation->scenario.faults.poison),
        .is_killer = dice_hit(dice, simulation->scenario.faults.killer),
        .canonical = dice_hit(dice, scenario->identical)
                         ? 1 + (uint32_t)dice_below(dice, SCENARIO_CANONICALS)
                         : 0,
        .is_mismatched = dice_hit(dice, scenario->mismatched),
        .streams = dice_hit(dice, scenario->streams),
        .gives_credit = dice_hit(dice, 500),
        .shown_for = NO_JOB,
    };
    if (index < scenario->crowd) {
        join_crowd(simulation, job);
    }
    struct blob *payload = sim_client_payload(simulation, index);
    job->is_mismatched &= job->canonical != 0;
    job->payload_digest = XXH3_64bits(blob_data(payload), blob_bytes(payload));
    blob_unref(&payload);
    if (index >= scenario->crowd && dice_hit(dice, scenario->cache.made) &&
        sim_worker_submit(simulation, index)) {
        return; /* its client waits for it as soon as it is accepted */
    }
    client->open[client->open_length++] = index;
    ask_at(simulation, client, index, simulation->now_ms);
}

static void settle(struct simulation *simulation, struct sim_client *client, uint32_t index,
                   enum view view)
{
    simulation->jobs[index].view = view;
    for (uint32_t i = 0; i < client->open_length; i++) {
        if (client->open[i] == index) {
            client->open[i] = client->open[--client->open_length];
            return;
        }
    }
}

void sim_client_wait_again(struct simulation *simulation, uint32_t index)
{
    struct sim_job *job = &simulation->jobs[index];
    struct sim_client *client = &simulation->clients[job->client];
    if (job->view == VIEW_DONE) {
        job->view = VIEW_ACCEPTED;
        client->open[client->open_length++] = index;
        ask_at(simulation, client, index, simulation->now_ms);
    }
}

/* -------------------------------------------------------------------------------------------------
 * connection */

static void tell(struct simulation *simulation, const struct sim_client *client,
                 enum event_kind kind, uint32_t job, bool flag)
{
    const struct message message = {.to_broker = true,
                                    .event = kind,
                                    .peer = client->peer,
                                    .job = job,
                                    .flag = flag,
                                    .number = (int)client->tenant};
    network_send(simulation, &message);
}

static void lose_connection(struct simulation *simulation, struct sim_client *client)
{
    if (client->peer != 0) {
        const struct message gone = {
            .to_broker = true, .event = EVENT_CLIENT_GONE, .peer = client->peer, .job = NO_JOB};
        schedule_add(&simulation->schedule,
                     simulation->now_ms + dice_between(&simulation->dice, 0, GONE_MS_MAX),
                     TASK_DELIVER, client->index, 0, &gone);
    }
    client->peer = 0;
    client->is_welcome = false;
}

static void connect_anew(struct simulation *simulation, struct sim_client *client)
{
    lose_connection(simulation, client);
    client->peer = network_connect(simulation, false, client->index);
    client->patient_until_ms =
        simulation->now_ms + simulation_patience_ms(simulation, client->hellos++);
    wake_at(simulation, client, client->patient_until_ms);
    tell(simulation, client, EVENT_CLIENT_HELLO, NO_JOB, false);
}

void sim_client_break(struct simulation *simulation, struct sim_client *client)
{
    lose_connection(simulation, client);
    wake_at(simulation, client, simulation->now_ms);
}

/* ------------------------------------------------------------------------------------------------------
 * asking */

static void submit_as(struct simulation *simulation, uint64_t peer, uint32_t index,
                      enum defect defect)
{
    const struct message message = {.to_broker = true,
                                    .event = EVENT_SUBMIT,
                                    .peer = peer,
                                    .job = index,
                                    .second = (int)defect,
                                    .payload = sim_client_payload(simulation, index)};
    network_send(simulation, &message);
}

static void submit(struct simulation *simulation, const struct sim_client *client, uint32_t index)
{
    submit_as(simulation, client->peer, index, DEFECT_NONE);
}

static void ask(struct simulation *simulation, struct sim_client *client, uint32_t index)
{
    struct sim_job *job = &simulation->jobs[index];
    if (job->view == VIEW_SENT) {
        submit(simulation, client, index);
        job->ask_at_ms =
            simulation->now_ms +
            dice_between(&simulation->dice, ANSWER_PATIENCE_MS / 2, ANSWER_PATIENCE_MS);
    } else {
        const struct message message = {.to_broker = true,
                                        .event = EVENT_WAIT,
                                        .peer = client->peer,
                                        .job = index,
                                        .flag = dice_hit(&simulation->dice, 100),
                                        .number = (int)client->tenant,
                                        .second = job->streams};
        network_send(simulation, &message);
        job->ask_at_ms =
            simulation->now_ms +
            dice_between(&simulation->dice, OUTCOME_PATIENCE_MS / 2, OUTCOME_PATIENCE_MS);
    }
}

/* Somebody who never says hello, or a hello that must be refused. */
static void be_a_stranger(struct simulation *simulation, const struct sim_client *client,
                          uint32_t index)
{
    static const enum event_kind of_clients[] = {EVENT_WAIT, EVENT_CANCEL, EVENT_STREAM_CREDIT,
                                                 EVENT_CLIENT_HELLO, EVENT_CLIENT_GONE};
    static const enum event_kind of_workers[] = {EVENT_WORKER_CREDIT,   EVENT_WORKER_HEARTBEAT,
                                                 EVENT_WORKER_DRAINING, EVENT_WORKER_HELLO,
                                                 EVENT_WORKER_GONE,     EVENT_CHUNK};
    struct dice *dice = &simulation->dice;
    const bool is_worker = dice_hit(dice, 500);
    const uint64_t peer = network_connect(simulation, is_worker, is_worker ? 0 : client->index);
    network_link(simulation, peer)->is_stranger = true;
    if (!is_worker && dice_hit(dice, 300)) {
        submit_as(simulation, peer, index, DEFECT_STRANGER);
        return;
    }
    struct message message = {.to_broker = true,
                              .event = is_worker ? of_workers[dice_below(dice, 6)]
                                                 : of_clients[dice_below(dice, 5)],
                              .peer = peer,
                              .job = index,
                              .attempt = 1,
                              .number = SCENARIO_TENANTS};
    if (is_worker) {
        message.leases = must(calloc(1, sizeof(*message.leases)));
    }
    network_send(simulation, &message);
}

/* An operator may cancel any job. */
static void cancel_as_operator(struct simulation *simulation, uint32_t index)
{
    const struct message message = {.to_broker = true,
                                    .event = EVENT_CANCEL,
                                    .job = index,
                                    .number = (int)simulation->jobs[index].tenant};
    if (simulation->broker.is_up) {
        sim_broker_hear(simulation, &message);
    }
}

/* Another tenant's id: only one that is sure to be known, else it would be this tenant's. */
static void submit_foreign(struct simulation *simulation, const struct sim_client *client,
                           uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    if (job->tenant != client->tenant && job->is_durable && job->acknowledged_incarnation != 0 &&
        !simulation->scenario.is_tight) {
        submit(simulation, client, index);
    }
}

static void meddle(struct simulation *simulation, const struct sim_client *client)
{
    struct dice *dice = &simulation->dice;
    const uint32_t index = (uint32_t)dice_below(dice, simulation->jobs_length);
    const bool is_own = simulation->jobs[index].client == client->index;
    switch (dice_below(dice, 10)) {
    case 2:
    case 3:
        submit_as(simulation, client->peer, index, defect_throw(simulation));
        break;
    case 4:
    case 5:
        be_a_stranger(simulation, client, index);
        break;
    case 6:
        submit_foreign(simulation, client, index);
        break;
    case 7:
        if (dice_hit(dice, 300)) {
            cancel_as_operator(simulation, index);
        }
        break;
    case 0:
        tell(simulation, client, EVENT_CANCEL, index, false);
        break;
    case 1:
        if (is_own) {
            submit(simulation, client, index);
        }
        break;
    default: /* also of another tenant's job */
        tell(simulation, client, EVENT_WAIT, index, dice_hit(dice, 500));
        break;
    }
}

void sim_client_meddle(struct simulation *simulation)
{
    if (simulation->is_quiet) {
        return;
    }
    const struct sim_client *client =
        &simulation->clients[dice_below(&simulation->dice, simulation->scenario.clients)];
    if (client->is_welcome && simulation->jobs_length > 0) {
        meddle(simulation, client);
    }
    schedule_add(&simulation->schedule,
                 simulation->now_ms + dice_between(&simulation->dice, 1, MEDDLE_MS_MAX),
                 TASK_MEDDLE, 0, 0, NULL);
}

/* Asks what is due, and wakes for what is due next. */
static void ask_due(struct simulation *simulation, struct sim_client *client)
{
    int64_t next_ms = INT64_MAX;
    for (uint32_t i = 0; i < client->open_length; i++) {
        const struct sim_job *job = &simulation->jobs[client->open[i]];
        if (job->ask_at_ms <= simulation->now_ms) {
            ask(simulation, client, client->open[i]);
        }
        next_ms = job->ask_at_ms < next_ms ? job->ask_at_ms : next_ms;
    }
    if (next_ms != INT64_MAX) {
        wake_at(simulation, client, next_ms);
    }
}

void sim_client_wake(struct simulation *simulation, struct sim_client *client, uint64_t generation)
{
    if (generation != client->wake_generation) {
        return;
    }
    client->wake_at_ms = INT64_MAX;
    if (client->is_welcome) {
        ask_due(simulation, client);
    } else if (client->peer == 0 || client->patient_until_ms <= simulation->now_ms) {
        connect_anew(simulation, client);
    } else {
        wake_at(simulation, client, client->patient_until_ms);
    }
}

/* -----------------------------------------------------------------------------------------------------
 * hearing */

/* So many chunks more of this job. */
static void give_credit(struct simulation *simulation, const struct sim_client *client,
                        uint32_t index, uint64_t chunks)
{
    const struct message message = {.to_broker = true,
                                    .event = EVENT_STREAM_CREDIT,
                                    .peer = client->peer,
                                    .job = index,
                                    .total = chunks};
    if (simulation->jobs[index].gives_credit) {
        network_send(simulation, &message);
    }
}

static void hear_accepted(struct simulation *simulation, struct sim_client *client,
                          const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    if (message->other_job != NO_JOB) {
        settle(simulation, client, message->job, VIEW_DONE);
    } else if (job->view == VIEW_SENT) {
        job->view = VIEW_ACCEPTED;
        if (job->streams) {
            give_credit(simulation, client, message->job, CREDIT_FIRST);
        }
        ask_at(simulation, client, message->job,
               simulation->now_ms +
                   dice_between(&simulation->dice, OUTCOME_PATIENCE_MS / 2, OUTCOME_PATIENCE_MS));
    }
}

static void hear_rejected(struct simulation *simulation, struct sim_client *client,
                          const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    if (job->view != VIEW_SENT) {
        return;
    }
    /* One that a crash has lost is asked for until it is there again; but not until next month. */
    const bool is_forgotten =
        job->acknowledged_incarnation != 0 && message->number != WIRE__REJECT_REASON__REJECT_BUDGET;
    if (message->time_ms > 0 && (job->asked++ < ASKS_MAX || is_forgotten)) {
        const int64_t wait_ms =
            message->time_ms < REFUSED_MS_MAX ? message->time_ms : REFUSED_MS_MAX;
        /* More patient each time, as every client should be. */
        ask_at(simulation, client, message->job,
               simulation->now_ms + wait_ms +
                   dice_between(&simulation->dice, 0, (int64_t)job->asked * REFUSED_MORE_MS));
    } else {
        settle(simulation, client, message->job, VIEW_REFUSED);
    }
}

static void hear_result(struct simulation *simulation, struct sim_client *client,
                        const struct message *message)
{
    settle(simulation, client, message->job, VIEW_DONE);
    if (dice_hit(&simulation->dice, 800) || simulation->is_quiet) {
        tell(simulation, client, EVENT_COLLECTED, message->job, false);
    }
}

static void hear_status(struct simulation *simulation, struct sim_client *client,
                        const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    if (job->view != VIEW_ACCEPTED) {
        return;
    }
    if (message->number == WIRE__JOB_STATE__JOB_STATE_COLLECTED) {
        settle(simulation, client, message->job, VIEW_DONE);
    } else if (message->number == WIRE__JOB_STATE__JOB_STATE_UNKNOWN) {
        /* The broker has lost what was in memory: once more, unless it is too late. */
        if (simulation->now_ms < job->deadline_max_ms) {
            job->view = VIEW_SENT;
            ask_at(simulation, client, message->job, simulation->now_ms);
        } else {
            settle(simulation, client, message->job, VIEW_LOST);
        }
    }
}

static void hear_welcome(struct simulation *simulation, struct sim_client *client)
{
    client->is_welcome = true;
    client->hellos = 0;
    for (uint32_t i = 0; i < client->open_length; i++) {
        simulation->jobs[client->open[i]].ask_at_ms = simulation->now_ms;
    }
    cache_hear_client_welcome(simulation, client);
    wake_at(simulation, client, simulation->now_ms);
}

void sim_client_hear(struct simulation *simulation, struct sim_client *client,
                     const struct message *message)
{
    if (message->peer != client->peer) {
        return;
    }
    if (message->effect == EFFECT_CLIENT_WELCOME) {
        hear_welcome(simulation, client);
        return;
    }
    if (message->effect == EFFECT_CLIENT_ERROR) {
        network_break(simulation, client->peer);
        return;
    }
    if (message->effect == EFFECT_CACHE_INVALIDATED) {
        cache_hear_invalidated(client, message);
        return;
    }
    if (message->job == NO_JOB || simulation->jobs[message->job].client != client->index) {
        return;
    }
    if (message->effect == EFFECT_ACCEPTED) {
        hear_accepted(simulation, client, message);
    } else if (message->effect == EFFECT_REJECTED) {
        hear_rejected(simulation, client, message);
    } else if (message->effect == EFFECT_RESULT) {
        hear_result(simulation, client, message);
    } else if (message->effect == EFFECT_CHUNK) {
        give_credit(simulation, client, message->job, 1);
    } else if (message->effect == EFFECT_STATUS) {
        hear_status(simulation, client, message);
    }
}
