/*
 * core: the broker's queue as a deterministic state machine without I/O.
 *
 * (now, event) in; effects out. It reads no clock, no socket, no disk, no random device: time and seed are given. The
 * shell drives it with real peers and a real store, tests/simulation with simulated ones. See DESIGN: "The broker's
 * core has no I/O", "A job's life, and what is promised", "Core and disk".
 *
 * A turn: effects_reset(); core_step() for each event that arrived; core_step(EVENT_TICK); carry out the effects. The core runs
 * ahead of the disk: it assumes that its batch will be durable, and says on each effect which batch it depends on.
 *
 * Memory: a pending job is one allocation of at most CORE_JOB_BYTES_MAX bytes (asserted at compile time), plus its payload
 * while that is in memory. Everything else is bounded by configuration. Belongs to one thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/effects.h"
#include "broker/core/event.h"
#include "common/attributes.h"
#include "common/price.h"

struct config;
struct core;
struct threshold_evidence;
struct threshold_seed;
struct queue;

enum { CORE_JOB_BYTES_MAX = 200 };

/* The two times of a step: monotonic for deadlines and leases, Unix for records alone. */
struct core_time {
    int64_t now_ms;
    int64_t unix_ms;
};

/* `config` is copied as needed. Errors: -EINVAL, -ENOMEM. */
MUST_USE int core_create(const struct config *config, uint64_t seed, struct core_time now, struct core **ret_core);
void core_destroy(struct core **core);

/* Limits, weights, bounds that may change while it runs. Tiers, pools and the store may not. Errors: -EINVAL, -ENOMEM. */
MUST_USE int core_reconfigure(struct core *core, const struct config *config, struct core_time now);

/*
 * Recovery: one call for each stored record, families in this order: meta, concluded, jobs, leases, then core_restored(). A record
 * that cannot be decoded is skipped and noted (NOTE_RECORD_DAMAGED), never fatal.
 * Errors: -ENOMEM, -EBADMSG the record is damaged (the caller goes on).
 */
MUST_USE int core_restore(struct core *core, enum store_family family, const void *key, size_t key_bytes, const void *value,
                          size_t value_bytes, struct core_time now);
/* Recovered jobs wait for broker.reclaim_ms so that workers can reclaim them; leased ones keep a full lease. */
void core_restored(struct core *core, struct core_time now);

/* One event. Never fails: what cannot be done is answered by an effect. */
void core_step(struct core *core, struct core_time now, const struct event *event, struct effects *effects);

/*
 * An event about this job, or its submission, follows within a few. Only makes that faster: where it will be looked for comes
 * into the processor's cache meanwhile.
 */
void core_expect(const struct core *core, const struct id *job_id);

/* When EVENT_TICK is due at the latest; INT64_MAX: nothing is waiting for time. */
int64_t core_next_deadline_ms(const struct core *core);

/* While draining: no worker that is connected holds a lease any more, and whoever has an answer got it. */
bool core_is_idle(const struct core *core);

/* ------------------------------------------------------------------------------------------ what operators see */

enum { CORE_COMMENT_BYTES_MAX = 512, CORE_FEEDBACK_OUTCOMES = 6 };
enum { CORE_REJECT_REASONS = 16, CORE_STATES = 16, CORE_DEAD_CODES = 32 };

/* Of an upstream, since start. */
struct core_upstream_counts {
    uint64_t dispatched;   /* permits */
    uint64_t answered, failed, rate_limited, rejected; /* calls, as workers reported them */
    uint64_t probes;
    uint64_t opened;       /* times its breaker opened, failed probes not counted */
    uint64_t cost_nanousd;
};

/* How an answer came to be less good than what was wanted. */
enum core_step { STEP_MODEL, STEP_STALE, STEP_NEAR, CORE_STEPS };
const char *core_step_name(enum core_step step); /* "model", "stale", "near" */

/* What came of second calls, and why one was not granted. */
enum core_hedge_outcome { HEDGE_WON, HEDGE_LOST, HEDGE_FAILED, CORE_HEDGE_OUTCOMES };
const char *core_hedge_outcome_name(enum core_hedge_outcome outcome); /* "won", "lost", "failed" */
enum core_hedge_refusal { HEDGE_NO_CALLS, HEDGE_NO_MONEY, HEDGE_NOBODY, HEDGE_TOO_LATE, CORE_HEDGE_REFUSALS };
const char *core_hedge_refusal_name(enum core_hedge_refusal refusal); /* "budget", "cost", "nobody", "late" */

