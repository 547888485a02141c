#include "tests/simulation/oracle.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/core.h"
#include "broker/core/record.h"
#include "common/id.h"
#include "tests/simulation/attempts.h"
#include "tests/simulation/bill.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/defect.h"
#include "tests/simulation/degradation.h"
#include "tests/simulation/evidence.h"
#include "tests/simulation/fairness.h"
#include "tests/simulation/flights.h"
#include "tests/simulation/hedges.h"
#include "tests/simulation/invalidations.h"
#include "tests/simulation/lives.h"
#include "tests/simulation/network.h"
#include "tests/simulation/views.h"
#include "tests/simulation/worker.h"

enum {
    KEPT_PER_TURN = 2, /* jobs that are looked at after each turn, one after the other */
    VIEWED_EVERY = 16, /* job, when all are looked at */
};

static const char *const no_conclusion = "none";

static const char *state_name(Wire__JobState state)
{
    const ProtobufCEnumValue *value =
        protobuf_c_enum_descriptor_get_value(&wire__job_state__descriptor, (int)state);
    return state == WIRE__JOB_STATE__JOB_STATE_UNKNOWN || value == NULL ? no_conclusion
                                                                        : value->name;
}

/* Every tenant has keys of its own, though their names are the same. */
static uint32_t *key_owner(struct simulation *simulation, const struct sim_job *job)
{
    return &simulation->key_owners[job->key * SCENARIO_TENANTS + job->tenant];
}

/* Where the wall clock jumped while a job lay on disk, its times are uncertain by as much. */
static int64_t slack_ms(const struct simulation *simulation, const struct sim_job *job)
{
    return job->first_incarnation == simulation->broker.incarnation
               ? 0
               : simulation->clock_jumped_ms + 1;
}

/* ----------------------------------------------------------------------------------------------
 * what it is told */

static void see_submission(struct simulation *simulation, struct sim_job *job)
{
    const int64_t in_ms = job->deadline_in_ms != 0
                              ? job->deadline_in_ms
                              : simulation->scenario.tiers[job->tier].deadline_ms;
    const int64_t deadline_ms = sim_broker_ms(simulation) + in_ms;
    if (job->is_shed) { /* it was not run, and may be */
        job->is_shed = false;
        job->acknowledged_incarnation = 0; /* and may be refused */
        job->stream.credit_peer = 0;
        job->shown = WIRE__JOB_STATE__JOB_STATE_UNKNOWN;
    }
    if (!job->is_submitted) {
        flights_join(simulation, (uint32_t)(job - simulation->jobs));
        job->is_submitted = true;
        job->first_incarnation = simulation->broker.incarnation;
        job->told_at_submission = invalidations_told(simulation, job->tenant);
        job->not_before_ms = sim_broker_ms(simulation) + job->delay_ms;
        job->deadline_min_ms = deadline_ms;
    }
    job->submitted_incarnation = simulation->broker.incarnation;
    job->not_before_max_ms = sim_broker_ms(simulation) + job->delay_ms;
    /* A dead letter that was put back has a later one than its submission asked for, perhaps. */
    job->deadline_max_ms = deadline_ms > job->deadline_max_ms ? deadline_ms : job->deadline_max_ms;
}

static struct list *leases_of(const struct simulation *simulation, uint64_t peer)
{
    return &simulation->workers[network_link(simulation, peer)->owner].leases;
}

static void end_lease(struct simulation *simulation, struct sim_job *job)
{
    if (job->lease.is_held) {
        job->lease.is_held = false;
        list_remove(leases_of(simulation, job->lease.peer), &job->lease.link);
        fairness_join(simulation, job);
    }
}

static void hold_lease(struct simulation *simulation, struct sim_job *job, uint64_t peer,
                       uint32_t attempt)
{
    end_lease(simulation, job);
    job->lease.is_held = true;
    job->lease.is_reclaimed = false;
    job->lease.peer = peer;
    job->lease.attempt = attempt;
    job->lease.renewed_ms = sim_broker_ms(simulation);
    list_append(leases_of(simulation, peer), &job->lease.link);
    fairness_leave(simulation, job);
}

/* What the worker holds by this connection, or (any) by any one. */
static void lose_leases_of(struct simulation *simulation, uint64_t peer, bool any)
{
    struct list *leases = leases_of(simulation, peer);
    struct list_link *link = leases->head.next;
    while (link != &leases->head) {
        struct sim_job *job = CONTAINER_OF(link, struct sim_job, lease.link);
        link = link->next;
        if (any || job->lease.peer == peer) {
            end_lease(simulation, job);
        }
    }
}

static void forget_worker(struct simulation *simulation, uint64_t peer)
{
    struct sim_worker *worker = &simulation->workers[network_link(simulation, peer)->owner];
    worker->known_as = worker->known_as == peer ? 0 : worker->known_as;
}

struct worker_look {
    uint64_t peer;
    bool is_known;
};

static void is_it_this_worker(void *context, const struct core_worker_view *view)
{
    struct worker_look *look = context;
    look->is_known |= view->peer == look->peer;
}

static bool core_knows_worker(const struct simulation *simulation, uint64_t peer)
{
    struct worker_look look = {.peer = peer};
    core_visit_workers(simulation->broker.core, sim_broker_now(simulation), is_it_this_worker,
                       &look);
    return look.is_known;
}

/*
 * Who was silent for too long has lost its leases, whatever it says now. It is still known when it
 * speaks before the core has looked for silent ones.
 */
static void see_life(struct simulation *simulation, uint64_t peer)
{
    struct link *link = network_link(simulation, peer);
    if (link->is_worker &&
        sim_broker_ms(simulation) >= link->heard_ms + simulation->scenario.config.broker.lease_ms) {
        lose_leases_of(simulation, peer, false);
        if (!core_knows_worker(simulation, peer)) {
            forget_worker(simulation, peer);
        }
    }
    link->heard_ms = sim_broker_ms(simulation);
}

static struct sim_job *leased_job(struct simulation *simulation, const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    return job->lease.is_held && job->lease.attempt == message->attempt ? job : NULL;
}

static void see_heartbeat(struct simulation *simulation, const struct message *message)
{
    const int64_t lease_ms = simulation->scenario.config.broker.lease_ms;
    network_link(simulation, message->peer)->is_set_aside = false;
    for (uint8_t i = 0; i < message->leases->held_length; i++) {
        struct sim_job *job = &simulation->jobs[message->leases->held[i].job];
        /* One that it names too late may be lost: nothing is promised of it any more. */
        if (job->lease.is_held && job->lease.peer == message->peer &&
            job->lease.attempt == message->leases->held[i].attempt &&
            job->lease.renewed_ms + lease_ms > sim_broker_ms(simulation)) {
            job->lease.renewed_ms = sim_broker_ms(simulation);
        }
    }
}

static void see_credit(struct simulation *simulation, const struct message *message)
{
    struct link *link = network_link(simulation, message->peer);
    link->is_set_aside = false;
    link->credit_total = message->total > link->credit_total ? message->total : link->credit_total;
}

