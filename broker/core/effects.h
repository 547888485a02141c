/*
 * effects: what the core asks for in one turn, in order. The shell carries them out; the simulator does the same
 * in virtual time.
 *
 * An effect whose `batch` is not 0 is let go only when that batch is durable; the others at once. Record changes
 * (EFFECT_PUT, EFFECT_DELETE, EFFECT_DELETE_RANGE) of one turn form one batch under the number `effects.batch`.
 * Strings and encoded bytes live in the effects' arena until effects_reset(); blobs are referenced until then.
 *
 * EVENT_STORE_DOWN(first_batch): the shell forgets the EFFECT_ACCEPTED that it still holds for that batch and later ones,
 * since the core answers those submissions itself (EFFECT_REJECTED); what else it holds, it keeps until the
 * batch is durable after all.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/event.h"
#include "broker/store/store.h"
#include "common/attributes.h"
#include "common/blob.h"
#include "common/id.h"
#include "proto/wire.pb-c.h"

enum effect_kind {
    EFFECT_CLIENT_WELCOME,
    EFFECT_CLIENT_ERROR,
    EFFECT_ACCEPTED,
    EFFECT_REJECTED,
    EFFECT_RESULT,
    EFFECT_STATUS,
    EFFECT_CHUNK,
    EFFECT_CACHE_INVALIDATED, /* to the client that asked for it */
    EFFECT_FEEDBACK_TAKEN,    /* to the client that gave it, or why not */
    EFFECT_WORKER_WELCOME,
    EFFECT_WORKER_ERROR,
    EFFECT_DISPATCH,
    EFFECT_HEDGE,             /* the worker may make a second call */
    EFFECT_STREAM_ALLOWANCE,  /* how far the worker may go on with a stream */
    EFFECT_ATTEMPT_CONCLUDED, /* the worker may forget its answer */
    EFFECT_ATTEMPT_CANCEL,
    EFFECT_WORKER_DRAIN,
    EFFECT_CACHE_INVALIDATE,
    EFFECT_CACHE_EVIDENCE,
    EFFECT_PUT,
    EFFECT_DELETE,
    EFFECT_DELETE_RANGE,
    EFFECT_LOAD,
    EFFECT_PUBLISH,
    EFFECT_NOTE,              /* something an operator wants in the log */
};

enum note_kind {
    NOTE_LEASE_LOST,      /* text says why */
    NOTE_DEAD_LETTER,
    NOTE_LATE_RESULT,     /* an attempt's result after the conclusion: its cost was spent for nothing */
    NOTE_ATTEMPT_FAILED,
    NOTE_EXPIRED,
    NOTE_DEAD_REQUEUED,   /* one, by an operator */
    NOTE_DEAD_DROPPED,
    NOTE_DEAD_SWEEP,      /* began, ended, was stopped; number is the sweep's */
    NOTE_SHED,            /* of a tier; number: jobs since the last one */
    NOTE_WORKER_JOINED,
    NOTE_WORKER_LEFT,
    NOTE_PAUSED,
    NOTE_RESUMED,
    NOTE_STORE_DOWN,
    NOTE_STORE_UP,
    NOTE_RECORD_DAMAGED,
    NOTE_UPSTREAM_DOWN,   /* subject provider/model; text: the error; number: milliseconds until it is probed */
    NOTE_UPSTREAM_UP,
    NOTE_UPSTREAM_RESET,  /* by an operator; text: its last error; number: milliseconds that it would have been blocked for */
    NOTE_QUEUE_PAUSED,    /* subject tier/pool/route; nobody can serve it; text says why */
    NOTE_QUEUE_RESUMED,
    NOTE_WORKER_SET_ASIDE, /* its calls fail while those of others are answered; number: milliseconds */
    NOTE_CACHE_INVALIDATED, /* number: its sequence; text: the reason */
    NOTE_FEEDBACK,        /* with a comment, which is the text; subject: the model; number: its score in percent */
    NOTE_BUDGET_SOFT,       /* subject says whose; cheaper models are taken from now on */
    NOTE_BUDGET_WIDE,       /* not any more */
    NOTE_BOUND_REACHED,   /* results, dead letters or deduplication ids were dropped to keep a bound */
};