struct core_tier_stats {
    const char *name;
    uint64_t states[CORE_STATES];     /* jobs now, by wire.JobState (pending states and dead letters) */
    uint64_t submitted;               /* since start */
    uint64_t accepted;
    uint64_t duplicates;
    uint64_t rejected[CORE_REJECT_REASONS];
    uint64_t concluded[CORE_STATES];  /* by conclusion */
    uint64_t shed;                    /* of concluded[EXPIRED]: given up in overload */
    uint64_t dispatched;
    uint64_t explored;                /* of these: to a model that was tried to know more of it */
    uint64_t attempts_failed;
    uint64_t leases_lost;
    uint64_t late_results;            /* after the conclusion: double spending, counted */
    uint64_t duplicate_results;       /* the answer that concluded it, sent again: nothing was spent twice */
    uint64_t late_cost_nanousd;
    uint64_t redelivered;
    uint64_t retries;                 /* after an attempt that counted, granted by the budget */
    uint64_t retries_held;            /* times a retry had to wait for the budget */
    uint64_t failovers;               /* sent on to another upstream at once */
    uint64_t hedges_granted;          /* second calls */
    uint64_t hedges[CORE_HEDGE_OUTCOMES]; /* of those that were reported */
    uint64_t hedges_refused[CORE_HEDGE_REFUSALS];
    uint64_t hedge_cost_nanousd;      /* of second calls, whatever came of them */
    uint64_t attempts_spared;         /* failed with their upstream down or limiting: not counted */
    uint64_t followers_joined;        /* jobs that began to follow an identical one */
    uint64_t followers_concluded;     /* by the outcome of the one they followed */
    uint64_t followers_promoted;      /* to leaders, since theirs ended for itself alone */
    uint64_t flights_split;           /* the leader's key was not that of its payload */
    uint64_t payload_bytes;           /* of pending jobs */
    uint64_t input_tokens, output_tokens, cost_nanousd, saved_nanousd;
    uint64_t cache_hits, cache_near_hits, cache_stale_hits, cache_misses;
    struct core_quality_lost {
        uint64_t jobs, grades;        /* that it is thought to have cost them, together */
    } quality_lost[CORE_STEPS];       /* by step down: enum core_step */
    uint64_t dead_letters[CORE_DEAD_CODES]; /* kept now, by error code: core_stats.dead_codes */
    uint64_t died[CORE_DEAD_CODES];   /* since start */
    uint64_t dead_requeued, dead_dropped;
    uint64_t dead_evicted;            /* dropped to keep broker.dead_letters_max */
    int64_t oldest_ms;                /* age of the oldest waiting job; 0 none */
    double drain_per_s;               /* conclusions a second, smoothed */
};

struct core_stats {
    size_t tiers_length;
    const struct core_tier_stats *tiers;
    uint64_t jobs;                    /* pending */
    uint64_t jobs_bytes;              /* memory for them, without payloads */
    uint64_t payload_memory_bytes;
    uint64_t results;                 /* kept */
    uint64_t results_bytes;
    uint64_t concluded_ids;
    uint64_t dead_letters;
    size_t dead_codes_length;
    const char *dead_codes[CORE_DEAD_CODES]; /* error codes that were seen */
    uint64_t clients, workers;
    uint64_t slots, slots_free;
    uint64_t streams, streams_held;   /* attempts that stream now; of them, those that wait for their readers */
    uint64_t stream_rests;            /* what readers have not had yet of streams that have ended */
    uint64_t stream_log_bytes, stream_rest_bytes; /* that are kept of the ones and the others */
    bool is_draining, store_is_down;
};
void core_read_stats(struct core *core, struct core_time now, struct core_stats *ret_stats);

enum { CORE_WHY_BYTES = 256 };

