#include "tests/simulation/flights.h"
#include <inttypes.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/core.h"
#include "tests/simulation/broker.h"
#include "tests/simulation/invalidations.h"
#include "tests/simulation/memory.h"
#include "tests/simulation/needs.h"
#include "tests/simulation/network.h"
#include "tests/simulation/worker.h"

enum {
    ENDING_MS_MAX = 60000,
    WAIT_MS_MAX = 180000, /* more than any backoff, upstream or worker asks for */
};

static uint32_t *first_of_group(struct simulation *simulation, const struct sim_job *job)
{
    return &simulation->groups[job->tenant][job->tier][job->pool][job->route][job->canonical];
}

static bool are_identical(const struct simulation *simulation, const struct sim_job *a,
                          const struct sim_job *b)
{
    return a->canonical != 0 && a->canonical == b->canonical && a->tenant == b->tenant &&
           a->tier == b->tier && a->pool == b->pool && a->route == b->route &&
           needs_are_alike(simulation, (uint32_t)(a - simulation->jobs),
                           (uint32_t)(b - simulation->jobs));
}

void flights_join(struct simulation *simulation, uint32_t index)
{
    struct sim_job *job = &simulation->jobs[index];
    if (job->canonical != 0) {
        uint32_t *first = first_of_group(simulation, job);
        job->next_identical = *first;
        *first = index + 1;
    }
}

void flights_split(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    if (job->canonical == 0) {
        return;
    }
    for (uint32_t at = *first_of_group(simulation, job); at != 0;
         at = simulation->jobs[at - 1].next_identical) {
        simulation->jobs[at - 1].runs_alone = true;
    }
}

/* Its lease lasts, and has lasted since the core dispatched it. */
static bool is_running(const struct simulation *simulation, const struct sim_job *job)
{
    const struct link *link = job->lease.is_held ? network_link(simulation, job->lease.peer) : NULL;
    const int64_t lease_ms = simulation->scenario.config.broker.lease_ms;
    Wire__JobState state;
    const char *worker;
    return link != NULL && !job->lease.is_reclaimed &&
           link->heard_ms + lease_ms > sim_broker_ms(simulation) &&
           job->lease.renewed_ms + lease_ms > sim_broker_ms(simulation) &&
           core_find_job(simulation->broker.core, &job->id, &state, &worker) == 0 &&
           state == WIRE__JOB_STATE__JOB_STATE_LEASED;
}

void flights_see_lost_lease(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    uint32_t at = job->canonical == 0 ? 0 : *first_of_group(simulation, job);
    while (at != 0) {
        simulation->jobs[at - 1].may_follow_lost = true;
        at = simulation->jobs[at - 1].next_identical;
    }
}

static bool is_of_before(const struct simulation *simulation, const struct sim_job *job,
                         uint64_t told)
{
    return job->told_at_submission < told || job->may_follow_lost ||
           job->first_incarnation != simulation->broker.incarnation;
}

/* Since an invalidation was told, or nobody knows since when one of them has led. */
static bool may_run_beside(const struct simulation *simulation, const struct sim_job *job,
                           const struct sim_job *other)
{
    const uint64_t told = invalidations_told(simulation, job->tenant);
    return told > 0 &&
           (is_of_before(simulation, job, told) || is_of_before(simulation, other, told));
}

/* The attempt that answered was dispatched before an invalidation of which workers had been told
 * when this job came. */
static void check_outdated(struct simulation *simulation, uint32_t index, uint32_t runner,
                           uint32_t attempt)
{
    const struct sim_job *job = &simulation->jobs[index];
    const struct sim_job *leader = &simulation->jobs[runner];
    const bool is_known = leader->first_incarnation == simulation->broker.incarnation &&
                          job->first_incarnation == simulation->broker.incarnation;
    const uint64_t told = attempt == leader->attempt_last       ? leader->told_at_dispatch
                          : attempt + 1 == leader->attempt_last ? leader->told_at_dispatch_before
                                                                : UINT64_MAX;
    if (is_known && told < job->told_at_submission) {
        simulation_violate(simulation,
                           "job %u came after invalidation %" PRIu64
                           ", and is answered with what job %u was given before",
                           index, job->told_at_submission, runner);
    }
}

void flights_see_dispatch(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    if (job->canonical == 0 || job->runs_alone) {
        return;
    }
    for (uint32_t at = *first_of_group(simulation, job); at != 0;
         at = simulation->jobs[at - 1].next_identical) {
        const struct sim_job *other = &simulation->jobs[at - 1];
        if (other != job && are_identical(simulation, job, other) && !other->runs_alone &&
            is_running(simulation, other) && !may_run_beside(simulation, job, other)) {
            simulation_violate(simulation, "job %u is dispatched while job %u runs for it", index,
                               at - 1);
        }
    }
}

