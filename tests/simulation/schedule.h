/*
 * schedule: what will happen in a run, in the order of virtual time; among equals in the order in
 * which it was planned.
 */
#pragma once
#include <stdint.h>
#include "common/heap.h"
#include "tests/simulation/message.h"

enum task_kind {
    TASK_DELIVER, /* message */
    TASK_BROKER_TURN,
    TASK_BROKER_START,
    TASK_STORE_SYNC,
    TASK_STORE_UP,
    TASK_STORE_LOADED, /* message */
    TASK_CLIENT_WAKE,  /* who: a client; generation: its wake's */
    TASK_WORKER_WAKE,  /* who: a worker; generation: its wake's */
    TASK_LINK_BROKEN,  /* generation: the peer whose owner notices */
    TASK_ATTEMPT_END,  /* who: a worker; message.job, message.attempt */
    TASK_HEDGE,        /* who: a worker; message.job, message.attempt: takes long */
    TASK_CHUNK,        /* who: a worker; message: the chunk */
    TASK_ARRIVAL,      /* the next new jobs */
    TASK_CACHE,        /* somebody does something about caches: cache.h */
    TASK_MEDDLE,       /* a client does what nobody expects of it */
    TASK_FAULT,        /* something breaks */
    TASK_OPERATOR,     /* somebody pauses, reloads, restarts */
    TASK_RESUME,       /* an operator resumes message.number, message.second */
    TASK_UPSTREAM,     /* who: an upstream, which recovers */
};

struct task {
    uint32_t position; /* in the heap */
    struct task *next; /* of the spare ones */
    enum task_kind kind;
    uint32_t who;
    uint64_t generation; /* of `who`: a task of an older one is void */
    struct message message;
};

struct schedule {
    struct heap heap;
    uint64_t sequence;
    struct task *spare; /* released ones, to be taken again */
};

void schedule_init(struct schedule *schedule);
void schedule_finish(struct schedule *schedule);
/* Takes the message, which may be NULL. */
void schedule_add(struct schedule *schedule, int64_t at_ms, enum task_kind kind, uint32_t who,
                  uint64_t generation, const struct message *message);
/* INT64_MAX: nothing is planned. */
int64_t schedule_next_ms(const struct schedule *schedule);
/* The next task and its time, to be released with schedule_release(); NULL when there is none. */
struct task *schedule_take(struct schedule *schedule, int64_t *ret_at_ms);
void schedule_release(struct schedule *schedule, struct task **task);
