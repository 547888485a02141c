#include "common/near_rules.h"
#include <string.h>

static const double MAX_ERROR_MOST = 0.999; /* the policy's is below 1 */

static double share_of(uint32_t permille)
{
    return (double)permille / 1000.0;
}

void near_rules(const struct config *config, const char *tenant, const char *tier, struct threshold_policy *ret_policy)
{
    const struct config_tier *of_tier = config_find_tier(config, tier);
    const struct config_cache *cache = &config->cache;
    uint32_t permille = of_tier == NULL ? 0 : of_tier->cache_max_error_permille;
    for (size_t i = 0; i < config->tenants_length; i++) {
        const struct config_tenant *of_tenant = &config->tenants[i];
        if (strcmp(of_tenant->name, tenant) == 0 && of_tenant->cache_max_error_permille < permille) {
            permille = of_tenant->cache_max_error_permille;
        }
    }
    *ret_policy = (struct threshold_policy){
        .max_error = permille >= 1000 ? MAX_ERROR_MOST : share_of(permille),
        .judge_false_accept = share_of(cache->judge_false_accept_permille),
        .judge_false_reject = share_of(cache->judge_false_reject_permille),
        .audit_share = share_of(cache->audit_share_permille),
        .audit_share_most = share_of(cache->audit_share_max_permille),
    };
}
