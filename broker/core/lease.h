/*
 * lease: the time-limited right of a worker to run one attempt of a job.
 *
 * All leases last equally long, so they stand in one list in the order of renewal, and the first is the next to be lost. A
 * lease is volatile: only one that lasts is recorded, so that a restart finds its job leased, to a worker that is not back yet.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "broker/core/state.h"

struct stream;
struct worker;

struct lease {
    struct job *job;
    struct worker *worker;       /* NULL: not back yet after a restart */
    struct list_link in_worker;
    struct list_link by_renewal; /* core.leases */
    struct list_link young;      /* core.leases_young, while is_young */
    int64_t renewed_ms;
    int64_t granted_ms;
    struct stream *stream;       /* NULL: no chunk came yet */
    uint64_t stream_bytes;       /* that its worker was told its chunks may have, in all (StreamAllowance); 0: all */
    uint64_t invalidations;      /* that its worker had been told of when it was given the job; 0 after a restart, or when it came back with it */
    uint32_t attempt;
    bool is_suspect;             /* its job was when it was granted */
    struct permit permit;
    struct permit hedge;         /* for a second call beside the first: hedge.h */
    uint64_t hedge_nanousd;      /* that it is expected to cost */
    bool is_charged;             /* its worker has said what it used: charge.h */
    bool is_young;
    bool is_recorded;            /* a LeaseRecord was written */
};

/*
 * Whether the job may be what ends workers. Of 200 jobs that are lost with a worker one may be to blame and 199 are not; so what was
 * lost more than once is a suspect, no worker is given a second suspect while it has one, and only a job that is lost as a suspect,
 * the only one there, can be condemned: after broker.losses_max losses. Innocents are not lost with it any more then.
 */
bool lease_is_for_suspect(const struct core *core, const struct job *job);

/* Gives the job, which waits in any way, to the worker (NULL: after a restart). NULL: no memory. */
struct lease *lease_grant(struct core *core, struct job *job, struct worker *worker, uint32_t attempt);
/* Takes it back; the job stays in place LEASED for the caller to move. */
void lease_end(struct core *core, struct lease *lease);
/*
 * The lease was lost: ends it, and its job waits again, or is dead if that happened too often. `is_crash`: the worker is gone without a
 * word, and the job may be why; one that said goodbye, and one that is unknown since a restart, says nothing about the job.
 */
void lease_lose(struct core *core, struct lease *lease, bool is_crash, const char *why);
/* Renews it, at this worker: the same one, one that came back, or the one that has run the job since before a restart. */
void lease_hand_over(struct core *core, struct lease *lease, struct worker *worker, uint32_t attempt);
/* Loses what was not renewed and writes the records of those that last. False: a bound was reached. */
bool lease_tick(struct core *core);
int64_t lease_next_deadline_ms(const struct core *core);
