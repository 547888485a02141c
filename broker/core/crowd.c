#include "broker/core/crowd.h"
#include <assert.h>
#include <stdlib.h>
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
    struct heap jobs;       /* WAITING, by priority, then age; never empty between events */
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
    crowd->next = flow->crowds;
    flow->crowds = crowd;
    flow->queue->crowds++;
    list_append(&core->crowds, &crowd->link);
    return crowd;
}

static void free_crowd(struct crowd *crowd)
{
    heap_finish(&crowd->jobs);
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

/* The crowd with room for one more. NULL: no memory. */
static struct crowd *open_crowd(struct core *core, struct flow *flow, uint16_t able)
{
    struct crowd *crowd = find(flow, able);
    crowd = crowd != NULL ? crowd : make(core, flow, able);
    if (crowd != NULL && heap_reserve(&crowd->jobs, 1) < 0) {
        if (crowd->jobs.length == 0) {
            destroy(core, crowd);
        }
        return NULL;
    }
    return crowd;
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

void crowd_join(struct core *core, struct job *job, uint16_t able, int64_t at_ms)
{
    struct crowd *crowd = open_crowd(core, job->flow, able);
    const int64_t look_ms = sooner(at_ms, next_look_ms(core));
    if (job->place == PLACE_READY) {
        lane_keep_turn(job);
    }
    if (crowd == NULL) {
        job_wait_until(core, job, look_ms);
        return;
    }
    crowd->at_ms = at_ms;
    set_time(core, crowd, look_ms);
    job->at.crowd = crowd;
    job_move(core, job, PLACE_WAITING);
}

void crowd_push(struct core *core, struct job *job)
{
    const uint64_t rank = lane_rank(flight_priority(core, job), job->sequence);
    const int r = heap_push(&job->at.crowd->jobs, job, rank);
    assert(r == 0); /* reserved by open_crowd() */
}

void crowd_remove(struct core *core, struct job *job)
{
    struct crowd *crowd = TAKE(job->at.crowd);
    heap_remove(&crowd->jobs, job);
    if (crowd->jobs.length == 0) {
        destroy(core, crowd);
    }
}

void crowd_raise(struct core *core, struct job *job)
{
    heap_remove(&job->at.crowd->jobs, job);
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
    struct job *job = heap_peek(&crowd->jobs);
    set_time(core, crowd, next_look_ms(core));
    crowd->trying = job->id;
    job_move(core, job, PLACE_READY);
}

static void let_one_try(struct core *core, struct crowd *crowd)
{
    if (is_trying(core, &crowd->trying)) {
        set_time(core, crowd, next_look_ms(core));
    } else {
        let_next_try(core, crowd);
    }
}

void crowd_follow(struct core *core, const struct job *job, uint16_t able)
{
    struct crowd *crowd = find(job->flow, able);
    if (crowd != NULL && (id_equal(&crowd->trying, &job->id) || !is_trying(core, &crowd->trying))) {
        let_next_try(core, crowd);
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
           upstream_open_at_ms(core, upstream, heap_peek(&crowd->jobs)) <= core->now_ms;
}

/* In the next tick: who says so may be about to move other jobs. */
void crowd_look(struct core *core, struct upstream *upstream)
{
    list_for_each (&core->crowds, link) {
        struct crowd *crowd = CONTAINER_OF(link, struct crowd, link);
        if (may_call(core, crowd, upstream)) {
            set_time(core, crowd, core->now_ms);
        }
    }
}

void crowd_dissolve_all(struct core *core)
{
    struct list_link *link;
    while ((link = list_first(&core->crowds)) != NULL) {
        struct crowd *crowd = CONTAINER_OF(link, struct crowd, link);
        job_move(core, heap_peek(&crowd->jobs), PLACE_READY);
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
