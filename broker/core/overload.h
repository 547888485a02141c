/*
 * overload: sheds jobs of tiers with a shed_target (config.h), by the law of shed.h, and says so.
 *
 * A wait counts from when the job could have been dispatched: since it became ready, its pool has a worker, and nothing it
 * depends on is paused. So an outage or a pause sheds nothing, however long; when it is over, a queue that is longer than what can be
 * served within the target is shed at the law's pace. Only jobs that were never dispatched are shed: nothing was spent
 * on them, and nobody may still be running them. So a shed job may be submitted again under the same id.
 */
#pragma once
#include "broker/core/state.h"

/* The job at the head of its flow, which a worker is free for. True: it was shed, and is gone. */
bool overload_sheds(struct core *core, struct job *job);
/* Notes what was shed, at most once a second for each tier. */
void overload_tick(struct core *core);
