#include "broker/core/job.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include "broker/core/client.h"
#include "broker/core/crowd.h"
#include "broker/core/dead.h"
#include "broker/core/flight.h"
#include "broker/core/history.h"
#include "broker/core/lane.h"
#include "broker/core/state.h"

uint64_t job_hash(const struct table_link *link, uint64_t seed)
{
    return id_hash(&CONTAINER_OF((struct table_link *)link, struct job, by_id)->id, seed);
}

Wire__JobState job_place_state(enum job_place place)
{
    switch (place) {
    case PLACE_NEW:
    case PLACE_ACCEPTING:
    case PLACE_RECOVERED:
    case PLACE_READY:
        return WIRE__JOB_STATE__JOB_STATE_QUEUED;
    case PLACE_BACKING_OFF:
    case PLACE_WAITING:
        return WIRE__JOB_STATE__JOB_STATE_BACKING_OFF;
    case PLACE_LOADING:
    case PLACE_LOADED:
        return WIRE__JOB_STATE__JOB_STATE_LOADING;
    case PLACE_LEASED:
        return WIRE__JOB_STATE__JOB_STATE_LEASED;
    case PLACE_FOLLOWING:
        return WIRE__JOB_STATE__JOB_STATE_FOLLOWING;
    case PLACE_PARKED:
        return WIRE__JOB_STATE__JOB_STATE_PARKED;
    case PLACE_DEAD:
        return WIRE__JOB_STATE__JOB_STATE_DEAD;
    case PLACE_GONE:
        return WIRE__JOB_STATE__JOB_STATE_UNKNOWN;
    }
    assert(false);
    return WIRE__JOB_STATE__JOB_STATE_UNKNOWN;
}

Wire__JobState job_state(const struct job *job)
{
    return job_place_state(job->place);
}

#define TO(place) (1u << (place))

bool job_may_become(enum job_place from, enum job_place to)
{
    static const unsigned ends = TO(PLACE_DEAD) | TO(PLACE_GONE);
    static const unsigned waits = TO(PLACE_READY) | TO(PLACE_BACKING_OFF);
    static const unsigned allowed[] = {
        [PLACE_NEW] =
            TO(PLACE_ACCEPTING) | TO(PLACE_RECOVERED) | TO(PLACE_FOLLOWING) | waits | ends,
        [PLACE_ACCEPTING] = waits | TO(PLACE_FOLLOWING) | ends,
        [PLACE_RECOVERED] = waits | TO(PLACE_LEASED) | TO(PLACE_FOLLOWING) | ends,
        [PLACE_READY] = TO(PLACE_BACKING_OFF) | TO(PLACE_WAITING) | TO(PLACE_LOADING) |
                        TO(PLACE_LEASED) | TO(PLACE_FOLLOWING) | TO(PLACE_PARKED) | ends,
        [PLACE_BACKING_OFF] = TO(PLACE_READY) | TO(PLACE_LEASED) | TO(PLACE_FOLLOWING) | ends,
        [PLACE_WAITING] = TO(PLACE_READY) | TO(PLACE_LEASED) | ends,
        [PLACE_LOADING] = waits | TO(PLACE_LOADED) | TO(PLACE_LEASED) | ends,
        [PLACE_LOADED] = waits | TO(PLACE_WAITING) | TO(PLACE_LEASED) | ends,
        /* FOLLOWING: it was reclaimed while an identical one leads. */
        [PLACE_LEASED] = waits | TO(PLACE_FOLLOWING) | TO(PLACE_PARKED) | ends,
        [PLACE_FOLLOWING] = TO(PLACE_READY) | ends,
        [PLACE_PARKED] = waits | ends,
        [PLACE_DEAD] = TO(PLACE_BACKING_OFF) | TO(PLACE_GONE),
        [PLACE_GONE] = 0,
    };
    return (allowed[from] & TO(to)) != 0;
}

static bool is_pending_place(enum job_place place)
{
    return place != PLACE_NEW && place != PLACE_DEAD && place != PLACE_GONE;
}

bool job_is_pending(const struct job *job)
{
    return is_pending_place(job->place);
}

uint32_t job_attempts(const struct job *job)
{
    return (uint32_t)job->failures + job->losses +
           (job->place == PLACE_LEASED && job->at.lease != NULL);
}

struct tier *job_tier(const struct job *job)
{
    return job->flow->queue->lane->tier;
}

struct tenant *job_tenant(const struct job *job)
{
    return job->flow->tenant;
}

struct job *job_find(const struct core *core, const struct id *job_id)
{
    struct table_link *link = table_first(&core->jobs, id_hash(job_id, core->jobs.seed));
    for (; link != NULL; link = link->next) {
        struct job *job = CONTAINER_OF(link, struct job, by_id);
        if (id_equal(&job->id, job_id)) {
            return job;
        }
    }
    return NULL;
}

