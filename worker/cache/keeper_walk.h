/*
 * keeper_walk: questions whose answer is made of all that is stored: which entries are the first,
 * how many a selector fits.
 *
 * They go through it a few entries at a time, since lookups wait meanwhile: keeper_walk_on() in
 * keeper.h. What changes behind a walk is not seen by it. Private to the keeper.
 */
#pragma once
#include <jansson.h>
#include <stdint.h>
#include "worker/cache/keeper.h"

/* Errors: -EINVAL the argument is wrong, which ret_error says; -ENOMEM. */
MUST_USE int keeper_walk_top(const json_t *argument, struct keeper_walk **ret_walk,
                             char *ret_error);
/* Ages count from `now_unix_ms`. Errors: likewise. */
MUST_USE int keeper_walk_count(const json_t *argument, int64_t now_unix_ms,
                               struct keeper_walk **ret_walk, char *ret_error);
