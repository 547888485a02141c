/* faults: what goes wrong in a run, besides messages: crashes, clocks, disks, connections, and
 * operators who pause things. */
#pragma once
#include "tests/simulation/simulation.h"

/* Every TICK_MS. When the world is quiet an operator resumes what is paused. */
void faults_tick(struct simulation *simulation);
/* From now on nothing goes wrong any more, and what was stopped goes on. */
void faults_end(struct simulation *simulation);
