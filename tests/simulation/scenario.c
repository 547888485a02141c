#include "tests/simulation/scenario.h"
#include <string.h>

enum {
    FAULTS_COUNT_MIN = 32,
    CROWD = 6000,        /* more than the core does of anything in a turn: it goes on in the next */
    CROWD_BESIDE = 1000, /* so many others at least: else a run is meant to be short */
};

/* The configuration's strings are char *, and nobody writes to these. */
static char *literal(const char *text)
{
    return (char *)(uintptr_t)text;
}

static int64_t seconds(struct dice *dice, int64_t low, int64_t high)
{
    return dice_between(dice, low, high) * 1000;
}

static void init_tiers(struct scenario *scenario, struct dice *dice)
{
    const bool is_tight = scenario->is_tight;
    scenario->tiers[0] = (struct config_tier){
        .name = literal("realtime"),
        .weight = 60,
        .slots_reserved_percent = 25,
        .durability = DURABILITY_NONE,
        .deadline_ms = seconds(dice, 10, 60),
        .attempts_max = 3,
        .backoff_first_ms = 100,
        .backoff_max_ms = 2000,
        .jobs_max = is_tight ? 40 : 20000,
        .shed_target_ms = dice_hit(dice, 300) ? dice_between(dice, 200, 10000) : 0,
    };
    scenario->tiers[1] = (struct config_tier){
        .name = literal("standard"),
        .weight = 30,
        .share_min_percent = 10,
        .durability = DURABILITY_FSYNC,
        .deadline_ms = seconds(dice, 60, 600),
        .attempts_max = 5,
        .backoff_first_ms = 1000,
        .backoff_max_ms = 30000,
        .jobs_max = is_tight ? 80 : 20000,
    };
    scenario->tiers[2] = (struct config_tier){
        .name = literal("background"),
        .weight = 10,
        .share_min_percent = 5,
        .durability = DURABILITY_FSYNC,
        .deadline_ms = seconds(dice, 600, 1800),
        .attempts_max = 10,
        .backoff_first_ms = 5000,
        .backoff_max_ms = 120000,
        .jobs_max = is_tight ? 160 : 20000,
    };
    for (size_t i = 0; i < SCENARIO_TIERS; i++) {
        struct config_tier *tier = &scenario->tiers[i];
        tier->pool = literal("default");
        tier->bytes_max = tier->jobs_max *
                          (is_tight ? SCENARIO_PAYLOAD_BYTES_MAX / 4 : SCENARIO_PAYLOAD_BYTES_MAX);
        tier->cache_ttl_ms = 1000;
    }
}

/* By the seed and not by the dice, so that those without are what they are without it. */
static void init_hedges(struct scenario *scenario)
{
    static const uint32_t shares[][SCENARIO_TIERS] = {{0, 0, 0}, {50, 0, 0}, {500, 200, 20}};
    const size_t length = sizeof(shares) / sizeof(shares[0]);
    for (size_t i = 0; i < SCENARIO_TIERS; i++) {
        scenario->tiers[i].hedge_share_permille = shares[scenario->options.seed % length][i];
    }
}

/* A job's worst case is what it may use at most: tokens_used. */
static void init_budget(struct scenario *scenario)
{
    enum { EVERY = 5, CALLS_LEFT = 12 };
    if (scenario->options.seed % EVERY != 0) {
        return;
    }
    for (size_t i = 0; i <= SCENARIO_MODELS; i++) {
        scenario->models[i].request_nanousd = SCENARIO_CALL_NANOUSD_MAX;
    }
    scenario->budget = (struct config_budget){
        .name = literal("limited"),
        .tenant = scenario->tenants[SCENARIO_LIMITED_TENANT].name,
        .tier = literal(""),
        .daily_nanousd = UINT64_MAX,
        .monthly_nanousd = CALLS_LEFT * UINT64_C(2) * SCENARIO_CALL_NANOUSD_MAX,
        .soft_permille = 1000};
    scenario->config.budgets = &scenario->budget;
    scenario->config.budgets_length = 1;
}

bool scenario_is_limited(const struct scenario *scenario, uint32_t tenant)
{
    return scenario->config.budgets_length > 0 && tenant == SCENARIO_LIMITED_TENANT;
}

