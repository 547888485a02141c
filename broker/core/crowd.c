#include "broker/core/crowd.h"
#include <assert.h>
#include <stdlib.h>
#include "broker/core/dispatch.h"
#include "broker/core/flight.h"
#include "broker/core/job.h"
#include "broker/core/lane.h"
#include "broker/core/upstream.h"

enum {
    LOOK_MS = 1000, /* after so long one tries, whatever is known */
    LOOK_SPREAD_MS = 250,
};

struct crowd {
    struct flow *flow;
    struct crowd *next;     /* of its flow */
    struct list_link link;  /* in core.crowds */
    struct heap jobs;       /* WAITING, by priority, then age */
    struct heap ahead;      /* those with JOB_READ_AHEAD; never both empty between events */
    uint32_t time_position; /* in core.crowd_times */
    uint16_t able;
    int64_t at_ms;    /* when one of the candidates may be called, by what was known last */
    struct id trying; /* the latest that went back into its flow */
};

void crowd_init(struct core *core)
{
    list_init(&core->crowds);
    heap_init(&core->crowd_times, offsetof(struct crowd, time_position));
}

void crowd_finish(struct core *core)
{
    heap_finish(&core->crowd_times);
}

/* ---- finding ---- */

static struct crowd *find(const struct flow *flow, uint16_t able)
{
    struct crowd *crowd = flow->crowds;
    while (crowd != NULL && crowd->able != able) {
        crowd = crowd->next;
    }
    return crowd;
}

/* NULL: no memory. */
static struct crowd *make(struct core *core, struct flow *flow, uint16_t able)
{
    if (heap_reserve(&core->crowd_times, 1) < 0) {
        return NULL;
    }
    struct crowd *crowd = calloc(1, sizeof(*crowd));
    if (crowd == NULL) {
        return NULL;
    }
    crowd->flow = flow;
    crowd->able = able;
    crowd->time_position = HEAP_NONE;
    heap_init(&crowd->jobs, offsetof(struct job, ready_position));
    heap_init(&crowd->ahead, offsetof(struct job, ready_position));
    crowd->next = flow->crowds;
    flow->crowds = crowd;
    flow->queue->crowds++;
    list_append(&core->crowds, &crowd->link);
    return crowd;
}

static void free_crowd(struct crowd *crowd)
{
    heap_finish(&crowd->jobs);
    heap_finish(&crowd->ahead);
    free(crowd);
}

static void destroy(struct core *core, struct crowd *crowd)
{
    struct crowd **at = &crowd->flow->crowds;
    while (*at != crowd) {
        at = &(*at)->next;
    }
    *at = crowd->next;
    crowd->flow->queue->crowds--;
    list_remove(&core->crowds, &crowd->link);
    if (heap_contains(&core->crowd_times, crowd)) {
        heap_remove(&core->crowd_times, crowd);
    }
    free_crowd(crowd);
}

static void destroy_if_empty(struct core *core, struct crowd *crowd)
{
    if (crowd->jobs.length == 0 && crowd->ahead.length == 0) {
        destroy(core, crowd);
    }
}

/* The crowd with room for one more. NULL: no memory. */
static struct crowd *open_crowd(struct core *core, struct flow *flow, uint16_t able)
{
    struct crowd *crowd = find(flow, able);
    crowd = crowd != NULL ? crowd : make(core, flow, able);
    if (crowd != NULL && heap_reserve(&crowd->jobs, 1) < 0) {
        destroy_if_empty(core, crowd);
        return NULL;
    }
    return crowd;
}

/* NULL: none, while it is being made. */
static struct job *best(const struct crowd *crowd)
{
    return heap_peek(heap_peek_key(&crowd->ahead) < heap_peek_key(&crowd->jobs) ? &crowd->ahead
                                                                                : &crowd->jobs);
}

static struct heap *heap_of(const struct job *job)
{
    struct crowd *crowd = job->at.crowd;
    return (job->flags & JOB_READ_AHEAD) != 0 ? &crowd->ahead : &crowd->jobs;
}

/* ---- waiting ---- */

static void set_time(struct core *core, struct crowd *crowd, int64_t at_ms)
{
    if (heap_contains(&core->crowd_times, crowd)) {
        heap_remove(&core->crowd_times, crowd);
    }
    const int r = heap_push(&core->crowd_times, crowd, heap_key_from_ms(at_ms));
    assert(r == 0); /* reserved by make() */
}

static int64_t next_look_ms(struct core *core)
{
    return core->now_ms + LOOK_MS + (int64_t)core_random_below(core, LOOK_SPREAD_MS);
}

static int64_t sooner(int64_t a_ms, int64_t b_ms)
{
    return a_ms < b_ms ? a_ms : b_ms;
}

/* ---- reading ahead ---- */

/* No payload is read for one that waits for long, or that could not be dispatched. */
static bool may_read(const struct core *core, const struct crowd *crowd)
{
    const struct lane *lane = crowd->flow->queue->lane;
    return crowd->at_ms <= core->now_ms + LOOK_MS + LOOK_SPREAD_MS && lane->pool->slots > 0 &&
           !core->is_draining && !(lane->tier->is_durable && core->store_is_down);
}

