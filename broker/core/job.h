/*
 * job: one request for model work, while it is pending or a dead letter.
 *
 * One allocation of at most CORE_JOB_BYTES_MAX bytes; strings are names, the payload is a shared blob or only on disk. A job
 * is always in exactly one place, and only job_move() changes it: it leaves the old list or heap, joins the new one
 * and counts, so that place, list and counters cannot disagree. Records are the mover's business, since most moves
 * write none (leases are volatile).
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "broker/core/core.h"
#include "broker/core/table.h"
#include "common/list.h"

struct client;
struct crowd;
struct flight;
struct dead_letter;
struct flow;
struct lease;
struct tenant;
struct tier;
struct waiter;

enum job_place {
    PLACE_NEW,         /* being built */
    PLACE_ACCEPTING,   /* its record is not durable yet */
    PLACE_RECOVERED,   /* after a restart, until its worker has had time to reclaim it */
    PLACE_READY,
    PLACE_BACKING_OFF, /* until not_before_ms */
    PLACE_WAITING,     /* for candidates that others do not need: crowd.h */
    PLACE_LOADING,     /* chosen; its payload is being read */
    PLACE_LOADED,      /* chosen, payload in memory, no worker yet */
    PLACE_LEASED,
    PLACE_FOLLOWING,   /* an identical job leads */
    PLACE_PARKED,      /* part of a provider batch */
    PLACE_DEAD,        /* a dead letter */
    PLACE_GONE,        /* concluded, about to be freed */
};

enum job_flag {
    JOB_STREAM = 1 << 0,         /* as submitted; stored */
    JOB_DISCARD_RESULT = 1 << 1, /* stored */
    JOB_OF_WORKER = 1 << 12,     /* a worker made it; stored */
    JOB_STORED_FLAGS = JOB_STREAM | JOB_DISCARD_RESULT | JOB_OF_WORKER,
    JOB_DURABLE = 1 << 2,        /* of a durable tier: has records */
    JOB_ON_DISK = 1 << 3,        /* its payload is durable, so memory may forget it */
    JOB_HAS_CANONICAL = 1 << 4,
    JOB_HAS_TRACE = 1 << 5,
    JOB_HAS_KEY = 1 << 6,        /* an idempotency entry refers to it */
    JOB_LEADS = 1 << 7,          /* identical jobs follow it: flight.h */
    JOB_LEASE_LOST = 1 << 8,     /* its latest attempt may still run: the worker may reclaim it */
    JOB_RETRIES = 1 << 9,        /* backing off after an attempt that counted: the retry budget has to grant it */
    JOB_HAS_FOLLOWERS = 1 << 10,
    JOB_FOLLOWS_STREAM = 1 << 11, /* FOLLOWING, and gets the leader's chunks */
    JOB_READ_AHEAD = 1 << 13,     /* WAITING, and its payload is read, or being read: crowd.h */
    JOB_WAITS_FOR_BUDGET = 1 << 14, /* BACKING_OFF for that: budget.h */
};

enum {
    JOB_LOSSES_MAX = (1 << 11) - 1, /* more than broker.losses_max can be */
    JOB_BACKOFFS_MAX = (1 << 5) - 1, /* a first backoff of 1 ms has become 12 days */
    JOB_OUTPUT_TOKENS_MAX = (1 << 24) - 1, /* no model writes so much */
    JOB_PREFIXES = UINT8_MAX,        /* more than a job can have candidates to be shared among */
};

/* What the choice of its model depends on: decision.h. */
struct job_needs {
    uint8_t complexity; /* 1 to 255: of 0 to 1; 0: not known */
    uint8_t abilities;  /* enum choice_ability */
    uint8_t residency;  /* index of core.residencies, plus 1; 0: none; DECISION_NOWHERE */
    uint8_t input_size; /* tokens: job_input_tokens() */
};