static void init_names(struct scenario *scenario)
{
    static const char *const tenants[SCENARIO_TENANTS] = {"acme", "bolt", "core"};
    for (size_t i = 0; i < SCENARIO_TENANTS; i++) {
        scenario->tenants[i] =
            (struct config_tenant){.name = literal(tenants[i]),
                                   .weight = (uint32_t)(i + 1),
                                   .jobs_max = scenario->is_tight ? 120 : 100000,
                                   .bytes_max = scenario->is_tight ? 20000 : 100000000};
    }
    scenario->pools[0] = literal("default");
    scenario->pools[1] = literal("gpu");
}

static struct config_broker broker_config(const struct scenario *scenario, struct dice *dice)
{
    const bool is_tight = scenario->is_tight;
    /* Long, as in large clusters: a run is about what goes wrong, not about heartbeats. */
    const int64_t heartbeat_ms = seconds(dice, 15, 60);
    return (struct config_broker){
        .name = literal("broker"),
        .store = STORE_ROCKSDB,
        .payload_bytes_max = SCENARIO_PAYLOAD_LIMIT,
        /* Often nothing of a durable payload may stay in memory, so that loads happen. */
        .memory_payload_bytes_max =
            dice_hit(dice, 500) ? (uint64_t)dice_between(dice, 0, 2000) : 1 << 20,
        .lease_ms = heartbeat_ms * dice_between(dice, 2, 5),
        .heartbeat_ms = heartbeat_ms,
        .reclaim_ms = dice_hit(dice, 300) ? 0 : seconds(dice, 1, 30),
        .result_ttl_ms = is_tight ? 60000 : 24 * 3600 * 1000,
        .results_bytes_max = is_tight ? 5000 : 1 << 30,
        .results_memory_bytes_max = is_tight ? 2000 : 1 << 30,
        .dedup_window_ms = 24 * 3600 * 1000,
        .dedup_ids_max = is_tight ? 300 : 1000000,
        .losses_max =
            (uint32_t)(dice_hit(dice, 150) ? dice_between(dice, 0, 2) : dice_between(dice, 3, 10)),
        .dead_letters_max = is_tight ? 5 : 100000,
        .drain_timeout_ms = 5000,
        /* A few chunks, so that logs are dropped, or all. */
        .stream_log_bytes_max =
            dice_hit(dice, 300) ? (uint64_t)dice_between(dice, 0, 400) : 1 << 18,
        /* A connection that is gone may be counted for a while. */
        .clients_max = is_tight ? scenario->clients + 2 : 1000,
        .workers_max = is_tight ? scenario->options.workers * 9 / 10 + 1 : 1000,
    };
}

/* The chance of a kind of fault: none in half of the seeds. */
static uint32_t chance(struct dice *dice, uint32_t permille_max)
{
    return dice_hit(dice, 500) ? 0 : (uint32_t)dice_between(dice, 1, permille_max);
}

/* In proportion to the time, so that a short run is not drowned. */
static uint32_t count_of(const struct options *options, int64_t in_half_an_hour)
{
    return (uint32_t)(in_half_an_hour * (options->minutes < 30 ? options->minutes : 30) / 30);
}

static void init_faults(struct scenario *scenario, struct dice *dice)
{
    static const uint32_t weights_max[FAULTS] = {
        [FAULT_CRASH] = 15,        [FAULT_STORE_DOWN] = 20,   [FAULT_LOADS_FAIL] = 15,
        [FAULT_WALL_JUMP] = 10,    [FAULT_MONO_JUMP] = 8,     [FAULT_PARTITION] = 20,
        [FAULT_CLIENT_BREAK] = 30, [FAULT_WORKER_BREAK] = 40, [FAULT_WORKER_KILL] = 40,
        [FAULT_WORKERS_KILL] = 10, [FAULT_UPSTREAM] = 40,     [FAULT_RESTART] = 15,
        [FAULT_RELOAD] = 20,       [FAULT_PAUSE] = 60,        [FAULT_WORKER_LEAVE] = 40,
        [FAULT_DEAD_ONE] = 60,     [FAULT_DEAD_SWEEP] = 40,
    };
    struct faults *faults = &scenario->faults;
    *faults = (struct faults){
        .lose = chance(dice, 5),
        .duplicate = chance(dice, 50),
        .reorder = chance(dice, 200),
        .delay_ms_max = dice_hit(dice, 300) ? 2000 : 20,
        .count = count_of(&scenario->options, dice_between(dice, FAULTS_COUNT_MIN, 80)),
        .count_of_operators = count_of(&scenario->options, dice_between(dice, 0, 30)),
        .load_error = chance(dice, 100),
        .undeliverable = chance(dice, 50),
        .allocation = chance(dice, 50),
        .lacks_under_way = dice_hit(dice, 300),
        .damage = chance(dice, 100),
        .spoilt = chance(dice, 5),
        .unusable = chance(dice, 500),
        .stubborn = chance(dice, 500),
        .poison = chance(dice, 10),
        .killer = chance(dice, 3),
    };
    for (int kind = 0; kind < FAULTS; kind++) {
        faults->weight[kind] = chance(dice, weights_max[kind]);
    }
    if (scenario->is_tight) {
        /* Ids are forgotten by the broker's wall clock: one that was made by a clock far ahead of
           it would be taken for new. */
        faults->weight[FAULT_WALL_JUMP] = 0;
    }
    if (scenario->crowd > 0) { /* its moment comes while the process stands still, perhaps */
        faults->weight[FAULT_MONO_JUMP] = 200;
    }
    /* Something that can always happen. */
    faults->weight[FAULT_WORKER_KILL] += faults->weight[FAULT_WORKER_BREAK] == 0;
}

