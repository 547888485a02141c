/*
 * pending: a job that somebody waits for, and the table in which a broker's word finds it by its id.
 *
 * Several can wait for the same id (a submission and a wait, or two submissions under one idempotency key), so the table
 * holds equal ids. Whoever owns the job's state is client.h: one list for each state on each shard.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "client/request.h"
#include "client/tiermq.h"
#include "common/attributes.h"
#include "common/id.h"
#include "common/list.h"
#include "proto/wire.pb-c.h"

struct shard;

enum pending_state {
    PENDING_UNSENT,  /* a submission for the next message */
    PENDING_SENT,    /* submitted; the broker has not said yet whether it takes it */
    PENDING_ASKING,  /* a wait for the next message */
    PENDING_WAITING, /* the broker knows that we wait */
    PENDING_DEFERRED, /* refused for now: a submission for later, see retry.c */
    PENDING_READING, /* its answer is here, and waits until its stream has been read */
    PENDING_ENDING,  /* to be concluded in the next turn with `ending`, without a broker's word */
    PENDING_STATES,
};

typedef void pending_status_fn(void *context, const Wire__JobStatus *status);

struct pending {
    struct id id;                  /* as the caller knows it */
    struct id wire_id;             /* as the broker knows it: an earlier job's under the same idempotency key */
    enum pending_state state;
    struct shard *shard;           /* the broker it is with */
    struct pending *next;          /* in its bucket */
    struct list_link link;         /* in shard->jobs[state] */
    struct list_link detached_link; /* in client->detached, when is_detached */
    uint32_t overdue_position;     /* in client->overdue */
    uint32_t deferred_position;    /* in client->deferred */
    struct request *request;       /* owned; NULL: a wait for a job that was submitted elsewhere */
    struct tiermq_callbacks callbacks;
    pending_status_fn *on_status;  /* set: only the status is asked for; gets callbacks.context */
    int64_t started_ns;
    int64_t deadline_at_ms;        /* 0: only the broker knows it */
    int64_t retry_until_ms;        /* it is submitted again before then, or not at all */
    int64_t retry_after_ms;        /* as the broker said last */
    uint32_t refusals;             /* in a row */
    const char *refused_as;        /* the code of the last one, static */
    uint32_t holds;                /* since the last one, by the throttle */
    int64_t word_at_ms;            /* when it was last sent or heard of */
    uint64_t seen_in_round;        /* see jobs.c, first_unseen() */
    uint64_t shards_asked;         /* bit n: shard n does not know the job, or refused it as draining */
    uint32_t chunk_attempt;        /* whose chunks are handed on; 0: none came yet */
    uint32_t chunk_index;          /* the next one of it */
    bool has_others_chunks;        /* some came of another attempt: a rest is that one's */
    bool is_stream_over;           /* last chunk seen, or a gap: no more chunks are taken */
    bool is_paused;                /* chunks are kept in … */
    struct list held;              /* … here, oldest first: stream.c */
    uint32_t chunks_read;          /* for which no credit was given back yet */
    uint32_t chunks_total;         /* that its broker has, when READING */
    struct tiermq_answer *answer;  /* READING: owned */
    struct list_link due_link;     /* in client->streams_due, while is_due */
    bool is_due;
    bool was_sent;                 /* a broker may have it */
    bool is_accepted;
    bool is_cancel_wanted;
    bool detach;                   /* as in struct tiermq_job */
    bool is_detached;              /* on_answer was called; only kept for resubmission */
    struct {
        enum tiermq_state state;
        const char *code, *text;   /* static, or the connection's */
        int64_t retry_after_ms;
    } ending;
};

struct pending_table {
    struct pending **buckets;
    size_t buckets_length; /* a power of two */
    size_t length;
    uint64_t seed;
};

MUST_USE int pending_table_init(struct pending_table *table, uint64_t seed); /* Errors: -ENOMEM */
/* Releases the table alone: it is empty by then. */
void pending_table_finish(struct pending_table *table);
/* By wire_id. Errors: -ENOMEM. */
MUST_USE int pending_table_add(struct pending_table *table, struct pending *pending);
void pending_table_remove(struct pending_table *table, struct pending *pending);
/* The first of those with this id, NULL if there is none; and the one after. */
struct pending *pending_table_first(const struct pending_table *table, const struct id *id);
struct pending *pending_table_next(const struct pending *pending);
