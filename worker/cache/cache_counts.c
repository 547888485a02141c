#include "worker/cache/cache_counts.h"

#include <stdlib.h>
#include <string.h>

void cache_counts_init(struct cache_counts *counts)
{
    list_init(&counts->rows);
}

static void release(struct cache_count *row)
{
    free(row->tenant);
    free(row->tier);
    free(row->route);
    free(row->cache_namespace);
    free(row);
}

void cache_counts_finish(struct cache_counts *counts)
{
    while (!list_is_empty(&counts->rows)) {
        struct cache_count *row = CONTAINER_OF(list_first(&counts->rows), struct cache_count, link);
        list_remove(&counts->rows, &row->link);
        release(row);
    }
}

static struct cache_count *find(struct cache_counts *counts, const char *tenant, const char *tier,
                                const char *route, const char *cache_namespace)
{
    list_for_each (&counts->rows, link) {
        struct cache_count *row = CONTAINER_OF(link, struct cache_count, link);
        if (strcmp(row->tenant, tenant) == 0 && strcmp(row->tier, tier) == 0 &&
            strcmp(row->route, route) == 0 && strcmp(row->cache_namespace, cache_namespace) == 0) {
            list_remove(&counts->rows, &row->link);
            list_prepend(&counts->rows, &row->link);
            return row;
        }
    }
    return NULL;
}

static struct cache_count *make(struct cache_counts *counts, const char *tenant, const char *tier,
                                const char *route, const char *cache_namespace)
{
    struct cache_count *row = calloc(1, sizeof(*row));
    if (row == NULL) {
        return NULL;
    }
    row->tenant = strdup(tenant);
    row->tier = strdup(tier);
    row->route = strdup(route);
    row->cache_namespace = strdup(cache_namespace);
    if (row->tenant == NULL || row->tier == NULL || row->route == NULL || row->cache_namespace == NULL) {
        release(row);
        return NULL;
    }
    list_prepend(&counts->rows, &row->link);
    return row;
}

struct cache_count *cache_counts_row(struct cache_counts *counts, const char *tenant,
                                     const char *tier, const char *route, const char *cache_namespace)
{
    static const char others[] = "…";
    struct cache_count *row = find(counts, tenant, tier, route, cache_namespace);
    if (row != NULL) {
        return row;
    }
    if (counts->rows.length < CACHE_COUNTS_MAX) {
        return make(counts, tenant, tier, route, cache_namespace);
    }
    row = find(counts, others, others, others, others);
    return row == NULL ? make(counts, others, others, others, others) : row;
}

void cache_count_bypass(struct cache_count *row, const char *reason)
{
    for (size_t i = 0; i < CACHE_BYPASSES_MAX; i++) {
        if (row->bypasses[i].reason == NULL || strcmp(row->bypasses[i].reason, reason) == 0) {
            row->bypasses[i].reason = reason;
            row->bypasses[i].count++;
            return;
        }
    }
}

static json_t *object_of(const struct cache_count *row)
{
    json_t *bypass = json_object();
    for (size_t i = 0; i < CACHE_BYPASSES_MAX && row->bypasses[i].reason != NULL; i++) {
        (void)json_object_set_new(bypass, row->bypasses[i].reason,
                                  json_integer((json_int_t)row->bypasses[i].count));
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:f, s:f, s:f, s:f}", "tenant", row->tenant, "tier",
                     row->tier, "route", row->route, "namespace", row->cache_namespace, "exact",
                     (json_int_t)row->exact, "near", (json_int_t)row->near, "stale", (json_int_t)row->stale,
                     "miss", (json_int_t)row->miss, "bypass", bypass, "saved_usd",
                     (double)row->saved_nanousd * 1e-9, "saved_seconds", (double)row->saved_ms / 1000.0,
                     "served_age_seconds", (double)row->served_age_ms / 1000.0, "checks_usd",
                     (double)row->checks_nanousd * 1e-9);
}

json_t *cache_counts_list(const struct cache_counts *counts)
{
    json_t *list = json_array();
    list_for_each (&counts->rows, link) {
        (void)json_array_append_new(list, object_of(CONTAINER_OF(link, struct cache_count, link)));
    }
    return list;
}