static void init_outcomes(struct outcomes *outcomes, struct dice *dice)
{
    *outcomes = (struct outcomes){
        .rate_limited = chance(dice, 100),
        .unavailable = chance(dice, 100),
        .rejected = dice_hit(dice, 40) ? 700 : chance(dice, 50),
        .deferred = chance(dice, 50),
        .invalid = chance(dice, 20),
        .refused = chance(dice, 20),
        .cached = chance(dice, 200),
        .hung = chance(dice, 20),
        .run_ms_max = dice_hit(dice, 400) ? 60000 : 3000,
        .tokens_used = chance(dice, 4000),
    };
}

static void init_load(struct scenario *scenario, struct dice *dice)
{
    static const uint32_t slots[] = {1, 2, SCENARIO_SLOTS_MAX};
    static const uint32_t bursts[] = {300, 900, 985, 997};
    scenario->slots_max = slots[dice_below(dice, sizeof(slots) / sizeof(slots[0]))];
    scenario->burst = bursts[dice_below(dice, sizeof(bursts) / sizeof(bursts[0]))];
    static const uint32_t focus[] = {0, 0, 600, 900};
    static const uint32_t identical[] = {0, 100, 500, 900};
    scenario->identical = identical[dice_below(dice, sizeof(identical) / sizeof(identical[0]))];
    scenario->mismatched = chance(dice, 30);
    scenario->streams = chance(dice, 500);
    scenario->focus.permille = focus[dice_below(dice, sizeof(focus) / sizeof(focus[0]))];
    scenario->focus.tier = (uint32_t)dice_below(dice, SCENARIO_TIERS);
    scenario->focus.route = (uint32_t)dice_below(dice, SCENARIO_ROUTES);
    scenario->clients = (uint32_t)dice_between(dice, 1, SCENARIO_CLIENTS_MAX);
    static const int64_t every_ms[] = {0, 6000, 20000, 60000};
    scenario->cache.every_ms_max =
        every_ms[dice_below(dice, sizeof(every_ms) / sizeof(every_ms[0]))];
    scenario->cache.is_wordy = dice_hit(dice, 60);
    scenario->cache.floods = dice_hit(dice, 100);
    scenario->cache.made = chance(dice, 100);
    scenario->sync_ms_max = dice_hit(dice, 300) ? 500 : 10;
    scenario->turn_ms = dice_hit(dice, 500) ? 0 : dice_between(dice, 1, 20);
}

const char *const scenario_upstreams[SCENARIO_UPSTREAMS][2] = {{"alpha", "large"},
                                                               {"beta", "large"},
                                                               {"alpha", "small"},
                                                               {"beta", "small"},
                                                               {"gamma", "vision"}};

uint32_t scenario_upstream(const char *provider, const char *model)
{
    uint32_t i = 0;
    while (i < SCENARIO_UPSTREAMS && (strcmp(scenario_upstreams[i][0], provider) != 0 ||
                                      strcmp(scenario_upstreams[i][1], model) != 0)) {
        i++;
    }
    return i;
}

