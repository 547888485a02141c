/*
 * event: everything that can happen to the broker's core. The shell (or the simulator) turns bytes, timers and
 * disk answers into these; the core answers with effects (effects.h). All pointers are borrowed for the step, except
 * blobs, which the core references if it keeps them.
 *
 * Peers are numbers given by the shell, never reused while the broker runs (0 is nobody).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/blob.h"
#include "common/frame.h"
#include "common/id.h"
#include "proto/wire.pb-c.h"

enum event_kind {
    EVENT_CLIENT_HELLO,
    EVENT_CLIENT_GONE,      /* closed, silent, or replaced */
    EVENT_SUBMIT,           /* from peer 0: by a worker, for a tenant; nobody waits for the result */
    EVENT_CANCEL,           /* from peer 0: by an operator, who may cancel any tenant's jobs */
    EVENT_WAIT,
    EVENT_COLLECTED,
    EVENT_WORKER_HELLO,
    EVENT_WORKER_CREDIT,
    EVENT_WORKER_HEARTBEAT,
    EVENT_WORKER_DRAINING,
    EVENT_WORKER_GONE,      /* goodbye, or silent too long: its leases end at once */
    EVENT_ATTEMPT_RESULT,
    EVENT_HEDGE_ASKED,      /* an attempt takes long: may its worker make a second call? */
    EVENT_CHUNK,
    EVENT_STREAM_CREDIT,
    EVENT_UNDELIVERABLE,    /* a dispatch could not be sent: the lease ends, not an attempt; the worker is set aside */
    EVENT_DURABLE,          /* batch and all before it */
    EVENT_STORE_DOWN,
    EVENT_STORE_UP,
    EVENT_LOADED,
    EVENT_PAUSE,            /* by an operator */
    EVENT_RESUME,
    EVENT_UPSTREAM_RESET,   /* by an operator: what an upstream said of itself is forgotten */
    EVENT_DEAD_ONE,         /* by an operator: one dead letter, requeued or dropped */
    EVENT_DEAD_SWEEP,       /* by an operator: those that fit a filter, at a rate */
    EVENT_DEAD_STOP,        /* by an operator: ends a sweep */
    EVENT_CACHE_INVALIDATE, /* by an operator (peer 0), or by a client, for its tenant alone */
    EVENT_CACHE_EVIDENCE,   /* what a worker has counted of near hits */
    EVENT_CACHE_FEEDBACK,   /* what a client's user says of one */
    EVENT_FEEDBACK,         /* what a client's user says of an answer */
    EVENT_UPKEEP,           /* what is stored and was moved, from time to time */
    EVENT_DRAIN,            /* shutdown: admit and dispatch no more */
    EVENT_TICK,             /* end of a turn: timers that are due, then dispatch */
};

/* What a pause stops. PAUSE_HOLD: admitted but not dispatched. PAUSE_DRAIN: refused at the door, the rest runs out. */
enum pause_subject { PAUSE_ROUTE, PAUSE_TIER, PAUSE_TENANT, PAUSE_WORKER };
enum pause_mode { PAUSE_HOLD, PAUSE_DRAIN };

enum dead_action { DEAD_REQUEUE, DEAD_DROP };

/* What a dead letter has to be. A string that is NULL, and a time of 0, ask for nothing. */
struct dead_filter {
    const char *tenant, *tier, *route, *code;
    const char *worker, *provider; /* of its last attempt */
    int64_t from_unix_ms, until_unix_ms; /* when it died; `until` excluded */
};

struct lease_ref {
    struct id job_id;
    uint32_t attempt;
};

struct event {
    enum event_kind kind;
    uint64_t peer; /* client or worker it came from, 0 where there is none */
    union {
        struct {
            const char *tenant;
            const char *name;
        } client_hello;

        /* As in wire.Submit; ids and lengths already checked by the shell. Strings may be empty, never NULL. */
        struct event_submit {
            struct id job_id;
            const char *tenant; /* from peer 0, which is a worker: whose job it is */
            const char *tier, *route, *pool, *idempotency_key;
            const uint8_t *canonical_key; /* 16 bytes or NULL */
            const uint8_t *trace_parent;  /* 24 bytes or NULL */
            int64_t deadline_in_ms;       /* 0: the tier's default */
            int64_t delay_ms;
            uint32_t priority, estimated_tokens, max_tokens, attempts_max;
            uint32_t input_tokens, abilities, prefix, complexity; /* complexity 1 to 255; 0: not known, of each */
            const char *residency, *task; /* empty or NULL: none */
            const uint8_t *features;      /* of common/complexity.h; NULL with features_length 0 */
            size_t features_length;
            bool stream, discard_result;
            bool stream_unread;     /* with stream: this client reads none of it; others may */
            uint32_t stream_chunks; /* its first credit; 0: all */
            struct blob *payload;
        } submit;

