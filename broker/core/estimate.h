/*
 * estimate: how long a job will wait, from how fast its queue is being dispatched.
 *
 * A queue (tier, pool, route) is judged by its own rate where that is known, since a route whose model is slow drains
 * slower than its tier on the whole; by the tier's otherwise. What is ahead of a job is what fairness puts there: the
 * jobs of its tenant, each of which waits for a turn of every other tenant. So a tenant's flood makes its own jobs wait.
 * While jobs of a flow are shed, those that are served wait less than the rest of the queue would take: the law's limit (shed.h).
 * Estimates refuse jobs at the door, so what is not known refuses nothing.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "broker/core/state.h"

enum {
    RETRY_AFTER_LEAST_MS = 100,
    RETRY_AFTER_MOST_MS = 60000,
    RETRY_AFTER_UNKNOWN_MS = 1000,
    RETRY_AFTER_CONNECTIONS_MS = 5000, /* until one of too many peers may have gone */
};

/* Until a new job of this flow and priority is dispatched; -1: not known. */
int64_t queue_expected_wait_ms(const struct flow *flow, uint32_t priority, int64_t now_ms);
/* The same for a job with `own_ahead` ready jobs of its flow ahead of it. */
int64_t estimate_wait_ms(const struct flow *flow, uint64_t own_ahead, int64_t now_ms);
/* Until `jobs` of the tier are gone; of one tenant in one queue when `flow` is not NULL. -1: not known. */
int64_t estimate_drain_ms(const struct core *core, const struct tier *tier, const struct flow *flow,
                          uint64_t jobs);
/*
 * What to tell whoever is to come back after `wait_ms` (-1: not known): within bounds, and later by up to a quarter at
 * random, so that those who were refused together do not come back together.
 */
int64_t estimate_retry_after_ms(struct core *core, int64_t wait_ms);

/* An attempt of this queue succeeded after so long. */
void estimate_note_run(struct queue *queue, int64_t run_ms);
/* Takes counts into rates; called once a turn. */
void estimate_tick(struct core *core);