static void init_providers(struct scenario *scenario, struct dice *dice)
{
    static const char *const names[SCENARIO_PROVIDERS] = {"alpha", "beta", "gamma"};
    for (size_t i = 0; i < SCENARIO_PROVIDERS; i++) {
        scenario->providers[i] = (struct config_provider){
            .name = literal(names[i]),
            .base_url = literal("http://127.0.0.1:1/v1"),
            .api_key = literal(""),
            .requests_per_min = dice_hit(dice, 200) ? (uint64_t)dice_between(dice, 20, 600) : 0,
            .tokens_per_min = dice_hit(dice, 200) ? (uint64_t)dice_between(dice, 20000, 600000) : 0,
        };
    }
}

/* Of one tier only "small" may serve it, in some; named twice, or beside what is not there, it is
 * no other route. */
static void init_alias(struct scenario *scenario, struct dice *dice)
{
    const size_t tier = dice_below(dice, SCENARIO_TIERS);
    scenario->mixed[0] = scenario->models[2].name;
    scenario->mixed[1] = scenario->models[1].name;
    scenario->mixed[2] = dice_hit(dice, 500) ? scenario->models[1].name : literal("ghost");
    scenario->alias_tiers[0] =
        (struct config_route_tier){.tier = scenario->tiers[(tier + 1) % SCENARIO_TIERS].name};
    scenario->alias_tiers[1] = (struct config_route_tier){
        .tier = scenario->tiers[tier].name, .models = &scenario->mixed[1], .models_length = 1};
    scenario->alias = (struct config_route){.name = literal("mixed"),
                                            .models = scenario->mixed,
                                            .models_length = dice_hit(dice, 300) ? 3 : 2,
                                            .tiers = scenario->alias_tiers,
                                            .tiers_length = dice_hit(dice, 300) ? 2 : 0};
}

/* One model with another provider and another model behind it, one with another provider, one with
 * nothing. */
static void init_models(struct scenario *scenario, struct dice *dice)
{
    static const char *const names[SCENARIO_MODELS] = {"large", "small", "vision"};
    scenario->failover[0] = scenario->providers[1].name;
    for (size_t i = 0; i < SCENARIO_MODELS; i++) {
        scenario->models[i] = (struct config_model){
            .name = literal(names[i]),
            .provider = scenario->providers[i == 2 ? 2 : 0].name,
            .provider_model = literal(names[i]),
            .max_tokens_default = 100,
            .quality = i == 0 ? 90 : 60,
            .input_nanousd_per_mtok = SCENARIO_TOKEN_NANOUSD * UINT64_C(1000000),
            .output_nanousd_per_mtok = SCENARIO_TOKEN_NANOUSD * UINT64_C(1000000),
            .failover = scenario->failover,
            .failover_length = i != 2 && dice_hit(dice, 700),
        };
    }
    scenario->fallback[0] = scenario->models[1].name;
    scenario->models[0].fallback = scenario->fallback;
    scenario->models[0].fallback_length = dice_hit(dice, 500);
    scenario->models[SCENARIO_MODELS] =
        (struct config_model){.name = literal("idle"), .provider_model = literal("idle")};
    init_alias(scenario, dice);
    scenario->routes[0] = scenario->models[0].name;
    scenario->routes[1] = scenario->models[1].name;
    scenario->routes[2] = scenario->alias.name;
    /* Of one tier nothing worse than "large" may stand in. */
    scenario->tiers[dice_below(dice, SCENARIO_TIERS)].quality_min = 80;
}

/*
 * Of an alias without a list for the tier. What is chosen from a list may be below the tier's floor
 * if it is the first; of those that are scored only where all are, and then it is the first.
 */
static uint32_t mixed_candidates(const struct scenario *scenario, bool may_be_small,
                                 bool may_be_vision, uint32_t small)
{
    const bool is_scored = scenario->alias.choice == CHOICE_SCORED;
    const bool has_vision = !is_scored || may_be_vision || !may_be_small;
    return (has_vision ? 1u << 4 : 0) | (may_be_small ? small : 0);
}

/* By hand, as the documentation has it: so it is not the core that says what is right. */
static void init_candidates(struct scenario *scenario)
{
    const struct config_model *models = scenario->models;
    const uint32_t small = 1u << 2 | (models[1].failover_length > 0 ? 1u << 3 : 0);
    for (size_t tier = 0; tier < SCENARIO_TIERS; tier++) {
        const bool may_be_small = scenario->tiers[tier].quality_min <= models[1].quality;
        const bool may_be_vision = scenario->tiers[tier].quality_min <= models[2].quality;
        scenario->candidates[0][tier] = 1u << 0 | (models[0].failover_length > 0 ? 1u << 1 : 0) |
                                        (models[0].fallback_length > 0 && may_be_small ? small : 0);
        scenario->candidates[1][tier] = small;
        const bool has_own = scenario->alias.tiers_length > 0 &&
                             scenario->alias_tiers[1].tier == scenario->tiers[tier].name;
        scenario->candidates[2][tier] =
            has_own ? small : mixed_candidates(scenario, may_be_small, may_be_vision, small);
    }
}

