#include "tests/simulation/worker.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>
#include "tests/simulation/broker.h"
#include "tests/simulation/cache.h"
#include "tests/simulation/client.h"
#include "tests/simulation/flights.h"
#include "tests/simulation/memory.h"
#include "tests/simulation/needs.h"
#include "tests/simulation/network.h"

enum {
    RESEND_MS = 30000,
    DOWN_MS_MAX = 60000,
    CANCEL_MS_MAX = 200, /* until a cancelled attempt has stopped */
    BEGIN_MS_MAX = 500,  /* they do not start all at once */
    DEFERRED_MS_MAX = 3000,
    CACHED_MS_MAX = 50,
    LEAVE_MS = 1000, /* between two looks whether a draining worker has ended */
};

static void wake_at(struct simulation *simulation, struct sim_worker *worker, int64_t at_ms)
{
    schedule_add(&simulation->schedule, at_ms, TASK_WORKER_WAKE, worker->index,
                 ++worker->wake_generation, NULL);
}

static int64_t heartbeat_ms(const struct simulation *simulation)
{
    return simulation->scenario.config.broker.heartbeat_ms;
}

void sim_worker_init(struct simulation *simulation, uint32_t index)
{
    struct sim_worker *worker = &simulation->workers[index];
    *worker = (struct sim_worker){
        .index = index,
        .slots = (uint32_t)dice_between(&simulation->dice, 1, simulation->scenario.slots_max),
        /* One at least serves all. */
        .pools = index == 0 || dice_hit(&simulation->dice, 300) ? SCENARIO_POOLS : 1,
    };
    list_init(&worker->leases);
    (void)snprintf(worker->name, sizeof(worker->name), "worker-%u", index);
    wake_at(simulation, worker, BEGIN_MS + dice_between(&simulation->dice, 0, BEGIN_MS_MAX));
}

static void drop_answer(struct sim_worker *worker, uint32_t i)
{
    blob_unref(&worker->answers[i].payload);
    worker->answers_length--;
    memmove(&worker->answers[i], &worker->answers[i + 1],
            (worker->answers_length - i) * sizeof(worker->answers[0]));
}

void sim_worker_finish(struct sim_worker *worker)
{
    while (worker->answers_length > 0) {
        drop_answer(worker, worker->answers_length - 1);
    }
    worker->runs_length = 0;
}

/* -----------------------------------------------------------------------------------------------------
 * answers */

struct answer_bytes {
    uint64_t nonce;
    uint32_t job, attempt;
    uint64_t check;
};

static uint64_t answer_check(const struct simulation *simulation, const struct answer_bytes *bytes)
{
    return XXH3_64bits_withSeed(bytes, offsetof(struct answer_bytes, check),
                                simulation->scenario.options.seed);
}

struct blob *sim_worker_answer(struct simulation *simulation, const struct job_lease *lease)
{
    /* The nonce makes two executions of a job tell apart. */
    struct answer_bytes bytes = {
        .nonce = dice_next(&simulation->dice), .job = lease->job, .attempt = lease->attempt};
    bytes.check = answer_check(simulation, &bytes);
    struct blob *answer;
    if (blob_create(&bytes, sizeof(bytes), &answer) < 0) {
        (void)must(NULL);
    }
    return answer;
}

uint32_t sim_worker_job_of_answer(const struct simulation *simulation, const struct blob *answer)
{
    struct answer_bytes bytes;
    if (answer == NULL || blob_bytes(answer) != sizeof(bytes)) {
        return NO_JOB;
    }
    memcpy(&bytes, blob_data(answer), sizeof(bytes));
    return bytes.check == answer_check(simulation, &bytes) ? bytes.job : NO_JOB;
}

uint32_t sim_worker_attempt_of_answer(const struct blob *answer)
{
    struct answer_bytes bytes = {0};
    if (answer != NULL && blob_bytes(answer) == sizeof(bytes)) {
        memcpy(&bytes, blob_data(answer), sizeof(bytes));
    }
    return bytes.attempt;
}

/* -----------------------------------------------------------------------------------------------------
 * telling */

static void tell(struct simulation *simulation, const struct sim_worker *worker,
                 enum event_kind kind)
{
    const struct message message = {.to_broker = true,
                                    .event = kind,
                                    .peer = worker->peer,
                                    .job = NO_JOB,
                                    .total = worker->credit_total,
                                    .number = (int)worker->slots};
    network_send(simulation, &message);
}

