/*
 * state: what the modules of the core share. Private to broker/core.
 *
 * Time and effects of the current step are in the core, so that every module's functions stay short.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/throttle.h"
#include "broker/core/budget.h"
#include "broker/core/charge.h"
#include "broker/core/core.h"
#include "broker/core/concluded.h"
#include "broker/core/drain_rate.h"
#include "broker/core/hedge_budget.h"
#include "broker/core/job.h"
#include "broker/core/learning.h"
#include "broker/core/ledger.h"
#include "broker/core/loads.h"
#include "broker/core/names.h"
#include "broker/core/table.h"
#include "broker/core/upkeep.h"
#include "common/choice.h"
#include "common/complexity.h"
#include "common/arena.h"
#include "common/config.h"
#include "common/heap.h"
#include "common/list.h"
#include "common/prompt_cut.h"
#include "common/slab.h"

enum {
    TIMERS_PER_TICK = 4096,     /* of each kind */
    DISPATCHES_PER_TICK = 1024,
    LOADS_AHEAD_MIN = 16,       /* payloads read ahead for one lane */
    LOADS_AHEAD_MAX = 1024,
    LEASE_RECORD_AFTER_MS = 100,
    HOUSEKEEPING_MS = 5000,
    WAITERS_MAX = 64,           /* of one job */
    PAUSES_MAX = 4096,
    CACHE_LOG_BYTES_MAX = 2 << 20, /* all of it fits into one welcome: FRAME_ENVELOPE_BYTES_MAX */
};
#define CHUNKS_UNLIMITED UINT32_MAX

struct tier {
    uint8_t index;
    struct name *name;
    struct name *pool;          /* where a job goes that names none */
    uint32_t weight, share_min_percent;
    uint32_t share;             /* of dispatch, the minimum included; all tiers: SHARE_ALL */
    uint32_t slots_reserved_percent;
    bool is_durable;
    int64_t deadline_ms;
    uint32_t attempts_max;
    int64_t backoff_first_ms, backoff_max_ms;
    uint32_t quality_min;       /* of models */
    struct choice_weights weights;
    uint64_t jobs_max, bytes_max;
    uint64_t jobs, bytes;       /* pending */
    struct list waiting;        /* READY jobs, roughly by age */
    int64_t shed_target_ms;     /* 0: nothing is shed */
    struct prompt_cut prompt_cut; /* that its answers may come from */
    uint64_t shed_unnoted;      /* jobs, since the last note */
    int64_t shed_noted_ms;      /* when the next note may be */
    uint32_t hedge_share_permille; /* 0: it makes no second calls */
    struct hedge_budget hedges;
    struct drain_rate drain;
    struct core_tier_stats stats;
};

struct upstream;

/* What a dispatch took of an upstream's limits: upstream.h. */
struct permit {
    struct upstream *upstream;  /* NULL: none */
    int64_t taken_ms;
    uint32_t tokens;
    uint32_t probe;             /* its number at the breaker; 0: it is none */
    uint8_t size;               /* of the prompt: latency.h */
};

/* The latest decisions, in words: decision.h. */
struct explanations {
    struct explanation *items;
    size_t next; /* the oldest: it is overwritten next */
};

struct tenant {
    struct name *name;
    uint32_t weight;
    uint64_t jobs_max, bytes_max;
    uint64_t jobs, bytes;       /* pending */
    uint64_t stream_rests, stream_rest_bytes; /* of its jobs: stream_rest.h */
    uint8_t residency;          /* as struct job_needs has it */
    bool has_rules;             /* a configuration of this run has said `residency` and `allowed`; else it may use no model */
    uint64_t *allowed;          /* bits by index of an upstream; NULL: all */
    size_t allowed_words;       /* of these; what comes behind is not allowed */
    struct names tasks;         /* of its jobs; no memory until there is one */
    uint64_t invalidated;       /* by this one the last time, of its cache entries alone: cache_log.told then */
    struct throttle invalidations, near_feedback; /* of its clients, for cached answers */
    struct throttle feedback;   /* of its clients, for jobs */
    struct budget_purse purses[]; /* budget_purses_length(): its own, then those of its tiers */
};

struct pool {
    struct name *name;
    uint64_t slots;             /* of all its workers */
    uint64_t worker_shares, gpu_shares; /* of them, in millionths: upkeep.c */
    int64_t virtual_time;       /* of the sharing between its tiers: lane.c */
    int64_t served_since_ms;    /* when a worker came, or was let go on, after there was none */
};

