/*
 * cache_rules: what the cache may do with a request, by its control, its tier and what it asks for.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/prompt_cut.h"
#include "worker/services.h"

struct attempt;

struct cache_rules {
    const char *bypass;   /* why the cache is not asked, nor filled, in a word; NULL: it is. Static */
    bool is_looked_up;    /* else: filled alone */
    bool may_be_near;
    int64_t ttl_ms;
    int64_t age_ms_max; /* of an entry that answers it; INT64_MAX: any that is not stale */
    int64_t stale_while_revalidate_ms, stale_if_error_ms;
    bool is_stale_at_once; /* the latter: as soon as a call fails */
    struct prompt_cut prompt_cut; /* that an entry may come from */
    const char *tier; /* whose rules these are; the attempt's, or of its request */
};

/*
 * Bypassed: `off` (no time to live), `opted_out` (by the request), `check` (a job that a worker made), `variety` (temperature above
 * cache.temperature_max, unless the request says so), `tool_result` (it continues a tool call). A job that a worker made follows
 * the rules of the job that it is about: its answer is for jobs of that tier. A text with time words (time_words.h) is answered by
 * what is no older than cache.time_words_ttl, its answer kept no longer and never served stale; a time that the request names goes
 * before. `attempt` has its body parsed.
 */
void cache_rules_of(const struct services *services, const struct attempt *attempt, struct cache_rules *ret_rules);