        struct {
            struct id job_id;
            bool status_only, stream;
            uint32_t stream_chunks; /* its first credit; 0: all */
        } job; /* CANCEL, WAIT, COLLECTED */

        struct {
            struct id job_id;
            uint32_t chunks;
        } stream_credit;

        struct {
            const char *name;
            const char *const *pools; /* names */
            size_t pools_length;
            uint32_t slots;
            uint32_t gpus, brokers; /* brokers: how many it serves; 0: not said, one */
            const struct lease_ref *held;
            size_t held_length;
            const uint32_t *held_chunks; /* for each of them, that it has sent; NULL: not said */
            const struct lease_ref *answered;
            size_t answered_length;
            const uint8_t *cache_epoch; /* 16 bytes; NULL with sequence 0 */
            uint64_t cache_sequence;
        } worker_hello;

        struct {
            uint64_t stored_bytes;
            uint64_t traffic_bytes; /* since the shell began */
        } upkeep;

        struct {
            bool said_goodbye; /* so that it was no crash, and no job is to blame */
        } worker_gone;

        struct {
            uint64_t total;
        } worker_credit;

        struct {
            const struct lease_ref *held;
            size_t held_length;
        } worker_heartbeat;

        struct event_attempt_result {
            struct lease_ref lease;
            Wire__AttemptOutcome outcome;
            const char *error_code, *error_text; /* never NULL */
            int64_t retry_after_ms;
            const Wire__Usage *usage; /* NULL: none */
            struct blob *payload;     /* NULL: none */
            const Wire__Call *const *calls; /* to providers, in order; checked by the shell */
            size_t calls_length;
            bool key_mismatch;
            const char *tenant, *tier; /* as dispatched; NULL: not said */
            uint32_t made_by;          /* the attempt that `usage` is of; 0: this one */
            bool calls_are_old;        /* as in wire.AttemptResult */
            uint64_t run;              /* as in wire.AttemptResult */
        } attempt_result;

        struct {
            struct frame_chunk header;
            struct blob *data;
        } chunk;

        struct {
            struct lease_ref lease;
        } hedge_asked;

        struct {
            struct lease_ref lease;
        } undeliverable;

        struct {
            uint64_t batch;
        } durable;

        struct {
            uint64_t first_batch;
            const char *why;
        } store_down;

        struct {
            uint64_t token;
            int result; /* 0, -ENOENT or another negative errno */
            struct blob *value;
        } loaded;

        struct {
            enum pause_subject subject;
            enum pause_mode mode;
            const char *name;
            const char *reason;
        } pause; /* PAUSE, RESUME */

        struct {
            const char *provider, *model; /* NULL: all upstreams */
        } upstream;

        struct {
            struct id job_id;
            enum dead_action action;
        } dead_one;

        struct {
            enum dead_action action;
            struct dead_filter filter;
            uint32_t rate_per_s; /* 0: as fast as bounds allow */
        } dead_sweep;

        struct {
            uint64_t number;
        } dead_stop;

        struct {
            const Wire__CacheSelector *selector; /* checked by the shell */
            const char *reason;
            uint64_t number; /* a client's, for the answer; 0: nobody waits for one */
        } cache_invalidate;

        struct {
            const char *tenant, *tier, *embedder; /* of bounded length */
            const uint8_t *counts; /* threshold_pack() */
            size_t counts_bytes;
            const uint8_t *seed;   /* threshold_pack_seed(); 0 bytes: none came */
            size_t seed_bytes;
        } cache_evidence;

        struct {
            const char *tier, *embedder;
            double score;
            const uint8_t *key; /* 16 bytes: of the entry */
            bool is_right;
        } cache_feedback;

        struct {
            struct id job_id;
            double score;        /* 0 to 1 */
            const char *comment; /* at most CORE_COMMENT_BYTES_MAX bytes; may be empty */
        } feedback;
    } as;
};
