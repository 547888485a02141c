/*
 * upkeep: watches the sums of what the cluster takes (broker/core/upkeep.h) from the other side.
 *
 * - Workers count for as long as the core shows them, their GPUs likewise, and in part where they
 * have several brokers: to the millisecond, over joins, losses, and hellos that are said again.
 * - What is stored counts for all of the time between two times that the core is told of it,
 * whatever happens in between; what was moved counts once.
 * - After a crash there is what the last batch on the disk had, and it goes on from there.
 *
 * Without memory for a row what would be in it is not counted; so seeds that lack memory are not
 * looked at.
 */
#pragma once
#include "tests/simulation/simulation.h"

/* What the worker says in its hello. */
uint32_t upkeep_gpus_of(const struct sim_worker *worker);
uint32_t upkeep_brokers_of(const struct sim_worker *worker);

/* The core has been restored. */
void upkeep_see_start(struct simulation *simulation);
/* Before each step: time passes for those who are there. */
void upkeep_before_step(struct simulation *simulation);
/* Every ten seconds or so: the event to tell the core. False: not yet. */
bool upkeep_is_due(struct simulation *simulation, struct event *ret_event);
/* It has been told: compares. */
void upkeep_after_told(struct simulation *simulation);
/* The broker stops: this batch and those after it are lost. */
void upkeep_see_stop(struct simulation *simulation, uint64_t first_lost);