/* One job for the admin API. Errors: -ENOENT. Strings live until the next step. */
struct core_job_view {
    struct id id;
    Wire__JobState state;
    const char *tenant, *tier, *route, *pool, *worker;
    uint32_t priority, attempts, attempts_max;
    int64_t age_ms, waits_ms, deadline_in_ms; /* deadline 0: none */
    size_t payload_bytes;
    uint64_t position;    /* queued: jobs of its tenant that go before it in its queue */
    bool has_estimate;    /* of starts_in_ms */
    int64_t starts_in_ms;
    char why[CORE_WHY_BYTES]; /* it waits; "" when it does not */
    bool has_leader;        /* it follows an identical job */
    struct id led_by;
    uint64_t followers;     /* identical jobs that follow it */
};
MUST_USE int core_view_job(const struct core *core, const struct id *job_id, struct core_time now, struct core_job_view *ret_view);

/* The same job's state and worker ("" none), without the words and estimates, which cost much more. Errors: -ENOENT. */
MUST_USE int core_find_job(const struct core *core, const struct id *job_id, Wire__JobState *ret_state, const char **ret_worker);

/* Why its latest attempt was given to its upstream, in words, if that is known yet: one of the latest that had a choice.
 * NULL: it is not. Lives until the next step. */
const char *core_explain(const struct core *core, const struct id *job_id, uint32_t *ret_attempt);

struct core_worker_view {
    const char *name;
    uint64_t peer;
    uint32_t slots, free, leases;
    bool is_draining, is_set_aside;
    int64_t silent_ms;
};
/* Calls `visit` for each; it must not step the core. */
void core_visit_workers(const struct core *core, struct core_time now,
                        void (*visit)(void *context, const struct core_worker_view *view), void *context);

/*
 * UNTOLD: invalidations that wait for the disk; clients may add none beyond. A tenant's clients may ask for CACHE_LOG_BURST at once,
 * and one each CACHE_LOG_EACH_MS in the long run: so none pushes those of others out of the log.
 */
enum {
    CACHE_EPOCH_BYTES = 16,
    CACHE_LOG_MAX = 10000,
    CACHE_LOG_UNTOLD_MAX = 1000,
    CACHE_LOG_EACH_MS = 100,
    CACHE_LOG_BURST = 200,
};

/* Of the invalidations of the workers' caches: whose numbers they are, the latest, and the latest that workers were told. */
void core_cache_position(const struct core *core, uint8_t ret_epoch[CACHE_EPOCH_BYTES], uint64_t *ret_sequence,
                         uint64_t *ret_told);

struct core_invalidation_view {
    uint64_t sequence;
    int64_t at_unix_ms;
    const uint8_t *packed; /* wire.CacheInvalidation */
    size_t bytes;
};
/*
 * Calls `visit` for what a worker that had come to (epoch, sequence) has not been told; sequence 0: it was told of none.
 * False, and no visit: they cannot be told any more.
 */
bool core_visit_invalidations(const struct core *core, const uint8_t *epoch, uint64_t sequence,
                              void (*visit)(void *context, const struct core_invalidation_view *view), void *context);

/* What is known of a class of near hits: threshold.h. */
struct core_evidence_view {
    const char *tenant, *tier, *embedder;
    const struct threshold_evidence *sum;
    const struct threshold_seed *seed; /* NULL: no worker has said it */
};
/* Visits the most recently used first, without the first `skip`; at most `limit`. Returns how many there are. */
size_t core_visit_evidence(const struct core *core, size_t skip, size_t limit,
                           void (*visit)(void *context, const struct core_evidence_view *view), void *context);
/* Deltas of workers that were not taken, since start. */
uint64_t core_evidence_refused(const struct core *core);
/* Pieces of clients' feedback on near hits, since start. */
struct core_near_feedback {
    uint64_t right;
    uint64_t wrong;     /* is evidence for its class */
    uint64_t unclassed; /* wrong, of a class that no worker has spoken of */
    uint64_t dropped;   /* wrong, but said before, then invalidated all the same; or too many of a tenant */
};
const struct core_near_feedback *core_near_feedback(const struct core *core);

/* What feedback says of the answers of one tenant, tier, route, model, task and cache decision, since start. Names that are not known are "". */
struct core_quality_view {
    const char *tenant, *tier, *route, *model, *task;
    Wire__CacheStatus cache;
    uint64_t count;
    double score;          /* sum */
    double last;
    int64_t last_unix_ms;
};
/* The most recently used first. */
void core_visit_quality(const struct core *core, void (*visit)(void *context, const struct core_quality_view *view), void *context);
/* Summed up by tier and model; the other members are not set. */
void core_visit_quality_totals(const struct core *core, void (*visit)(void *context, const struct core_quality_view *view),
                               void *context);