/* Hello and heartbeat name the leases that are held, hello also the answers that are kept. */
static void tell_leases(struct simulation *simulation, const struct sim_worker *worker,
                        enum event_kind kind)
{
    struct message message = {.to_broker = true,
                              .event = kind,
                              .peer = worker->peer,
                              .job = NO_JOB,
                              .number = (int)worker->slots};
    message.leases = must(calloc(1, sizeof(*message.leases)));
    for (uint32_t i = 0; i < worker->runs_length; i++) {
        message.leases->held[message.leases->held_length++] = worker->runs[i].lease;
    }
    for (uint32_t i = 0; i < worker->answers_length && kind == EVENT_WORKER_HELLO; i++) {
        message.leases->answered[message.leases->answered_length++] = worker->answers[i].lease;
    }
    message.leases->cache_sequence = worker->cache.sequence;
    message.leases->cache_is_foreign = worker->cache.is_foreign;
    network_send(simulation, &message);
}

static void tell_result(struct simulation *simulation, const struct sim_worker *worker,
                        const struct answer *answer)
{
    const struct message message = {
        .to_broker = true,
        .event = EVENT_ATTEMPT_RESULT,
        .peer = worker->peer,
        .job = answer->lease.job,
        .attempt = answer->lease.attempt,
        .number = (int)answer->outcome,
        .time_ms = answer->call.retry_after_ms,
        .call = answer->call,
        .other = answer->other,
        .payload = answer->payload == NULL ? NULL : blob_ref(answer->payload),
    };
    network_send(simulation, &message);
}

/* Its connection ends; with a goodbye, or as that of one that has crashed. */
static void close_connection(struct simulation *simulation, const struct sim_worker *worker,
                             bool says_goodbye)
{
    const struct message message = {.to_broker = true,
                                    .event = EVENT_WORKER_GONE,
                                    .peer = worker->peer,
                                    .job = NO_JOB,
                                    .flag = says_goodbye};
    if (worker->peer != 0) {
        network_send(simulation, &message);
    }
}

static void lose_connection(struct simulation *simulation, struct sim_worker *worker)
{
    /* The broker may learn that the connection is closed, or find out by the silence. */
    if (simulation_hit(simulation, 500)) {
        close_connection(simulation, worker, false);
    }
    worker->peer = 0;
    worker->is_welcome = false;
}

static void connect_anew(struct simulation *simulation, struct sim_worker *worker)
{
    lose_connection(simulation, worker);
    worker->peer = network_connect(simulation, true, worker->index);
    wake_at(simulation, worker,
            simulation->now_ms + simulation_patience_ms(simulation, worker->hellos++));
    simulation_trace(simulation,
                     "worker %" PRIu64 " connects as peer %" PRIu64 ", running %" PRIu64,
                     worker->index, worker->peer, worker->runs_length);
    tell_leases(simulation, worker, EVENT_WORKER_HELLO);
}

/* --------------------------------------------------------------------------------------------
 * coming and going */

void sim_worker_break(struct simulation *simulation, struct sim_worker *worker)
{
    if (worker->state != WORKER_DOWN) {
        lose_connection(simulation, worker);
        wake_at(simulation, worker, simulation->now_ms);
    }
}

void sim_worker_kill(struct simulation *simulation, struct sim_worker *worker, bool is_heard)
{
    if (worker->state == WORKER_DOWN) {
        return;
    }
    simulation_trace(simulation,
                     "worker %" PRIu64 " dies holding %" PRIu64 " leases, %" PRIu64 " answers",
                     worker->index, worker->runs_length, worker->answers_length);
    if (is_heard) {
        close_connection(simulation, worker, false);
    }
    sim_worker_finish(worker);
    worker->peer = 0;
    worker->is_welcome = false;
    worker->state = WORKER_DOWN;
    worker->life++;
    worker->back_at_ms = simulation->now_ms + dice_between(&simulation->dice, 0, DOWN_MS_MAX);
    wake_at(simulation, worker, worker->back_at_ms);
}

void sim_worker_leave(struct simulation *simulation, struct sim_worker *worker)
{
    close_connection(simulation, worker, true);
    sim_worker_kill(simulation, worker, false);
}