/* A worker that could not be reached, or that gave its attempt back, is given nothing for now. */
static void see_set_aside(struct simulation *simulation, const struct message *message)
{
    const bool has_given_back = message->event == EVENT_ATTEMPT_RESULT &&
                                (message->number == WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED ||
                                 message->number == WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED);
    if (has_given_back || message->event == EVENT_UNDELIVERABLE) {
        network_link(simulation, message->peer)->is_set_aside = true;
    }
}

static void see_attempt_end(struct simulation *simulation, const struct message *message)
{
    see_set_aside(simulation, message);
    struct sim_job *job = leased_job(simulation, message);
    if (job == NULL) {
        return;
    }
    end_lease(simulation, job);
    if (message->event == EVENT_UNDELIVERABLE) {
        network_link(simulation, message->peer)->dispatched--;
    }
}

static bool is_same_hold(const struct hold *hold, const struct message *message, const char *name)
{
    return (int)hold->subject == message->number && strcmp(hold->name, name) == 0;
}

static const char *hold_name(const struct simulation *simulation, const struct message *message)
{
    const struct scenario *scenario = &simulation->scenario;
    switch ((enum pause_subject)message->number) {
    case PAUSE_ROUTE:
        return scenario->routes[message->total];
    case PAUSE_TIER:
        return scenario->tiers[message->total].name;
    case PAUSE_TENANT:
        return scenario->tenants[message->total].name;
    case PAUSE_WORKER:
        return simulation->workers[message->total].name;
    }
    return "";
}

static void see_resume(struct simulation *simulation, const struct message *message)
{
    struct sim_broker *broker = &simulation->broker;
    for (uint32_t i = 0; i < broker->holds_length; i++) {
        if (is_same_hold(&broker->holds[i], message, hold_name(simulation, message))) {
            broker->holds[i--] = broker->holds[--broker->holds_length];
        }
    }
}

static void see_pause(struct simulation *simulation, const struct message *message)
{
    struct sim_broker *broker = &simulation->broker;
    see_resume(simulation, message);
    if (broker->holds_length < HOLDS_MAX) {
        broker->holds[broker->holds_length++] =
            (struct hold){(enum pause_subject)message->number, (enum pause_mode)message->second,
                          message->total, hold_name(simulation, message)};
    }
}

/* From the first chunk that is heard on. Of a wrong key nobody may be told anything. */
/* Whoever brings the job first: for others it is there. */
static void see_who_made(struct simulation *simulation, const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    const bool is_worker = network_link(simulation, message->peer)->is_worker;
    Wire__JobState state;
    const char *worker;
    if (core_find_job(simulation->broker.core, &job->id, &state, &worker) < 0) {
        job->is_of_worker = is_worker;
    }
    if (!is_worker) {
        job->stream.waiter = message->peer;
    }
}

static void see_mismatch(struct simulation *simulation, const struct message *message)
{
    if (message->event == EVENT_ATTEMPT_RESULT && simulation->jobs[message->job].is_mismatched) {
        flights_split(simulation, message->job);
    }
}

static bool is_of_its_tenant(const struct simulation *simulation, const struct message *message)
{
    const struct link *link = network_link(simulation, message->peer);
    return link->is_worker ||
           simulation->clients[link->owner].tenant == simulation->jobs[message->job].tenant;
}

/* Of jobs that workers make, and of what they count, the core does not look at who says so. */
static bool is_sign_of_life(const struct simulation *simulation, const struct message *message)
{
    const bool is_worker = message->peer != 0 && network_link(simulation, message->peer)->is_worker;
    return message->peer != 0 && message->event != EVENT_UNDELIVERABLE &&
           !(is_worker && message->event == EVENT_SUBMIT) && message->event != EVENT_CACHE_EVIDENCE;
}

void oracle_before_step(struct simulation *simulation, const struct message *message)
{
    if (is_sign_of_life(simulation, message)) {
        see_life(simulation, message->peer);
    }
    attempts_before_step(simulation, message);
    switch (message->event) {
    case EVENT_SUBMIT:
        if (message->second == DEFECT_NONE && is_of_its_tenant(simulation, message)) {
            see_submission(simulation, &simulation->jobs[message->job]);
            see_who_made(simulation, message);
        }
        break;
    case EVENT_CANCEL:
        /* Only its own tenant may cancel a job. */
        if (message->number == (int)simulation->jobs[message->job].tenant) {
            simulation->jobs[message->job].is_cancelled = true;
        }
        break;
    case EVENT_STREAM_CREDIT:
        if (!network_link(simulation, message->peer)->is_stranger) {
            flights_see_credit(simulation, message);
        }
        break;
    case EVENT_COLLECTED:
        simulation->jobs[message->job].result_is_gone = true;
        break;
    case EVENT_WORKER_CREDIT:
        see_credit(simulation, message);
        break;
    case EVENT_WORKER_HEARTBEAT:
        see_heartbeat(simulation, message);
        break;
    case EVENT_WORKER_GONE:
        lose_leases_of(simulation, message->peer, false);
        forget_worker(simulation, message->peer);
        break;
    case EVENT_ATTEMPT_RESULT:
    case EVENT_UNDELIVERABLE:
        degradation_before_end(simulation, message);
        lives_before_answer(simulation, message);
        see_mismatch(simulation, message);
        see_attempt_end(simulation, message);
        break;
    case EVENT_PAUSE:
        see_pause(simulation, message);
        break;
    case EVENT_RESUME:
        see_resume(simulation, message);
        break;
    case EVENT_WORKER_DRAINING:
        network_link(simulation, message->peer)->is_draining = true;
        break;
    case EVENT_STORE_DOWN:
    case EVENT_STORE_UP:
        simulation->broker.core_store_is_down = message->event == EVENT_STORE_DOWN;
        break;
    case EVENT_WAIT:
        if (!message->flag) {
            simulation->jobs[message->job].stream.waiter = message->peer;
        }
        break;
    case EVENT_CACHE_EVIDENCE:
    case EVENT_CACHE_FEEDBACK:
    case EVENT_FEEDBACK:
    case EVENT_CACHE_INVALIDATE:
    case EVENT_CLIENT_HELLO:
    case EVENT_CLIENT_GONE:
    case EVENT_WORKER_HELLO:
    case EVENT_HEDGE_ASKED:
    case EVENT_CHUNK:
    case EVENT_DURABLE:
    case EVENT_LOADED:
    case EVENT_DEAD_ONE:
    case EVENT_DEAD_SWEEP:
    case EVENT_DEAD_STOP:
    case EVENT_UPKEEP:
    case EVENT_DRAIN:
    case EVENT_UPSTREAM_RESET:
    case EVENT_TICK:
        break;
    }
}

