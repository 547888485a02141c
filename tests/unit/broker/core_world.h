/*
 * core_world: a core in virtual time with peers and a store that do what the test says. One call is
 * one turn.
 *
 * Records go to an array that survives a restart; a batch is durable at once unless the test
 * withholds it. What the core let go is in a log that the test looks through; an effect that waits
 * for a batch is logged when that is durable.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/core.h"
#include "common/config.h"

enum { WORLD_TIERS = 3 }; /* realtime (memory), standard, background (durable) */
extern const struct config_breaker world_breaker;

struct world_effect {
    struct effect effect;                 /* pointers other than these are dead */
    char text[256], code[64];             /* text: also of a chunk */
    uint64_t cost_nanousd, saved_nanousd; /* of a result's usage */
    uint64_t hedge_cost_nanousd, saved_batching_nanousd, saved_prompt_cache_nanousd; /* the same */
    int64_t saved_routing_nanousd;
};

struct world_record {
    enum store_family family;
    size_t key_bytes, value_bytes;
    uint8_t key[STORE_KEY_BYTES_MAX];
    uint8_t *value;
};

struct world {
    struct config config;
    struct config_tier tiers[WORLD_TIERS];
    struct config_tenant tenants[4];
    struct config_model models[3];
    struct config_provider providers[2]; /* of world_two_providers() */
    struct config_budget budgets[1];     /* of world_budget() */
    char *pools[2];
    uint64_t seed;
    struct core *core;
    struct effects *effects;
    struct core_time now;
    uint64_t batch;
    bool withholds_durability, withholds_loads;
    size_t loads_asked; /* since the start */
    uint64_t ids; /* made so far */
    struct world_effect *log;
    size_t log_length;
    struct world_effect *held; /* until their batch is durable */
    size_t held_length;
    struct world_record *records;
    uint64_t *records_hashes; /* of their families and keys, as they were put */
    size_t records_length;
    size_t restore_errors;
};

/*
 * tiers: weights 60/30/10, no minimum, no reservation; tenants a, b, c, d with weight 1; routes
 * auto, m0, m1, m2; pools default, gpu.
 */
void world_init(struct world *world);
/* And providers p0 and p1: m0, of grade 50, is at p0, and at p1 as well. Before world_start(). */
void world_two_providers(struct world *world);
/* Tenant a has this budget a day, and none a month, from the next start or reconfiguration on. */
void world_budget(struct world *world, uint64_t daily_nanousd, uint32_t soft_permille);
/* What became of it. */
struct core_budget_view world_purse(const struct world *world);
/* Creates the core as configured by now. */
void world_start(struct world *world);
/* The same; then come client 1 of tenant a, and worker 100, "w", with 1000 slots. */
void world_go(struct world *world);
void world_finish(struct world *world);
/* A crash: what is not durable is lost; then recovery from the records. */
void world_restart(struct world *world);

/*
 * One turn: the event, a tick, the effects; then what became durable or was loaded, as turns of
 * their own.
 */
void world_turn(struct world *world, const struct event *event);
void world_tick(struct world *world);
/* Moves the time and ticks whenever something is due. */
void world_advance(struct world *world, int64_t ms);
void world_make_durable(struct world *world); /* all that is withheld */

struct id world_id(struct world *world);
void world_client(struct world *world, uint64_t peer, const char *tenant);
struct event world_submission(struct world *world, uint64_t peer,
                              const char *tier); /* route m0, 4 bytes of payload */
struct id world_submit(struct world *world, uint64_t peer, const char *tier);
struct id world_submit_event(struct world *world, struct event *event); /* releases its payload */
/* The same as world_submit(), on this route and with this task; NULL: m0, none. */
struct id world_submit_to(struct world *world, uint64_t peer, const char *tier, const char *route,
                          const char *task);
void world_worker(struct world *world, uint64_t peer, const char *name,
                  uint32_t slots); /* with credit for all */
void world_credit(struct world *world, uint64_t peer, uint64_t total);
void world_result(struct world *world, uint64_t peer, const struct lease_ref *lease,
                  Wire__AttemptOutcome outcome, int64_t retry_after_ms);

/* What a worker says of an attempt, and of the call that it made. */
struct world_said {
    Wire__AttemptOutcome outcome;
    uint64_t retry_after_ms;
    uint32_t call_ms;
    Wire__RateLimits *limits;
    uint64_t tokens;
    uint64_t peer;        /* 0: 100 */
    const char *code;     /* of the attempt; NULL: "code" */
    const char *provider; /* that was called; NULL: the one of the dispatch */
    bool is_uncalled;     /* there was no call */
    bool is_called_twice; /* the same call, once more */
};
/* Of the job's latest dispatch, whose upstream it called. Fails the test when there is none. */
void world_says(struct world *world, const struct id *job_id, const struct world_said *said);

void world_job_event(struct world *world, enum event_kind kind, uint64_t peer,
                     const struct id *job_id);

/*
 * The latest logged effect of this kind, for this job if not NULL, to this peer if not 0; NULL:
 * none.
 */
const struct world_effect *world_find(const struct world *world, enum effect_kind kind,
                                      const struct id *job_id, uint64_t peer);
size_t world_count(const struct world *world, enum effect_kind kind, const struct id *job_id);
void world_forget_log(struct world *world);
/* The latest dispatch of the job; NULL: none. */
const struct effect_dispatch *world_dispatch(const struct world *world, const struct id *job_id);
/* The latest dispatch of the job. Fails the test when there is none. */
struct lease_ref world_lease(const struct world *world, const struct id *job_id);
Wire__JobState world_state(const struct world *world,
                           const struct id *job_id); /* of a job in the table; UNKNOWN */
size_t world_records(const struct world *world, enum store_family family);
struct core_stats world_stats(struct world *world);
