#include "worker/prompt/prompt.h"

#include <errno.h>

#include "worker/attempt.h"
#include "worker/prompt/vocabularies.h"
#include "worker/telemetry.h"

static struct optimise_rules rules_of(const struct config *config, const char *tier_name)
{
    const struct config_tier *tier = config_find_tier(config, tier_name);
    if (tier == NULL) {
        return (struct optimise_rules){.space = false};
    }
    return (struct optimise_rules){
        .space = tier->prompt_space == SWITCH_ON,
        .repeats = tier->prompt_repeats == SWITCH_ON,
        .prefix = tier->prompt_prefix == SWITCH_ON,
        .history_tokens_max = tier->prompt_history_tokens_max,
        .passages_tokens_max = tier->prompt_passages_tokens_max,
    };
}

/* What the cache asks again for a tier is asked as that tier asks, wherever it runs. */
static const char *tier_of(const struct attempt *attempt)
{
    const Wire__CacheCheck *check = attempt->request->check;
    return check == NULL ? attempt->tier : check->tier;
}

/* Its prompt is two answers that are to be compared as they are. */
static bool is_of_judge(const struct attempt *attempt)
{
    const Wire__CacheCheck *check = attempt->request->check;
    return check != NULL && check->why == WIRE__CACHE_CHECK__WHY__WHY_JUDGE;
}

/* The model that will be called, as far as it is known before the router has spoken. */
static const char *model_of(const struct attempt *attempt)
{
    return attempt->upstream_model != NULL ? attempt->upstream_model : attempt->route;
}

static const char *result_of(int r, const struct optimised *optimised)
{
    return r == -EMSGSIZE          ? "too_large"
           : r < 0                 ? "failed"
           : optimised->is_changed ? "changed"
                                   : "unchanged";
}

static enum stage_verdict prompt_start(void *module, struct attempt *attempt)
{
    const struct services *services = module;
    const struct optimise_rules rules = rules_of(services->config, tier_of(attempt));
    const ProtobufCBinaryData *body = &attempt->request->body;
    attempt->cut = (struct prompt_cut){.history_tokens = 0};
    if (is_of_judge(attempt) || attempt->operation != OPERATION_CHAT ||
        optimise_rules_are_off(&rules)) {
        return STAGE_NEXT;
    }
    const struct bpe *bpe =
        vocabularies_find(services->vocabularies, services->config, model_of(attempt));
    attempt->optimised_body.bytes_max = OPTIMISE_BYTES_MAX + OPTIMISE_BYTES_MAX / 4;
    int r = optimise_chat(&rules, attempt->tenant, bpe, body->data, body->len,
                          &attempt->optimised_body, &attempt->optimised);
    attempt->cut = attempt->optimised.cut;
    telemetry_optimised(services->telemetry, attempt, result_of(r, &attempt->optimised));
    return STAGE_NEXT;
}

struct stage prompt_stage(struct services *services)
{
    return (struct stage){.name = "prompt", .module = services, .start = prompt_start};
}
