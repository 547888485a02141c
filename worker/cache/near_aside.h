/*
 * near_aside: the candidate of a miss, found while its model is called.
 *
 * For an embedder that is asked, and a class that gives no near hits now: nothing is gained by waiting for the vector, but the fresh answer
 * compared with the candidate's is what the class learns from. When the answer is there first, it is kept here until the
 * candidate is known. Who compares them is the judge, a model too. At most NEAR_ASIDES_MAX at a time, with NEAR_ASIDE_BYTES_MAX of answers; what cannot be begun is one label less. Belongs to the loop.
 */
#pragma once
#include <stdint.h>
#include "common/attributes.h"
#include "proto/records.pb-c.h"

struct attempt;
struct cache_query;
struct near_aside;
struct near_asides;
struct services;

enum { NEAR_ASIDES_MAX = 1024, NEAR_ASIDE_BYTES_MAX = 16 << 20 };

/* Errors: -ENOMEM. */
MUST_USE int near_asides_create(struct services *services, struct near_asides **ret_asides);
/* Before the cache and the embedder. */
void near_asides_destroy(struct near_asides **asides);

/* `query`: without its vector; copied. Sets attempt->aside until the candidate is known. */
void near_aside_start(struct near_asides *asides, struct attempt *attempt, const struct cache_query *query);
/* The attempt has its answer, and goes. Copies the entry. */
void near_aside_answered(struct near_aside **aside, const Record__CacheEntry *entry);
/* The attempt goes without an answer. */
void near_aside_destroy(struct near_aside **aside);