void sim_worker_drain(struct simulation *simulation, struct sim_worker *worker)
{
    if (worker->state == WORKER_UP && worker->is_welcome) {
        worker->state = WORKER_DRAINING;
        tell(simulation, worker, EVENT_WORKER_DRAINING);
        wake_at(simulation, worker, simulation->now_ms);
    }
}

static void beat(struct simulation *simulation, struct sim_worker *worker)
{
    tell_leases(simulation, worker, EVENT_WORKER_HEARTBEAT);
    for (uint32_t i = 0; i < worker->answers_length; i++) {
        if (worker->answers[i].sent_ms + RESEND_MS < simulation->now_ms) {
            worker->answers[i].sent_ms = simulation->now_ms;
            tell_result(simulation, worker, &worker->answers[i]);
        }
    }
    wake_at(simulation, worker,
            simulation->now_ms +
                (worker->state == WORKER_DRAINING ? LEAVE_MS : heartbeat_ms(simulation)));
}

void sim_worker_wake(struct simulation *simulation, struct sim_worker *worker, uint64_t generation)
{
    if (generation != worker->wake_generation) {
        return;
    }
    if (worker->state == WORKER_DOWN) {
        worker->state = WORKER_UP;
        cache_restart_worker(simulation, worker);
    }
    if (worker->state == WORKER_DRAINING && worker->runs_length == 0 &&
        worker->answers_length == 0) {
        sim_worker_leave(simulation, worker);
    } else if (worker->peer == 0 || !worker->is_welcome) {
        connect_anew(simulation, worker);
    } else {
        beat(simulation, worker);
    }
}

/* ----------------------------------------------------------------------------------------------------
 * attempts */

static struct run *find_run(struct sim_worker *worker, const struct job_lease *lease)
{
    for (uint32_t i = 0; i < worker->runs_length; i++) {
        if (worker->runs[i].lease.job == lease->job &&
            worker->runs[i].lease.attempt == lease->attempt) {
            return &worker->runs[i];
        }
    }
    return NULL;
}

static int find_answer(const struct sim_worker *worker, const struct job_lease *lease)
{
    for (uint32_t i = 0; i < worker->answers_length; i++) {
        if (worker->answers[i].lease.job == lease->job &&
            worker->answers[i].lease.attempt == lease->attempt) {
            return (int)i;
        }
    }
    return -1;
}

static void plan_end(struct simulation *simulation, const struct sim_worker *worker,
                     const struct job_lease *lease, int64_t after_ms)
{
    const struct message message = {.job = lease->job, .attempt = lease->attempt};
    schedule_add(&simulation->schedule, simulation->now_ms + after_ms, TASK_ATTEMPT_END,
                 worker->index, worker->life, &message);
}

/* What ends an attempt before it makes a call; NONE: nothing does. */
static Wire__AttemptOutcome throw_outcome(struct simulation *simulation,
                                          const struct job_lease *lease)
{
    const struct outcomes *outcomes = &simulation->scenario.outcomes;
    if (simulation->jobs[lease->job].is_poison ||
        simulation_hit(simulation, outcomes->unavailable)) {
        return WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE;
    }
    if (simulation_hit(simulation, outcomes->rate_limited)) {
        return WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED;
    }
    if (simulation_hit(simulation, outcomes->rejected)) {
        return WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED;
    }
    if (simulation_hit(simulation, outcomes->refused)) {
        return WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED;
    }
    if (simulation_hit(simulation, outcomes->deferred)) {
        return WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED;
    }
    return simulation_hit(simulation, outcomes->invalid)
               ? WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID
               : WIRE__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_NONE;
}

/* Not an answer, but for other reasons than the upstream's trouble. It is mostly called all the
 * same, unless the attempt is deferred; what is deferred has heard that the upstream is down,
 * perhaps. */
static struct call call_in_vain(struct simulation *simulation, Wire__AttemptOutcome outcome)
{
    const bool may_say_when = outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED ||
                              outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED;
    const bool is_deferred = outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED;
    const bool may_be_spared = outcome != WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE;
    return (struct call){
        .is_made = !is_deferred && !(may_be_spared && dice_hit(&simulation->dice, 100)),
        .outcome = outcome,
        .error_code = !is_deferred                       ? "thrown"
                      : dice_hit(&simulation->dice, 500) ? "thrown"
                      : dice_hit(&simulation->dice, 500) ? "upstream_open"
                                                         : "",
        .call_ms = dice_between(&simulation->dice, 0, simulation->scenario.outcomes.run_ms_max),
        .retry_after_ms = may_say_when && dice_hit(&simulation->dice, 500)
                              ? dice_between(&simulation->dice, 1, DEFERRED_MS_MAX)
                              : 0,
    };
}

