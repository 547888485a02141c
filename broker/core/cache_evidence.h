/*
 * cache_evidence: what all workers together know of near hits, for each class of tenant, tier and embedder: sums of counts
 * (common/threshold.h).
 *
 * Workers send deltas, which are added; sums that have changed are told to all workers, at most once in EVIDENCE_TELL_MS, and
 * recorded at most once in EVIDENCE_RECORD_MS a class: what a crash loses is some seconds of counts. The core numbers the
 * epochs: one ends when it has lookups enough and has lasted EVIDENCE_EPOCH_MS, a quarter of the time for which changed answers
 * may go unnoticed. A delta of an epoch that was not announced, of another scale, or of a tenant or a tier that is not configured, is
 * dropped. At most EVIDENCE_CLASSES_MAX classes (34 KB each): the one that was longest without news is forgotten. Without memory
 * evidence is dropped, too: it says less, never something else.
 */
#pragma once
#include "broker/core/state.h"

enum {
    EVIDENCE_CLASSES_MAX = 1024,
    EVIDENCE_TELL_MS = 1000,
    EVIDENCE_RECORD_MS = 10000,
    EVIDENCE_EPOCH_MS = 60000,
    EVIDENCE_TOLD_MAX = 64, /* classes in a turn */
};

void cache_evidence_add(struct core *core, const struct event *event);
/* A worker that has just been welcomed hears what is known, latest first. */
void cache_evidence_tell_all(struct core *core, uint64_t peer);
void cache_evidence_tick(struct core *core);
int64_t cache_evidence_next_deadline_ms(const struct core *core); /* INT64_MAX: none */
/* From the records "cache", 2. Errors: -EBADMSG, -ENOMEM. */
MUST_USE int cache_evidence_restore(struct core *core, const void *value, size_t value_bytes);
void cache_evidence_init(struct core *core);
void cache_evidence_destroy(struct core *core);
