/*
 * scenario: what a seed decides before the run begins: the cluster, its configuration, and how bad
 * its world is.
 *
 * Each kind of fault is absent from some seeds ("swarm testing"): a fault that is always there
 * hides what needs its absence.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/config.h"
#include "tests/simulation/dice.h"
#include "tests/simulation/models.h"
#include "tests/simulation/plant.h"

enum {
    SCENARIO_TIERS = 3,
    SCENARIO_TENANTS = 3,
    SCENARIO_ROUTES = 3,
    SCENARIO_POOLS = 2, /* every worker serves the first */
    SCENARIO_CLIENTS_MAX = 6,
    SCENARIO_SLOTS_MAX = 8,
    SCENARIO_PAYLOAD_BYTES_MAX = 400,
    SCENARIO_PAYLOAD_LIMIT = 5000, /* broker.payload_bytes_max */
    SCENARIO_TOKENS_MAX = 1024,    /* estimated, of a job */
    SCENARIO_TOKEN_NANOUSD = 1000,
    SCENARIO_CALL_NANOUSD_MAX = 8 * SCENARIO_TOKENS_MAX * SCENARIO_TOKEN_NANOUSD, /* tokens_used */
    SCENARIO_LIMITED_TENANT = 0, /* that has a budget, if anybody has */
    SCENARIO_UPSTREAMS = 5,
    SCENARIO_PROVIDERS = 3,
    SCENARIO_MODELS = 3,
    SCENARIO_CANONICALS = 6, /* canonical keys, from 1 */
    SCENARIO_CHUNKS_MAX = 8, /* of an attempt */
};

/* What breaks, and what operators do (from FAULT_RESTART on). */
enum fault_kind {
    FAULT_CRASH,        /* of the broker, with the loss of what was not durable */
    FAULT_STORE_DOWN,   /* commits fail for a while */
    FAULT_LOADS_FAIL,   /* reads fail for a while */
    FAULT_WALL_JUMP,    /* the broker's wall clock jumps */
    FAULT_MONO_JUMP,    /* its monotonic clock jumps: the process stood still */
    FAULT_PARTITION,    /* a set of peers is cut off for a while */
    FAULT_CLIENT_BREAK, /* a client loses its connection */
    FAULT_WORKER_BREAK, /* a worker does */
    FAULT_WORKER_KILL,  /* a worker dies with all that it holds */
    FAULT_WORKERS_KILL, /* many workers die at once */
    FAULT_UPSTREAM,     /* a model at a provider fails, slows down or has had enough */
    FAULT_RESTART,      /* of the broker, in good order */
    FAULT_RELOAD,
    FAULT_PAUSE,        /* an operator pauses something for a while */
    FAULT_WORKER_LEAVE, /* a worker drains and leaves */
    FAULT_DEAD_ONE,     /* a dead letter is requeued or dropped */
    FAULT_DEAD_SWEEP,   /* many are, or a sweep is stopped */
    FAULTS,
    FAULTS_OF_OPERATORS = FAULT_RESTART,
};

struct options {
    uint64_t seed;
    uint32_t jobs, workers, minutes;
    enum plant plant;
};

/* Chances in permille, where nothing else is said. 0: never in this seed. */
struct faults {
    uint32_t lose, duplicate, reorder; /* of a message */
    int64_t delay_ms_max;
    uint32_t count, count_of_operators; /* so many of them in all … */
    uint32_t weight[FAULTS];            /* … and how often each kind, beside the others */
    uint32_t load_error, undeliverable;
    uint32_t damage;         /* of a record, at a start: a spoilt one is read besides */
    uint32_t spoilt;         /* of a payload or a result: what is read of it is damaged */
    uint32_t unusable;       /* of a configuration, at a start or a reload: it comes first */
    uint32_t allocation;     /* of something from outside: memory runs out on the way */
    bool lacks_under_way;    /* and so it does for the rest */
    uint32_t stubborn;       /* a worker goes on with an attempt that was cancelled */
    uint32_t poison, killer; /* of a job */
};

/* How attempts end apart from what their upstream does, in permille; the rest is left to that. */
struct outcomes {
    uint32_t rate_limited, unavailable, rejected, deferred, invalid, refused, hung;
    uint32_t cached; /* answered without a call */
    int64_t run_ms_max;
    uint32_t tokens_used; /* permille of what is estimated, in the mean; 0: exactly that */
};

struct scenario {
    struct options options;
    struct config config; /* points into the fields below and to literals */
    struct config_budget budget;
    struct config_tier tiers[SCENARIO_TIERS];
    struct config_tenant tenants[SCENARIO_TENANTS];
    struct config_route alias;
    struct config_route_tier alias_tiers[2]; /* one with models of its own, and one without */
    char *routes[SCENARIO_ROUTES];           /* that jobs ask for: two models and an alias */
    struct config_provider providers[SCENARIO_PROVIDERS];
    struct config_model models[SCENARIO_MODELS + 1]; /* the last one has no provider, and no jobs */
    char *failover[1], *fallback[1], *mixed[3];
    uint32_t candidates[SCENARIO_ROUTES]
                       [SCENARIO_TIERS]; /* a bit for each upstream that may serve it */
    char *pools[SCENARIO_POOLS];
    struct scenario_models by_choice;
    uint32_t clients, keys;
    bool lacks_tenant; /* the first one is not configured for a while */
    uint32_t crowd;    /* jobs that come at once and wait for one moment; 0: no such */
    bool is_tight;     /* small bounds: jobs are refused, results dropped, ids forgotten */
    struct faults faults;
    struct outcomes outcomes;
    int64_t sync_ms_max; /* an fsync takes up to so long */
    int64_t turn_ms;     /* the broker looks at what it heard so much later */
    uint32_t slots_max;  /* of a worker */
    struct {
        uint32_t permille; /* of the jobs go to this queue */
        uint32_t tier, route;
    } focus;
    uint32_t identical,
        mismatched;   /* permille of jobs with a canonical key; of these: a wrong one */
    uint32_t streams; /* permille of jobs */
    uint32_t burst;   /* permille: chance that one more job comes at the same time */
    struct {
        int64_t every_ms_max;  /* somebody does something; 0: never */
        bool is_wordy, floods; /* invalidations are long; come by the thousand */
        uint32_t made;         /* permille of jobs that workers make */
    } cache;
};

/* What an operator changes before a reload: who may stand in for whom, whether an alias and a
 * tenant are there, and how much is kept. */
void scenario_change(struct scenario *scenario, struct dice *dice);
/* With all its routes again. */
void scenario_change_back(struct scenario *scenario);
/* By the names that a dispatch has. SCENARIO_UPSTREAMS: there is none such. */
uint32_t scenario_upstream(const char *provider, const char *model);
/* It has a budget. */
bool scenario_is_limited(const struct scenario *scenario, uint32_t tenant);
/* As configured now: who only failed over to it may have lost it by a reload. */
bool scenario_has_upstream(const struct scenario *scenario, uint32_t upstream);
extern const char *const scenario_upstreams[SCENARIO_UPSTREAMS][2]; /* provider, model */

void scenario_init(struct scenario *scenario, const struct options *options, struct dice *dice);
