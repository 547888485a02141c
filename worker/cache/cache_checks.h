/*
 * cache_checks: what the cache learns of its near hits, and the jobs that it makes for that and to refresh what is stale.
 *
 * A miss with a candidate: the fresh answer is compared with the candidate's. A near hit: with the chance that the verdict of its
 * class asks for it is audited, by a job in cache.audit_tier that asks the same anew; the answer is compared with the served one,
 * and kept when it differs. The judge is that of cache.judge; a model judges by one more job, whose answer begins with "yes" or "no".
 * Since that is a call, it compares likely candidates of misses alone, and of these the share that the verdict asks for.
 */
#pragma once
#include <stdbool.h>
#include "proto/records.pb-c.h"
#include "proto/wire.pb-c.h"
#include "worker/services.h"

struct attempt;
struct broker_link;
struct cache_comparison;
struct cache_result;

/* A near hit was served. */
void cache_checks_audit(struct services *services, const struct attempt *attempt, const struct cache_result *result);
/* A stale entry was served: one job asks anew for each entry and time that it expired at, however often it is served. */
void cache_checks_refresh(struct services *services, const struct attempt *attempt, const struct cache_result *result);
/* Whether the fresh answer is to be compared with a candidate that was not served. Its strings are borrowed. */
bool cache_checks_comparison(const struct services *services, const struct attempt *attempt,
                             struct cache_comparison *ret_comparison);
/* The judge is a model: whether it is to be asked about this miss, of which the fresh answer is there. */
bool cache_checks_judges_miss(struct services *services, const struct attempt *attempt);
/* It is, and this is the candidate. */
void cache_checks_judge_miss(struct services *services, const struct attempt *attempt,
                             const Record__CacheEntry *candidate);
/* An entry was wrong for another text: here, and at the other workers of this broker (NULL: it is not known who). */
void cache_checks_deny(struct services *services, struct broker_link *broker, const uint8_t *key);
/* Another worker says so. */
void cache_checks_denied(struct services *services, const Wire__CacheDenial *denial);
/* The fresh answer is there: an audit is concluded, if it was one. Returns whether the answer is to be kept. */
bool cache_checks_audited(struct services *services, const struct attempt *attempt);
/* The judge is a model: it is asked about an audit, or a miss, by a job of its own. */
void cache_checks_ask_judge(struct services *services, const struct attempt *attempt, const Wire__CacheCheck *audit);
/* Its word on it. */
void cache_checks_judged(struct services *services, const struct attempt *attempt);

/* For metrics: refresh, audit, judge; none. */
const char *cache_checks_name(Wire__CacheCheck__Why why);
