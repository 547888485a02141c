/*
 * dead: the dead letters, what an operator may do with them, and how many at a time.
 *
 * A dead letter is a job in place DEAD with a struct dead_letter: when and of what it died. They are numbered in order of death, and
 * stand in an array by that number, so a list goes on behind any number in O(log n), whatever went away meanwhile.
 *
 * Requeued: it waits again as if it had been submitted now, with the deadline of its tier, no failures and no losses. Its attempts
 * go on counting (the fence), its history stays, and its conclusion is withdrawn in the same batch that writes its record: so
 * there is one conclusion for each life, and clients see the job pending. Dropped: all is deleted but the conclusion.
 *
 * Sweep: many of them, by a filter, those that were there when it began. It is paced here by the core's own time, and waits while
 * a tier or tenant is full or the store is down. Sweeps are not stored: a restart ends them, and what they did stays done.
 */
#pragma once
#include "broker/core/state.h"

enum {
    DEAD_SWEEPS_MAX = 16,     /* running, or over and not forgotten */
    DEAD_LOOKS_PER_TICK = 1024,
    DEAD_JOBS_PER_TICK = 256, /* of them, requeued or dropped */
    DEAD_PAYLOAD_SHARE = 4,   /* of broker.results_memory_bytes_max, for payloads of tiers in memory */
    DEAD_TEXT_BYTES = 128,
};

struct dead_letter {
    uint64_t number;
    int64_t died_unix_ms;
    const struct name *code;
    const char *text, *worker, *provider; /* in `texts` */
    char texts[];
};

/* What is known of a death. Strings may be NULL. */
struct death {
    int64_t unix_ms;
    const char *code, *text, *worker, *provider;
};

MUST_USE int dead_init(struct core *core); /* Errors: -ENOMEM */
void dead_finish(struct core *core);

/*
 * Makes the letter of the job that is moved to DEAD right after, and room for it. False: no memory, and the job
 * cannot be kept as a dead letter.
 */
bool dead_prepare(struct core *core, const struct death *death);
/* For job_move(). */
void dead_join(struct core *core, struct job *job);
void dead_leave(struct core *core, struct job *job);
/* For a job that is freed with the core. */
void dead_free_letter(struct job *job);
/* Dead letters come from the records in no order of death. */
void dead_restored(struct core *core);

/* Whether the payload of this job of a tier in memory may be kept. */
bool dead_may_keep_payload(const struct core *core, const struct job *job);
struct job *dead_oldest(const struct core *core); /* NULL: none */
/* Deletes it with its records; its conclusion is remembered as before. */
void dead_drop(struct core *core, struct job *job);

/* Events. */
void dead_one(struct core *core, const struct event *event);
void dead_sweep_begin(struct core *core, const struct event *event);
void dead_sweep_stop(struct core *core, const struct event *event);
void dead_tick(struct core *core);
int64_t dead_next_deadline_ms(const struct core *core);