void flights_see_result(struct simulation *simulation, const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    if (message->other_job == NO_JOB) {
        job->answer_digest = message->total;
        return;
    }
    const struct sim_job *leader = &simulation->jobs[message->other_job];
    simulation->tally.followed++;
    if (message->other_job == message->job || !are_identical(simulation, job, leader)) {
        simulation_violate(simulation,
                           "job %u is concluded for job %u, which asks for another thing",
                           message->job, message->other_job);
    }
    /* What ended workers may never have come to say so. */
    if (leader->is_mismatched && message->number != WIRE__JOB_STATE__JOB_STATE_DEAD) {
        simulation_violate(simulation, "job %u is concluded for job %u, whose key is not its own",
                           message->job, message->other_job);
    }
    if (message->number == WIRE__JOB_STATE__JOB_STATE_SUCCEEDED) {
        check_outdated(simulation, message->job, message->other_job,
                       sim_worker_attempt_of_answer(message->payload));
    }
    const bool was_shown =
        leader->shown != 0 && leader->lives == 0 &&
        (leader->is_durable || leader->shown_incarnation == simulation->broker.incarnation);
    if (was_shown && leader->shown_for == NO_JOB && leader->answer_digest != message->total) {
        simulation_violate(simulation, "job %u and job %u, which ran for it, end differently",
                           message->job, message->other_job);
    }
}

static bool is_used_up(const struct simulation *simulation, const struct sim_job *job)
{
    const uint32_t most = job->attempts_max > 0
                              ? job->attempts_max
                              : simulation->scenario.tiers[job->tier].attempts_max;
    return job->failures >= most;
}

bool flights_may_die(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    uint32_t at = job->canonical == 0 ? 0 : *first_of_group(simulation, job);
    while (at != 0 && !is_used_up(simulation, &simulation->jobs[at - 1])) {
        at = simulation->jobs[at - 1].next_identical;
    }
    return at != 0;
}

bool flights_may_be_condemned(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    uint32_t at = job->canonical == 0 ? 0 : *first_of_group(simulation, job);
    while (at != 0 &&
           simulation->jobs[at - 1].crashes < simulation->scenario.config.broker.losses_max) {
        at = simulation->jobs[at - 1].next_identical;
    }
    return at != 0;
}

/* ---- who follows ---- */

/* Its leader has ended: so will it, as soon as the disk keeps up. */
static void check_ending(struct simulation *simulation, uint32_t index)
{
    struct sim_job *job = &simulation->jobs[index];
    const int64_t now_ms = simulation->now_ms;
    const bool is_new = job->ends_in_incarnation != simulation->broker.incarnation;
    if (is_new || simulation->broker.store_is_down) {
        job->ends_in_incarnation = simulation->broker.incarnation;
        job->ends_since_ms = now_ms;
    } else if (now_ms - job->ends_since_ms > ENDING_MS_MAX) {
        simulation_violate(simulation, "job %u waits for %" PRId64 " ms after its leader has ended",
                           index, now_ms - job->ends_since_ms);
    }
}

/* Who led it may have waited for something; that is over for those who come after it. */
static void check_wait(struct simulation *simulation, uint32_t index, int64_t waits_ms)
{
    const struct sim_job *job = &simulation->jobs[index];
    const int64_t delay_ms = job->not_before_max_ms - sim_broker_ms(simulation);
    /* A time that was recorded may have moved with the clocks. */
    const int64_t most_ms =
        (delay_ms > WAIT_MS_MAX ? delay_ms : WAIT_MS_MAX) + simulation->clock_jumped_ms;
    if (waits_ms > most_ms) {
        simulation_violate(simulation,
                           "job %u is to wait for %" PRId64 " ms more, and %" PRId64
                           " is the most that it may",
                           index, waits_ms, most_ms);
    }
}

void flights_check(struct simulation *simulation, uint32_t index)
{
    const struct sim_job *job = &simulation->jobs[index];
    struct core_job_view view, leader;
    if (job->canonical == 0 || !simulation->broker.is_up ||
        core_view_job(simulation->broker.core, &job->id, sim_broker_now(simulation), &view) < 0) {
        return;
    }
    if (view.state == WIRE__JOB_STATE__JOB_STATE_BACKING_OFF) {
        check_wait(simulation, index, view.waits_ms);
    }
    if (view.state != WIRE__JOB_STATE__JOB_STATE_FOLLOWING) {
        return;
    }
    if (!view.has_leader) {
        check_ending(simulation, index);
        return;
    }
    const uint32_t other = simulation_job_of(simulation, &view.led_by);
    const bool is_led =
        other != NO_JOB && are_identical(simulation, job, &simulation->jobs[other]) &&
        core_view_job(simulation->broker.core, &view.led_by, sim_broker_now(simulation), &leader) ==
            0 &&
        leader.followers > 0 && leader.state != WIRE__JOB_STATE__JOB_STATE_FOLLOWING &&
        leader.state != WIRE__JOB_STATE__JOB_STATE_DEAD;
    if (!is_led) {
        simulation_violate(simulation, "job %u follows job %u, which does not lead it", index,
                           other);
    }
}

/* ---- chunks ---- */