/* A worker that comes back has what the core says it has; what its last connection held is over. */
static void see_hello(struct simulation *simulation, const struct message *message)
{
    struct sim_worker *worker =
        &simulation->workers[network_link(simulation, message->peer)->owner];
    worker->known_as = message->peer;
    attempts_see_hello(simulation, message);
    lose_leases_of(simulation, message->peer, true);
    for (uint8_t i = 0; i < message->leases->held_length; i++) {
        struct sim_job *job = &simulation->jobs[message->leases->held[i].job];
        Wire__JobState state;
        const char *holder;
        if (core_find_job(simulation->broker.core, &job->id, &state, &holder) == 0 &&
            state == WIRE__JOB_STATE__JOB_STATE_LEASED && strcmp(holder, worker->name) == 0) {
            hold_lease(simulation, job, message->peer, message->leases->held[i].attempt);
            job->lease.is_reclaimed = job->is_cut = true;
        }
    }
}

static bool is_welcomed(const struct simulation *simulation, uint64_t peer)
{
    struct effects *effects = simulation->broker.effects;
    for (size_t i = simulation->broker.examined; i < effects_length(effects); i++) {
        const struct effect *effect = effects_at(effects, i);
        if (effect->kind == EFFECT_WORKER_WELCOME && effect->peer == peer) {
            return true;
        }
    }
    return false;
}

struct pause_look {
    const char *name;
    int subject, mode;
    bool is_there;
};

static void look_at_pause(void *context, const struct core_pause_view *view)
{
    struct pause_look *look = context;
    look->is_there |= (int)view->subject == look->subject && (int)view->mode == look->mode &&
                      strcmp(view->name, look->name) == 0;
}

/* Without memory for it there is no pause, and no promise; nor of what is not configured. */
static void forget_refused_pause(struct simulation *simulation, const struct message *message)
{
    const bool lacks_route = message->number == PAUSE_ROUTE &&
                             message->total % SCENARIO_ROUTES == SCENARIO_ROUTES - 1 &&
                             simulation->scenario.config.routes_length == 0;
    const bool lacks_tenant = message->number == PAUSE_TENANT &&
                              message->total % SCENARIO_TENANTS == 0 &&
                              simulation->scenario.lacks_tenant;
    const bool is_configured = !lacks_route && !lacks_tenant;
    if (is_configured && !simulation->broker.has_lacked_memory) {
        return;
    }
    /* One of another mode may be there, from before. */
    struct pause_look look = {.name = hold_name(simulation, message),
                              .subject = message->number,
                              .mode = message->second};
    core_visit_pauses(simulation->broker.core, look_at_pause, &look);
    if (!look.is_there) {
        see_resume(simulation, message);
    }
}

/* Its answer is not shared, its result is not kept in memory, or who waits for it is not. */
static void lack_memory_for(struct simulation *simulation, uint32_t index)
{
    struct sim_job *job = &simulation->jobs[index];
    flights_split(simulation, index);
    job->result_is_gone |= !job->is_durable;
    job->lacks_waiters = job->is_cut = true;
}

/* NO_JOB: nobody says whose it was. */
static void lack_memory_under_way(struct simulation *simulation, uint32_t index)
{
    if (index != NO_JOB) {
        lack_memory_for(simulation, index);
        return;
    }
    for (uint32_t i = 0; i < simulation->jobs_length; i++) {
        lack_memory_for(simulation, i);
    }
}

void oracle_after_tick(struct simulation *simulation)
{
    if (simulation->broker.has_lacked_memory) {
        lack_memory_under_way(simulation, NO_JOB);
    }
}

void oracle_after_step(struct simulation *simulation, const struct message *message)
{
    attempts_after_step(simulation, message);
    if (simulation->broker.has_lacked_memory && message->event == EVENT_SUBMIT) {
        flights_split(simulation, message->job); /* it may have found none for a flight */
    }
    if (simulation->broker.has_lacked_memory &&
        (message->event == EVENT_SUBMIT || message->event == EVENT_WAIT)) {
        simulation->jobs[message->job].lacks_waiters = true;
    }
    if (simulation->broker.has_lacked_memory && message->event == EVENT_CHUNK) {
        simulation->jobs[message->job].is_cut = true;
    }
    /* A worker that says hello anew ends what its earlier life held. */
    if (simulation->broker.has_lacked_memory &&
        (!sim_broker_may_refuse(message->event) || message->event == EVENT_WORKER_HELLO)) {
        lack_memory_under_way(simulation, message->job);
    }
    if (message->event == EVENT_ATTEMPT_RESULT || message->event == EVENT_UNDELIVERABLE) {
        degradation_after_end(simulation, message);
        lives_after_answer(simulation, message);
    } else if (message->event == EVENT_DEAD_ONE) {
        lives_look_at(simulation, message->job);
    } else if (message->event == EVENT_DEAD_SWEEP) {
        simulation->broker.is_sweeping = true;
    } else if (message->event == EVENT_WORKER_HELLO) {
        if (is_welcomed(simulation, message->peer)) {
            see_hello(simulation, message);
        }
    } else if (message->event == EVENT_PAUSE || message->event == EVENT_RESUME) {
        if (message->event == EVENT_PAUSE) {
            forget_refused_pause(simulation, message);
        }
        fairness_see_pause(simulation);
    } else if (message->event == EVENT_LOADED && message->job != NO_JOB) {
        fairness_see_loaded(simulation, &simulation->jobs[message->job], message->number != 0);
    }
}

/* ----------------------------------------------------------------------------------------------------
 * dispatch */

static bool is_held_back(const struct simulation *simulation, const struct sim_job *job,
                         const struct effect *effect)
{
    const struct scenario *scenario = &simulation->scenario;
    const char *names[] = {
        [PAUSE_ROUTE] = scenario->routes[job->route],
        [PAUSE_TIER] = scenario->tiers[job->tier].name,
        [PAUSE_TENANT] = scenario->tenants[job->tenant].name,
        [PAUSE_WORKER] = simulation->workers[network_link(simulation, effect->peer)->owner].name,
    };
    for (uint32_t i = 0; i < simulation->broker.holds_length; i++) {
        const struct hold *hold = &simulation->broker.holds[i];
        if (hold->mode == PAUSE_HOLD && strcmp(hold->name, names[hold->subject]) == 0) {
            return true;
        }
    }
    return false;
}

static void check_payload(struct simulation *simulation, uint32_t index,
                          const struct effect *effect)
{
    const struct sim_job *job = &simulation->jobs[index];
    const struct blob *payload = effect->as.dispatch.payload;
    if (payload == NULL || blob_bytes(payload) != job->payload_bytes ||
        XXH3_64bits(blob_data(payload), blob_bytes(payload)) != job->payload_digest) {
        simulation_violate(simulation, "job %u is dispatched with a payload that was not submitted",
                           index);
    }
    if (strcmp(effect->as.dispatch.tenant, simulation->scenario.tenants[job->tenant].name) != 0 ||
        strcmp(effect->as.dispatch.route, simulation->scenario.routes[job->route]) != 0) {
        simulation_violate(simulation, "job %u is dispatched as %s's for %s", index,
                           effect->as.dispatch.tenant, effect->as.dispatch.route);
    }
}

