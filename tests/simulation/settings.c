#include "tests/simulation/settings.h"
#include <errno.h>
#include <string.h>
#include "broker/core/core.h"
#include "tests/simulation/broker.h"

enum unusable {
    NO_TIERS,
    TOO_MANY_TIERS,
    NO_POOLS,
    TOO_MANY_POOLS,
    NO_LEASE,
    NO_IDS,
    TOO_MANY_IDS,
    UNUSABLE_FOR_GOOD, /* below this also at a reload, which looks at tiers and pools no more */
    SAME_TIER_TWICE = UNUSABLE_FOR_GOOD,
    TIER_OF_NO_POOL,
    UNUSABLES,
};

static void spoil(enum unusable unusable, struct config *config, struct config_tier *tiers)
{
    switch (unusable) {
    case NO_TIERS:
        config->tiers_length = 0;
        break;
    case TOO_MANY_TIERS:
        config->tiers_length = CONFIG_TIERS_MAX + 1;
        break;
    case NO_POOLS:
        config->pools_length = 0;
        break;
    case TOO_MANY_POOLS:
        config->pools_length = CONFIG_POOLS_MAX + 1;
        break;
    case NO_LEASE:
        config->broker.lease_ms = 0;
        break;
    case NO_IDS:
        config->broker.dedup_ids_max = 0;
        break;
    case TOO_MANY_IDS:
        config->broker.dedup_ids_max = UINT32_MAX;
        break;
    case SAME_TIER_TWICE:
        tiers[1].name = tiers[0].name;
        break;
    case TIER_OF_NO_POOL:
        tiers[1].pool = tiers[1].name;
        break;
    case UNUSABLES:
        break;
    }
}

struct attempt {
    struct config config;
    struct config_tier tiers[SCENARIO_TIERS];
};

/* False: not this time. */
static bool make(struct simulation *simulation, const struct config *config, int unusables,
                 struct attempt *attempt)
{
    if (!simulation_hit(simulation, simulation->scenario.faults.unusable)) {
        return false;
    }
    attempt->config = *config;
    memcpy(attempt->tiers, config->tiers, sizeof(attempt->tiers));
    attempt->config.tiers = attempt->tiers;
    spoil((enum unusable)dice_below(&simulation->dice, (uint64_t)unusables), &attempt->config,
          attempt->tiers);
    return true;
}

void settings_try_to_start(struct simulation *simulation, const struct config *config)
{
    struct attempt attempt;
    struct core *core = NULL;
    if (make(simulation, config, UNUSABLES, &attempt) &&
        (core_create(&attempt.config, 1, sim_broker_now(simulation), &core) != -EINVAL ||
         core != NULL)) {
        simulation_violate(simulation, "the core starts with what it cannot use");
        core_destroy(&core);
    }
}

void settings_try_to_reload(struct simulation *simulation, const struct config *config)
{
    struct attempt attempt;
    if (make(simulation, config, UNUSABLE_FOR_GOOD, &attempt) &&
        core_reconfigure(simulation->broker.core, &attempt.config, sim_broker_now(simulation)) !=
            -EINVAL) {
        simulation_violate(simulation, "the core takes settings that it cannot use");
    }
}
