#include "tests/simulation/attempts.h"
#include <inttypes.h>
#include <string.h>
#include "broker/core/core.h"
#include "broker/core/record.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/degradation.h"
#include "tests/simulation/network.h"

enum {
    LOSSES_SHARED = 3,
    BREAKER_JITTER_PERCENT = 20, /* by which it may stay open shorter */
    DOUBLINGS_MAX = 30,
};

static bool is_pending(const struct simulation *simulation, const struct sim_job *job)
{
    Wire__JobState state;
    const char *worker;
    return core_find_job(simulation->broker.core, &job->id, &state, &worker) == 0 &&
           state < WIRE__JOB_STATE__JOB_STATE_SUCCEEDED;
}

static bool is_leased_to(const struct simulation *simulation, const struct sim_job *job,
                         const char *name)
{
    Wire__JobState state;
    const char *worker;
    return core_find_job(simulation->broker.core, &job->id, &state, &worker) == 0 &&
           state == WIRE__JOB_STATE__JOB_STATE_LEASED && strcmp(worker, name) == 0;
}

static const struct sim_worker *worker_of(const struct simulation *simulation, uint64_t peer)
{
    return &simulation->workers[network_link(simulation, peer)->owner];
}

/* ---- breakers ---- */

struct look {
    uint32_t upstream;
    bool is_there, is_open, is_half_open;
    int64_t blocked_ms;
};

static void look_at(void *context, const struct core_upstream_view *view)
{
    struct look *look = context;
    if (scenario_upstream(view->provider, view->model) == look->upstream) {
        look->is_there = true;
        look->is_open = view->state == WIRE__UPSTREAM_STATE__STATE__UPSTREAM_OPEN;
        look->is_half_open = view->state == WIRE__UPSTREAM_STATE__STATE__UPSTREAM_HALF_OPEN;
        look->blocked_ms = view->blocked_ms;
    }
}

static struct look look(const struct simulation *simulation, uint32_t upstream)
{
    struct look look = {.upstream = upstream};
    core_visit_upstreams(simulation->broker.core, sim_broker_now(simulation), look_at, &look);
    return look;
}

/* A worker that is at fault itself says nothing: the upstream is not open again then. */
static void see_failed_probe(struct simulation *simulation, const struct call *call)
{
    const struct config_breaker *config = &simulation->scenario.config.breaker;
    uint32_t *failed = &simulation->attempts.failed_probes[call->upstream];
    const struct look seen = look(simulation, call->upstream);
    if (!seen.is_open) {
        return;
    }
    *failed += *failed < DOUBLINGS_MAX;
    int64_t for_ms = config->open_first_ms;
    for (uint32_t i = 0; i < *failed && for_ms < config->open_max_ms; i++) {
        for_ms *= 2;
    }
    for_ms = for_ms < config->open_max_ms ? for_ms : config->open_max_ms;
    for_ms -= for_ms * BREAKER_JITTER_PERCENT / 100;
    if (seen.blocked_ms < for_ms - 1) {
        simulation_violate(simulation,
                           "upstream %s/%s is blocked for %" PRId64
                           " ms after %u probes failed, and %" PRId64 " is the least",
                           scenario_upstreams[call->upstream][0],
                           scenario_upstreams[call->upstream][1], seen.blocked_ms, *failed, for_ms);
    }
}

/* Its latest probe, which is still waited for, is held by this worker. */
static bool is_probed_by(const struct simulation *simulation, uint32_t upstream, uint64_t peer)
{
    const struct watched_upstream *watched = &simulation->degradation.upstreams[upstream];
    const struct sim_worker *worker = worker_of(simulation, peer);
    if (watched->probing_job == NO_JOB || worker->known_as != peer) {
        return false;
    }
    const struct sim_job *job = &simulation->jobs[watched->probing_job];
    return job->permit.is_open && job->permit.attempt == watched->probing_attempt &&
           job->lease.is_held && job->lease.peer == peer &&
           job->lease.attempt == watched->probing_attempt &&
           is_leased_to(simulation, job, worker->name) && look(simulation, upstream).is_half_open;
}