static uint32_t tokens_used(struct simulation *simulation, uint32_t estimated)
{
    const uint64_t mean = (uint64_t)estimated * simulation->scenario.outcomes.tokens_used / 1000;
    return mean == 0 ? estimated : 1 + (uint32_t)dice_below(&simulation->dice, 2 * mean);
}

/* An answer from a cache says what it was worth, or nothing. */
static struct call answer_from_cache(struct simulation *simulation, const struct sim_job *job)
{
    return (struct call){.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED,
                         .error_code = "",
                         .call_ms = dice_between(&simulation->dice, 0, CACHED_MS_MAX),
                         .tokens = dice_hit(&simulation->dice, 500) ? job->tokens : 0};
}

static struct call make_call(struct simulation *simulation, const struct job_lease *lease,
                             uint32_t upstream)
{
    const Wire__AttemptOutcome outcome = throw_outcome(simulation, lease);
    upstream = upstream == SCENARIO_UPSTREAMS ? 0 : upstream; /* it may choose */
    struct call call =
        outcome != WIRE__ATTEMPT_OUTCOME__ATTEMPT_OUTCOME_NONE ? call_in_vain(simulation, outcome)
        : simulation_hit(simulation, simulation->scenario.outcomes.cached)
            ? answer_from_cache(simulation, &simulation->jobs[lease->job])
            : upstream_call(simulation, &simulation->upstreams[upstream],
                            tokens_used(simulation, simulation->jobs[lease->job].tokens));
    call.upstream = upstream;
    call.run = ++simulation->runs;
    needs_tell(simulation, &call);
    return call;
}

/* At random times while it runs. */
static void plan_chunks(struct simulation *simulation, const struct sim_worker *worker,
                        const struct run *run)
{
    const uint32_t chunks = 1 + (uint32_t)dice_below(&simulation->dice, SCENARIO_CHUNKS_MAX);
    for (uint32_t i = 0; i < chunks; i++) {
        const struct message chunk = {.job = run->lease.job,
                                      .attempt = run->lease.attempt,
                                      .total = i,
                                      .flag = i + 1 == chunks};
        schedule_add(&simulation->schedule,
                     simulation->now_ms + run->call.call_ms * (int64_t)i / (int64_t)chunks,
                     TASK_CHUNK, worker->index, worker->life, &chunk);
    }
}

void sim_worker_chunk(struct simulation *simulation, struct sim_worker *worker,
                      const struct message *chunk)
{
    const struct job_lease lease = {chunk->job, chunk->attempt};
    const struct run *run = find_run(worker, &lease);
    if (run == NULL || run->is_cancelled || !worker->is_welcome) {
        return;
    }
    struct message message = *chunk;
    message.to_broker = true;
    message.event = EVENT_CHUNK;
    message.peer = worker->peer;
    message.payload = flights_chunk(&lease, (uint32_t)chunk->total);
    network_send(simulation, &message);
}

static void start(struct simulation *simulation, struct sim_worker *worker,
                  const struct job_lease *lease, uint32_t upstream, bool streams,
                  int64_t hedge_after_ms)
{
    if (find_run(worker, lease) != NULL || find_answer(worker, lease) >= 0) {
        return; /* a duplicate */
    }
    if (worker->runs_length == worker->slots) {
        simulation_violate(simulation, "worker %u was given more than its %u slots", worker->index,
                           worker->slots);
        return;
    }
    struct run *run = &worker->runs[worker->runs_length++];
    *run = (struct run){.lease = *lease,
                        .streams = streams,
                        .call = make_call(simulation, lease, upstream),
                        .began_ms = simulation->now_ms};
    if (streams) {
        plan_chunks(simulation, worker, run);
    }
    run->is_hung = simulation_hit(simulation, simulation->scenario.outcomes.hung);
    if (!run->is_hung) {
        run->ends_ms = simulation->now_ms + run->call.call_ms;
        plan_end(simulation, worker, lease, run->call.call_ms);
    }
    if (hedge_after_ms > 0) {
        const struct message slow = {.job = lease->job, .attempt = lease->attempt};
        schedule_add(&simulation->schedule, simulation->now_ms + hedge_after_ms, TASK_HEDGE,
                     worker->index, worker->life, &slow);
    }
}