static void check_times(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    const int64_t slack = slack_ms(simulation, job);
    if (sim_broker_ms(simulation) < job->not_before_ms - slack) {
        simulation_violate(simulation, "job %u is dispatched %" PRId64 " ms before its time", index,
                           job->not_before_ms - sim_broker_ms(simulation));
    }
    if (sim_broker_ms(simulation) > job->deadline_max_ms + slack) {
        simulation_violate(simulation, "job %u is dispatched %" PRId64 " ms after its deadline",
                           index, sim_broker_ms(simulation) - job->deadline_max_ms);
    }
}

/* A lease ends when its worker does not name it for so long, or says nothing at all. */
static int64_t lease_lasts_ms(const struct simulation *simulation, const struct sim_job *job)
{
    const int64_t heard_ms = network_link(simulation, job->lease.peer)->heard_ms;
    const int64_t since_ms = heard_ms < job->lease.renewed_ms ? heard_ms : job->lease.renewed_ms;
    return since_ms + simulation->scenario.config.broker.lease_ms;
}

static void check_exclusive(struct simulation *simulation, uint32_t index,
                            const struct effect *effect)
{
    const struct sim_job *job = &simulation->jobs[index];
    if (job->lease.is_held && lease_lasts_ms(simulation, job) > sim_broker_ms(simulation)) {
        simulation_violate(simulation,
                           "job %u is dispatched to peer %" PRIu64 " while peer %" PRIu64
                           " holds its lease",
                           index, effect->peer, job->lease.peer);
    }
    if (effect->as.dispatch.lease.attempt <= job->attempt_last) {
        simulation_violate(simulation, "job %u is dispatched as attempt %u after attempt %u", index,
                           effect->as.dispatch.lease.attempt, job->attempt_last);
    }
}

static void check_may_run(struct simulation *simulation, uint32_t index,
                          const struct effect *effect)
{
    const struct sim_job *job = &simulation->jobs[index];
    const bool has_shown =
        job->shown != 0 &&
        (job->is_durable || job->shown_incarnation == simulation->broker.incarnation);
    if ((has_shown || job->current_conclusion != 0)) {
        simulation_violate(simulation, "job %u is dispatched after its conclusion %s", index,
                           state_name(job->shown != 0 ? job->shown : job->current_conclusion));
    }
    if (job->is_durable && !job->is_on_disk) {
        simulation_violate(simulation, "job %u is dispatched before its acceptance is durable",
                           index);
    }
    if (is_held_back(simulation, job, effect)) {
        simulation_violate(simulation, "job %u is dispatched while an operator holds it", index);
    }
}

static void check_pool(struct simulation *simulation, uint32_t index, const struct effect *effect)
{
    const struct sim_worker *worker =
        &simulation->workers[network_link(simulation, effect->peer)->owner];
    if (simulation->jobs[index].pool >= worker->pools) {
        simulation_violate(simulation, "job %u is dispatched to %s, which does not serve its pool",
                           index, worker->name);
    }
}

static void check_maker(struct simulation *simulation, uint32_t index, const struct effect *effect)
{
    const struct sim_job *job = &simulation->jobs[index];
    if (effect->as.dispatch.is_of_worker != job->is_of_worker) {
        simulation_violate(simulation, "job %u, which a %s made, is dispatched as that of another",
                           index, job->is_of_worker ? "worker" : "client");
    }
}

static void see_dispatch(struct simulation *simulation, const struct effect *effect)
{
    const uint32_t index = simulation_job_of(simulation, &effect->as.dispatch.lease.job_id);
    if (index == NO_JOB || !simulation->jobs[index].is_submitted) {
        simulation_violate(simulation, "a job that nobody submitted is dispatched");
        return;
    }
    check_may_run(simulation, index, effect);
    check_times(simulation, index);
    check_exclusive(simulation, index, effect);
    check_payload(simulation, index, effect);
    check_pool(simulation, index, effect);
    check_maker(simulation, index, effect);
    attempts_see_dispatch(simulation, index, effect);
    struct link *link = network_link(simulation, effect->peer);
    if (++link->dispatched > link->credit_total) {
        simulation_violate(simulation,
                           "peer %" PRIu64 " is given dispatch %" PRIu64 " on a credit of %" PRIu64,
                           effect->peer, link->dispatched, link->credit_total);
    }
    struct sim_job *job = &simulation->jobs[index];
    job->attempt_last = effect->as.dispatch.lease.attempt;
    job->told_at_dispatch_before = job->told_at_dispatch;
    job->told_at_dispatch = invalidations_told(simulation, job->tenant);
    job->is_cut = false;
    flights_see_dispatch(simulation, index);
    fairness_see_dispatch(simulation, job, effect->peer);
    degradation_see_dispatch(simulation, index, effect);
    bill_see_call(simulation, index);
    hold_lease(simulation, job, effect->peer, effect->as.dispatch.lease.attempt);
}

static void see_worker_aside(struct simulation *simulation, const struct effect *effect)
{
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        if (strcmp(simulation->workers[i].name, effect->as.note.subject) == 0) {
            simulation->workers[i].aside_until_ms =
                sim_broker_ms(simulation) + effect->as.note.number;
        }
    }
}

static void see_lost_lease(struct simulation *simulation, const struct effect *effect)
{
    const uint32_t index = effect->as.note.note == NOTE_LEASE_LOST
                               ? simulation_job_of(simulation, &effect->as.note.job_id)
                               : NO_JOB;
    if (index != NO_JOB) {
        flights_see_lost_lease(simulation, index);
    }
}

void oracle_see_effect(struct simulation *simulation, const struct effect *effect)
{
    attempts_see_effect(simulation, effect);
    const uint32_t streamed = effect->kind == EFFECT_CHUNK
                                  ? simulation_job_of(simulation, &effect->as.chunk.header.job_id)
                                  : NO_JOB;
    if (streamed != NO_JOB) {
        flights_see_sent(simulation, streamed, effect->peer);
    } else if (effect->kind == EFFECT_DISPATCH) {
        see_dispatch(simulation, effect);
    } else if (effect->kind == EFFECT_HEDGE) {
        hedges_see_grant(simulation, effect);
    } else if (effect->kind == EFFECT_NOTE && effect->as.note.note == NOTE_RECORD_DAMAGED) {
        if (simulation->broker.has_damage) {
            return;
        }
        simulation_violate(simulation, "the core cannot read a record of its own: %s",
                           effect->as.note.text == NULL ? "" : effect->as.note.text);
    } else if (effect->kind == EFFECT_NOTE && effect->as.note.note == NOTE_WORKER_SET_ASIDE) {
        see_worker_aside(simulation, effect);
    } else if (effect->kind == EFFECT_NOTE) {
        see_lost_lease(simulation, effect);
        degradation_see_note(simulation, effect);
    }
}

/* -----------------------------------------------------------------------------------------------------
 * records */

static bool has_durable_record(const struct sim_job *job)
{
    return job->durable_conclusion != 0 || job->is_on_disk;
}

