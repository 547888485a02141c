/*
 * eviction: what goes when the cache is full: what is worth least, of a sample.
 *
 * Worth is the money (and, as a thousandth of a cent a second, the time) that an entry saves with each hit, times its hits
 * and one, a byte, halved for each EVICTION_HALF_LIFE since it was served or filled: frequency, size, cost and recency as in GDSF
 * (Cherkasova 1998), chosen from EVICTION_SAMPLE random entries as Redis does, so that nothing has to be kept in order.
 */
#pragma once
#include <stdint.h>
#include "common/attributes.h"
#include "proto/records.pb-c.h"

struct keeper;

enum { EVICTION_SAMPLE = 16, EVICTIONS_A_FILL_MAX = 8, EVICTION_HALF_LIFE_MS = 6 * 3600 * 1000 };

double eviction_worth(const Record__CacheAbout *about, int64_t now_unix_ms);
/* Removes until the bounds hold, or EVICTIONS_A_FILL_MAX: a lowered bound is reached over several fills. */
MUST_USE int eviction_keep_bounds(struct keeper *keeper, int64_t now_unix_ms, char *ret_error);