/* See dead.h. */
struct dead_letter;
struct dead_slot {
    uint64_t number;
    struct job *job;            /* NULL: it went away */
};

struct dead {
    struct dead_slot *slots;    /* by number, from `first` to `end`; the first is no hole */
    size_t first, end, capacity;
    size_t length;              /* letters */
    uint64_t number_last;
    struct dead_letter *prepared; /* of the job that is moved to DEAD next */
    struct names codes;         /* error codes; the first is what does not fit in */
    uint64_t payload_bytes;     /* kept in memory for tiers in memory */
    struct list sweeps;         /* oldest first */
    uint64_t sweep_last;
};

/* See cache_log.h. */
struct cache_log {
    uint8_t epoch[CACHE_EPOCH_BYTES]; /* of the numbers, from the first one on */
    uint64_t sequence;          /* the latest */
    uint64_t told;              /* the latest that is durable */
    uint64_t told_for_all;      /* the latest of them that is not of one tenant's entries alone */
    uint64_t forgotten;         /* the latest that is not kept */
    struct list entries;        /* the others */
    size_t bytes;               /* of them */
    uint64_t refused;           /* clients' ones, since start */
};

/* See cache_evidence.h. */
struct cache_evidence {
    struct table classes;       /* by hash */
    struct list by_use;         /* the least recently used first */
    struct list by_number;      /* as they were made, for who comes new */
    uint64_t number;            /* of the latest class */
    int64_t due_ms;             /* when a class is to be told or recorded, or its epoch to end */
    size_t behind;              /* workers that have not been told all */
    uint64_t refused;           /* deltas, since start */
    struct feedback_seen *seen; /* FEEDBACK_SEEN of them, by hash; NULL: none yet */
    struct core_near_feedback feedback;
};

/* See quality.h. */
struct quality {
    struct table sums;          /* by what they are of */
    struct list by_use;         /* the least recently used first */
    struct quality_total *totals;
    size_t totals_length;
    struct quality_comment *comments; /* QUALITY_COMMENTS of them; NULL: none yet */
    size_t comment_next;        /* the oldest: it is overwritten next */
    uint64_t outcomes[CORE_FEEDBACK_OUTCOMES]; /* of what was said, since start */
};

/* See lessons.h. */
struct lessons {
    struct learning learning;
    struct list unrecorded;     /* cells that have changed since */
    int64_t due_ms;             /* when they are to be recorded */
    uint64_t chosen, explored;  /* attempts of jobs with a task, since start, and those that tried a model to know more */
};

struct client {
    struct table_link by_peer;
    uint64_t peer;
    struct tenant *tenant;
};

struct waiter {
    struct waiter *next;
    uint64_t peer;
    bool streams;
    uint32_t chunks_left; /* CHUNKS_UNLIMITED until it gives credit */
    uint32_t attempt;     /* whose chunks it gets; 0: none yet */
    uint32_t chunk_next;  /* the next one of these */
};

struct core {
    /* of the current step */
    int64_t now_ms, unix_ms;
    struct effects *effects;

    /* from configuration */
    struct config_broker limits; /* numbers only: its strings are NULL */
    struct names routes, pools, tenants, tiers;
    struct names residencies;    /* labels of providers */
    struct names models;         /* that answered */
    struct tier *tier;           /* by index */
    size_t tiers_length;
    struct pool *pool;           /* by index of its name */
    struct tenant **tenant;      /* by index of its name */

    struct slab job_memory;
    struct table jobs;           /* by id */
    struct heap timers;          /* jobs: deadline, or not_before if sooner */
    uint64_t jobs_pending;
    uint64_t sequence;           /* of the last job */
    uint64_t payload_memory_bytes;
    struct list accepting;       /* ACCEPTING, in order of their batch */
    struct list aliases;         /* submit.c: other ids that jobs in `accepting` were submitted under */
    struct list recovered;       /* RECOVERED, by age */
    struct list loading;         /* LOADING */
    struct dead dead;            /* DEAD */
    struct list parked;          /* PARKED */
    int64_t reclaim_until_ms;

    struct lane *lanes;          /* [pool * tiers_length + tier] */
    struct queue **queues;
    size_t queues_length;
    struct table queue_table;