/* Not a mark beside it: that its result was collected, or judged. */
static bool is_conclusion(const struct storage_change *change)
{
    return change->kind == STORAGE_PUT && change->family == STORE_CONCLUDED &&
           change->key_bytes != RECORD_MARK_KEY_BYTES;
}

/* The job and the conclusion that a record of the family concluded is about. */
static uint32_t read_conclusion(struct simulation *simulation, const struct storage_change *change,
                                Wire__JobState *ret_state)
{
    int64_t unix_ms;
    struct id id;
    Record__ConcludedRecord *record;
    if (record_read_time_key(change->key, change->key_bytes, &unix_ms, &id) < 0 ||
        record_read_concluded(blob_data(change->value), blob_bytes(change->value), NULL, &record) <
            0) {
        simulation_violate(simulation, "a record of a conclusion cannot be read");
        return NO_JOB;
    }
    *ret_state = (Wire__JobState)record->state;
    record__concluded_record__free_unpacked(record, NULL);
    return simulation_job_of(simulation, &id);
}

static void check_job_record(struct simulation *simulation, const struct storage_change *change)
{
    Record__JobRecord *record;
    if (record_read_job(blob_data(change->value), blob_bytes(change->value), NULL, &record) < 0) {
        simulation_violate(simulation, "a record of a job cannot be read");
        return;
    }
    record__job_record__free_unpacked(record, NULL);
}

void oracle_see_change(struct simulation *simulation, const struct storage_change *change)
{
    if (change->kind != STORAGE_PUT) {
        return;
    }
    if (change->family == STORE_JOBS) {
        check_job_record(simulation, change);
    }
    if (!is_conclusion(change)) {
        return;
    }
    Wire__JobState state;
    const uint32_t index = read_conclusion(simulation, change, &state);
    if (index == NO_JOB) {
        return;
    }
    struct sim_job *job = &simulation->jobs[index];
    /* A dead letter that is requeued and finds no money is over within one step. */
    const bool may_be_requeued = state == WIRE__JOB_STATE__JOB_STATE_EXPIRED &&
                                 job->current_conclusion == WIRE__JOB_STATE__JOB_STATE_DEAD &&
                                 scenario_is_limited(&simulation->scenario, job->tenant);
    if (job->current_conclusion != 0 && job->current_conclusion != state && !may_be_requeued) {
        simulation_violate(simulation, "job %u is concluded as %s and as %s", index,
                           state_name(job->current_conclusion), state_name(state));
    }
    job->current_conclusion = state;
}

/* The index of the job whose record it is; NO_JOB: of another run, or no such record. */
static uint32_t job_of_record(const struct simulation *simulation,
                              const struct storage_change *change)
{
    struct id id;
    if (change->family != STORE_JOBS || change->key_bytes != ID_BYTES) {
        return NO_JOB;
    }
    memcpy(id.bytes, change->key, ID_BYTES);
    return simulation_job_of(simulation, &id);
}

static void see_durable_record(struct simulation *simulation, const struct storage_change *change)
{
    const uint32_t index = job_of_record(simulation, change);
    if (index == NO_JOB) {
        return;
    }
    simulation->jobs[index].is_on_disk = change->kind == STORAGE_PUT;
    if (change->kind == STORAGE_DELETE && simulation->deleted_length < DELETED_MAX) {
        simulation->deleted[simulation->deleted_length++] = index;
    }
}

/* What a batch takes away it has to replace by a conclusion. */
static void see_durable_batch(struct simulation *simulation)
{
    while (simulation->deleted_length > 0) {
        const uint32_t index = simulation->deleted[--simulation->deleted_length];
        const struct sim_job *job = &simulation->jobs[index];
        if (job->acknowledged_incarnation != 0 && !has_durable_record(job)) {
            simulation_violate(simulation, "job %u was acknowledged and is lost on disk", index);
        }
    }
}

/* The conclusion of a dead letter, by its new life. */
static void see_withdrawn(struct simulation *simulation, const struct storage_change *change)
{
    int64_t unix_ms;
    struct id id;
    if (change->kind == STORAGE_DELETE && change->family == STORE_CONCLUDED &&
        record_read_time_key(change->key, change->key_bytes, &unix_ms, &id) == 0) {
        const uint32_t index = simulation_job_of(simulation, &id);
        if (index != NO_JOB && simulation->jobs[index].lives > 0) {
            simulation->jobs[index].durable_conclusion = WIRE__JOB_STATE__JOB_STATE_UNKNOWN;
        }
    }
}

void oracle_see_durable(void *context, const struct storage_change *change)
{
    struct simulation *simulation = context;
    Wire__JobState state;
    if (change == NULL) {
        see_durable_batch(simulation);
        return;
    }
    see_durable_record(simulation, change);
    invalidations_see_durable(simulation, change);
    evidence_see_durable(simulation, change);
    see_withdrawn(simulation, change);
    if (is_conclusion(change)) {
        const uint32_t index = read_conclusion(simulation, change, &state);
        if (index != NO_JOB) {
            simulation->jobs[index].durable_conclusion = state;
        }
    }
}

static void see_stored_pause(void *context, const void *key, size_t key_bytes, struct blob *value)
{
    struct simulation *simulation = context;
    struct sim_broker *broker = &simulation->broker;
    Record__PauseRecord *record;
    if (key_bytes < 5 || memcmp(key, "pause", 5) != 0 || broker->holds_length == HOLDS_MAX ||
        record_read_pause(blob_data(value), blob_bytes(value), NULL, &record) < 0) {
        return;
    }
    /* The name must outlive the record: it is one of the scenario's. */
    for (uint64_t i = 0; i < 64; i++) {
        const struct message message = {.number = (int)record->subject_kind, .total = i};
        const uint64_t names =
            record->subject_kind == PAUSE_WORKER ? simulation->scenario.options.workers : 3;
        if (i < names && strcmp(hold_name(simulation, &message), record->subject) == 0) {
            broker->holds[broker->holds_length++] =
                (struct hold){(enum pause_subject)record->subject_kind,
                              (enum pause_mode)record->mode, i, hold_name(simulation, &message)};
        }
    }
    record__pause_record__free_unpacked(record, NULL);
}

void oracle_see_crash(struct simulation *simulation)
{
    for (uint32_t i = 0; i < simulation->jobs_length; i++) {
        struct sim_job *job = &simulation->jobs[i];
        job->current_conclusion = job->durable_conclusion;
        end_lease(simulation, job);
        job->attempt_last = 0;
        if (!job->is_durable) { /* submitted again it is a new one to the broker */
            job->kills = job->crashes = 0;
        }
        if (job->key != 0 && !job->is_durable && *key_owner(simulation, job) == i) {
            *key_owner(simulation, job) = NO_JOB;
        }
    }
    for (uint32_t i = 0; i < simulation->scenario.options.workers; i++) {
        simulation->workers[i].known_as = 0;
    }
    attempts_see_crash(simulation);
    simulation->broker.core_store_is_down = false;
    simulation->broker.holds_length = 0;
    storage_visit(simulation->broker.storage, STORAGE_DURABLE, STORE_META, see_stored_pause,
                  simulation);
}

