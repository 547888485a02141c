#include "worker/route/router_stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/attempt.h"

#define UNAVAILABLE WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE

/* Who asks for a model by its name gets nothing from being sent to it. */
static void keep_reference(const struct config *config, struct attempt *attempt)
{
    const struct config_model *reference =
        config_find_model(config, attempt->route) == NULL
            ? config_find_model(config, config->cost.reference_model)
            : NULL;
    attempt->has_reference = reference != NULL;
    if (reference != NULL) {
        attempt->reference = price_of_model(reference);
    }
}

static bool keep_choice(const struct config *config, struct attempt *attempt,
                        const struct router_choice *choice)
{
    const struct config_model *model = choice->model;
    keep_reference(config, attempt);
    attempt->model = strdup(model->name);
    attempt->provider_model = strdup(router_provider_model(model));
    attempt->provider_name = strdup(choice->provider->name);
    attempt->price = price_of_model(model);
    attempt->max_tokens_default = model->max_tokens_default;
    return attempt->model != NULL && attempt->provider_model != NULL &&
           attempt->provider_name != NULL;
}

/* The broker has found the label at its own provider of this name, or has not looked. */
static void refuse_residency(struct attempt *attempt, const struct router_choice *choice)
{
    outcome_set(&attempt->outcome, UNAVAILABLE, "residency",
                "provider \"%s\" has at this worker not the residency labels that the job needs; "
                "configure broker and workers alike",
                choice->provider->name);
}

static enum stage_verdict router_start(void *module, struct attempt *attempt)
{
    const struct services *services = module;
    struct router_choice choice;
    int r = attempt->upstream_model == NULL
                ? router_choose(services->config, attempt->tier, attempt->route, &choice)
                : router_take(services->config, attempt->upstream_provider, attempt->upstream_model,
                              attempt->is_probe, &choice);
    if (attempt->router_reason == NULL) {
        attempt->router_reason = strdup(choice.reason); /* without memory it is not told */
    }
    if (r < 0) {
        /* Another worker may be configured differently, so the job is not at fault. */
        outcome_set(&attempt->outcome, UNAVAILABLE, r == -ENODEV ? "no_provider" : "no_model", "%s",
                    choice.reason);
        return STAGE_CONCLUDES;
    }
    if (!attempt_may_go_to(attempt, choice.provider->residency,
                           choice.provider->residency_length)) {
        refuse_residency(attempt, &choice);
        return STAGE_CONCLUDES;
    }
    attempt->may_be_filled = attempt->may_be_filled &&
                             !router_is_stand_in(services->config, attempt->route, choice.model);
    if (!keep_choice(services->config, attempt, &choice)) {
        outcome_set(&attempt->outcome, UNAVAILABLE, "memory", "the worker is out of memory");
        return STAGE_CONCLUDES;
    }
    return STAGE_NEXT;
}

struct stage router_stage(struct services *services)
{
    return (struct stage){.name = "router", .module = services, .start = router_start};
}