    struct config_breaker breaker;
    struct config_retries retries;
    struct config_routing routing; /* numbers only */
    struct complexity_weights complexity;
    struct explanations explanations;
    struct upstream **upstreams; /* never forgotten while it runs */
    size_t upstreams_length;
    struct provider_limits **providers;
    size_t providers_length;
    struct route *route;         /* by index of its name: those that were ever configured */
    size_t route_length;
    struct heap gates;           /* gated queues, by when they may go again */
    struct list crowds;
    struct heap crowd_times;     /* all of them, by when the next of their jobs tries */

    struct table clients;
    struct table workers;        /* by peer */
    int64_t aside_until_ms;      /* when the first worker that is set aside for a while comes back; INT64_MAX none */
    struct table worker_names;
    struct list workers_heard;   /* longest silent first */
    uint64_t slots, slots_free;
    struct list leases;          /* longest not renewed first: all last equally long */
    size_t leases_running;       /* of workers that are there */
    struct list leases_young;    /* durable, without a record; oldest first */

    struct table leaders;        /* jobs by flow and canonical key: flight.c */
    struct table flights;        /* by leader */
    struct list flights_ending;
    struct list streams;         /* all of them */
    int64_t streams_watch_ms;    /* when it is next looked at who still reads them */
    struct list streams_late;    /* streams of which somebody lacks chunks: stream.c */
    uint64_t stream_log_bytes;   /* of all streams, and of … */
    struct list stream_rests;    /* what readers have not had of streams that have ended: stream_rest.h */
    uint64_t stream_rest_bytes;  /* theirs */
    uint32_t chunks_in_turn;     /* handed on: stream.c */

    struct table keys;           /* idempotency entries by key */
    struct table keys_by_job;
    struct concluded concluded;
    struct table results;        /* in memory */
    struct list results_by_age;
    uint64_t results_memory_bytes;
    int64_t housekeeping_at_ms;
    int64_t queue_rates_at_ms;         /* when queues' drain rates are next looked at */
    int64_t concluded_deleted_unix_ms; /* records before are deleted */
    int64_t results_deleted_unix_ms;
    bool concluded_is_due, results_are_due; /* something was forgotten whose record is still there */
    int64_t bound_noted_ms[3];         /* by enum bound */

    struct table histories;      /* of tiers in memory: history.h */
    struct list histories_by_age;
    uint64_t histories_bytes;

    struct loads loads;
    struct list pauses;
    struct arena *arena;         /* for records at restore */
    uint64_t records_damaged;    /* not noted yet */
    struct cache_log cache_log;
    struct cache_evidence evidence;
    struct quality quality;
    struct lessons lessons;
    struct ledger ledger;
    struct upkeep upkeep;
    struct budgets budgets;
    struct charges charges;
    uint64_t batch_last, batch_durable;
    bool store_is_down;
    bool is_draining;
    bool has_more;               /* the last tick stopped at a bound */
    uint64_t turn;               /* ticks so far */
    uint32_t suspects_in_turn;   /* that had to wait: dispatch.c */
    uint64_t random;
    struct core_tier_stats *stats; /* for core_read_stats() */
};

static inline int64_t later_ms(int64_t a_ms, int64_t b_ms)
{
    return a_ms > b_ms ? a_ms : b_ms;
}

/* Random number below `bound`, from the seed. 0 when bound is 0. */
uint64_t core_random_below(struct core *core, uint64_t bound);
/* What an answer about something already decided depends on: the latest batch, unless that is durable. */
uint64_t core_pending_batch(const struct core *core);

/* Record changes of this turn. */
void core_put_record(struct core *core, enum store_family family, const void *key, size_t key_bytes,
                     const ProtobufCMessage *message);
void core_put(struct core *core, enum store_family family, const void *key, size_t key_bytes, const void *value,
              size_t value_bytes, struct blob *blob);
void core_delete(struct core *core, enum store_family family, const void *key, size_t key_bytes);
void core_note(struct core *core, enum note_kind note, const struct job *job, const char *subject, const char *text,
               int64_t number);
void core_publish(struct core *core, Wire__Event__Kind kind, const char *subject_kind, const char *subject,
                  const char *text);
/* Finds or adds; a new one has weight 1 and no bounds until it is configured. Errors: -ENOMEM, -ENOBUFS. */
MUST_USE int core_add_tenant(struct core *core, const char *name, struct tenant **ret_tenant);