/* ---------------------------------------------------------------------------------------------------
 * promises */

/* Given up in overload, so that its key is free again; nobody need have been told. */
static bool may_be_shed(const struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    Wire__JobState state;
    const char *worker;
    return !job->is_durable && simulation->scenario.tiers[job->tier].shed_target_ms > 0 &&
           core_find_job(simulation->broker.core, &job->id, &state, &worker) < 0;
}

static void check_key(struct simulation *simulation, const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    if (message->other_job != NO_JOB) {
        const struct sim_job *other = &simulation->jobs[message->other_job];
        if (other->key != job->key || other->tenant != job->tenant || job->key == 0) {
            simulation_violate(simulation, "job %u is known as job %u, which has another key",
                               message->job, message->other_job);
        }
        return;
    }
    if (job->key == 0) {
        return;
    }
    const uint32_t owner = *key_owner(simulation, job);
    if (owner != NO_JOB && owner != message->job && !simulation->scenario.is_tight &&
        !may_be_shed(simulation, owner)) {
        simulation_violate(simulation, "jobs %u and %u are both accepted under one idempotency key",
                           owner, message->job);
    }
    *key_owner(simulation, job) = message->job;
}

static void release_accepted(struct simulation *simulation, const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    check_key(simulation, message);
    const uint32_t kept = message->other_job != NO_JOB ? message->other_job : message->job;
    const struct sim_job *kept_job = &simulation->jobs[kept];
    if (kept_job->is_durable && !has_durable_record(kept_job)) {
        simulation_violate(simulation, "job %u is acknowledged before it is durable", kept);
    }
    if (message->other_job == NO_JOB) {
        job->acknowledged_incarnation = simulation->broker.incarnation;
        fairness_join(simulation, job);
    }
}

/* One that was shed is as if it were new: it may be refused. */
static bool is_still_known(const struct simulation *simulation, const struct sim_job *job)
{
    return job->acknowledged_incarnation != 0 && !simulation->scenario.is_tight &&
           (job->is_durable || job->acknowledged_incarnation == simulation->broker.incarnation) &&
           !may_be_shed(simulation, (uint32_t)(job - simulation->jobs));
}

bool oracle_knows(const struct simulation *simulation, uint32_t index)
{
    return index != NO_JOB && is_still_known(simulation, &simulation->jobs[index]);
}

static void release_rejected(struct simulation *simulation, const struct message *message)
{
    const struct sim_job *job = &simulation->jobs[message->job];
    const Wire__RejectReason reason = (Wire__RejectReason)message->number;
    const bool is_for_now = reason == WIRE__REJECT_REASON__REJECT_STORAGE ||
                            reason == WIRE__REJECT_REASON__REJECT_DRAINING;
    if (is_still_known(simulation, job) && !is_for_now) {
        simulation_violate(simulation,
                           "job %u is rejected (reason %d) although it was acknowledged",
                           message->job, (int)reason);
    }
    if ((reason == WIRE__REJECT_REASON__REJECT_QUEUE_FULL || is_for_now) && message->time_ms <= 0) {
        simulation_violate(simulation,
                           "job %u is rejected (reason %d) without a time to come again",
                           message->job, (int)reason);
    }
    if (reason == WIRE__REJECT_REASON__REJECT_UNKNOWN_ROUTE &&
        simulation->scenario.config.routes_length == 0 && job->route == SCENARIO_ROUTES - 1) {
        return; /* the alias is not there for a while */
    }
    if (reason == WIRE__REJECT_REASON__REJECT_UNKNOWN_TENANT && simulation->scenario.lacks_tenant &&
        job->tenant == 0) {
        return; /* nor the tenant */
    }
    if (reason == WIRE__REJECT_REASON__REJECT_INVALID) {
        return; /* for what it needs: needs.h */
    }
    if (reason == WIRE__REJECT_REASON__REJECT_BUDGET &&
        scenario_is_limited(&simulation->scenario, job->tenant)) {
        simulation->tally.over_budget++;
        return;
    }
    if (reason != WIRE__REJECT_REASON__REJECT_QUEUE_FULL &&
        reason != WIRE__REJECT_REASON__REJECT_PAUSED &&
        reason != WIRE__REJECT_REASON__REJECT_DEADLINE && !is_for_now &&
        !simulation->scenario.is_tight) {
        simulation_violate(simulation,
                           "job %u is rejected (reason %d) although nothing is wrong with it",
                           message->job, (int)reason);
    }
}

static void check_conclusion(struct simulation *simulation, const struct message *message)
{
    const struct sim_job *job = &simulation->jobs[message->job];
    const Wire__JobState state = (Wire__JobState)message->number;
    if (job->is_durable && job->durable_conclusion != state) {
        simulation_violate(simulation, "job %u is shown as %s, and on disk it is %s", message->job,
                           state_name(state), state_name(job->durable_conclusion));
    }
    /* A stream that nobody reads is cancelled, on tiers in memory. */
    const bool may_be_abandoned = job->streams && !job->is_durable;
    if (state == WIRE__JOB_STATE__JOB_STATE_CANCELLED && !job->is_cancelled && !may_be_abandoned) {
        simulation_violate(simulation, "job %u is cancelled, and nobody of its tenant asked for it",
                           message->job);
    }
    const bool is_shed = message->time_ms > 0 && !job->is_durable &&
                         simulation->scenario.tiers[job->tier].shed_target_ms > 0;
    const bool may_be_over_budget = scenario_is_limited(&simulation->scenario, job->tenant);
    if (state == WIRE__JOB_STATE__JOB_STATE_EXPIRED && !is_shed && !may_be_over_budget &&
        sim_broker_ms(simulation) < job->deadline_min_ms - slack_ms(simulation, job)) {
        simulation_violate(simulation, "job %u is expired before its deadline", message->job);
    }
    const uint32_t runner = message->other_job == NO_JOB ? message->job : message->other_job;
    if (state == WIRE__JOB_STATE__JOB_STATE_SUCCEEDED &&
        sim_worker_job_of_answer(simulation, message->payload) != runner) {
        simulation_violate(simulation, "job %u succeeds with what no worker answered to it",
                           message->job);
    }
}

/* A client that is told that the result is gone must have had it, or have asked not to keep it. */
static void check_collected(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    if (!job->result_is_gone && !job->discard_result && !simulation->scenario.is_tight) {
        simulation_violate(simulation, "the outcome of job %u is gone, and nobody collected it",
                           index);
    }
}

