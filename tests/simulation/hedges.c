#include "tests/simulation/hedges.h"
#include <inttypes.h>
#include <string.h>
#include "tests/simulation/bill.h"
#include "tests/simulation/degradation.h"

enum { TOKENS_BEYOND = 8 }; /* times what is estimated, at most: scenario.c, tokens_used */
static const double ROUNDING = 0.01;

static double share_of(const struct simulation *simulation, uint32_t tier)
{
    return simulation->scenario.tiers[tier].hedge_share_permille / 1000.0;
}

static void check_lease(struct simulation *simulation, uint32_t index, const struct effect *effect)
{
    const struct sim_job *job = &simulation->jobs[index];
    if (!job->lease.is_held || job->lease.peer != effect->peer ||
        job->lease.attempt != effect->as.hedge.lease.attempt) {
        simulation_violate(simulation,
                           "peer %" PRIu64 " may call besides for job %u, and does not hold it",
                           effect->peer, index);
    }
    if (job->hedge.is_open && job->hedge.attempt == effect->as.hedge.lease.attempt) {
        simulation_violate(simulation, "attempt %u of job %u may call besides, twice",
                           job->hedge.attempt, index);
    }
}

static void check_upstream(struct simulation *simulation, uint32_t index, uint32_t upstream)
{
    const struct sim_job *job = &simulation->jobs[index];
    if ((simulation->scenario.candidates[job->route][job->tier] >> upstream & 1) == 0) {
        simulation_violate(simulation, "job %u may call an upstream besides that may not serve it",
                           index);
    }
    if (job->permit.is_open &&
        strcmp(scenario_upstreams[upstream][0], scenario_upstreams[job->permit.upstream][0]) == 0) {
        simulation_violate(simulation, "job %u may call provider %s besides itself", index,
                           scenario_upstreams[upstream][0]);
    }
}

static void check_share(struct simulation *simulation, uint32_t tier)
{
    const struct degradation *degradation = &simulation->degradation;
    const double most = share_of(simulation, tier) * (double)degradation->dispatches[tier];
    if ((double)degradation->hedges[tier] > most + ROUNDING) {
        simulation_violate(simulation,
                           "tier %s makes %" PRIu64 " second calls for %" PRIu64
                           " dispatches, more than its share",
                           simulation->scenario.tiers[tier].name, degradation->hedges[tier],
                           degradation->dispatches[tier]);
    }
}

void hedges_see_grant(struct simulation *simulation, const struct effect *effect)
{
    const uint32_t index = simulation_job_of(simulation, &effect->as.hedge.lease.job_id);
    const uint32_t upstream = scenario_upstream(effect->as.hedge.provider, effect->as.hedge.model);
    if (index == NO_JOB || upstream == SCENARIO_UPSTREAMS) {
        simulation_violate(simulation, "a second call is granted for nothing that is known");
        return;
    }
    struct sim_job *job = &simulation->jobs[index];
    check_lease(simulation, index, effect);
    check_upstream(simulation, index, upstream);
    simulation->degradation.hedges[job->tier]++;
    simulation->tally.hedges_granted++;
    check_share(simulation, job->tier);
    degradation_see_second(simulation, index, upstream);
    bill_see_call(simulation, index);
    simulation_trace(simulation, "job %" PRIu64 " may call upstream %" PRIu64 " besides", index,
                     upstream, 0);
    job->hedge.is_open = true;
    job->hedge.upstream = upstream;
    job->hedge.attempt = effect->as.hedge.lease.attempt;
}

void hedges_settle(struct simulation *simulation, const struct message *message)
{
    const struct sim_job *job = &simulation->jobs[message->job];
    if (degradation_call_at(message, job->hedge.upstream) == NULL) {
        simulation->degradation.hedges[job->tier]--;
        simulation->tally.hedges_given_back++;
    }
}

void hedges_check_turn(struct simulation *simulation, const struct core_stats *stats)
{
    const struct scenario *scenario = &simulation->scenario;
    const double under_way = (double)scenario->options.workers * scenario->slots_max;
    const double beyond = under_way * TOKENS_BEYOND * SCENARIO_TOKENS_MAX * SCENARIO_TOKEN_NANOUSD;
    for (uint32_t i = 0; i < stats->tiers_length && i < SCENARIO_TIERS; i++) {
        const struct core_tier_stats *tier = &stats->tiers[i];
        const double most = share_of(simulation, i) * (double)tier->cost_nanousd;
        if ((double)tier->hedge_cost_nanousd > most + beyond) {
            simulation_violate(simulation,
                               "second calls of tier %s have cost %" PRIu64 " of %" PRIu64,
                               tier->name, tier->hedge_cost_nanousd, tier->cost_nanousd);
        }
    }
}