static void before_silence(struct simulation *simulation, const struct message *message)
{
    const bool ends_all = message->event == EVENT_WORKER_GONE;
    const bool ends_one = message->event == EVENT_UNDELIVERABLE ||
                          (message->event == EVENT_ATTEMPT_RESULT && !message->call.is_made);
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS && (ends_all || ends_one); i++) {
        const struct watched_upstream *watched = &simulation->degradation.upstreams[i];
        const bool is_it = ends_all || (watched->probing_job == message->job &&
                                        watched->probing_attempt == message->attempt);
        if (is_it && is_probed_by(simulation, i, message->peer)) {
            simulation->attempts.silent_probes |= 1u << i;
        }
    }
}

static void after_silence(struct simulation *simulation)
{
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        if ((simulation->attempts.silent_probes >> i & 1) == 0) {
            continue;
        }
        const struct look seen = look(simulation, i);
        if (seen.is_half_open && seen.blocked_ms > 0) {
            simulation_violate(simulation,
                               "upstream %s/%s waits %" PRId64 " ms more for a probe that is over",
                               scenario_upstreams[i][0], scenario_upstreams[i][1], seen.blocked_ms);
        }
    }
}

static void see_up(struct simulation *simulation, const struct effect *effect)
{
    for (uint32_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        const size_t provider_length = strlen(scenario_upstreams[i][0]);
        const char *subject = effect->as.note.subject;
        if (strncmp(subject, scenario_upstreams[i][0], provider_length) != 0 ||
            subject[provider_length] != '/' ||
            strcmp(subject + provider_length + 1, scenario_upstreams[i][1]) != 0) {
            continue;
        }
        simulation->attempts.failed_probes[i] = 0;
        if (simulation->attempts.probed != i) {
            simulation_violate(simulation, "upstream %s is up, and no probe of it has ended",
                               subject);
        }
    }
}

/* ---- goodbyes ---- */

/* As operators are shown it. False: it is not pending. */
static bool count_attempts(const struct simulation *simulation, const struct sim_job *job,
                           uint32_t *ret_attempts)
{
    struct core_job_view view;
    if (core_view_job(simulation->broker.core, &job->id, sim_broker_now(simulation), &view) < 0 ||
        view.state >= WIRE__JOB_STATE__JOB_STATE_SUCCEEDED) {
        return false;
    }
    *ret_attempts = view.attempts;
    return true;
}

static void before_goodbye(struct simulation *simulation, const struct message *message)
{
    struct attempts *attempts = &simulation->attempts;
    const struct sim_worker *worker = worker_of(simulation, message->peer);
    if (worker->known_as != message->peer) {
        return;
    }
    attempts->leaving = worker->name;
    struct list_link *link = worker->leases.head.next;
    for (; link != &worker->leases.head && attempts->left_length < RUNS_MAX; link = link->next) {
        const struct sim_job *job = CONTAINER_OF(link, struct sim_job, lease.link);
        if (is_leased_to(simulation, job, worker->name) &&
            count_attempts(simulation, job, &attempts->left[attempts->left_length].attempts)) {
            attempts->left[attempts->left_length++].job = (uint32_t)(job - simulation->jobs);
        }
    }
}

/* The one that was under way counts no more. */
static void after_goodbye(struct simulation *simulation)
{
    const struct attempts *attempts = &simulation->attempts;
    for (uint32_t i = 0; i < attempts->left_length; i++) {
        const uint32_t index = attempts->left[i].job, before = attempts->left[i].attempts;
        uint32_t after;
        if (!count_attempts(simulation, &simulation->jobs[index], &after)) {
            simulation_violate(simulation, "job %u ends with the goodbye of %s", index,
                               attempts->leaving);
        } else if (after + 1 != before) {
            simulation_violate(simulation,
                               "job %u counts %u attempts after the goodbye of %s, and %u before",
                               index, after, attempts->leaving, before);
        }
    }
}

bool attempts_is_leaving(const struct simulation *simulation, const char *worker)
{
    return simulation->attempts.leaving != NULL &&
           strcmp(simulation->attempts.leaving, worker) == 0;
}

/* ---- what is told ---- */

static void before_result(struct simulation *simulation, const struct message *message)
{
    struct attempts *attempts = &simulation->attempts;
    const struct sim_job *job = &simulation->jobs[message->job];
    const struct sim_worker *worker = worker_of(simulation, message->peer);
    attempts->is_known = worker->known_as == message->peer;
    attempts->was_pending = is_pending(simulation, job);
    attempts->was_held =
        attempts->is_known && job->lease.is_held && job->lease.peer == message->peer &&
        job->lease.attempt == message->attempt && is_leased_to(simulation, job, worker->name);
    if (message->event == EVENT_ATTEMPT_RESULT && job->permit.is_probe &&
        job->permit.attempt == message->attempt) {
        attempts->probed = job->permit.upstream;
        /* One that was given up may end when another has opened the breaker, or closed it. */
        attempts->is_permitted =
            job->permit.is_open && look(simulation, attempts->probed).is_half_open;
    }
}

