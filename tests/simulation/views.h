/*
 * views: what operators are shown of dead letters and of the attempts of a job agrees with itself,
 * with what the run knows and with what is stored.
 */
#pragma once
#include "tests/simulation/simulation.h"

void views_check_dead(struct simulation *simulation);
/* The history of this job, and its letter when it is dead. */
void views_check_job(struct simulation *simulation, uint32_t index);
