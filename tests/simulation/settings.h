/*
 * settings: configurations that the core cannot use. It refuses each, at a start and at a reload,
 * and is what it was.
 */
#pragma once
#include "tests/simulation/simulation.h"

/* Sometimes: before it starts with the one that it can use. */
void settings_try_to_start(struct simulation *simulation, const struct config *config);
/* The same while it runs. */
void settings_try_to_reload(struct simulation *simulation, const struct config *config);
