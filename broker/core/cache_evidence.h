/*
 * cache_evidence: what is known of near hits, summed up over all workers, by class: tenant, tier, embedder. See threshold.h.
 *
 * Workers send what they have counted, once; clients what users say of a hit. The sums go to every worker, at most once in
 * EVIDENCE_TELL_MS a class, and to one that comes new; to the store lazily, at most once in EVIDENCE_RECORD_MS a class, and at drain: what
 * is lost by a crash, or without memory, is labels that will come again. Epochs are numbered here. A delta is refused when it claims an
 * epoch that was not announced (its worker is told the sum again), cannot be read, or counts over another scale.
 *
 * Bounds: EVIDENCE_CLASSES_MAX classes of 34 KB, of configured tenants and tiers; the least recently used is forgotten, its record with it.
 */
#pragma once
#include <stdbool.h>
#include "broker/core/state.h"

struct worker;

enum {
    EVIDENCE_CLASSES_MAX = 1024,
    EVIDENCE_TELL_MS = 1000,
    EVIDENCE_RECORD_MS = 10000,
    EVIDENCE_EPOCH_MIN_MS = 60000,   /* a quarter of the 4 minutes for which a drift may go unnoticed under full traffic */
    EVIDENCE_WELCOME_MAX = 64,       /* classes that one worker is told of in one turn, and with its welcome */
    EVIDENCE_TELLINGS_A_TICK = 4096,
    FEEDBACK_SEEN = 4096, /* by hash: two with the same place forget the older */
    FEEDBACK_SEEN_MS = 60000,
    NEAR_FEEDBACK_EACH_MS = 100,
    NEAR_FEEDBACK_BURST = 200,
};

uint64_t cache_evidence_hash(const struct table_link *link, uint64_t seed);
/* Events. */
void cache_evidence_take(struct core *core, const struct event *event);
/*
 * A wrong one invalidates the entry for the client's tenant, and is evidence: counted once for what a tenant says of an entry within
 * FEEDBACK_SEEN_MS. NEAR_FEEDBACK_BURST of a tenant's clients at once, one each NEAR_FEEDBACK_EACH_MS in the long run; the rest is dropped and counted. "Right"
 * is nothing: whoever says so was not drawn by chance.
 */
void cache_evidence_feedback(struct core *core, const struct event *event);
/* After its welcome: the most recently used classes at once, the others in the next turns. */
void cache_evidence_welcome(struct core *core, struct worker *worker);
void cache_evidence_leave(struct core *core, struct worker *worker);
/* False: the tick stopped at a bound. */
bool cache_evidence_tick(struct core *core);
/* Records what is not recorded, from now on at once. */
void cache_evidence_drain(struct core *core);
/* From a record "cache", 2, hash of the class. Errors: -EBADMSG, -ENOMEM. */
MUST_USE int cache_evidence_restore(struct core *core, const uint8_t *key, size_t key_bytes, const void *value, size_t value_bytes);
void cache_evidence_init(struct core *core);
void cache_evidence_destroy(struct core *core);