struct core_comment_view {
    struct id job_id;
    int64_t unix_ms;
    const char *tenant, *model, *text;
    double score;
};
/* The latest first. */
void core_visit_comments(const struct core *core, void (*visit)(void *context, const struct core_comment_view *view), void *context);
/* What was learned of a model for a task of a tenant. */
struct core_lesson_view {
    const char *tenant, *task, *model;
    double weight;         /* scores it goes by, the later ones more */
    double mean;           /* of them */
    double grades;         /* that it adds to the model's */
};
/* Those judged last first. */
void core_visit_lessons(const struct core *core, void (*visit)(void *context, const struct core_lesson_view *view), void *context);
/* What became of feedback, since start. */
uint64_t core_feedback_count(const struct core *core, Wire__FeedbackOutcome outcome);

/* Invalidations of clients that were refused. */
uint64_t core_invalidations_refused(const struct core *core);

struct core_queue_view {
    const char *tier, *pool, *route;
    uint64_t ready, backing_off, leased, tenants;
    bool is_paused;        /* by an operator */
    bool is_blocked;       /* nobody can serve it now: its upstreams are down */
    int64_t gated_ms;      /* until it may be dispatched again; 0: it may */
    const struct queue *queue; /* for core_name_upstreams() */
};
/* In the order in which they came to be: the nth is the same queue as long as the core lives. */
void core_visit_queues(const struct core *core, void (*visit)(void *context, const struct core_queue_view *view), void *context);

/* Writes the queue's candidates, in order, separated by spaces, as far as there is room. Returns ret_text. */
const char *core_name_upstreams(const struct core *core, const struct queue *queue, char *ret_text, size_t bytes);

struct core_upstream_view {
    const char *provider, *model, *error_code;
    Wire__UpstreamState__State state;
    int64_t blocked_ms;    /* until it may be called or probed; 0: it may */
    uint64_t requests_per_min, tokens_per_min; /* the tighter of configured and learned; 0: none */
    double pace_per_s;     /* 0: not paced */
    double typical_ms, answered_per_s;
    struct core_upstream_counts counts;
};
void core_visit_upstreams(const struct core *core, struct core_time now,
                          void (*visit)(void *context, const struct core_upstream_view *view), void *context);

/* Sums of the ledger: ledger.h. */
struct core_cost {
    uint64_t calls;                 /* to providers, that used something */
    uint64_t estimated_calls;       /* of them, those of which the provider did not say all */
    uint64_t tokens[PRICE_CLASSES]; /* each in one class */
    uint64_t reasoning_tokens;      /* part of the output */
    uint64_t estimated_tokens;      /* of all of these, those of the estimated calls */
    uint64_t cost_nanousd;
    uint64_t estimated_nanousd; /* of it, for the estimated calls */
    uint64_t late_nanousd; /* of it, for what came to nothing: late, lost, cancelled, failed */
    uint64_t hits, followers; /* jobs that were answered by the cache; by an identical job's call */
    uint64_t saved_cache_nanousd, saved_cache_ms, saved_followers_nanousd, saved_followers_ms;
    uint64_t saved_prompt_cache_nanousd, saved_batching_nanousd, saved_optimising_nanousd;
    int64_t saved_routing_nanousd; /* against cost.reference_model; below 0: it was dearer */
};
/* Each of them; sums saturate. */
void core_cost_add(struct core_cost *sum, const struct core_cost *more);
struct core_cost_view {
    int32_t day; /* since 1970-01-01, UTC */
    const char *tenant, *tier, *model, *provider; /* "": not known; a hit has no provider */
    const struct core_cost *sum;
};
void core_visit_costs(const struct core *core,
                      void (*visit)(void *context, const struct core_cost_view *view),
                      void *context);
/* All of it since start, for metrics. */
const struct core_cost *core_cost_total(const struct core *core);

/* What the cluster takes whether jobs run or not: upkeep.h. */
struct core_upkeep {
    uint64_t worker_share_ms, gpu_share_ms; /* of millionths: UPKEEP_SHARES */
    uint64_t stored_kb_ms;                  /* kilobytes (1,000) in the store, for so long */
    uint64_t traffic_bytes;                 /* of the broker's sockets, both ways */
};
struct core_upkeep_view {
    int32_t day;      /* since 1970-01-01, UTC */
    const char *pool; /* "": of the broker itself: what is stored and moved */
    const struct core_upkeep *sum;
};
void core_visit_upkeep(const struct core *core,
                       void (*visit)(void *context, const struct core_upkeep_view *view),
                       void *context);

