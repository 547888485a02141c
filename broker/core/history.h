/*
 * history: what became of a job's attempts, for an operator who asks why it is where it is.
 *
 * A job may be rate limited a thousand times, so of each the first HISTORY_FIRST entries are kept and the latest HISTORY_LATEST: the
 * first ones have the ordinals 1 to HISTORY_FIRST, the later ones take turns in a ring behind them. An entry beyond that
 * overwrites the oldest of the ring, and nothing ever has to be deleted one by one. Of durable tiers they are on disk
 * (AttemptRecord, written in the batch that writes the job's record too); of tiers in memory in a table on the side, which only
 * jobs with a failed attempt pay for, bounded in bytes: the history that was touched the longest ago is forgotten first.
 */
#pragma once
#include "broker/core/state.h"
#include "proto/records.pb-c.h"

enum {
    HISTORY_FIRST = 8,
    HISTORY_LATEST = 24,
    HISTORY_MAX = HISTORY_FIRST + HISTORY_LATEST,
    HISTORY_MEMORY_SHARE = 8, /* of broker.results_memory_bytes_max */
};

uint64_t history_hash(const struct table_link *link, uint64_t seed);
/* Adds an entry. The caller writes the job's record, which counts them, in the same turn. */
void history_add(struct core *core, struct job *job, const Record__AttemptRecord *record);
/* Deletes the records of a durable job. */
void history_delete(struct core *core, const struct job *job);
/* Forgets what is in memory of a job. */
void history_forget(struct core *core, const struct job *job);
void history_destroy_all(struct core *core);

/* Of `added` entries: how many are kept, and the ordinal of the one at `position`, from 0, in order of time. */
uint32_t history_kept(uint32_t added);
uint32_t history_ordinal(uint32_t added, uint32_t position);