static void release_result(struct simulation *simulation, const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    if (message->number == WIRE__JOB_STATE__JOB_STATE_COLLECTED) {
        check_collected(simulation, message->job);
        return;
    }
    if (message->second != (int)job->lives) {
        return; /* of a life that ended while this waited for the disk */
    }
    check_conclusion(simulation, message);
    const bool was_shown =
        job->shown != 0 &&
        (job->is_durable || job->shown_incarnation == simulation->broker.incarnation);
    /* Of a dead letter that outlives its result only the state is known. */
    const bool is_summary = simulation->scenario.is_tight &&
                            message->number == WIRE__JOB_STATE__JOB_STATE_DEAD &&
                            message->payload == NULL;
    const bool differs = job->shown != (Wire__JobState)message->number ||
                         (job->shown_digest != message->digest && !is_summary);
    if (was_shown && differs) {
        simulation_violate(simulation, "job %u is shown as %s and as %s, or with two answers",
                           message->job, state_name(job->shown),
                           state_name((Wire__JobState)message->number));
    }
    flights_see_result(simulation, message);
    job->shown_for = message->other_job;
    job->is_shed = message->number == WIRE__JOB_STATE__JOB_STATE_EXPIRED && message->time_ms > 0;
    simulation->tally.shed += job->is_shed && !was_shown;
    job->shown = (Wire__JobState)message->number;
    job->shown_digest = message->digest;
    job->shown_incarnation = simulation->broker.incarnation;
}

static void release_status(struct simulation *simulation, const struct message *message)
{
    if (message->number == WIRE__JOB_STATE__JOB_STATE_UNKNOWN && message->flag) {
        simulation_violate(simulation, "job %u was acknowledged and is not known any more",
                           message->job);
    }
    if (message->number == WIRE__JOB_STATE__JOB_STATE_COLLECTED) {
        check_collected(simulation, message->job);
    }
}

/* Whoever may not be let in hears that, and nothing else. */
static void check_stranger(struct simulation *simulation, const struct link *link,
                           const struct message *message)
{
    if (link->is_stranger && message->effect != EFFECT_CLIENT_ERROR &&
        message->effect != EFFECT_WORKER_ERROR) {
        simulation_violate(simulation, "a stranger is answered with effect %d",
                           (int)message->effect);
    }
}

/* That a job is not known tells nothing of it. */
static bool says_nothing(const struct message *message)
{
    switch ((int)message->effect) {
    case EFFECT_STATUS:
        return message->number == WIRE__JOB_STATE__JOB_STATE_UNKNOWN;
    case EFFECT_REJECTED:
        return message->number == WIRE__REJECT_REASON__REJECT_CONFLICT ||
               message->number == WIRE__REJECT_REASON__REJECT_UNKNOWN_TENANT;
    case EFFECT_FEEDBACK_TAKEN:
        return message->number == WIRE__FEEDBACK_OUTCOME__FEEDBACK_UNKNOWN ||
               message->number == WIRE__FEEDBACK_OUTCOME__FEEDBACK_PUT_OFF;
    default:
        return false;
    }
}

void oracle_see_release(struct simulation *simulation, const struct message *message)
{
    const struct link *link = network_link(simulation, message->peer);
    check_stranger(simulation, link, message);
    if (message->job == NO_JOB && message->effect != EFFECT_RESULT &&
        message->second != DEFECT_NONE) {
        simulation->tally.refused++;
        defect_see_answer(simulation, (enum defect)message->second, message);
    }
    if (link->is_worker) {
        attempts_see_release(simulation, message);
        bill_see_release(simulation, message);
    }
    if (link->is_worker || message->job == NO_JOB) {
        return;
    }
    if (simulation->clients[link->owner].tenant != simulation->jobs[message->job].tenant) {
        if (!says_nothing(message)) {
            simulation_violate(simulation, "client %u hears of job %u of another tenant",
                               link->owner, message->job);
        }
        return;
    }
    if (message->effect == EFFECT_ACCEPTED) {
        release_accepted(simulation, message);
    } else if (message->effect == EFFECT_REJECTED) {
        release_rejected(simulation, message);
    } else if (message->effect == EFFECT_RESULT) {
        release_result(simulation, message);
    } else if (message->effect == EFFECT_CHUNK) {
        flights_see_chunk(simulation, message);
    } else if (message->effect == EFFECT_STATUS) {
        release_status(simulation, message);
    }
}

void oracle_see_made(struct simulation *simulation, const struct message *message)
{
    if (message->job == NO_JOB || !simulation->jobs[message->job].is_made) {
        simulation_violate(simulation, "nobody is told of what is not a worker's job");
    } else if (message->effect == EFFECT_ACCEPTED) {
        release_accepted(simulation, message);
    } else if (message->effect == EFFECT_REJECTED) {
        release_rejected(simulation, message);
    } else {
        simulation_violate(simulation, "job %u is concluded for nobody", message->job);
    }
}

/* ------------------------------------------------------------------------------------------
 * everything at once */

static void check_kept(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    if (!job->is_durable || job->acknowledged_incarnation == 0) {
        return;
    }
    if (!has_durable_record(job)) {
        simulation_violate(simulation, "job %u was acknowledged and is lost on disk", index);
    }
    Wire__JobState state;
    const char *worker;
    if (simulation->broker.is_up && job->current_conclusion == 0 &&
        core_find_job(simulation->broker.core, &job->id, &state, &worker) < 0) {
        simulation_violate(simulation, "job %u was acknowledged and is lost in memory", index);
    }
}

/* What is believed of the disk is what is there. */
static void check_disk(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    const bool is_there = storage_find(simulation->broker.storage, STORAGE_DURABLE, STORE_JOBS,
                                       job->id.bytes, ID_BYTES) != NULL;
    if (is_there != job->is_on_disk) {
        simulation_violate(simulation, "the record of job %u %s, and its batches say otherwise",
                           index, is_there ? "is there" : "is not there");
    }
}

static void check_bounds(struct simulation *simulation)
{
    const struct config *config = &simulation->scenario.config;
    struct core_stats stats;
    core_read_stats(simulation->broker.core, sim_broker_now(simulation), &stats);
    const bool has_too_many = stats.concluded_ids > config->broker.dedup_ids_max ||
                              stats.dead_letters > config->broker.dead_letters_max;
    simulation->broker.is_to_shrink &= has_too_many;
    if ((has_too_many && !simulation->broker.is_to_shrink) ||
        stats.clients > config->broker.clients_max || stats.workers > config->broker.workers_max ||
        stats.results_bytes >
            config->broker.results_bytes_max + config->broker.results_memory_bytes_max) {
        simulation_violate(simulation,
                           "a bound is broken: %" PRIu64 " ids, %" PRIu64 " dead letters, %" PRIu64
                           " bytes of results",
                           stats.concluded_ids, stats.dead_letters, stats.results_bytes);
    }
    for (size_t i = 0; i < stats.tiers_length; i++) {
        uint64_t jobs = 0;
        for (int state = WIRE__JOB_STATE__JOB_STATE_QUEUED;
             state < WIRE__JOB_STATE__JOB_STATE_SUCCEEDED; state++) {
            jobs += stats.tiers[i].states[state];
        }
        if (jobs > config->tiers[i].jobs_max ||
            stats.tiers[i].payload_bytes > config->tiers[i].bytes_max) {
            simulation_violate(simulation,
                               "tier %s holds %" PRIu64 " jobs and %" PRIu64
                               " bytes, more than it may",
                               config->tiers[i].name, jobs, stats.tiers[i].payload_bytes);
        }
    }
}