/* A limit of budgets[], or several of one scope. */
struct core_budget_view {
    const char *tenant, *tier;                       /* "": all */
    uint64_t daily_max_nanousd, monthly_max_nanousd; /* UINT64_MAX: none */
    uint64_t day_nanousd, month_nanousd;             /* spent */
    uint64_t reserved_nanousd;
    int64_t day_ends_unix_ms, month_ends_unix_ms;
    bool is_soft; /* cheaper models are taken */
};
void core_visit_budgets(struct core *core,
                        void (*visit)(void *context, const struct core_budget_view *view),
                        void *context);
/* Since start. */
struct core_budget_counts {
    uint64_t refused;    /* at the door */
    uint64_t expired;    /* in the queue */
    uint64_t waited;     /* times that a job was put off */
    uint64_t downgraded; /* attempts that got a cheaper model */
};
const struct core_budget_counts *core_budget_counts(const struct core *core);

struct core_pause_view {
    enum pause_subject subject;
    enum pause_mode mode;
    const char *name, *reason;
    int64_t since_unix_ms;
};
void core_visit_pauses(const struct core *core, void (*visit)(void *context, const struct core_pause_view *view), void *context);

/*
 * What is known of a job's attempts, oldest first. Those of a durable tier are in the store, under `key` in STORE_ATTEMPTS; those of a
 * tier in memory are here, as they would be stored (NULL: forgotten to keep a bound). Errors: -ENOENT.
 */
enum { CORE_HISTORY_MAX = 32, CORE_HISTORY_KEY_BYTES = ID_BYTES + 4 };
struct core_history_entry {
    uint8_t key[CORE_HISTORY_KEY_BYTES];
    const uint8_t *packed;
    size_t packed_bytes;
};
struct core_history_view {
    uint32_t kept;
    uint32_t omitted; /* between the first and the last ones */
    bool is_on_disk;
    struct core_history_entry entries[CORE_HISTORY_MAX];
};
MUST_USE int core_view_history(const struct core *core, const struct id *job_id, struct core_history_view *ret_view);

struct core_dead_view {
    struct id id;
    uint64_t number; /* in order of death */
    int64_t died_unix_ms;
    const char *tenant, *tier, *route, *code, *text;
    const char *worker, *provider; /* of the last attempt; empty: none */
    uint32_t attempts, losses;
    size_t payload_bytes;
    bool is_durable;      /* its payload is in the store */
    struct blob *payload; /* of a tier in memory; NULL: not kept */
    const char *why_not;  /* it cannot be requeued now; empty: it can */
    bool is_lost;         /* nor ever */
};
MUST_USE int core_view_dead(const struct core *core, const struct id *job_id, struct core_dead_view *ret_view); /* Errors: -ENOENT */
/*
 * Visits letters that fit, the oldest first, from the one behind `cursor` (0: the first), at most `limit`; looks at CORE_DEAD_LOOKS_MAX
 * at most, so that none may fit and yet more be there. Returns the cursor to go on with; 0: there is no more.
 */
enum { CORE_DEAD_LOOKS_MAX = 2048 };
uint64_t core_visit_dead(const struct core *core, const struct dead_filter *filter, uint64_t cursor, size_t limit,
                         void (*visit)(void *context, const struct core_dead_view *view), void *context);

/* A requeue or drop of many dead letters. */
struct core_sweep_view {
    uint64_t number;
    enum dead_action action;
    const struct dead_filter *filter;
    uint32_t rate_per_s; /* 0: as fast as bounds allow */
    int64_t began_unix_ms, ended_unix_ms;
    uint64_t looked, done, skipped;
    const char *waits;   /* why it does not go on now; empty: it does */
    bool is_over, is_stopped;
};
/* Number of the latest that began: EVENT_DEAD_SWEEP has begun none when it stays the same. */
uint64_t core_latest_sweep(const struct core *core);
void core_visit_sweeps(const struct core *core, void (*visit)(void *context, const struct core_sweep_view *view), void *context);
