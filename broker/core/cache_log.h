/*
 * cache_log: invalidations of the workers' caches: numbered from 1, kept over restarts, and told to every worker.
 *
 * A worker is told of an invalidation when it is durable, in its session, where nothing is lost between two hellos. One
 * that comes back says how far it had come, and is told what it missed; when that is not kept any more, or the numbers are
 * of another store (epoch), it is told that it is behind, and clears its cache. Bounded: the oldest are forgotten.
 */
#pragma once
#include "broker/core/state.h"

/*
 * Event. Without memory nothing happens: the shell sees that core_cache_position() stays. A client is answered, when it is durable
 * or refused: it reaches its own tenant's entries alone.
 */
void cache_log_invalidate(struct core *core, const struct event *event);
/* An entry that is wrong, of this tenant: nobody is answered. False: no memory. */
bool cache_log_invalidate_entry(struct core *core, const struct tenant *tenant, const uint8_t *key, const char *reason);
/* What became durable is told. After core.batch_durable has risen. */
void cache_log_durable(struct core *core);
/* The latest that workers were told of that may be of this tenant's entries; 0: none. */
uint64_t cache_log_told(const struct core *core, const struct tenant *tenant);
/* From the records "cache", 0 and "cache", 1. Errors: -EBADMSG, -ENOMEM. */
MUST_USE int cache_log_restore(struct core *core, const void *value, size_t value_bytes);
MUST_USE int cache_log_restore_entry(struct core *core, const void *value, size_t value_bytes, uint64_t sequence);
void cache_log_restored(struct core *core); /* what a gap cuts off counts as forgotten */
void cache_log_init(struct core *core);
void cache_log_destroy(struct core *core);