void attempts_before_step(struct simulation *simulation, const struct message *message)
{
    struct attempts *attempts = &simulation->attempts;
    attempts->probed = SCENARIO_UPSTREAMS;
    attempts->was_pending = attempts->was_held = attempts->is_known = false;
    attempts->leaving = NULL;
    attempts->left_length = 0;
    attempts->silent_probes = 0;
    before_silence(simulation, message);
    if (message->event == EVENT_ATTEMPT_RESULT) {
        before_result(simulation, message);
    } else if (message->event == EVENT_WORKER_GONE && message->flag) {
        before_goodbye(simulation, message);
    } else if (message->event == EVENT_DRAIN) {
        attempts->is_draining = true;
    } else if (message->event == EVENT_WORKER_CREDIT || message->event == EVENT_WORKER_HEARTBEAT) {
        network_link(simulation, message->peer)->has_given_back = false;
    } else if (message->event == EVENT_CANCEL) {
        const struct sim_job *job = &simulation->jobs[message->job];
        attempts->was_held =
            job->lease.is_held &&
            worker_of(simulation, job->lease.peer)->known_as == job->lease.peer &&
            is_leased_to(simulation, job, worker_of(simulation, job->lease.peer)->name);
    }
}

static uint32_t attempts_of(const struct simulation *simulation, const struct sim_job *job)
{
    return job->attempts_max > 0 ? job->attempts_max
                                 : simulation->scenario.tiers[job->tier].attempts_max;
}

/* Of everybody's calls: whether an upstream serves others while it fails a job. */
static void see_call(struct simulation *simulation, const struct call *call)
{
    struct attempts *attempts = &simulation->attempts;
    if (!call->is_made) {
        return;
    }
    if (call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE) {
        attempts->failed_in_a_row[call->upstream]++;
    } else if (call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED) {
        attempts->failed_in_a_row[call->upstream] = 0;
        attempts->answered_ms[call->upstream] = sim_broker_ms(simulation);
    }
}

/* Nobody was reached, or it may be an outage: such a failure need not be the last. */
static bool is_in_doubt(const struct simulation *simulation, const struct call *call)
{
    const struct attempts *attempts = &simulation->attempts;
    return attempts->failed_in_a_row[call->upstream] > 1 ||
           sim_broker_ms(simulation) - attempts->answered_ms[call->upstream] >
               simulation->scenario.config.breaker.window_ms ||
           strcmp(call->error_code, "connect") == 0 || strcmp(call->error_code, "tls") == 0;
}

static void see_failure(struct simulation *simulation, const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    const struct call *call = &message->call;
    const bool is_limited = call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED;
    const bool is_failure = call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE;
    if (!call->is_made || (!is_limited && !is_failure)) {
        return;
    }
    job->told.failed_upstream = call->upstream;
    job->told.failed_ms = sim_broker_ms(simulation);
    /* Of one that is configured no more nothing is shown. */
    if (!is_failure || !look(simulation, call->upstream).is_there ||
        degradation_is_down(simulation, call->upstream) || is_in_doubt(simulation, call)) {
        return;
    }
    /* The core may know of a few more in a row than are seen here. */
    if (++job->told.failures >= attempts_of(simulation, job) + 2 && is_pending(simulation, job)) {
        simulation_violate(simulation, "job %u has failed %u times of %u and is not dead",
                           message->job, job->told.failures, attempts_of(simulation, job));
    }
}

/* It says when to come back. */
static void see_limit(struct simulation *simulation, const struct call *call)
{
    const int64_t until_ms = sim_broker_ms(simulation) + call->retry_after_ms;
    int64_t *rests_until_ms = &simulation->attempts.rests_until_ms[call->upstream];
    if (call->is_made && call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED &&
        call->retry_after_ms > 0 && until_ms > *rests_until_ms) {
        *rests_until_ms = until_ms;
    }
}