struct effect {
    enum effect_kind kind;
    uint64_t peer;  /* the client or worker it goes to */
    uint64_t batch; /* 0: at once */
    union {
        struct {
            Wire__ProtocolError__Code code;
            const char *text;
            int64_t retry_after_ms; /* 0: it does not pass */
        } error; /* CLIENT_ERROR, WORKER_ERROR */

        struct {
            struct id job_id;
            bool duplicate;
            bool has_known_as;
            struct id known_as;
        } accepted;

        struct {
            struct id job_id;
            Wire__RejectReason reason;
            const char *text;
            int64_t retry_after_ms;
            uint8_t tier; /* for metrics; UINT8_MAX unknown */
        } rejected;

        struct effect_result {
            struct id job_id;
            Wire__JobState state;
            const char *error_code, *error_text;
            uint32_t attempts;
            uint32_t attempt; /* of its own, whose answer it is; 0: none */
            int64_t queue_ms, run_ms;
            uint32_t complexity, abilities; /* as struct job_needs has them */
            const Wire__Usage *usage; /* in the arena; NULL: none */
            const char *worker;
            uint8_t tier;
            int64_t retry_after_ms; /* 0: not known */
            bool has_leader;
            struct id led_by;
            uint32_t chunks;      /* of its stream, where some of them follow for this client; 0: none do */
            struct blob *payload; /* NULL: none */
            /* A Result as it was stored: when set, the fields above but job_id and payload are unset. */
            const uint8_t *packed;
            size_t packed_bytes;
        } result;

        struct {
            struct id job_id;
            Wire__JobState state;
            uint32_t attempts;
            int64_t waits_ms;
            uint64_t position;
            bool has_estimate; /* position and starts_in_ms mean something */
            int64_t starts_in_ms;
            const char *why;
        } status;

        struct {
            struct frame_chunk header;
            struct blob *data;
        } chunk;

        struct {
            uint32_t lease_ms;
            const uint8_t *cache_epoch; /* as in its hello, in the arena; NULL with sequence 0 */
            uint64_t cache_sequence;
        } worker_welcome;

        struct effect_dispatch {
            struct lease_ref lease;
            const char *tenant, *route, *tier, *pool;
            uint8_t tier_index;
            int64_t deadline_in_ms; /* 0: none */
            int64_t queue_ms;
            bool stream;
            uint64_t stream_bytes; /* that its stream may have at first; 0: all */
            const uint8_t *canonical_key; /* 16 bytes in the arena, or NULL */
            const uint8_t *trace_parent;  /* 24 bytes in the arena, or NULL */
            uint32_t estimated_tokens, max_tokens;
            const char *provider, *model; /* the upstream it may call; NULL: the worker chooses */
            bool is_probe, is_of_worker;
            const char *reason;           /* why this upstream: in the arena; "" there was no choice */
            uint32_t quality_lost;
            uint32_t complexity, abilities, input_tokens; /* 0: not known, or none */
            const char *residency, *tenant_residency;     /* "": none */
            bool is_last_choice;  /* no other upstream would be called now */
            bool is_last_attempt; /* a failure that counts would be the job's end */
            bool is_budgeted;    /* its worst case is held by a budget: the call is its own */
            int64_t hedge_after_ms;       /* when it may ask for a second call; 0: never */
            struct blob *payload;
        } dispatch;

        struct {
            struct lease_ref lease;
            const char *provider, *model; /* that it may call */
            uint32_t quality_lost;
        } hedge;

        struct {
            struct lease_ref lease;
            uint64_t bytes_total; /* 0: all */
        } stream_allowance;

