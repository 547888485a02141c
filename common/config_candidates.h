/*
 * config_candidates: whether each route has, for each tier, models that the broker can choose from.
 *
 * What may serve a job of a route is a model at one of its providers: those of the list for its
 * tier, that meet the tier's floor; of a model that is named, its own and those of its fallback.
 * The broker keeps CONFIG_CANDIDATES_MAX of them for a route and tier. One that is left out would
 * never be called; and of a list whose models are all below the floor none might be. Nobody would
 * know why, so both are mistakes of the configuration. A model that a job names itself is below no
 * floor.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/config.h"
#include "common/config_schema.h"

struct config_candidates_fault {
    const char *path;  /* the key that names them; static */
    const char *route; /* its name, or the model's; borrowed from the configuration */
    const char *list;  /* where the entry stands that is to be shown: routes, models or tiers; static */
    size_t at;         /* its index there */
};

/*
 * The models and providers that are named exist. `routes_written`: so many of the routes stand in
 * the file; `auto` is behind them where it does not. Gives the first fault, and the rest of the
 * sentence in words. True: there is none, and nothing is given.
 */
bool config_candidates_check(const struct config *config, size_t routes_written,
                             struct config_candidates_fault *ret_fault,
                             char ret_why[CONFIG_WHY_BYTES]);
