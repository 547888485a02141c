/*
 * cache_host: the cache within its worker: follows the brokers' invalidations, passes evidence on, answers operators.
 *
 * Sets services.cache and what belongs to it. Belongs to the loop.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/attributes.h"
#include "proto/wire.pb-c.h"
#include "worker/services.h"

struct broker_link;
struct cache_host;

/* With the configuration in `services`; mode off: *ret_host is NULL. Waits for the database (cache_create()). Errors: -ENOMEM … */
MUST_USE int cache_host_open(struct services *services, struct cache_host **ret_host);
void cache_host_close(struct cache_host **host);
/* All that follow accept a NULL host. How far the i-th broker's invalidations were followed, for its link's hello. */
void cache_host_position(struct cache_host *host, size_t index, uint8_t ret_epoch[16], uint64_t *ret_sequence);
/* A broker's link, when it is made. */
void cache_host_add(struct cache_host *host, struct broker_link *link);
/* services.config was replaced. */
void cache_host_reconfigure(struct cache_host *host);

/* What a broker says: broker_handler. */
void cache_host_invalidate(struct cache_host *host, struct broker_link *link, const Wire__CacheInvalidation *invalidation);
void cache_host_behind(struct cache_host *host, struct broker_link *link, const uint8_t *epoch, uint64_t sequence);
void cache_host_evidence(struct cache_host *host, struct broker_link *link, const Wire__CacheEvidence *evidence);
void cache_host_denial(struct cache_host *host, const Wire__CacheDenial *denial);
void cache_host_query(struct cache_host *host, struct broker_link *link, const Wire__WorkerQuery *query);

/* What the embedder did, whichever it is; `ret_is_down`: it fails now, so that there are exact hits alone. */
struct text_embedder_stats;
void cache_host_read_embedder(struct cache_host *host, struct text_embedder_stats *ret_stats, bool *ret_is_down);

/* What the configuration says of the judge. */
void cache_host_set_judge(struct services *services);

/* At the end of a turn, before the links are flushed. */
void cache_host_turn(struct cache_host *host);
