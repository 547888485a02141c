#include "tests/simulation/worker.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>
#include "tests/simulation/memory.h"
#include "tests/simulation/network.h"

enum {
    BEAT_MS = 500,
    HELLO_PATIENCE_MS = 2000,
    RESEND_MS = 2000,
    DOWN_MS_MAX = 10000,
    CANCEL_MS_MAX = 200, /* until a cancelled attempt has stopped */
};

void sim_worker_init(struct simulation *simulation, uint32_t index)
{
    struct sim_worker *worker = &simulation->workers[index];
    *worker = (struct sim_worker){
        .index = index,
        .slots = (uint32_t)dice_between(&simulation->dice, 1, SCENARIO_SLOTS_MAX),
        /* One at least serves all. */
        .pools = index == 0 || dice_hit(&simulation->dice, 300) ? SCENARIO_POOLS : 1,
    };
    (void)snprintf(worker->name, sizeof(worker->name), "worker-%u", index);
    schedule_add(&simulation->schedule, BEGIN_MS + dice_between(&simulation->dice, 0, BEAT_MS),
                 TASK_WORKER_TICK, index, 0, NULL);
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
    network_send(simulation, &message);
}

static void tell_result(struct simulation *simulation, const struct sim_worker *worker,
                        const struct answer *answer)
{
    struct dice *dice = &simulation->dice;
    const struct message message = {
        .to_broker = true,
        .event = EVENT_ATTEMPT_RESULT,
        .peer = worker->peer,
        .job = answer->lease.job,
        .attempt = answer->lease.attempt,
        .number = (int)answer->outcome,
        .time_ms =
            answer->outcome == WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED && dice_hit(dice, 500)
                ? dice_between(dice, 1, 3000)
                : 0,
        .payload = answer->payload == NULL ? NULL : blob_ref(answer->payload),
    };
    network_send(simulation, &message);
}

static void connect_anew(struct simulation *simulation, struct sim_worker *worker)
{
    sim_worker_break(simulation, worker);
    worker->peer = network_connect(simulation, true, worker->index);
    worker->connected_ms = simulation->now_ms;
    simulation_trace(simulation,
                     "worker %" PRIu64 " connects as peer %" PRIu64 ", running %" PRIu64,
                     worker->index, worker->peer, worker->runs_length);
    tell_leases(simulation, worker, EVENT_WORKER_HELLO);
}

static void goodbye(struct simulation *simulation, const struct sim_worker *worker)
{
    if (worker->peer != 0) {
        tell(simulation, worker, EVENT_WORKER_GONE);
    }
}

/* --------------------------------------------------------------------------------------------
 * coming and going */

void sim_worker_break(struct simulation *simulation, struct sim_worker *worker)
{
    /* The broker may learn that the connection is closed, or find out by the silence. */
    if (simulation_hit(simulation, 500)) {
        goodbye(simulation, worker);
    }
    worker->peer = 0;
    worker->is_welcome = false;
}

void sim_worker_kill(struct simulation *simulation, struct sim_worker *worker, bool says_goodbye)
{
    if (worker->state == WORKER_DOWN) {
        return;
    }
    simulation_trace(simulation,
                     "worker %" PRIu64 " dies holding %" PRIu64 " leases, %" PRIu64 " answers",
                     worker->index, worker->runs_length, worker->answers_length);
    if (says_goodbye) {
        goodbye(simulation, worker);
    }
    sim_worker_finish(worker);
    worker->peer = 0;
    worker->is_welcome = false;
    worker->state = WORKER_DOWN;
    worker->life++;
    worker->back_at_ms = simulation->now_ms + dice_between(&simulation->dice, 0, DOWN_MS_MAX);
}

void sim_worker_drain(struct simulation *simulation, struct sim_worker *worker)
{
    if (worker->state == WORKER_UP && worker->is_welcome) {
        worker->state = WORKER_DRAINING;
        tell(simulation, worker, EVENT_WORKER_DRAINING);
    }
}

