/*
 * charge: that what an attempt used is booked, and booked once.
 *
 * A charge stands for one attempt of one job at one worker, with its second call if it has one:
 *
 *   HELD       it runs under a budget: its worst case is reserved. Recorded with its dispatch, which does not wait for that
 *   AWAITED    its lease is over, and its worker has not said what it used: it was lost, or cancelled and may have been called
 *   ESTIMATED  it was awaited for a lease's time in vain: its worst case is booked, and marked as an estimate
 *   SETTLED    its worker has said what it used: that is booked. Said again, it is known
 *
 * A worker's word always wins: what comes after an estimate takes its place. Charges, the ledger's
 * rows and purses are written in the same batch, and a worker may forget its result only when that
 * is durable; so a crash of either loses and doubles nothing that a worker lives to tell. What a
 * worker used that dies with the broker, within the milliseconds of one batch, nobody knows.
 *
 * Those that are settled in one turn share a record, since all that matters of them is which they are.
 *
 * What is over (ESTIMATED, SETTLED) is kept for broker.dedup_window, for as long as a worker may
 * repeat itself: at most the latest CHARGES_MAX. The others are as many as attempts.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/event.h"
#include "broker/core/table.h"
#include "common/attributes.h"
#include "common/list.h"

struct core;
struct job;
struct lease;
struct worker;

enum { CHARGES_MAX = 65536 };

struct charges {
    struct table by_attempt;
    struct list open;        /* HELD and AWAITED … */
    struct list over;        /* … and the others: both by the time of their records */
    struct list awaited;     /* the first is due first */
    struct list settled;     /* in this turn: recorded together at its end */
    struct charge *spare;    /* for when there is no memory for another one; NULL: used */
    int64_t deleted_unix_ms; /* records before are deleted */
    int64_t trim_at_ms;
    bool is_due;    /* one was forgotten whose record is still there */
    bool is_booked; /* by the event under way, in the batch of this turn */
};

uint64_t charge_hash(const struct table_link *link, uint64_t seed);
MUST_USE int charge_init(struct core *core, uint64_t seed); /* Errors: -ENOMEM */
void charge_destroy(struct core *core);

/* There is memory for one more. False: what may cost something is not to begin now. */
MUST_USE bool charge_may_open(struct core *core);
/* A lease was granted, or came back: what it may cost is reserved, under a budget. Its permit says
 * which upstream it is for. */
void charge_open(struct core *core, struct lease *lease);
/* The lease has got a permit for a second call: what that may cost is reserved as well. */
void charge_open_second(struct core *core, struct lease *lease);
/* It was never sent: nothing was used. */
void charge_give_back(struct core *core, struct lease *lease);
/* The lease ends. Without a word of what was used it is awaited. */
void charge_lease_ended(struct core *core, struct lease *lease);
/*
 * What a worker says that an attempt used, booked unless it is known. `job` NULL: it is not
 * pending; `lease` NULL: it is not the attempt's any more.
 */
void charge_result(struct core *core, const struct worker *worker, struct job *job,
                   struct lease *lease, const struct event_attempt_result *result);
/* What telling the worker that its result was taken depends on: 0, nothing. */
uint64_t charge_batch(const struct core *core);
/* The job was answered by an identical one's call. `usage` NULL: nothing is known of it. */
void charge_follower(struct core *core, const struct job *job, const Wire__Usage *usage);

/* Books what was awaited in vain, and records what was settled. */
void charge_tick(struct core *core);
int64_t charge_next_deadline_ms(const struct core *core);
/* Errors: -EBADMSG, -ENOMEM. */
MUST_USE int charge_restore(struct core *core, const void *key, size_t key_bytes, const void *value,
                            size_t value_bytes);
/* What ran before the restart is awaited. */
void charge_restored(struct core *core);
