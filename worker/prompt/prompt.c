#include "worker/prompt/prompt.h"

static enum stage_verdict prompt_start(void *module, struct attempt *attempt)
{
    (void)module;
    (void)attempt;
    return STAGE_NEXT;
}

struct stage prompt_stage(struct services *services)
{
    return (struct stage){.name = "prompt", .module = services, .start = prompt_start};
}