void sim_worker_tick(struct simulation *simulation, struct sim_worker *worker)
{
    schedule_add(&simulation->schedule, simulation->now_ms + BEAT_MS, TASK_WORKER_TICK,
                 worker->index, 0, NULL);
    if (worker->state == WORKER_DOWN) {
        if (simulation->now_ms < worker->back_at_ms && !simulation->is_quiet) {
            return;
        }
        worker->state = WORKER_UP;
    }
    if (worker->state == WORKER_DRAINING && worker->runs_length == 0 &&
        worker->answers_length == 0) {
        sim_worker_kill(simulation, worker, true);
        return;
    }
    const bool is_impatient =
        !worker->is_welcome && worker->connected_ms + HELLO_PATIENCE_MS < simulation->now_ms;
    if (worker->peer == 0 || is_impatient || network_is_broken(simulation, worker->peer)) {
        connect_anew(simulation, worker);
        return;
    }
    if (!worker->is_welcome) {
        return;
    }
    tell_leases(simulation, worker, EVENT_WORKER_HEARTBEAT);
    for (uint32_t i = 0; i < worker->answers_length; i++) {
        if (worker->answers[i].sent_ms + RESEND_MS < simulation->now_ms) {
            worker->answers[i].sent_ms = simulation->now_ms;
            tell_result(simulation, worker, &worker->answers[i]);
        }
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

static void start(struct simulation *simulation, struct sim_worker *worker,
                  const struct job_lease *lease)
{
    if (find_run(worker, lease) != NULL || find_answer(worker, lease) >= 0) {
        return; /* a duplicate */
    }
    if (worker->runs_length == worker->slots) {
        simulation_violate(simulation, "worker %u was given more than its %u slots", worker->index,
                           worker->slots);
        return;
    }
    worker->runs[worker->runs_length++] = (struct run){.lease = *lease};
    if (!simulation_hit(simulation, simulation->scenario.outcomes.hung)) {
        plan_end(simulation, worker, lease,
                 dice_between(&simulation->dice, 0, simulation->scenario.outcomes.run_ms_max));
    }
}

static Wire__AttemptOutcome throw_outcome(struct simulation *simulation, const struct run *run)
{
    const struct outcomes *outcomes = &simulation->scenario.outcomes;
    if (run->is_cancelled) {
        return WIRE__ATTEMPT_OUTCOME__ATTEMPT_CANCELLED;
    }
    if (simulation->jobs[run->lease.job].is_poison) {
        return WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE;
    }
    if (simulation_hit(simulation, outcomes->rate_limited)) {
        return WIRE__ATTEMPT_OUTCOME__ATTEMPT_RATE_LIMITED;
    }
    if (simulation_hit(simulation, outcomes->unavailable)) {
        return WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE;
    }
    if (simulation_hit(simulation, outcomes->rejected)) {
        return WIRE__ATTEMPT_OUTCOME__ATTEMPT_REJECTED;
    }
    if (simulation_hit(simulation, outcomes->deferred)) {
        return WIRE__ATTEMPT_OUTCOME__ATTEMPT_DEFERRED;
    }
    return simulation_hit(simulation, outcomes->invalid) ? WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID
                                                         : WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED;
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

void sim_worker_end_attempt(struct simulation *simulation, struct sim_worker *worker,
                            const struct job_lease *lease)
{
    struct run *run = find_run(worker, lease);
    if (run == NULL) {
        return;
    }
    struct answer answer = {
        .lease = *lease, .outcome = throw_outcome(simulation, run), .sent_ms = simulation->now_ms};
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
    for (uint32_t i = 0; i < worker->answers_length; i++) {
        worker->answers[i].sent_ms = simulation->now_ms;
        tell_result(simulation, worker, &worker->answers[i]);
    }
    worker->credit_total = worker->slots - worker->runs_length;
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
    if (message->effect == EFFECT_WORKER_WELCOME) {
        hear_welcome(simulation, worker);
    } else if (message->effect == EFFECT_WORKER_ERROR) {
        network_break(simulation, worker->peer);
    } else if (message->effect == EFFECT_DISPATCH) {
        start(simulation, worker, &lease);
    } else if (message->effect == EFFECT_ATTEMPT_CANCEL) {
        hear_cancel(simulation, worker, &lease);
    } else if (message->effect == EFFECT_ATTEMPT_CONCLUDED && find_answer(worker, &lease) >= 0) {
        drop_answer(worker, (uint32_t)find_answer(worker, &lease));
    }
}
