/*
 * conclude: how a job ends, exactly once, and what is written of it on the way.
 *
 * A conclusion on a durable tier is one batch: record, payload, lease and attempts deleted, the id remembered, the
 * result kept; clients and worker hear of it when that is durable. See DESIGN.md, "A job's life", promise 2.
 */
#pragma once
#include "broker/core/state.h"
#include "proto/records.pb-c.h"

struct outcome {
    Wire__JobState state;
    const char *error_code, *error_text; /* NULL: "" */
    const Wire__Usage *usage;            /* NULL: none */
    struct blob *payload;                /* NULL: none */
    const char *worker;                  /* NULL: "" */
    const char *provider;                /* of a dead letter: the last one that was called; NULL: none */
    int64_t retry_after_ms;              /* EXPIRED: > 0: shed, and may be submitted again then */
    uint32_t attempts;                   /* 0: as the job has them */
    uint64_t peer;                       /* the attempt that concluded it; another one is cancelled. 0: none */
    uint32_t attempt;
    bool is_carried_on;                  /* its answer was begun under an earlier number */
    const struct id *led_by;             /* the identical job whose attempt it was; NULL: its own */
};

/*
 * Concludes a pending job: answers whoever waits, keeps the result, remembers the id, cancels an attempt that still runs.
 * The job is gone afterwards, or a dead letter.
 */
void conclude(struct core *core, struct job *job, const struct outcome *outcome);

/* Its deadline has passed: EXPIRED, and why it waited when nobody could serve its queue. */
void conclude_expire(struct core *core, struct job *job);

/* Writes the job's record again, after a failed attempt. Nobody waits for it. Nothing on a tier in memory. */
void conclude_update_record(struct core *core, struct job *job);
/* Writes job and payload for the first time. Somebody waits. */
void conclude_write_new(struct core *core, const struct job *job);

/* Deletes all that is stored of a job: of a dead letter, too. */
void conclude_delete_records(struct core *core, const struct job *job);

/* An attempt that brought no answer, kept for an operator in the job's history. The job's record is written in the same turn. */
struct attempt_report {
    Wire__AttemptOutcome outcome; /* NONE: the lease was lost */
    const char *error_code, *error_text, *worker;
    const Wire__Usage *usage;     /* NULL: none */
    const Wire__Call *const *calls; /* to providers: they say more than `usage`, where there are any */
    size_t calls_length;
    int64_t retry_after_ms;
    int64_t run_ms;               /* 0: since its lease was granted */
    bool is_lost;                 /* with its worker */
    Record__AttemptNext next;     /* what follows */
    int64_t wait_ms;              /* until then */
};
void conclude_record_attempt(struct core *core, struct job *job, const struct attempt_report *report);

/* Drops the oldest dead letters beyond dead_letters_max, which a configuration may have lowered. False: a bound was reached. */
bool conclude_bound_dead_letters(struct core *core);

/* The event CANCEL. */
void conclude_cancel(struct core *core, const struct event *event);