static bool has_room(const struct core *core, const struct job *job, bool is_next)
{
    const struct lane *lane = job->flow->queue->lane;
    const uint64_t parts = is_next ? 1 : 2;
    const uint64_t bytes_max = core->limits.memory_payload_bytes_max / 4 / parts;
    return lane->crowd_ahead == 0 || (lane->crowd_ahead < LOADS_AHEAD_MAX / parts &&
                                      lane->crowd_ahead_bytes + job->payload_bytes <= bytes_max);
}

/* In no heap yet; the one for this has room. */
static void count_ahead(struct job *job)
{
    struct lane *lane = job->flow->queue->lane;
    job->flags |= JOB_READ_AHEAD;
    lane->crowd_ahead++;
    lane->crowd_ahead_bytes += job->payload_bytes;
}

static void uncount_ahead(struct job *job)
{
    struct lane *lane = job->flow->queue->lane;
    if ((job->flags & JOB_READ_AHEAD) != 0) {
        job->flags &= (uint16_t)~JOB_READ_AHEAD;
        lane->crowd_ahead--;
        lane->crowd_ahead_bytes -= job->payload_bytes;
    }
}

/* The crowd has enough read ahead without this one. */
static bool has_enough(const struct crowd *crowd, bool is_next)
{
    return !is_next && crowd->ahead.length >= LOADS_AHEAD_MIN;
}

/* False: a bound was reached. */
static bool ask(struct core *core, struct crowd *crowd, const struct job *job, bool is_next)
{
    return has_room(core, job, is_next) && heap_reserve(&crowd->ahead, 1) == 0 &&
           dispatch_ask_payload(core, job) != 0;
}

static bool read_one_more(struct core *core, struct crowd *crowd)
{
    struct job *job = heap_peek(&crowd->jobs);
    const bool is_next = job == best(crowd);
    if (job == NULL || job->payload != NULL || lane_is_held(core, job) ||
        has_enough(crowd, is_next) || !ask(core, crowd, job, is_next)) {
        return false;
    }
    heap_remove(&crowd->jobs, job);
    count_ahead(job);
    crowd_push(core, job);
    return true;
}

static void read_ahead(struct core *core, struct crowd *crowd)
{
    while (may_read(core, crowd) && read_one_more(core, crowd)) {
    }
}

/* The job, which is about to join, goes before all others. */
static bool would_be_next(const struct core *core, const struct crowd *crowd, const struct job *job)
{
    const uint64_t rank = lane_rank(flight_priority(core, job), job->sequence);
    return rank < heap_peek_key(&crowd->jobs) && rank < heap_peek_key(&crowd->ahead);
}

/* A payload that memory has no room for stays only as one that was read ahead. */
static void keep_or_release(struct core *core, struct crowd *crowd, struct job *job)
{
    const bool is_beyond = job->payload != NULL && (job->flags & JOB_ON_DISK) != 0 &&
                           core->payload_memory_bytes > core->limits.memory_payload_bytes_max;
    if (!is_beyond) {
        return;
    }
    const bool is_next = would_be_next(core, crowd, job);
    if (may_read(core, crowd) && !has_enough(crowd, is_next) && has_room(core, job, is_next) &&
        heap_reserve(&crowd->ahead, 1) == 0) {
        count_ahead(job);
    } else {
        job_drop_payload(core, job);
    }
}

bool crowd_is_reading(const struct job *job)
{
    return job->place == PLACE_WAITING && (job->flags & JOB_READ_AHEAD) != 0 &&
           job->payload == NULL;
}

void crowd_payload_came(struct core *core, struct job *job)
{
    struct crowd *crowd = job->at.crowd;
    if (job == best(crowd)) {
        set_time(core, crowd, sooner(later_ms(crowd->at_ms, core->now_ms), next_look_ms(core)));
    }
}

/* ---- coming ---- */

static void join(struct core *core, struct crowd *crowd, struct job *job)
{
    job->at.crowd = crowd;
    job_move(core, job, PLACE_WAITING);
    read_ahead(core, crowd);
}

void crowd_join(struct core *core, struct job *job, uint16_t able, int64_t at_ms)
{
    struct crowd *crowd = open_crowd(core, job->flow, able);
    const int64_t look_ms = sooner(at_ms, next_look_ms(core));
    if (job->place == PLACE_READY) {
        lane_keep_turn(job);
    }
    if (crowd == NULL) {
        job_release_payload(core, job);
        job_wait_until(core, job, look_ms);
        return;
    }
    crowd->at_ms = at_ms;
    set_time(core, crowd, look_ms);
    keep_or_release(core, crowd, job);
    join(core, crowd, job);
}

