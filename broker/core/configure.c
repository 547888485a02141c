#include "broker/core/configure.h"
#include <errno.h>
#include <stdlib.h>
#include "broker/core/crowd.h"
#include "broker/core/decision.h"
#include "broker/core/gate.h"
#include "broker/core/job.h"
#include "broker/core/lane.h"
#include "broker/core/pause.h"
#include "broker/core/upstream.h"
#include "broker/core/worker.h"

int core_add_tenant(struct core *core, const char *text, struct tenant **ret_tenant)
{
    struct name *name = names_find(&core->tenants, text);
    if (name != NULL) {
        *ret_tenant = core->tenant[name->index];
        return 0;
    }
    struct tenant **tenants =
        reallocarray(core->tenant, core->tenants.length + 1, sizeof(struct tenant *));
    if (tenants == NULL) {
        return -ENOMEM;
    }
    core->tenant = tenants;
    struct tenant *tenant =
        calloc(1, sizeof(*tenant) + budget_purses_length(core) * sizeof(struct budget_purse));
    const int r = tenant == NULL ? -ENOMEM : names_add(&core->tenants, text, &name);
    if (r < 0) {
        free(tenant);
        return r;
    }
    *tenant = (struct tenant){
        .name = name, .weight = 1, .jobs_max = UINT64_MAX, .bytes_max = UINT64_MAX};
    budget_init_tenant(core, tenant);
    tenants[name->index] = tenant;
    *ret_tenant = tenant;
    return 0;
}

static int configure_tenants(struct core *core, const struct config *config)
{
    for (size_t i = 0; i < core->tenants.length; i++) {
        core->tenants.items[i]->is_configured = false;
    }
    for (size_t i = 0; i < config->tenants_length; i++) {
        const struct config_tenant *given = &config->tenants[i];
        struct tenant *tenant;
        int r = core_add_tenant(core, given->name, &tenant);
        if (r < 0) {
            return r;
        }
        tenant->name->is_configured = true;
        tenant->weight = given->weight > 0 ? given->weight : 1;
        tenant->jobs_max = given->jobs_max;
        tenant->bytes_max = given->bytes_max;
    }
    return 0;
}

static int add_configured(struct names *names, const char *text)
{
    struct name *name;
    int r = names_add(names, text, &name);
    if (r == 0) {
        name->is_configured = true;
    }
    return r;
}

/* A model's own name is a route, too. */
static int configure_routes(struct core *core, const struct config *config)
{
    for (size_t i = 0; i < core->routes.length; i++) {
        core->routes.items[i]->is_configured = false;
    }
    int r = add_configured(&core->routes, "auto");
    for (size_t i = 0; r == 0 && i < config->models_length; i++) {
        r = add_configured(&core->routes, config->models[i].name);
    }
    for (size_t i = 0; r == 0 && i < config->routes_length; i++) {
        r = add_configured(&core->routes, config->routes[i].name);
    }
    return r;
}

static void configure_tier(struct tier *tier, const struct config_tier *given)
{
    tier->weight = given->weight;
    tier->share_min_percent = given->share_min_percent;
    tier->slots_reserved_percent = given->slots_reserved_percent;
    tier->deadline_ms = given->deadline_ms;
    tier->attempts_max = given->attempts_max > UINT16_MAX ? UINT16_MAX : given->attempts_max;
    tier->backoff_first_ms = given->backoff_first_ms > 0 ? given->backoff_first_ms : 1;
    tier->backoff_max_ms = given->backoff_max_ms > 0 ? given->backoff_max_ms : 1;
    tier->quality_min = given->quality_min;
    tier->weights = (struct choice_weights){.quality = given->weight_quality / 100.0,
                                            .price = given->weight_price / 100.0,
                                            .latency = given->weight_latency / 100.0};
    tier->jobs_max = given->jobs_max;
    tier->bytes_max = given->bytes_max;
    tier->hedge_share_permille = given->hedge_share_permille;
    tier->prompt_cut = (struct prompt_cut){.history_tokens = given->prompt_history_tokens_max,
                                           .passages_tokens = given->prompt_passages_tokens_max};
    tier->shed_target_ms = given->shed_target_ms > 0 ? given->shed_target_ms : 0;
}

static void configure_tiers(struct core *core, const struct config *config)
{
    struct config_tier weights[CONFIG_TIERS_MAX] = {0};
    uint32_t shares[CONFIG_TIERS_MAX];
    for (size_t i = 0; i < config->tiers_length; i++) {
        const struct name *name = names_find(&core->tiers, config->tiers[i].name);
        if (name != NULL) {
            configure_tier(&core->tier[name->index], &config->tiers[i]);
        }
    }
    for (size_t i = 0; i < core->tiers_length; i++) {
        weights[i].weight = core->tier[i].weight;
        weights[i].share_min_percent = core->tier[i].share_min_percent;
    }
    lane_compute_shares(weights, core->tiers_length, shares);
    for (size_t i = 0; i < core->tiers_length; i++) {
        core->tier[i].share = shares[i];
    }
}

