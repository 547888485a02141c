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
#include "tests/simulation/plant.h"

enum {
    SCENARIO_TIERS = 3,
    SCENARIO_TENANTS = 3,
    SCENARIO_ROUTES = 3,
    SCENARIO_POOLS = 2, /* every worker serves the first */
    SCENARIO_CLIENTS_MAX = 6,
    SCENARIO_SLOTS_MAX = 8,
    SCENARIO_PAYLOAD_BYTES_MAX = 400,
};

struct options {
    uint64_t seed;
    uint32_t jobs, workers, minutes;
    enum plant plant;
};

/* Chances in permille: of a message, or of every fault tick (250 ms). 0: never in this seed. */
struct faults {
    uint32_t lose, duplicate, reorder;
    int64_t delay_ms_max;
    uint32_t crash, restart, reload, store_down, load_error, clock_jump, pause;
    uint32_t client_break, worker_break, worker_kill, worker_leave, undeliverable;
    uint32_t stubborn; /* a worker goes on with an attempt that was cancelled */
};

/* How attempts end, in permille; the rest is answered. */
struct outcomes {
    uint32_t rate_limited, unavailable, rejected, deferred, invalid, hung;
    int64_t run_ms_max;
};

struct scenario {
    struct options options;
    struct config config; /* points into the fields below and to literals */
    struct config_tier tiers[SCENARIO_TIERS];
    struct config_tenant tenants[SCENARIO_TENANTS];
    struct config_route routes[SCENARIO_ROUTES];
    struct config_provider provider;
    struct config_model model;
    char *pools[SCENARIO_POOLS];
    char *models[1];
    uint32_t clients, keys;
    bool is_tight; /* small bounds: jobs are refused, results dropped, ids forgotten */
    struct faults faults;
    struct outcomes outcomes;
    int64_t sync_ms_max; /* an fsync takes up to so long */
};

void scenario_init(struct scenario *scenario, const struct options *options, struct dice *dice);