void oracle_check_turn(struct simulation *simulation)
{
    struct core_stats stats;
    core_read_stats(simulation->broker.core, sim_broker_now(simulation), &stats);
    degradation_check_turn(simulation, &stats);
    hedges_check_turn(simulation, &stats);
    bill_check_turn(simulation);
    check_bounds(simulation);
    for (int i = 0; i < KEPT_PER_TURN && simulation->jobs_length > 0; i++) {
        simulation->check_next = (simulation->check_next + 1) % simulation->jobs_length;
        check_kept(simulation, simulation->check_next);
    }
}

struct views {
    struct simulation *simulation;
    uint64_t workers, pauses;
};

static void look_at_worker(void *context, const struct core_worker_view *view)
{
    struct views *views = context;
    views->workers++;
    if (view->free > view->slots) { /* leases may be more: of attempts that were given up */
        simulation_violate(views->simulation, "%s has %u slots and %u free", view->name,
                           view->slots, view->free);
    }
}

static void look_at_hold(void *context, const struct core_pause_view *view)
{
    struct views *views = context;
    const struct sim_broker *broker = &views->simulation->broker;
    bool is_known = false;
    for (uint32_t i = 0; i < broker->holds_length; i++) {
        is_known |= broker->holds[i].subject == view->subject &&
                    strcmp(broker->holds[i].name, view->name) == 0;
    }
    views->pauses++;
    if (!is_known && broker->holds_length < HOLDS_MAX) {
        simulation_violate(views->simulation, "%s is paused, and nobody asked for it", view->name);
    }
}

/* Who may serve a queue, as the documentation has it. */
static void look_at_queue(void *context, const struct core_queue_view *view)
{
    const struct views *views = context;
    const struct simulation *simulation = views->simulation;
    const struct scenario *scenario = &simulation->scenario;
    char text[256];
    uint32_t tier = 0, route = 0, told = 0;
    while (tier < SCENARIO_TIERS - 1 && strcmp(view->tier, scenario->tiers[tier].name) != 0) {
        tier++;
    }
    while (route < SCENARIO_ROUTES - 1 && strcmp(view->route, scenario->routes[route]) != 0) {
        route++;
    }
    (void)core_name_upstreams(simulation->broker.core, view->queue, text, sizeof(text));
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "%s/%s", scenario_upstreams[i][0],
                       scenario_upstreams[i][1]);
        told |= (uint32_t)(strstr(text, name) != NULL) << i;
    }
    const bool is_there = route < SCENARIO_ROUTES - 1 || scenario->config.routes_length > 0;
    if (told != (is_there ? scenario->candidates[route][tier] : 0)) {
        simulation_violate(views->simulation, "%s/%s may be served by \"%s\"", view->tier,
                           view->route, text);
    }
}

/* What operators are shown agrees with what is known, and with itself. */
static void check_views(struct simulation *simulation)
{
    const struct core *core = simulation->broker.core;
    struct views views = {.simulation = simulation};
    struct core_stats stats;
    core_visit_workers(core, sim_broker_now(simulation), look_at_worker, &views);
    core_visit_pauses(core, look_at_hold, &views);
    core_visit_queues(core, look_at_queue, &views);
    core_read_stats(simulation->broker.core, sim_broker_now(simulation), &stats);
    if (views.workers != stats.workers || views.pauses < simulation->broker.holds_length) {
        simulation_violate(
            simulation, "%" PRIu64 " of %" PRIu64 " workers and %" PRIu64 " of %u pauses are shown",
            views.workers, stats.workers, views.pauses, simulation->broker.holds_length);
    }
    views_check_dead(simulation);
    for (uint32_t i = 0; i < simulation->jobs_length; i += VIEWED_EVERY) {
        struct core_job_view view;
        Wire__JobState state;
        const char *worker;
        const int r = core_find_job(core, &simulation->jobs[i].id, &state, &worker);
        if (core_view_job(core, &simulation->jobs[i].id, sim_broker_now(simulation), &view) != r ||
            (r == 0 && (view.state != state || strcmp(view.worker, worker) != 0))) {
            simulation_violate(simulation, "job %u is shown as it is not", i);
        }
        views_check_job(simulation, i);
    }
}

void oracle_check(struct simulation *simulation)
{
    if (simulation->broker.is_up) {
        check_views(simulation);
    }
    for (uint32_t i = 0; i < simulation->jobs_length; i++) {
        check_kept(simulation, i);
        check_disk(simulation, i);
        flights_check(simulation, i);
    }
    if (simulation->broker.is_up) {
        check_bounds(simulation);
    }
}

bool oracle_is_settled(struct simulation *simulation)
{
    if (simulation->jobs_length < simulation->scenario.options.jobs || !simulation->broker.is_up ||
        storage_first_pending(simulation->broker.storage) <=
            storage_latest(simulation->broker.storage)) {
        return false;
    }
    for (uint32_t i = 0; i < simulation->scenario.clients; i++) {
        if (simulation->clients[i].open_length > 0 || simulation->clients[i].asks_length > 0) {
            return false;
        }
    }
    struct core_stats stats;
    core_read_stats(simulation->broker.core, sim_broker_now(simulation), &stats);
    return stats.jobs == 0;
}

static void see_left_lease(void *context, const void *key, size_t key_bytes, struct blob *value)
{
    struct simulation *simulation = context;
    struct id id = {0};
    (void)value;
    if (key_bytes == ID_BYTES) {
        memcpy(id.bytes, key, ID_BYTES);
    }
    simulation_violate(simulation, "the record of a lease of job %u is left when no job is",
                       simulation_job_of(simulation, &id));
}

void oracle_check_end(struct simulation *simulation)
{
    const struct storage *storage = simulation->broker.storage;
    struct core_stats stats;
    oracle_check(simulation);
    if (!simulation->broker.is_up) {
        return;
    }
    storage_visit(storage, STORAGE_DURABLE, STORE_LEASES, see_left_lease, simulation);
    attempts_check_end(simulation);
    evidence_check_end(simulation);
    bill_check_end(simulation);
    core_read_stats(simulation->broker.core, sim_broker_now(simulation), &stats);
    if (storage_length(storage, STORAGE_DURABLE, STORE_JOBS) > stats.dead_letters ||
        storage_length(storage, STORAGE_DURABLE, STORE_PAYLOADS) > stats.dead_letters) {
        simulation_violate(simulation,
                           "records are left when no job is: %zu jobs and %zu payloads for %" PRIu64
                           " dead letters",
                           storage_length(storage, STORAGE_DURABLE, STORE_JOBS),
                           storage_length(storage, STORAGE_DURABLE, STORE_PAYLOADS),
                           stats.dead_letters);
    }
}
