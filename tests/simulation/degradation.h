/*
 * degradation: watches what the core does while upstreams fail (docs/degradation.md).
 *
 * - Each dispatch names one upstream, and one that may serve its queue.
 * - While a queue is said to be paused, or an upstream to be down, only probes are dispatched
 * there; of an upstream one at a time.
 * - A provider's limits hold in any 60 s of the broker's clock: what is dispatched, less what is
 * given back, is at most the limit; in tokens, of which a job that is answered has used what it
 * says, nothing is dispatched while they are used up.
 * - They are used evenly: what may go at once is a twentieth of a second's worth, and one at least.
 * - After an outage calls begin at `breaker.slow_start_per_s`, and grow to e times that in a second
 * at most.
 * - An upstream that fails `breaker.failures` calls in a row is down by then.
 * - No attempt is used up by an upstream that is down: a job that dies of its attempts has had as
 * many failures at upstreams that were not.
 * - A limit that an upstream has told of holds from then on, in any 60 s.
 * - Retries are within the routes' budgets, in any time since the broker's start.
 */
#pragma once
#include "broker/core/core.h"
#include "tests/simulation/simulation.h"

/* A core has started. */
void degradation_restart(struct simulation *simulation);
/* The index of the upstream that a dispatch names; SCENARIO_UPSTREAMS: none that is known. */
uint32_t degradation_upstream_of(const struct simulation *simulation, const struct effect *effect);
void degradation_see_dispatch(struct simulation *simulation, uint32_t job,
                              const struct effect *effect);
/* After each turn. */
void degradation_check_turn(struct simulation *simulation, const struct core_stats *stats);
void degradation_see_note(struct simulation *simulation, const struct effect *effect);
/* An attempt's end (result or undeliverable), before and after the core hears of it. */
void degradation_before_end(struct simulation *simulation, const struct message *message);
void degradation_after_end(struct simulation *simulation, const struct message *message);

/* A second call is granted. */
void degradation_see_second(struct simulation *simulation, uint32_t job, uint32_t upstream);
/* What a result says of this upstream; NULL: it was not called. */
const struct call *degradation_call_at(const struct message *message, uint32_t upstream);
/* By its breaker, or since it said when to come back. */
bool degradation_is_down(const struct simulation *simulation, uint32_t upstream);
