#include "worker/route/router_stage.h"

#include <stdlib.h>
#include <string.h>

#include "worker/attempt.h"

#define UNAVAILABLE WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE

static bool keep_choice(struct attempt *attempt, const struct router_choice *choice)
{
    const struct config_model *model = choice->model;
    attempt->model = strdup(model->name);
    attempt->provider_model =
        strdup(model->provider_model == NULL ? model->name : model->provider_model);
    attempt->provider_name = strdup(choice->provider->name);
    attempt->prices = (struct prices){
        .input_nanousd_per_mtok = model->input_nanousd_per_mtok,
        .cached_input_nanousd_per_mtok = model->cached_input_nanousd_per_mtok,
        .output_nanousd_per_mtok = model->output_nanousd_per_mtok,
    };
    attempt->max_tokens_default = model->max_tokens_default;
    return attempt->model != NULL && attempt->provider_model != NULL &&
           attempt->provider_name != NULL;
}

static enum stage_verdict router_start(void *module, struct attempt *attempt)
{
    const struct services *services = module;
    struct router_choice choice;
    int r = router_choose(services->config, attempt->tier, attempt->route, &choice);
    memcpy(attempt->router_reason, choice.reason, sizeof(choice.reason));
    if (r < 0) {
        /* Another worker may be configured differently, so the job is not at fault. */
        outcome_set(&attempt->outcome, UNAVAILABLE, "no_model", "%s", choice.reason);
        return STAGE_CONCLUDES;
    }
    if (!keep_choice(attempt, &choice)) {
        outcome_set(&attempt->outcome, UNAVAILABLE, "memory", "the worker is out of memory");
        return STAGE_CONCLUDES;
    }
    return STAGE_NEXT;
}

struct stage router_stage(struct services *services)
{
    return (struct stage){.name = "router", .module = services, .start = router_start};
}
