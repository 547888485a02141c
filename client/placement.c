#include "client/placement.h"
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

/* The tenant's hash seeds the endpoint's, so that every pair has a weight of its own. */
static uint64_t weight(const char *tenant, const char *endpoint)
{
    return XXH3_64bits_withSeed(endpoint, strlen(endpoint), XXH3_64bits(tenant, strlen(tenant)));
}

/* Insertion sort: there are few brokers. Equal weights (equal endpoints) keep their order. */
void placement_sort(const char *tenant, char **endpoints, size_t endpoints_length)
{
    for (size_t i = 1; i < endpoints_length; i++) {
        char *endpoint = endpoints[i];
        const uint64_t own = weight(tenant, endpoint);
        size_t at = i;
        for (; at > 0 && weight(tenant, endpoints[at - 1]) < own; at--) {
            endpoints[at] = endpoints[at - 1];
        }
        endpoints[at] = endpoint;
    }
}