/* ---- a second call ---- */

void sim_worker_ask_hedge(struct simulation *simulation, struct sim_worker *worker,
                          const struct job_lease *lease)
{
    const struct run *run = find_run(worker, lease);
    if (run == NULL || run->is_cancelled || run->streams || !worker->is_welcome) {
        return;
    }
    network_send(simulation, &(struct message){.to_broker = true,
                                               .event = EVENT_HEDGE_ASKED,
                                               .peer = worker->peer,
                                               .job = lease->job,
                                               .attempt = lease->attempt});
}

/* It ends the other, too. */
static bool decides(const struct call *call)
{
    return call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED ||
           call->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_REFUSED;
}

/* The other is still under way when this one counts, or it has failed by then. */
static void take_places(struct run *run, const struct call *counts, const struct call *other,
                        int64_t other_began_ms, int64_t other_ends_ms)
{
    struct call beside = *other;
    if (other_ends_ms > run->ends_ms) {
        beside.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED;
        beside.error_code = "overtaken";
        beside.retry_after_ms = 0;
        beside.call_ms = run->ends_ms - other_began_ms;
        beside.limit_per_min = 0;
    }
    const struct call counted = *counts;
    run->call = counted;
    run->other = beside;
}

/* Whichever decides first; without one, whichever fails last. */
static void run_beside(struct simulation *simulation, struct sim_worker *worker, struct run *run,
                       const struct call *second)
{
    const struct call first = run->call;
    const int64_t now_ms = simulation->now_ms;
    const int64_t first_ms = run->is_hung ? INT64_MAX : run->ends_ms;
    const int64_t second_ms = now_ms + second->call_ms;
    const bool first_decides = decides(&first) && !run->is_hung;
    const bool is_second = decides(second) && first_decides   ? second_ms < first_ms
                           : decides(second) || first_decides ? decides(second)
                                                              : second_ms > first_ms;
    if (is_second) {
        run->ends_ms = second_ms;
        take_places(run, second, &first, run->began_ms, first_ms);
        plan_end(simulation, worker, &run->lease, second->call_ms);
    } else {
        take_places(run, &first, second, now_ms, second_ms);
    }
}

/* Some have no room for it, and what is answered from a cache needs none. */
static void hear_hedge(struct simulation *simulation, struct sim_worker *worker,
                       const struct job_lease *lease, uint32_t upstream)
{
    struct run *run = find_run(worker, lease);
    if (run == NULL || run->is_cancelled || run->other.is_made || !run->call.is_made ||
        dice_hit(&simulation->dice, 100)) {
        return;
    }
    struct call second =
        upstream_call(simulation, &simulation->upstreams[upstream],
                      tokens_used(simulation, simulation->jobs[lease->job].tokens));
    second.upstream = upstream;
    second.run = run->call.run;
    run_beside(simulation, worker, run, &second);
}

/* Answers that cost money are kept until the broker says that the job is concluded. */
static void answer_with(struct simulation *simulation, struct sim_worker *worker,
                        const struct answer *answer)
{
    if (worker->is_welcome) {
        tell_result(simulation, worker, answer);
    }
    if (answer->outcome != WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED) {
        return;
    }
    if (worker->answers_length == ANSWERS_MAX) {
        drop_answer(worker, 0);
    }
    worker->answers[worker->answers_length] = *answer;
    worker->answers[worker->answers_length++].payload = blob_ref(answer->payload);
}

/* A job that ends who runs it: the worker is gone before it can say anything. */
static void die_of(struct simulation *simulation, struct sim_worker *worker)
{
    /* The broker learns of a crash by the closed connection, or by the silence. */
    sim_worker_kill(simulation, worker, dice_hit(&simulation->dice, 700));
}

