/*
 * oracle: watches a run and says when a promise is broken (DESIGN: "A job's life, and what is
 * promised").
 *
 * - Kept: a job whose acceptance on a durable tier was let go is on disk, pending or concluded,
 *   and its client gets its outcome.
 * - One: a durable job has one conclusion, the same for everybody at any time.
 * - Bounds: jobs, bytes, results, ids, dead letters and credits stay within what was configured.
 * - Dispatch: no job runs before its acceptance is durable, before its time, after its deadline or
 *   conclusion, outside its pool, while an operator holds it, or while its lease lasts. Attempts
 *   have growing numbers, and a payload is what was submitted.
 * - Tenants: nobody hears of another tenant's job.
 */
#pragma once
#include "tests/simulation/simulation.h"

/* What the core is about to be told, and what it answered to that. */
void oracle_before_step(struct simulation *simulation, const struct message *message);
/* The same for a tick, with what it had no memory for. */
void oracle_after_tick(struct simulation *simulation);
void oracle_after_step(struct simulation *simulation, const struct message *message);
void oracle_see_effect(struct simulation *simulation, const struct effect *effect);
/* A record was handed to the store; a record became durable. */
void oracle_see_change(struct simulation *simulation, const struct storage_change *change);
storage_observe_fn oracle_see_durable;
/* An answer is let go, whether it arrives or not: from now on it is a promise. */
void oracle_see_release(struct simulation *simulation, const struct message *message);
/* The same of a job that a worker made, and that nobody is told of. */
void oracle_see_made(struct simulation *simulation, const struct message *message);
/* The broker has to know this job when it is asked now: it was acknowledged, and not to be
 * forgotten. */
bool oracle_knows(const struct simulation *simulation, uint32_t job);
void oracle_see_crash(struct simulation *simulation);
/* After each turn: the bounds, and a few of the jobs, one after the other. */
void oracle_check_turn(struct simulation *simulation);
/* Everything at once, now and then; and when all is settled. */
void oracle_check(struct simulation *simulation);
bool oracle_is_settled(struct simulation *simulation);
void oracle_check_end(struct simulation *simulation);
