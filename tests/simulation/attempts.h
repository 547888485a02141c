/*
 * attempts: watches that each attempt has the consequence that it must have, at once and for good.
 *
 * - The first answer to a pending job concludes it, whoever holds the lease.
 * - A job that has used up its attempts, or has ended as many workers as one may, is dead; and it
 * is not dead of that before. Both outlast a restart, as far as the record had them, and so do the
 *   numbers of attempts.
 * - What fails over goes elsewhere. A worker that gave a job back gets none before it says more.
 * - A worker that comes back with the answer of a lease that it holds keeps it, may forget the
 *   answer when the conclusion is durable, and is told when an attempt is over.
 * - A worker that leaves with a goodbye is no loss to the jobs that it holds.
 * - A probe that says nothing, since its worker gave it back, was not reached or is gone, holds
 *   nobody up.
 * - A breaker closes by a probe that succeeds; one that fails doubles the wait.
 * - A broker that shuts down accepts and dispatches nothing.
 * - What is left on disk in the end belongs to something.
 *
 * Bounds are counted from below and from above: what the core may know differently (an attempt of
 * an earlier lease, a crash's lost batches) counts for one of them alone.
 */
#pragma once
#include "tests/simulation/simulation.h"

void attempts_before_step(struct simulation *simulation, const struct message *message);
void attempts_after_step(struct simulation *simulation, const struct message *message);
/* A worker's hello was welcomed; before what it held is counted anew. */
void attempts_see_hello(struct simulation *simulation, const struct message *message);
/* Before its attempt counts as the job's latest. */
void attempts_see_dispatch(struct simulation *simulation, uint32_t job,
                           const struct effect *effect);
void attempts_see_effect(struct simulation *simulation, const struct effect *effect);
/* Let go to a worker. */
void attempts_see_release(struct simulation *simulation, const struct message *message);
/* An operator has requeued it: its failures and losses count anew. */
void attempts_begin_life(struct simulation *simulation, uint32_t job);
/* Everything but what the disk has is forgotten. */
void attempts_see_crash(struct simulation *simulation);
/* The core has read its records. */
void attempts_restart(struct simulation *simulation);
/* The worker of this name says goodbye just now: what it holds is not lost by a crash. */
bool attempts_is_leaving(const struct simulation *simulation, const char *worker);
void attempts_check_end(struct simulation *simulation);
