/*
 * broker: the shell around the core, in virtual time: turns messages into events, carries effects
 * out as broker/core/effects.h says, and crashes. The real one is broker/main.c.
 */
#pragma once
#include "broker/core/core.h"
#include "tests/simulation/simulation.h"

void sim_broker_init(struct simulation *simulation);
void sim_broker_finish(struct simulation *simulation);
/* Starts from what the store holds. */
void sim_broker_start(struct simulation *simulation);
/* What can be done to it; false: not now. */
/* Dies now; starts again after a while. Loses what was not durable but for a prefix. */
bool sim_broker_crash(struct simulation *simulation);
/* Shuts down as it should: drains, writes everything, starts again. */
bool sim_broker_restart(struct simulation *simulation);
/* An event from outside is refused when there is no memory for it; others are of what is under way.
 */
bool sim_broker_may_refuse(enum event_kind kind);
/* Reads its configuration again, which may have changed. */
bool sim_broker_reload(struct simulation *simulation);
/* Commits fail from now on, for a while. */
bool sim_broker_store_down(struct simulation *simulation);
/* Its monotonic clock jumps. */
void sim_broker_jump(struct simulation *simulation, int64_t jump_ms);

/* The two times that it tells the core. */
struct core_time sim_broker_now(const struct simulation *simulation);
/* The run's time as its monotonic clock has it: with the jumps, and never back. */
int64_t sim_broker_ms(const struct simulation *simulation);

/* Hears of something; it is looked at in the next turn. Takes the message. */
void sim_broker_hear(struct simulation *simulation, const struct message *message);
void sim_broker_turn(struct simulation *simulation);

void sim_broker_store_up(struct simulation *simulation);
void sim_broker_store_sync(struct simulation *simulation);
