/*
 * cache_counts: what the cache did and earned, by tenant, tier, route and namespace.
 *
 * At most CACHE_COUNTS_MAX rows: beyond, all new ones are counted together, with names "…". Belongs to the loop.
 */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/list.h"

enum { CACHE_COUNTS_MAX = 1024, CACHE_BYPASSES_MAX = 16 };

struct cache_count {
    struct list_link link;
    char *tenant, *tier, *route, *cache_namespace;
    uint64_t exact, near, stale, miss;
    struct {
        const char *reason; /* static */
        uint64_t count;
    } bypasses[CACHE_BYPASSES_MAX];
    uint64_t saved_nanousd, saved_ms;
    uint64_t served_age_ms;  /* of all that was served, added up */
    uint64_t checks_nanousd; /* cost of the jobs that the cache made: refreshes, audits, judges */
};

struct cache_counts {
    struct list rows; /* the latest used first */
};

void cache_counts_init(struct cache_counts *counts);
void cache_counts_finish(struct cache_counts *counts);
/* Finds or makes. NULL: no memory. */
struct cache_count *cache_counts_row(struct cache_counts *counts, const char *tenant, const char *tier, const char *route,
                                     const char *cache_namespace);
/* The cache was not asked, or did not answer in time. `reason`: static. */
void cache_count_bypass(struct cache_count *row, const char *reason);
json_t *cache_counts_list(const struct cache_counts *counts); /* a new reference */
