/*
 * broker: the shell around the core, in virtual time: turns messages into events, carries effects
 * out as broker/core/effects.h says, and crashes. The real one is broker/main.c.
 */
#pragma once
#include "tests/simulation/simulation.h"

void sim_broker_init(struct simulation *simulation);
void sim_broker_finish(struct simulation *simulation);
/* Starts from what the store holds. */
void sim_broker_start(struct simulation *simulation);
/* Dies now; starts again after a while. Loses what was not durable but for a prefix. */
void sim_broker_crash(struct simulation *simulation);
/* Shuts down as it should: drains, writes everything, starts again. */
void sim_broker_restart(struct simulation *simulation);
/* Reads its configuration again, which has not changed. */
void sim_broker_reload(struct simulation *simulation);
/* Hears of something; it is looked at in the next turn. Takes the message. */
void sim_broker_hear(struct simulation *simulation, const struct message *message);
void sim_broker_turn(struct simulation *simulation);

void sim_broker_store_down(struct simulation *simulation);
void sim_broker_store_up(struct simulation *simulation);
void sim_broker_store_sync(struct simulation *simulation);