struct job {
    struct id id;
    struct table_link by_id;
    struct table_link by_canonical; /* in core.leaders, while JOB_LEADS */
    struct list_link link;      /* in the list of its place, where that is a list */
    uint64_t sequence;          /* age */
    struct blob *payload;       /* NULL: on disk only */
    struct flow *flow;          /* tier, pool, route and tenant */
    uint64_t waiter;            /* the client that gets the result and no chunks; 0: nobody */
    struct waiter *more_waiters;
    int64_t submitted_ms;
    int64_t deadline_ms;
    union {
        uint64_t accept_batch; /* ACCEPTING */
        int64_t not_before_ms; /* BACKING_OFF, and ACCEPTING uses it afterwards */
        struct crowd *crowd;   /* WAITING */
        uint64_t load_token;   /* LOADING */
        struct lease *lease;   /* LEASED */
        struct flight *flight; /* FOLLOWING */
        struct dead_letter *letter; /* DEAD; NULL: nothing is known but that it is dead */
    } at;
    uint8_t canonical_key[16];
    uint8_t trace_parent[24];
    union {
        uint32_t delay_ms;       /* of the submission, capped; until it has been READY */
        uint32_t ready_after_ms; /* from submitted_ms until it last became READY, capped */
    };
    struct job_needs needs;
    uint32_t payload_bytes;
    uint32_t estimated_tokens;
    uint32_t max_tokens : 24;   /* of output; JOB_OUTPUT_TOKENS_MAX: so many, or more */
    uint32_t prefix : 8;        /* the same for prompts that begin alike: decision.h; 0: none */
    uint32_t attempt;           /* number of the latest attempt: the fence */
    uint32_t ready_position;    /* in its flow's heap, its flight's or its crowd's */
    uint32_t timer_position;
    uint16_t attempts_max;
    uint16_t failures;          /* attempts that were used up */
    uint16_t losses : 11;       /* leases that were lost; JOB_LOSSES_MAX: so many, or more */
    uint16_t backoffs : 5;      /* in a row: the exponent; at most JOB_BACKOFFS_MAX */
    uint16_t history;           /* attempts that were recorded: history.h */
    uint16_t flags;
    uint16_t tried;             /* candidates of its queue that failed it in this round: upstream_bit() */
    uint16_t unsaid;            /* those that have no words for it, in any round until the next reload */
    uint8_t place : 4;
    uint8_t priority : 4;
    uint8_t task;               /* index of its tenant's tasks, plus 1; 0: none */
};
_Static_assert(sizeof(struct job) <= CORE_JOB_BYTES_MAX, "a pending job is a small fixed record");

uint64_t job_hash(const struct table_link *link, uint64_t seed);
Wire__JobState job_place_state(enum job_place place);
Wire__JobState job_state(const struct job *job);
bool job_may_become(enum job_place from, enum job_place to);
/* Concluded jobs may still be in the table, as dead letters. */
bool job_is_pending(const struct job *job);
/* The tokens of its input, rounded up by less than 6 %; 0: not known. */
uint8_t job_input_size(uint32_t tokens);
uint32_t job_input_tokens(const struct job *job);
uint32_t job_attempts(const struct job *job); /* made so far, the running one included */

struct tier *job_tier(const struct job *job);
struct tenant *job_tenant(const struct job *job);

/* NULL: not pending and no dead letter. */
struct job *job_find(const struct core *core, const struct id *job_id);
/* A new job in `flow`, in place NEW, counted and in the table; room for it in every heap is reserved. NULL: no memory. */
struct job *job_create(struct core *core, const struct id *job_id, struct flow *flow);
/* The same, but in the table only after table_settle(): for many at once, of which none is known. */
struct job *job_create_later(struct core *core, const struct id *job_id, struct flow *flow);
/* Leaves its place, the table and the counters, and frees it. A leased job has lost its lease before. */
void job_destroy(struct core *core, struct job **job);

void job_move(struct core *core, struct job *job, enum job_place next);
/* To READY (or FOLLOWING: flight.h), or to BACKING_OFF when it has to wait until then. */
void job_wait_until(struct core *core, struct job *job, int64_t not_before_ms);
/* After a change of at.not_before_ms. */
void job_rearm(struct core *core, struct job *job);

/* References the payload; counts the memory. */
void job_keep_payload(struct core *core, struct job *job, struct blob *payload);
/* The job needs it in memory no longer, or not yet: let go if it is on disk and memory is beyond its bound. */
void job_release_payload(struct core *core, struct job *job);
void job_drop_payload(struct core *core, struct job *job);
