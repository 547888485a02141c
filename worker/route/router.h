/*
 * router: which model answers a job, and why.
 *
 * A model's own name is respected. An alias is served by its list for the job's tier, or by its
 * general one; `auto` without an entry of its own may be any model, in the order of the
 * configuration. The first of the list is taken. A pure function of the configuration: the same
 * question has the same answer on every worker. A broker that names the upstream itself is obeyed.
 */
#pragma once
#include <stdbool.h>
#include "common/attributes.h"
#include "common/config.h"

enum { ROUTER_REASON_BYTES = 192 };

struct router_choice {
    const struct config_model *model;       /* of the configuration */
    const struct config_provider *provider; /* of the configuration */
    char reason[ROUTER_REASON_BYTES];
};

/* Errors: -ENOENT no model serves this route here (choice->reason says why). */
MUST_USE int router_choose(const struct config *config, const char *tier, const char *route,
                           struct router_choice *ret_choice);
/*
 * The upstream that the broker has named, if this worker has it: a model, at its provider or at one
 * of those it may fail over to. Errors: -ENOENT no such model here; -ENODEV not at that provider
 * (choice->reason says why).
 */
MUST_USE int router_take(const struct config *config, const char *provider, const char *model,
                         bool is_probe, struct router_choice *ret_choice);
/*
 * The model is another one than the route names: its answer is for this job alone, since whoever asks for the same model again, when it
 * is back, is not to get it from the cache.
 */
bool router_is_stand_in(const struct config *config, const char *route,
                        const struct config_model *model);
/* What its provider calls it. */
const char *router_provider_model(const struct config_model *model);
