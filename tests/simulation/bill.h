/*
 * bill: watches the ledger (broker/core/ledger.h, charge.h) from the other side.
 *
 * - What a worker was told that it may forget is in the ledger, once: over crashes, repetitions, and
 *   answers that come late.
 * - Nothing is in it that no worker has said.
 *   Of a second call beside the first, too, and of each under its own upstream.
 * - Estimates are apart; at the end nothing is reserved for what is over.
 * - The budget of one tenant, which some seeds have, is never exceeded: by what the core says, and by what workers have said. But
 *   where a crash loses the batch of a dispatch, its worst case was reserved nowhere.
 */
#pragma once
#include "tests/simulation/simulation.h"

void bill_before_step(struct simulation *simulation, const struct message *message);
/* A call may be made for the job from now on. */
void bill_see_call(struct simulation *simulation, uint32_t job);
/* The broker stops: this batch and those after it are lost. */
void bill_see_stop(struct simulation *simulation, uint64_t first_lost);
void bill_check_turn(struct simulation *simulation);
/* Let go to a worker. */
void bill_see_release(struct simulation *simulation, const struct message *message);
/* After all is settled, until nothing is reserved any more. */
int64_t bill_settles_ms(const struct simulation *simulation);
void bill_check_end(struct simulation *simulation);
void bill_finish(struct simulation *simulation);