bool crowd_read(struct core *core, struct job *job, uint16_t able)
{
    struct crowd *crowd = open_crowd(core, job->flow, able);
    if (crowd == NULL) {
        return false;
    }
    const bool is_next = would_be_next(core, crowd, job);
    const bool is_read = !has_enough(crowd, is_next);
    if (is_read && !ask(core, crowd, job, is_next)) {
        destroy_if_empty(core, crowd);
        return false;
    }
    lane_keep_turn(job);
    crowd->at_ms = core->now_ms;
    if (is_read) {
        count_ahead(job);
    }
    join(core, crowd, job);
    set_time(core, crowd, crowd_is_reading(best(crowd)) ? next_look_ms(core) : core->now_ms);
    return true;
}

void crowd_push(struct core *core, struct job *job)
{
    const uint64_t rank = lane_rank(flight_priority(core, job), job->sequence);
    const int r = heap_push(heap_of(job), job, rank);
    assert(r == 0); /* reserved by open_crowd() and where it is counted as read ahead */
}

void crowd_remove(struct core *core, struct job *job)
{
    heap_remove(heap_of(job), job);
    uncount_ahead(job);
    destroy_if_empty(core, TAKE(job->at.crowd));
}

void crowd_raise(struct core *core, struct job *job)
{
    heap_remove(heap_of(job), job);
    crowd_push(core, job);
}

int64_t crowd_opens_ms(const struct job *job)
{
    return job->at.crowd->at_ms;
}

/* ---- trying ---- */

/* It has had no worker yet: another one could do no more. */
static bool is_trying(const struct core *core, const struct id *job_id)
{
    const struct job *job = job_find(core, job_id);
    return job != NULL && crowd_may_try_from(job->place);
}

/* The crowd is gone with its last one. */
static void let_next_try(struct core *core, struct crowd *crowd)
{
    struct job *job = best(crowd);
    set_time(core, crowd, next_look_ms(core));
    crowd->trying = job->id;
    job_move(core, job, PLACE_READY);
}

static void let_one_try(struct core *core, struct crowd *crowd)
{
    read_ahead(core, crowd);
    if (is_trying(core, &crowd->trying) || crowd_is_reading(best(crowd))) {
        set_time(core, crowd, next_look_ms(core));
    } else {
        let_next_try(core, crowd);
    }
}

void crowd_follow(struct core *core, const struct job *job, uint16_t able)
{
    struct crowd *crowd = find(job->flow, able);
    if (crowd == NULL || (!id_equal(&crowd->trying, &job->id) && is_trying(core, &crowd->trying))) {
        return;
    }
    read_ahead(core, crowd);
    if (!crowd_is_reading(best(crowd))) {
        let_next_try(core, crowd);
    } else if (job->place == PLACE_READY) {
        lane_keep_turn(job);
    }
}

bool crowd_may_try_from(enum job_place place)
{
    return place == PLACE_READY || place == PLACE_LOADING || place == PLACE_LOADED;
}

/* In the next tick, as crowd_look(). One that came back to it has found when to look again. */
void crowd_left(struct core *core, const struct job *job)
{
    for (struct crowd *crowd = job->flow->crowds; crowd != NULL; crowd = crowd->next) {
        const bool is_back = job->place == PLACE_WAITING && job->at.crowd == crowd;
        if (!is_back && id_equal(&crowd->trying, &job->id)) {
            set_time(core, crowd, core->now_ms);
        }
    }
}

static bool may_call(struct core *core, const struct crowd *crowd, struct upstream *upstream)
{
    const uint16_t bit = upstream_bit(core, crowd->flow->queue, upstream);
    return (crowd->able & bit) != 0 &&
           upstream_open_at_ms(core, upstream, best(crowd)) <= core->now_ms;
}

/* In the next tick: who says so may be about to move other jobs. */
void crowd_look(struct core *core, struct upstream *upstream)
{
    list_for_each (&core->crowds, link) {
        struct crowd *crowd = CONTAINER_OF(link, struct crowd, link);
        if (may_call(core, crowd, upstream)) {
            crowd->at_ms = core->now_ms;
            set_time(core, crowd, core->now_ms);
        }
    }
}

void crowd_dissolve_all(struct core *core)
{
    struct list_link *link;
    while ((link = list_first(&core->crowds)) != NULL) {
        struct crowd *crowd = CONTAINER_OF(link, struct crowd, link);
        struct job *job = best(crowd);
        job_release_payload(core, job);
        job_move(core, job, PLACE_READY);
    }
}

bool crowd_tick(struct core *core)
{
    for (int i = 0; crowd_next_deadline_ms(core) <= core->now_ms; i++) {
        if (i == TIMERS_PER_TICK) {
            return false;
        }
        let_one_try(core, heap_peek(&core->crowd_times));
    }
    return true;
}

int64_t crowd_next_deadline_ms(const struct core *core)
{
    return core->crowd_times.length == 0 ? INT64_MAX
                                         : heap_ms_from_key(heap_peek_key(&core->crowd_times));
}

void crowd_destroy_all(struct flow *flow)
{
    while (flow->crowds != NULL) {
        struct crowd *crowd = flow->crowds;
        flow->crowds = crowd->next;
        free_crowd(crowd);
    }
}
