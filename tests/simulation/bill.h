/*
 * bill: watches the ledger (broker/core/ledger.h, charge.h) from the other side.
 *
 * - What a worker was told that it may forget is in the ledger, once: over crashes, repetitions, and
 *   answers that come late.
 * - Nothing is in it that no worker has said.
 * - Estimates are apart; at the end nothing is reserved for what is over.
 */
#pragma once
#include "tests/simulation/simulation.h"

void bill_before_step(struct simulation *simulation, const struct message *message);
/* Let go to a worker. */
void bill_see_release(struct simulation *simulation, const struct message *message);
void bill_check_end(struct simulation *simulation);
void bill_finish(struct simulation *simulation);
