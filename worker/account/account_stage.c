#include "worker/account/account_stage.h"

#include "worker/attempt.h"
#include "worker/provider/hedge.h"
#include "worker/telemetry.h"

static enum stage_verdict account_start(void *module, struct attempt *attempt)
{
    const struct services *services = module;
    account_read_usage(attempt->answer, attempt->operation, attempt->request->body.len,
                       &attempt->tokens);
    attempt->cost_nanousd = account_cost_nanousd(&attempt->price, &attempt->tokens);
    attempt->report.tokens = attempt->tokens.counted;
    attempt->report.cost_nanousd = attempt->cost_nanousd;
    hedge_account(attempt, services->telemetry, attempt->tokens.input);
    json_decref(attempt->answer);
    attempt->answer = NULL;
    telemetry_usage(services->telemetry, attempt);
    return STAGE_NEXT;
}

struct stage account_stage(struct services *services)
{
    return (struct stage){.name = "account", .module = services, .start = account_start};
}
