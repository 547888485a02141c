/*
 * cache: what clients, an operator and workers do about the semantic cache: they invalidate, report
 * what they have counted of near hits, say what they think of one, and of jobs; and workers follow what they are
 * told, or come back from an older state.
 */
#pragma once
#include "tests/simulation/simulation.h"

/* TASK_CACHE. */
void cache_act(struct simulation *simulation);

/* A client is welcome: what it waits for it asks again. */
void cache_hear_client_welcome(struct simulation *simulation, struct sim_client *client);
void cache_hear_invalidated(struct sim_client *client, const struct message *message);

void cache_hear_worker(struct simulation *simulation, struct sim_worker *worker,
                       const struct message *message);
/* What is left of its cache when it starts anew. */
void cache_restart_worker(struct simulation *simulation, struct sim_worker *worker);
