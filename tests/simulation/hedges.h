/*
 * hedges: watches second calls beside slow ones (docs/degradation.md, "Hedging").
 *
 * - One is granted to the holder of a lease alone, once an attempt, at another provider than the first, at an upstream that may serve the job
 * and is not down, and within limits and paces (degradation.h).
 * - Of a tier, second calls are at most its share of dispatches at any time, and cost at most that share, but for what calls that are
 * under way cost beyond what was expected.
 */
#pragma once
#include "broker/core/core.h"
#include "tests/simulation/simulation.h"

void hedges_see_grant(struct simulation *simulation, const struct effect *effect);
/* The attempt of a job that was granted one has ended: what was not called is given back. */
void hedges_settle(struct simulation *simulation, const struct message *message);
/* After each turn. */
void hedges_check_turn(struct simulation *simulation, const struct core_stats *stats);