static struct config_breaker breaker_config(struct dice *dice)
{
    return (struct config_breaker){
        .failures = (uint32_t)dice_between(dice, 2, 8),
        .failure_share_permille = 500,
        .calls_min = 20,
        .window_ms = dice_hit(dice, 30) ? dice_between(dice, 1, 9) : seconds(dice, 5, 60),
        .slow_call_ms = dice_hit(dice, 500) ? seconds(dice, 5, 60) : 0,
        .slow_share_permille = 800,
        .open_first_ms = seconds(dice, 1, 5),
        .open_max_ms = seconds(dice, 10, 60),
        .slow_start_per_s = (uint32_t)dice_between(dice, 1, 20),
    };
}

static struct config_retries retries_config(struct dice *dice)
{
    return (struct config_retries){.share_permille = (uint32_t)dice_between(dice, 0, 300),
                                   .least_per_min = (uint32_t)dice_between(dice, 1, 60),
                                   .burst = (uint32_t)dice_between(dice, 1, 20)};
}

bool scenario_has_upstream(const struct scenario *scenario, uint32_t upstream)
{
    return upstream == 1   ? scenario->models[0].failover_length > 0
           : upstream == 3 ? scenario->models[1].failover_length > 0
                           : upstream < SCENARIO_UPSTREAMS;
}

void scenario_change(struct scenario *scenario, struct dice *dice)
{
    scenario->models[0].failover_length = dice_below(dice, 2);
    scenario->models[1].failover_length = dice_below(dice, 2);
    scenario->models[0].fallback_length = dice_below(dice, 2);
    scenario->config.routes_length = dice_hit(dice, 800);
    scenario->lacks_tenant = dice_hit(dice, 200);
    if (dice_hit(dice, 300)) {
        struct config_broker *broker = &scenario->config.broker;
        broker->dead_letters_max = scenario->is_tight ? (uint32_t)dice_between(dice, 1, 5) : 300;
        broker->dedup_ids_max =
            scenario->is_tight ? (uint64_t)dice_between(dice, 200, 300) : broker->dedup_ids_max;
    }
    models_change(scenario);
    init_candidates(scenario);
}

void scenario_change_back(struct scenario *scenario)
{
    scenario->config.routes_length = 1;
    scenario->lacks_tenant = false;
}

void scenario_init(struct scenario *scenario, const struct options *options, struct dice *dice)
{
    *scenario = (struct scenario){.options = *options};
    scenario->is_tight = dice_hit(dice, 250);
    scenario->crowd =
        !scenario->is_tight && options->jobs >= CROWD_BESIDE && dice_hit(dice, 12) ? CROWD : 0;
    scenario->options.jobs += scenario->crowd;
    scenario->keys = scenario->options.jobs / 8 + 1;
    init_load(scenario, dice);
    init_tiers(scenario, dice);
    init_hedges(scenario);
    init_names(scenario);
    init_providers(scenario, dice);
    init_models(scenario, dice);
    models_init(scenario);
    init_candidates(scenario);
    init_faults(scenario, dice);
    init_outcomes(&scenario->outcomes, dice);
    scenario->config = (struct config){
        .cost = {.keep_days = 3660, .rows_max = dice_hit(dice, 100) ? 3 : 20000},
        .broker = broker_config(scenario, dice),
        .tiers = scenario->tiers,
        .tiers_length = SCENARIO_TIERS,
        .pools = scenario->pools,
        .pools_length = SCENARIO_POOLS,
        .tenants = scenario->tenants,
        .tenants_length = SCENARIO_TENANTS,
        .providers = scenario->providers,
        .providers_length = SCENARIO_PROVIDERS,
        .models = scenario->models,
        .models_length = SCENARIO_MODELS + 1,
        .routes = &scenario->alias,
        .routes_length = 1,
        .breaker = breaker_config(dice),
        .retries = retries_config(dice),
        .routing = {.learn = SWITCH_ON, .explore_share_permille = 100, .prefix_permille = 50},
    };
    init_budget(scenario);
}
