#include "tests/simulation/scenario.h"
#include <string.h>

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
        .deadline_ms = seconds(dice, 5, 30),
        .attempts_max = 3,
        .backoff_first_ms = 100,
        .backoff_max_ms = 2000,
        .jobs_max = is_tight ? 10 : 20000,
    };
    scenario->tiers[1] = (struct config_tier){
        .name = literal("standard"),
        .weight = 30,
        .share_min_percent = 10,
        .durability = DURABILITY_FSYNC,
        .deadline_ms = seconds(dice, 20, 120),
        .attempts_max = 5,
        .backoff_first_ms = 500,
        .backoff_max_ms = 10000,
        .jobs_max = is_tight ? 30 : 20000,
    };
    scenario->tiers[2] = (struct config_tier){
        .name = literal("background"),
        .weight = 10,
        .share_min_percent = 5,
        .durability = DURABILITY_FSYNC,
        .deadline_ms = seconds(dice, 120, 300),
        .attempts_max = 10,
        .backoff_first_ms = 1000,
        .backoff_max_ms = 20000,
        .jobs_max = is_tight ? 60 : 20000,
    };
    for (size_t i = 0; i < SCENARIO_TIERS; i++) {
        struct config_tier *tier = &scenario->tiers[i];
        tier->pool = literal("default");
        tier->bytes_max = tier->jobs_max *
                          (is_tight ? SCENARIO_PAYLOAD_BYTES_MAX / 4 : SCENARIO_PAYLOAD_BYTES_MAX);
        tier->cache_ttl_ms = 1000;
    }
}

static void init_names(struct scenario *scenario)
{
    static const char *const tenants[SCENARIO_TENANTS] = {"acme", "bolt", "core"};
    static const char *const routes[SCENARIO_ROUTES] = {"large", "small", "vision"};
    for (size_t i = 0; i < SCENARIO_TENANTS; i++) {
        scenario->tenants[i] =
            (struct config_tenant){.name = literal(tenants[i]),
                                   .weight = (uint32_t)(i + 1),
                                   .jobs_max = scenario->is_tight ? 50 : 100000,
                                   .bytes_max = scenario->is_tight ? 10000 : 100000000};
    }
    scenario->provider = (struct config_provider){.name = literal("simulated"),
                                                  .base_url = literal("http://127.0.0.1:1/v1"),
                                                  .api_key = literal("")};
    scenario->model = (struct config_model){.name = literal("model"),
                                            .provider = scenario->provider.name,
                                            .provider_model = literal("model"),
                                            .max_tokens_default = 100};
    scenario->models[0] = scenario->model.name;
    for (size_t i = 0; i < SCENARIO_ROUTES; i++) {
        scenario->routes[i] = (struct config_route){
            .name = literal(routes[i]), .models = scenario->models, .models_length = 1};
    }
    scenario->pools[0] = literal("default");
    scenario->pools[1] = literal("gpu");
}

static struct config_broker broker_config(const struct scenario *scenario, struct dice *dice)
{
    const bool is_tight = scenario->is_tight;
    const int64_t heartbeat_ms = 500;
    return (struct config_broker){
        .name = literal("broker"),
        .store = STORE_ROCKSDB,
        .payload_bytes_max = 1 << 20,
        /* Often nothing of a durable payload may stay in memory, so that loads happen. */
        .memory_payload_bytes_max =
            dice_hit(dice, 500) ? (uint64_t)dice_between(dice, 0, 2000) : 1 << 20,
        .lease_ms = heartbeat_ms * dice_between(dice, 4, 8),
        .heartbeat_ms = heartbeat_ms,
        .reclaim_ms = dice_between(dice, 0, 3000),
        .result_ttl_ms = is_tight ? 30000 : 24 * 3600 * 1000,
        .results_bytes_max = is_tight ? 5000 : 1 << 30,
        .results_memory_bytes_max = is_tight ? 2000 : 1 << 30,
        .dedup_window_ms = 24 * 3600 * 1000,
        .dedup_ids_max = is_tight ? 100 : 1000000,
        .dead_letters_max = is_tight ? 5 : 100000,
        .drain_timeout_ms = 5000,
        .clients_max = 1000,
        .workers_max = 1000,
    };
}

/* The chance of a kind of fault: none in half of the seeds. */
static uint32_t chance(struct dice *dice, uint32_t permille_max)
{
    return dice_hit(dice, 500) ? 0 : (uint32_t)dice_between(dice, 1, permille_max);
}

static void init_faults(struct faults *faults, bool is_tight, struct dice *dice)
{
    *faults = (struct faults){
        .lose = chance(dice, 50),
        .duplicate = chance(dice, 50),
        .reorder = chance(dice, 200),
        .delay_ms_max = dice_hit(dice, 300) ? 2000 : 20,
        .crash = chance(dice, 20),
        .restart = chance(dice, 10),
        .reload = chance(dice, 20),
        .store_down = chance(dice, 20),
        .load_error = chance(dice, 100),
        /* Ids are forgotten by the broker's wall clock: one that was made by a clock far ahead of
           it would be taken for new. */
        .clock_jump = is_tight ? 0 : chance(dice, 10),
        .pause = chance(dice, 20),
        .client_break = chance(dice, 50),
        .worker_break = chance(dice, 50),
        .worker_kill = chance(dice, 50),
        .worker_leave = chance(dice, 30),
        .undeliverable = chance(dice, 50),
        .stubborn = chance(dice, 500),
    };
}

static void init_outcomes(struct outcomes *outcomes, struct dice *dice)
{
    *outcomes = (struct outcomes){
        .rate_limited = chance(dice, 200),
        .unavailable = chance(dice, 200),
        .rejected = chance(dice, 50),
        .deferred = chance(dice, 100),
        .invalid = chance(dice, 20),
        .hung = chance(dice, 20),
        .run_ms_max = dice_hit(dice, 300) ? 10000 : 500,
    };
}

void scenario_init(struct scenario *scenario, const struct options *options, struct dice *dice)
{
    *scenario = (struct scenario){.options = *options};
    scenario->is_tight = dice_hit(dice, 250);
    scenario->clients = (uint32_t)dice_between(dice, 1, SCENARIO_CLIENTS_MAX);
    scenario->keys = options->jobs / 8 + 1;
    scenario->sync_ms_max = dice_hit(dice, 300) ? 500 : 10;
    init_tiers(scenario, dice);
    init_names(scenario);
    init_faults(&scenario->faults, scenario->is_tight, dice);
    init_outcomes(&scenario->outcomes, dice);
    scenario->config = (struct config){
        .broker = broker_config(scenario, dice),
        .tiers = scenario->tiers,
        .tiers_length = SCENARIO_TIERS,
        .pools = scenario->pools,
        .pools_length = SCENARIO_POOLS,
        .tenants = scenario->tenants,
        .tenants_length = SCENARIO_TENANTS,
        .providers = &scenario->provider,
        .providers_length = 1,
        .models = &scenario->model,
        .models_length = 1,
        .routes = scenario->routes,
        .routes_length = SCENARIO_ROUTES,
        .breaker = {.failures = 5,
                    .failure_share_permille = 500,
                    .calls_min = 20,
                    .window_ms = 10000,
                    .slow_share_permille = 800,
                    .open_first_ms = 1000,
                    .open_max_ms = 10000,
                    .slow_start_per_s = 20},
        .retries = {.share_permille = 100, .least_per_min = 600, .burst = 20},
    };
}