static void after_result(struct simulation *simulation, const struct message *message)
{
    const struct attempts *attempts = &simulation->attempts;
    struct sim_job *job = &simulation->jobs[message->job];
    const bool is_answer = message->number == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED;
    if (is_answer && attempts->is_known) {
        job->told.answered_attempt = message->attempt;
    }
    if (is_answer && attempts->is_known && attempts->was_pending && is_pending(simulation, job)) {
        simulation_violate(simulation, "job %u was answered and is not concluded", message->job);
    }
    if (attempts->is_known) {
        see_limit(simulation, &message->other);
        see_limit(simulation, &message->call);
        see_call(simulation, &message->other);
        see_call(simulation, &message->call);
    }
    if (!attempts->was_held) {
        return;
    }
    if (message->number == WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED &&
        strcmp(message->call.error_code, "upstream_open") != 0) {
        network_link(simulation, message->peer)->has_given_back = true;
    }
    if (message->number == WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED) {
        job->told.wait_until_ms = sim_broker_ms(simulation) + message->time_ms;
    }
    see_failure(simulation, message);
    if (attempts->probed < SCENARIO_UPSTREAMS && attempts->is_permitted && message->call.is_made &&
        message->call.upstream == attempts->probed &&
        message->call.outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE) {
        see_failed_probe(simulation, &message->call);
    }
}

static bool is_told_to_stop(const struct simulation *simulation, const struct sim_job *job)
{
    struct effects *effects = simulation->broker.effects;
    for (size_t i = 0; i < effects_length(effects); i++) {
        const struct effect *effect = effects_at(effects, i);
        if (effect->kind == EFFECT_ATTEMPT_CANCEL && effect->peer == job->lease.peer &&
            memcmp(&effect->as.attempt.lease.job_id, &job->id, sizeof(job->id)) == 0) {
            return true;
        }
    }
    return false;
}

static void check_told(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    if (!is_pending(simulation, job) && !is_told_to_stop(simulation, job)) {
        simulation_violate(simulation,
                           "peer %" PRIu64 " is not told that its attempt of job %u is over",
                           job->lease.peer, index);
    }
}

void attempts_after_step(struct simulation *simulation, const struct message *message)
{
    if (simulation->attempts.silent_probes != 0) {
        after_silence(simulation);
    }
    if (message->event == EVENT_ATTEMPT_RESULT) {
        after_result(simulation, message);
    } else if (message->event == EVENT_WORKER_GONE) {
        after_goodbye(simulation);
    } else if (message->event == EVENT_CANCEL && simulation->attempts.was_held) {
        check_told(simulation, message->job);
    }
}

static bool lasts(const struct simulation *simulation, const struct sim_job *job)
{
    const int64_t heard_ms = network_link(simulation, job->lease.peer)->heard_ms;
    const int64_t since_ms = heard_ms < job->lease.renewed_ms ? heard_ms : job->lease.renewed_ms;
    return since_ms + simulation->scenario.config.broker.lease_ms > sim_broker_ms(simulation);
}

void attempts_see_hello(struct simulation *simulation, const struct message *message)
{
    const struct sim_worker *worker = worker_of(simulation, message->peer);
    network_link(simulation, message->peer)->has_given_back = false;
    for (uint8_t i = 0; i < message->leases->answered_length; i++) {
        const struct job_lease *answered = &message->leases->answered[i];
        const struct sim_job *job = &simulation->jobs[answered->job];
        if (job->lease.is_held && worker_of(simulation, job->lease.peer) == worker &&
            job->lease.attempt == answered->attempt && lasts(simulation, job) &&
            is_pending(simulation, job) && !is_leased_to(simulation, job, worker->name)) {
            simulation_violate(simulation,
                               "%s comes back with the answer to job %u, and has lost its lease",
                               worker->name, answered->job);
        }
    }
}

/* ---- what is said ---- */