void sim_worker_end_attempt(struct simulation *simulation, struct sim_worker *worker,
                            const struct job_lease *lease)
{
    struct run *run = find_run(worker, lease);
    if (run == NULL || (!run->is_cancelled && simulation->now_ms < run->ends_ms)) {
        return;
    }
    if (simulation->jobs[lease->job].is_killer && !run->is_cancelled) {
        simulation->jobs[lease->job].kills++;
        die_of(simulation, worker);
        return;
    }
    if (run->is_cancelled) {
        run->call.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED;
        run->call.retry_after_ms = 0;
        run->call.call_ms = simulation->now_ms - run->began_ms;
        run->other.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED;
        run->other.retry_after_ms = 0;
    } else if (run->call.outcome != WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED &&
               sim_broker_ms(simulation) >= simulation->jobs[lease->job].deadline_max_ms) {
        run->call.outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED; /* the broker may say so, too */
        run->call.retry_after_ms = 0;
    }
    struct answer answer = {.lease = *lease,
                            .outcome = run->call.outcome,
                            .call = run->call,
                            .other = run->other,
                            .sent_ms = simulation->now_ms};
    if (answer.outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED) {
        answer.payload = sim_worker_answer(simulation, lease);
    }
    *run = worker->runs[--worker->runs_length];
    answer_with(simulation, worker, &answer);
    blob_unref(&answer.payload);
    if (worker->is_welcome && worker->state == WORKER_UP) {
        worker->credit_total++;
        tell(simulation, worker, EVENT_WORKER_CREDIT);
    }
}

/* Nobody answers that to it: what is lost on the way is lost. */
bool sim_worker_submit(struct simulation *simulation, uint32_t index)
{
    const struct sim_worker *worker =
        &simulation->workers[dice_below(&simulation->dice, simulation->scenario.options.workers)];
    struct sim_job *job = &simulation->jobs[index];
    if (!worker->is_welcome) {
        return false;
    }
    job->is_made = true;
    job->view = VIEW_DONE;
    job->key = 0;
    job->streams = false;
    const struct message message = {.to_broker = true,
                                    .event = EVENT_SUBMIT,
                                    .peer = worker->peer,
                                    .job = index,
                                    .second = 0,
                                    .payload = sim_client_payload(simulation, index)};
    simulation->tally.made++;
    network_send(simulation, &message);
    return true;
}

/* -----------------------------------------------------------------------------------------------------
 * hearing */

static void hear_cancel(struct simulation *simulation, struct sim_worker *worker,
                        const struct job_lease *lease)
{
    struct run *run = find_run(worker, lease);
    if (run != NULL && !run->is_cancelled &&
        !simulation_hit(simulation, simulation->scenario.faults.stubborn)) {
        run->is_cancelled = true;
        plan_end(simulation, worker, lease, dice_between(&simulation->dice, 0, CANCEL_MS_MAX));
    }
}

static void hear_welcome(struct simulation *simulation, struct sim_worker *worker)
{
    if (worker->is_welcome) {
        return;
    }
    worker->is_welcome = true;
    worker->hellos = 0;
    for (uint32_t i = 0; i < worker->answers_length; i++) {
        worker->answers[i].sent_ms = simulation->now_ms;
        tell_result(simulation, worker, &worker->answers[i]);
    }
    worker->credit_total = worker->slots - worker->runs_length;
    wake_at(simulation, worker,
            simulation->now_ms + dice_between(&simulation->dice, 1, heartbeat_ms(simulation)));
    if (worker->state == WORKER_DRAINING) {
        tell(simulation, worker, EVENT_WORKER_DRAINING);
    } else if (worker->credit_total > 0) {
        tell(simulation, worker, EVENT_WORKER_CREDIT);
    }
}

void sim_worker_hear(struct simulation *simulation, struct sim_worker *worker,
                     const struct message *message)
{
    const struct job_lease lease = {message->job, message->attempt};
    if (message->peer != worker->peer) {
        return;
    }
    cache_hear_worker(simulation, worker, message);
    if (message->effect == EFFECT_WORKER_WELCOME) {
        hear_welcome(simulation, worker);
    } else if (message->effect == EFFECT_WORKER_ERROR) {
        network_break(simulation, worker->peer);
    } else if (message->effect == EFFECT_DISPATCH) {
        start(simulation, worker, &lease, message->upstream, message->flag, message->time_ms);
    } else if (message->effect == EFFECT_HEDGE) {
        hear_hedge(simulation, worker, &lease, message->upstream);
    } else if (message->effect == EFFECT_ATTEMPT_CANCEL) {
        hear_cancel(simulation, worker, &lease);
    } else if (message->effect == EFFECT_ATTEMPT_CONCLUDED && find_answer(worker, &lease) >= 0) {
        drop_answer(worker, (uint32_t)find_answer(worker, &lease));
    }
}
