/*
 * flights: watches identical jobs (broker/core/flight.h), and the chunks of their streams
 * (broker/core/stream.h).
 *
 * Identical here: of one tenant, tier, pool and route, with one canonical key.
 * - While the lease of one is held and was never lost, no other one is dispatched.
 * - A job that is concluded for another one is identical to it, ends as it did, with its answer;
 *   never for one whose key is not that of its payload.
 * - Whoever follows has a leader that is pending, identical, and follows nobody itself.
 * - Whoever has to wait before it runs, a new leader among them, does so no longer than somebody
 * may have asked for.
 * - Chunks go to whoever asked for them, each once, in order, from the first one, within the credit
 *   that was given, and are those of the job's attempt or of an identical one's.
 */
#pragma once
#include "tests/simulation/simulation.h"

/* A job was submitted for the first time; from here on it may be identical to others. */
void flights_join(struct simulation *simulation, uint32_t job);
/* It and all that are identical to it now may run alone from now on, beside each other. */
void flights_split(struct simulation *simulation, uint32_t job);
/* Nobody who comes later follows it, perhaps; those that follow it stay with it. */
void flights_see_lost_lease(struct simulation *simulation, uint32_t job);
void flights_see_dispatch(struct simulation *simulation, uint32_t job);
/* A result that was made for `leader` is let go as the job's own. */
void flights_see_result(struct simulation *simulation, const struct message *message);
/* One that is identical to it has used up its attempts. */
bool flights_may_die(struct simulation *simulation, uint32_t job);
/* One that is identical to it has lost so many workers. */
bool flights_may_be_condemned(struct simulation *simulation, uint32_t job);
void flights_check(struct simulation *simulation, uint32_t job);

/* The bytes of a chunk. */
struct blob *flights_chunk(const struct job_lease *lease, uint32_t index);
void flights_see_chunk(struct simulation *simulation, const struct message *message);
/* The core sends a chunk. */
void flights_see_sent(struct simulation *simulation, uint32_t job, uint64_t peer);
/* The core hears of credit for a stream. */
void flights_see_credit(struct simulation *simulation, const struct message *message);
