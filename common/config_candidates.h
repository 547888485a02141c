/*
 * config_candidates: whether the broker can compare all that a route names.
 *
 * What may serve a job of a route is a model at one of its providers: those of the list for its
 * tier, that meet the tier's floor; of a model that is named, its own and those of its fallback.
 * The broker keeps CONFIG_CANDIDATES_MAX of them for a route and tier. One that is left out would
 * never be called, and nobody would know why, so that is a mistake of the configuration.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/config.h"
#include "common/config_schema.h"

/*
 * The models and providers that are named exist. Gives, of the first route with too many:
 * *ret_path, the key that names them, static; *ret_route, borrowed; the rest in words. False: there
 * is none.
 */
bool config_candidates_are_too_many(const struct config *config, const char **ret_path,
                                    const char **ret_route, char ret_why[CONFIG_WHY_BYTES]);