void attempts_see_dispatch(struct simulation *simulation, uint32_t index,
                           const struct effect *effect)
{
    const struct sim_job *job = &simulation->jobs[index];
    const uint32_t losses_max = simulation->scenario.config.broker.losses_max;
    const uint32_t upstream = degradation_upstream_of(simulation, effect);
    if (simulation->attempts.is_draining) {
        simulation_violate(simulation, "job %u is dispatched while the broker shuts down", index);
    }
    if (network_link(simulation, effect->peer)->has_given_back) {
        simulation_violate(
            simulation, "job %u is dispatched to peer %" PRIu64 ", which has just given one back",
            index, effect->peer);
    }
    if (sim_broker_ms(simulation) < job->told.wait_until_ms) {
        simulation_violate(simulation,
                           "job %u is dispatched %" PRId64 " ms before the time that it was given",
                           index, job->told.wait_until_ms - sim_broker_ms(simulation));
    }
    if (upstream < SCENARIO_UPSTREAMS &&
        sim_broker_ms(simulation) < simulation->attempts.rests_until_ms[upstream]) {
        simulation_violate(
            simulation, "job %u is dispatched to %s/%s %" PRId64 " ms before it may be called",
            index, scenario_upstreams[upstream][0], scenario_upstreams[upstream][1],
            simulation->attempts.rests_until_ms[upstream] - sim_broker_ms(simulation));
    }
    if (job->told.failed_ms == sim_broker_ms(simulation) && job->told.failed_upstream == upstream) {
        simulation_violate(simulation, "job %u fails over to the upstream that it failed at",
                           index);
    }
    /* Nobody is condemned for a crash that another suspect shared, so it may be a few more. */
    if (losses_max > 0 && job->told.losses_least >= LOSSES_SHARED * losses_max) {
        simulation_violate(simulation,
                           "job %u is dispatched after %u workers were lost with it, and %u may be",
                           index, job->told.losses_least, losses_max);
    }
}

static void see_lost(struct simulation *simulation, const struct effect *effect, uint32_t index)
{
    struct sim_job *job = &simulation->jobs[index];
    const bool is_crash = effect->as.note.subject[0] != '\0' &&
                          !attempts_is_leaving(simulation, effect->as.note.subject);
    job->told.losses_least += is_crash;
    job->told.losses_most += is_crash;
}

/* Who follows another one dies of what that one has done. */
static void see_death(struct simulation *simulation, const struct effect *effect, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    const uint32_t losses_max = simulation->scenario.config.broker.losses_max;
    if (strcmp(effect->as.note.subject, "payload_lost") == 0 && !job->has_spoilt_payload) {
        simulation_violate(simulation, "job %u has lost its payload", index);
    }
    if (strcmp(effect->as.note.subject, "poison") == 0 && job->canonical == 0 &&
        job->told.losses_most < losses_max) {
        simulation_violate(simulation, "job %u is condemned after %u of %u losses", index,
                           job->told.losses_most, losses_max);
    }
}

static void see_expired(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    if (job->lease.is_held && !simulation->attempts.was_held && lasts(simulation, job) &&
        worker_of(simulation, job->lease.peer)->known_as == job->lease.peer &&
        !is_told_to_stop(simulation, job)) {
        simulation_violate(simulation, "peer %" PRIu64 " is not told that job %u has expired",
                           job->lease.peer, index);
    }
}

void attempts_see_effect(struct simulation *simulation, const struct effect *effect)
{
    if (effect->kind == EFFECT_ACCEPTED && !effect->as.accepted.duplicate &&
        simulation->attempts.is_draining) {
        simulation_violate(simulation, "a job is accepted while the broker shuts down");
    }
    const uint32_t index = effect->kind == EFFECT_NOTE && effect->as.note.has_job
                               ? simulation_job_of(simulation, &effect->as.note.job_id)
                               : NO_JOB;
    if (effect->kind == EFFECT_NOTE && effect->as.note.note == NOTE_UPSTREAM_UP) {
        see_up(simulation, effect);
    }
    if (index == NO_JOB) {
        return;
    }
    if (effect->as.note.note == NOTE_LEASE_LOST) {
        see_lost(simulation, effect, index);
    } else if (effect->as.note.note == NOTE_DEAD_LETTER) {
        see_death(simulation, effect, index);
    } else if (effect->as.note.note == NOTE_EXPIRED) {
        see_expired(simulation, index);
    }
}

void attempts_see_release(struct simulation *simulation, const struct message *message)
{
    if (message->effect != EFFECT_ATTEMPT_CONCLUDED || message->job == NO_JOB) {
        return;
    }
    const struct sim_job *job = &simulation->jobs[message->job];
    if (job->is_durable && job->told.answered_attempt == message->attempt &&
        job->current_conclusion != 0 && job->durable_conclusion == 0) {
        simulation_violate(simulation,
                           "the answer to job %u may be forgotten before its conclusion is durable",
                           message->job);
    }
}

/* ---- restarts ---- */