/* Room for every job there is and one more, since any of them may be armed. */
static bool reserve_timer(struct core *core)
{
    const size_t jobs = core->jobs.length + core->jobs.later_length + 1;
    return jobs < HEAP_NONE &&
           heap_reserve(&core->timers, (uint32_t)jobs - core->timers.length) == 0;
}

enum { SIZE_STEPS = 12 }; /* of an octave: 255 is 2.3 million tokens, and more */

static uint32_t tokens_of(uint32_t size)
{
    return size == 0 ? 0 : (uint32_t)ceil(exp2((size - 1) / (double)SIZE_STEPS) - 1e-6);
}

/*
 * The tokens of a size have that size: read from its record again and again, a job does not grow.
 */
uint8_t job_input_size(uint32_t tokens)
{
    if (tokens == 0) {
        return 0;
    }
    const double at = ceil(log2((double)tokens) * SIZE_STEPS) + 1;
    if (at >= UINT8_MAX) {
        return UINT8_MAX;
    }
    const uint8_t size = (uint8_t)at;
    return tokens_of(size - 1u) >= tokens ? (uint8_t)(size - 1) : size;
}

uint32_t job_input_tokens(const struct job *job)
{
    return tokens_of(job->needs.input_size);
}

static struct job *make(struct core *core, const struct id *job_id, struct flow *flow)
{
    if (!flow_reserve(flow) || !reserve_timer(core)) {
        return NULL;
    }
    struct job *job = slab_alloc(&core->job_memory);
    if (job == NULL) {
        return NULL;
    }
    job->id = *job_id;
    job->flow = flow;
    job->place = PLACE_NEW;
    job->deadline_ms = INT64_MAX;
    job->ready_position = HEAP_NONE;
    job->timer_position = HEAP_NONE;
    flow->jobs++;
    return job;
}

struct job *job_create(struct core *core, const struct id *job_id, struct flow *flow)
{
    struct job *job = make(core, job_id, flow);
    if (job != NULL) {
        table_insert(&core->jobs, &job->by_id);
    }
    return job;
}

struct job *job_create_later(struct core *core, const struct id *job_id, struct flow *flow)
{
    struct job *job = make(core, job_id, flow);
    if (job != NULL) {
        table_insert_later(&core->jobs, &job->by_id);
    }
    return job;
}

void job_destroy(struct core *core, struct job **job)
{
    struct job *dead = TAKE(*job);
    assert((dead->flags & (JOB_LEADS | JOB_HAS_FOLLOWERS)) == 0);
    if (dead->place != PLACE_GONE) {
        job_move(core, dead, PLACE_GONE);
    }
    history_forget(core, dead);
    job_drop_payload(core, dead);
    waiters_forget(dead);
    dead->flow->jobs--;
    table_remove(&core->jobs, &dead->by_id);
    slab_free(&core->job_memory, dead);
}

/* When something is due for this job, wherever it is. */
static int64_t due_ms(const struct job *job)
{
    if (!job_is_pending(job)) {
        return INT64_MAX;
    }
    const bool waits = job->place == PLACE_BACKING_OFF && job->at.not_before_ms < job->deadline_ms;
    return waits ? job->at.not_before_ms : job->deadline_ms;
}

static void arm(struct core *core, struct job *job)
{
    if (heap_contains(&core->timers, job)) {
        heap_remove(&core->timers, job);
    }
    const int64_t at_ms = due_ms(job);
    if (at_ms != INT64_MAX) {
        const int r = heap_push(&core->timers, job, heap_key_from_ms(at_ms));
        assert(r == 0); /* reserved by job_create(): every job in the table has room */
    }
}

void job_rearm(struct core *core, struct job *job)
{
    arm(core, job);
}

static void leave(struct core *core, struct job *job)
{
    struct queue *queue = job->flow->queue;
    switch ((enum job_place)job->place) {
    case PLACE_NEW:
    case PLACE_GONE:
        break;
    case PLACE_ACCEPTING:
        list_remove(&core->accepting, &job->link);
        break;
    case PLACE_RECOVERED:
        list_remove(&core->recovered, &job->link);
        break;
    case PLACE_READY:
        list_remove(&job_tier(job)->waiting, &job->link);
        lane_remove(core, job);
        break;
    case PLACE_BACKING_OFF:
        queue->backing_off--;
        job->flags &= (uint16_t)~JOB_WAITS_FOR_BUDGET;
        break;
    case PLACE_WAITING:
        queue->backing_off--;
        crowd_remove(core, job);
        break;
    case PLACE_LOADING:
        list_remove(&core->loading, &job->link);
        queue->lane->loading--;
        queue->lane->ahead_bytes -= job->payload_bytes;
        break;
    case PLACE_LOADED:
        list_remove(&queue->lane->loaded, &job->link);
        queue->lane->ahead_bytes -= job->payload_bytes;
        break;
    case PLACE_LEASED:
        queue->leased--;
        break;
    case PLACE_FOLLOWING:
        flight_remove(core, job);
        break;
    case PLACE_PARKED:
        list_remove(&core->parked, &job->link);
        break;
    case PLACE_DEAD:
        dead_leave(core, job);
        break;
    }
}