/* The numbers alone: strings belong to the configuration. */
static void configure_limits(struct core *core, const struct config *config)
{
    core->limits = config->broker;
    core->limits.name = core->limits.listen_clients = core->limits.listen_workers = NULL;
    core->limits.listen_events = core->limits.admin = core->limits.data_dir = NULL;
    if (core->concluded.ids_max > 0 && core->limits.dedup_ids_max < core->concluded.ids_max) {
        core->concluded.ids_max = core->limits.dedup_ids_max > 0 ? core->limits.dedup_ids_max : 1;
    }
}

/* What is fixed while it runs: tiers, pools and the lanes between them. */
static int make_tiers(struct core *core, const struct config *config, int64_t now_ms)
{
    core->tiers_length = config->tiers_length;
    core->tier = calloc(config->tiers_length, sizeof(struct tier));
    core->stats = calloc(config->tiers_length, sizeof(struct core_tier_stats));
    if (core->tier == NULL || core->stats == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < config->tiers_length; i++) {
        struct tier *tier = &core->tier[i];
        struct name *name;
        int r = names_add(&core->tiers, config->tiers[i].name, &name);
        if (r < 0) {
            return r;
        }
        if (name->index != i) {
            return -EINVAL; /* the same name twice */
        }
        name->is_configured = true;
        tier->index = (uint8_t)i;
        tier->name = name;
        tier->is_durable = config->tiers[i].durability == DURABILITY_FSYNC;
        tier->pool = names_find(&core->pools, config->tiers[i].pool);
        list_init(&tier->waiting);
        drain_rate_init(&tier->drain, now_ms);
        if (tier->pool == NULL) {
            return -EINVAL;
        }
    }
    return 0;
}

static int make_pools(struct core *core, const struct config *config)
{
    for (size_t i = 0; i < config->pools_length; i++) {
        int r = add_configured(&core->pools, config->pools[i]);
        if (r < 0) {
            return r;
        }
    }
    core->pool = calloc(core->pools.length, sizeof(struct pool));
    if (core->pool == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < core->pools.length; i++) {
        core->pool[i].name = core->pools.items[i];
    }
    return 0;
}

static int make_lanes(struct core *core)
{
    core->lanes = calloc(core->pools.length * core->tiers_length, sizeof(struct lane));
    if (core->lanes == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < core->pools.length * core->tiers_length; i++) {
        struct lane *lane = &core->lanes[i];
        lane->tier = &core->tier[i % core->tiers_length];
        lane->pool = &core->pool[i / core->tiers_length];
        heap_init(&lane->queues, offsetof(struct queue, position));
        list_init(&lane->available);
        list_init(&lane->loaded);
    }
    return 0;
}

bool configure_is_usable(const struct config *config)
{
    return config->tiers_length > 0 && config->tiers_length <= CONFIG_TIERS_MAX &&
           config->pools_length > 0 && config->pools_length <= CONFIG_POOLS_MAX &&
           config->broker.lease_ms > 0 && config->broker.dedup_ids_max > 0 &&
           config->broker.dedup_ids_max < UINT32_MAX / 2;
}

static int configure_complexity(struct core *core, const struct config *config)
{
    int r = 0;
    core->complexity = *complexity_weights_builtin();
    for (size_t i = 0; r == 0 && i < config->routing.complexity_weights_length; i++) {
        r = complexity_weight_set(&core->complexity, config->routing.complexity_weights[i]);
    }
    return r;
}

static int configure(struct core *core, const struct config *config)
{
    configure_limits(core, config);
    configure_tiers(core, config);
    core->breaker = config->breaker;
    core->retries = config->retries;
    core->routing = config->routing;
    core->routing.complexity_weights = NULL;
    ledger_configure(core, config);
    upkeep_configure(core, config);
    int r = configure_complexity(core, config);
    if (r < 0) {
        return r;
    }
    r = configure_tenants(core, config);
    if (r == 0) {
        r = configure_routes(core, config);
    }
    r = r < 0 ? r : upstreams_configure(core, config);
    if (r < 0) {
        return r;
    }
    budget_configure(core, config);
    return decision_configure(core, config);
}

int configure_first(struct core *core, const struct config *config)
{
    int r = make_pools(core, config);
    if (r == 0) {
        r = make_tiers(core, config, core->now_ms);
    }
    if (r == 0) {
        r = make_lanes(core);
    }
    return r < 0 ? r : configure(core, config);
}

/*
 * What a job has tried is by the position of the candidate, and those are others now, or can do
 * other things: each job begins a new round.
 */
static void begin_rounds(struct core *core)
{
    for (size_t i = 0; i < core->jobs.buckets_length; i++) {
        struct table_link *link = table_bucket_at(&core->jobs, i)->first;
        for (; link != NULL; link = link->next) {
            struct job *job = CONTAINER_OF(link, struct job, by_id);
            job->tried = job->unsaid = 0;
        }
    }
}

int core_reconfigure(struct core *core, const struct config *config, struct core_time now)
{
    (void)now;
    if (!configure_is_usable(config)) {
        return -EINVAL;
    }
    begin_rounds(core);
    crowd_dissolve_all(core);
    int r = configure(core, config);
    if (r < 0) {
        return r;
    }
    pause_apply_to_names(core);
    list_for_each (&core->workers_heard, link) {
        struct worker *worker = CONTAINER_OF(link, struct worker, heard_link);
        worker_reserve_slots(core, worker);
        worker_refresh(core, worker);
    }
    gate_look(core, NULL);
    return 0;
}
