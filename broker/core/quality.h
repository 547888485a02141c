/*
 * quality: what feedback has said of answers since start, summed up: by tenant, tier, route, model, cache decision and task together.
 *
 * QUALITY_SUMS_MAX sums; the least recently used is forgotten. Totals by model and tier are never. Besides the latest
 * QUALITY_COMMENTS comments.
 */
#pragma once
#include "broker/core/state.h"

enum { QUALITY_SUMS_MAX = 4096, QUALITY_COMMENTS = 256 };

uint64_t quality_hash(const struct table_link *link, uint64_t seed);
void quality_init(struct core *core);
void quality_destroy(struct core *core);
/* An accepted feedback on this answer; `score` 0 to 1. Without memory it is in no sum. `comment` may be empty. */
void quality_add(struct core *core, const struct concluded_entry *entry, double score, const char *comment);