/* Older than what waits first: it comes back, and goes to the front. */
static void join_waiting(struct list *waiting, struct job *job)
{
    struct list_link *first = list_first(waiting);
    if (first != NULL && CONTAINER_OF(first, struct job, link)->sequence > job->sequence) {
        list_prepend(waiting, &job->link);
    } else {
        list_append(waiting, &job->link);
    }
}

static uint32_t at_most_u32(int64_t ms)
{
    return ms < 0 ? 0 : ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

static void join(struct core *core, struct job *job)
{
    struct queue *queue = job->flow->queue;
    switch ((enum job_place)job->place) {
    case PLACE_NEW:
    case PLACE_GONE:
        break;
    case PLACE_ACCEPTING:
        list_append(&core->accepting, &job->link);
        break;
    case PLACE_RECOVERED:
        list_append(&core->recovered, &job->link);
        break;
    case PLACE_READY:
        job->ready_after_ms = at_most_u32(core->now_ms - job->submitted_ms);
        join_waiting(&job_tier(job)->waiting, job);
        lane_push(core, job);
        break;
    case PLACE_BACKING_OFF:
        queue->backing_off++;
        break;
    case PLACE_WAITING:
        queue->backing_off++;
        crowd_push(core, job);
        break;
    case PLACE_LOADING:
        list_append(&core->loading, &job->link);
        queue->lane->loading++;
        queue->lane->ahead_bytes += job->payload_bytes;
        break;
    case PLACE_LOADED:
        list_append(&queue->lane->loaded, &job->link);
        queue->lane->ahead_bytes += job->payload_bytes;
        break;
    case PLACE_LEASED:
        queue->leased++;
        break;
    case PLACE_FOLLOWING:
        flight_push(core, job);
        break;
    case PLACE_PARKED:
        list_append(&core->parked, &job->link);
        break;
    case PLACE_DEAD:
        dead_join(core, job);
        break;
    }
}

/* Into or out of what bounds are kept on. */
static void count_pending(struct core *core, struct job *job, bool is_pending)
{
    struct tier *tier = job_tier(job);
    struct tenant *tenant = job_tenant(job);
    const uint64_t one = is_pending ? 1 : UINT64_MAX;
    const uint64_t bytes = is_pending ? job->payload_bytes : 0 - (uint64_t)job->payload_bytes;
    core->jobs_pending += one;
    tier->jobs += one;
    tier->bytes += bytes;
    tenant->jobs += one;
    tenant->bytes += bytes;
}

/* It was charged for the reading (dispatch.c), and will be charged again when it goes. */
static bool goes_back(enum job_place from, enum job_place to)
{
    const bool is_charged = from == PLACE_LOADING || from == PLACE_LOADED;
    return is_charged && (to == PLACE_READY || to == PLACE_BACKING_OFF || to == PLACE_WAITING);
}

void job_move(struct core *core, struct job *job, enum job_place next)
{
    const enum job_place before = job->place;
    assert(job_may_become(before, next));
    if (goes_back(before, next)) {
        lane_give_back(job);
    }
    leave(core, job);
    uint64_t *states = job_tier(job)->stats.states;
    states[job_state(job)] -= before != PLACE_NEW && before != PLACE_GONE;
    job->place = next & 0xf;
    states[job_state(job)] += next != PLACE_GONE;
    if (is_pending_place(before) != is_pending_place(next)) {
        count_pending(core, job, is_pending_place(next));
        arm(core, job);
    } else if (before == PLACE_BACKING_OFF || next == PLACE_BACKING_OFF) {
        arm(core, job);
    }
    join(core, job);
    if (crowd_may_try_from(before) && !crowd_may_try_from(next)) {
        crowd_left(core, job);
    }
}

void job_wait_until(struct core *core, struct job *job, int64_t not_before_ms)
{
    if (not_before_ms <= core->now_ms) {
        flight_enter(core, job);
        return;
    }
    job->at.not_before_ms = not_before_ms;
    job_move(core, job, PLACE_BACKING_OFF);
}

void job_keep_payload(struct core *core, struct job *job, struct blob *payload)
{
    assert(job->payload == NULL);
    job->payload = blob_ref(payload);
    core->payload_memory_bytes += blob_bytes(payload);
}

void job_release_payload(struct core *core, struct job *job)
{
    if ((job->flags & JOB_ON_DISK) != 0 &&
        core->payload_memory_bytes > core->limits.memory_payload_bytes_max) {
        job_drop_payload(core, job);
    }
}

void job_drop_payload(struct core *core, struct job *job)
{
    if (job->payload != NULL) {
        core->payload_memory_bytes -= blob_bytes(job->payload);
        blob_unref(&job->payload);
    }
}