/* Not by the core's own reader, which may be mistaken: a version byte, then the message. */
static void read_job(void *context, const void *key, size_t key_bytes, struct blob *value)
{
    struct simulation *simulation = context;
    const uint8_t *data = blob_data(value);
    struct id id = {0};
    memcpy(id.bytes, key, key_bytes < ID_BYTES ? key_bytes : ID_BYTES);
    const uint32_t index = simulation_job_of(simulation, &id);
    Record__JobRecord *record = record__job_record__unpack(NULL, blob_bytes(value) - 1, data + 1);
    if (index != NO_JOB && record != NULL) {
        struct sim_job *job = &simulation->jobs[index];
        job->attempt_last = record->attempt_last;
        job->told.failures = record->attempts;
        job->told.losses_least = record->lost_leases;
    }
    record__job_record__free_unpacked(record, NULL);
}

void attempts_begin_life(struct simulation *simulation, uint32_t index)
{
    struct sim_job *job = &simulation->jobs[index];
    job->told.failures = job->told.losses_least = job->told.losses_most = 0;
    job->told.answered_attempt = 0;
    job->told.failed_ms = job->told.wait_until_ms = INT64_MIN;
}

void attempts_see_crash(struct simulation *simulation)
{
    simulation->attempts.is_draining = false;
    memset(simulation->attempts.rests_until_ms, 0, sizeof(simulation->attempts.rests_until_ms));
    memset(simulation->attempts.failed_probes, 0, sizeof(simulation->attempts.failed_probes));
    for (size_t i = 0; i < SCENARIO_UPSTREAMS; i++) {
        simulation->attempts.answered_ms[i] = INT64_MIN / 2; /* not known any more */
    }
    for (uint32_t i = 0; i < simulation->jobs_length; i++) {
        struct sim_job *job = &simulation->jobs[i];
        job->told.failures = job->told.losses_least = job->told.answered_attempt = 0;
        job->told.failed_ms = job->told.wait_until_ms = INT64_MIN;
    }
    storage_visit(simulation->broker.storage, STORAGE_DURABLE, STORE_JOBS, read_job, simulation);
}

static void read_upstream(void *context, const void *key, size_t key_bytes, struct blob *value)
{
    struct simulation *simulation = context;
    Record__UpstreamRecord *record;
    if (key_bytes < 8 || memcmp(key, "upstream", 8) != 0 ||
        record_read_upstream(blob_data(value), blob_bytes(value), NULL, &record) < 0) {
        return;
    }
    const uint32_t upstream = scenario_upstream(record->provider, record->model);
    if (upstream < SCENARIO_UPSTREAMS && record->open_until_unix_ms > 0 &&
        look(simulation, upstream).is_there) { /* else it was configured no more */
        simulation->degradation.upstreams[upstream].is_down = true;
    }
    record__upstream_record__free_unpacked(record, NULL);
}

/* What was down is down. */
void attempts_restart(struct simulation *simulation)
{
    storage_visit(simulation->broker.storage, STORAGE_DURABLE, STORE_META, read_upstream,
                  simulation);
}

/* ---- the end ---- */

static void see_left_attempt(void *context, const void *key, size_t key_bytes, struct blob *value)
{
    struct simulation *simulation = context;
    Wire__JobState state;
    const char *worker;
    struct id id = {0};
    (void)value;
    memcpy(id.bytes, key, key_bytes < ID_BYTES ? key_bytes : ID_BYTES);
    if (core_find_job(simulation->broker.core, &id, &state, &worker) < 0) {
        simulation_violate(simulation, "the record of an attempt of job %u is left, which is gone",
                           simulation_job_of(simulation, &id));
    }
}

static void see_mark(void *context, const void *key, size_t key_bytes, struct blob *value)
{
    struct simulation *simulation = context;
    (void)value;
    if (key_bytes == RECORD_MARK_KEY_BYTES && !record_key_is_feedback(key) &&
        storage_find(simulation->broker.storage, STORAGE_DURABLE, STORE_RESULTS, key,
                     RECORD_TIME_KEY_BYTES) != NULL) {
        simulation_violate(simulation, "a result that was collected is left");
    }
}

void attempts_check_end(struct simulation *simulation)
{
    const struct storage *storage = simulation->broker.storage;
    /* What a sweep drops at the very end is on its way to the disk. */
    storage_visit(storage, STORAGE_CURRENT, STORE_ATTEMPTS, see_left_attempt, simulation);
    storage_visit(storage, STORAGE_DURABLE, STORE_CONCLUDED, see_mark, simulation);
}
