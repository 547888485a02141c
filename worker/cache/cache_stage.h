/*
 * cache_stage: the two stages of the cache. `cache` answers an attempt from what was paid for
 * before, exactly or nearly (as cache.mode says); `fill` keeps a new answer. Whatever goes wrong in
 * either, the attempt goes on.
 *
 * A streamed job is answered by one chunk that says it all, and then by the whole answer. See
 * DESIGN.md, "Cache".
 */
#pragma once
#include "worker/services.h"
#include "worker/stage.h"

struct stage cache_stage(struct services *services);
struct stage fill_stage(struct services *services);