        struct {
            struct lease_ref lease;
            const char *reason;
        } attempt; /* ATTEMPT_CONCLUDED, ATTEMPT_CANCEL */

        struct {
            bool drain;
        } worker_drain;

        struct {
            const uint8_t *packed; /* wire.CacheInvalidation, in the arena */
            size_t bytes;
        } cache_invalidate;

        struct {
            struct blob *packed; /* wire.CacheEvidence: a sum; one for all workers */
        } cache_evidence;

        struct {
            uint64_t number;   /* as in the event */
            uint64_t sequence; /* 0: refused */
            const char *error; /* NULL: not refused */
            int64_t retry_after_ms; /* refused for now alone; 0: for good */
        } cache_invalidated;

        struct {
            struct id job_id;
            Wire__FeedbackOutcome outcome;
            const char *error; /* why it was not taken; NULL: it was */
            int64_t retry_after_ms; /* 0: not again */
        } feedback_taken;

        struct {
            enum store_family family;
            uint8_t key[STORE_KEY_BYTES_MAX];
            uint8_t key_bytes;
            const void *value; /* in the arena */
            size_t value_bytes;
            struct blob *blob; /* follows value; NULL: none */
        } put;                 /* PUT; DELETE uses family and key */

        struct {
            enum store_family family;
            uint8_t from[STORE_KEY_BYTES_MAX], to[STORE_KEY_BYTES_MAX];
            uint8_t from_bytes, to_bytes;
        } range;

        struct {
            enum store_family family;
            uint8_t key[STORE_KEY_BYTES_MAX];
            uint8_t key_bytes;
            uint64_t token;
        } load;

        struct {
            Wire__Event__Kind kind;
            const char *subject_kind, *subject, *text;
            const uint8_t *data; /* in the arena; per kind */
            size_t data_bytes;
        } publish;

        struct {
            enum note_kind note;
            bool has_job;
            struct id job_id;
            const char *tenant, *subject, *text;
            int64_t number; /* milliseconds, nano-dollars … as the kind has it */
        } note;
    } as;
};

struct effects;

/* Errors: -ENOMEM */
MUST_USE int effects_create(struct effects **ret_effects);
void effects_destroy(struct effects **effects);
/* Empties it for the next turn, whose records will be committed under `batch` (grows by one with each batch that had any). */
void effects_reset(struct effects *effects, uint64_t batch);
size_t effects_length(const struct effects *effects);
struct effect *effects_at(struct effects *effects, size_t index);
/* True when the turn has record changes, and true when somebody waits for them. */
bool effects_have_records(const struct effects *effects);
bool effects_are_urgent(const struct effects *effects);

/* ------------------------------------------------------------------------------------------------ for the core */

/*
 * True when `more` effects are certain to fit and memory has not run short in this turn, of which
 * what is under way has half for itself. What comes from outside is refused when not. Beyond that, memory that runs out within a turn ends the process: the state
 * has moved on by then, and a restart from the records loses nothing that was acknowledged.
 */
bool effects_reserve(struct effects *effects, size_t more);
/* A new effect, all zero but for these; valid until the next one is added. */
struct effect *effects_add(struct effects *effects, enum effect_kind kind, uint64_t peer, uint64_t batch);
/* Memory that lives until effects_reset(), 16-byte aligned. */
void *effects_alloc(struct effects *effects, size_t bytes);
const char *effects_text(struct effects *effects, const char *text); /* a copy of 1024 bytes at most */
const char *effects_format(struct effects *effects, const char *format, ...) PRINTF_LIKE(2, 3);
ProtobufCAllocator *effects_allocator(struct effects *effects); /* for *__unpack(): fails when memory is short */
uint64_t effects_batch(const struct effects *effects);
/* Drops this turn's EFFECT_ACCEPTED that depend on `first_batch` or a later one. */
void effects_forget_accepted(struct effects *effects, uint64_t first_batch);
/* Somebody waits for this turn's records. */
void effects_set_urgent(struct effects *effects);