struct chunk_bytes {
    uint32_t job, attempt, index, zero;
    uint64_t check;
};

static uint64_t check_of(const struct chunk_bytes *bytes)
{
    return XXH3_64bits(bytes, offsetof(struct chunk_bytes, check));
}

struct blob *flights_chunk(const struct job_lease *lease, uint32_t index)
{
    struct chunk_bytes bytes = {.job = lease->job, .attempt = lease->attempt, .index = index};
    bytes.check = check_of(&bytes);
    struct blob *chunk;
    if (blob_create(&bytes, sizeof(bytes), &chunk) < 0) {
        (void)must(NULL);
    }
    return chunk;
}

static bool read_chunk(const struct simulation *simulation, const struct blob *chunk,
                       struct chunk_bytes *ret_bytes)
{
    if (chunk == NULL || blob_bytes(chunk) != sizeof(*ret_bytes)) {
        return false;
    }
    memcpy(ret_bytes, blob_data(chunk), sizeof(*ret_bytes));
    return ret_bytes->check == check_of(ret_bytes) && ret_bytes->job < simulation->jobs_length;
}

void flights_see_sent(struct simulation *simulation, uint32_t index, uint64_t peer)
{
    struct sim_job *job = &simulation->jobs[index];
    if (job->stream.credit_peer == peer && !job->lacks_waiters &&
        ++job->stream.sent > job->stream.credit) {
        simulation_violate(simulation, "client %u is sent more chunks of job %u than it can take",
                           job->client, index);
    }
}

/*
 * Not of an attempt that began before a restart, or whose lease was lost meanwhile; nor of a job in
 * memory that was submitted again after one: an attempt of the same number may still run.
 */
static bool begins_at_first(const struct simulation *simulation, const struct chunk_bytes *bytes)
{
    const struct sim_job *runner = &simulation->jobs[bytes->job];
    return !runner->is_cut && runner->attempt_last == bytes->attempt &&
           (runner->is_durable || runner->first_incarnation == simulation->broker.incarnation);
}

static void check_order(struct simulation *simulation, const struct message *message,
                        const struct chunk_bytes *bytes)
{
    struct sim_job *job = &simulation->jobs[message->job];
    const uint32_t index = (uint32_t)message->total;
    const bool is_next =
        job->stream.peer == message->peer && job->stream.attempt == message->attempt;
    if (is_next ? index != job->stream.next : index != 0 && begins_at_first(simulation, bytes)) {
        simulation_violate(simulation, "chunk %u of job %u comes in place of chunk %u", index,
                           message->job, is_next ? job->stream.next : 0);
    }
    if (job->stream.peer == message->peer && message->attempt < job->stream.attempt) {
        simulation_violate(simulation, "a chunk of attempt %u of job %u comes after attempt %u",
                           message->attempt, message->job, job->stream.attempt);
    }
    job->stream.peer = message->peer;
    job->stream.attempt = message->attempt;
    job->stream.next = index + 1;
}

void flights_see_chunk(struct simulation *simulation, const struct message *message)
{
    const struct sim_job *job = &simulation->jobs[message->job];
    const struct link *link = network_link(simulation, message->peer);
    struct chunk_bytes bytes;
    simulation->tally.chunks++;
    const bool is_owner = link->owner == job->client;
    if (job->key == 0 && (!is_owner || !job->streams)) { /* others wait for it by its key */
        simulation_violate(simulation, "client %u is sent a chunk of job %u unasked", link->owner,
                           message->job);
    }
    if (!read_chunk(simulation, message->payload, &bytes) ||
        bytes.index != (uint32_t)message->total ||
        (bytes.job != message->job &&
         !are_identical(simulation, job, &simulation->jobs[bytes.job]))) {
        simulation_violate(simulation, "job %u is sent a chunk that no worker sent for it",
                           message->job);
        return;
    }
    if (is_owner && message->peer >= job->stream.peer) { /* by its latest connection */
        check_order(simulation, message, &bytes);
    }
}

#define UNWATCHED UINT64_MAX

void flights_see_credit(struct simulation *simulation, const struct message *message)
{
    struct sim_job *job = &simulation->jobs[message->job];
    Wire__JobState state;
    const char *worker;
    if (core_find_job(simulation->broker.core, &job->id, &state, &worker) < 0) {
        /* Of a job that is over: what is left of its stream may go by it. */
        job->stream.credit += job->stream.credit_peer == message->peer ? message->total : 0;
        return;
    }
    if (job->stream.waiter != message->peer) {
        /* Of an earlier life, and without effect; or several wait, and none of them is watched in
         * this life any more. */
        job->stream.credit_peer = job->stream.waiter == 0 ? 0 : UNWATCHED;
    }
    if (job->stream.waiter != message->peer || job->stream.credit_peer == UNWATCHED) {
        return;
    }
    if (job->stream.credit_peer != message->peer) {
        job->stream.credit_peer = message->peer;
        job->stream.credit = job->stream.sent = 0;
    }
    job->stream.credit += message->total;
}
