/*
 * cache_stage: the stages of the cache. `cache` answers an attempt from what was paid for
 * before, exactly or nearly (as cache.mode says); `fill` keeps a new answer; `stand-in` answers one
 * whose call has failed from what is past its time, if its tier has that at once and no other
 * upstream would be called. Whatever goes wrong in them, the attempt goes on as without a cache.
 *
 * A streamed job is answered by one chunk that says it all, and then by the whole answer. See
 * DESIGN.md, "Cache".
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

struct stage cache_stage(struct services *services);
struct stage stand_in_stage(struct services *services);
struct stage fill_stage(struct services *services);
