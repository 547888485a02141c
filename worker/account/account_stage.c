#include "worker/account/account_stage.h"

#include "worker/attempt.h"
#include "worker/provider/hedge.h"
#include "worker/telemetry.h"

/* ---- what was saved ---- */

static uint64_t cost_of_tokens(const struct price *price, const struct token_counts *tokens)
{
    const uint64_t most = INT64_MAX / 2;
    const uint64_t cost = account_cost_nanousd(price, tokens);
    return cost < most ? cost : most;
}

/* As if the provider had had no prompt cache. Nothing, where writing to it cost more. */
static uint64_t saved_by_prompt_cache(const struct attempt *attempt)
{
    struct token_counts plain = attempt->tokens;
    plain.cached_input = plain.cache_write = plain.cache_write_long = 0;
    const uint64_t cost = cost_of_tokens(&attempt->price, &plain);
    const uint64_t other = cost_of_tokens(&attempt->price, &attempt->tokens);
    return cost > other ? cost - other : 0;
}

/* As if the prompt had been sent as it came. */
static uint64_t saved_by_optimising(const struct attempt *attempt)
{
    struct token_counts whole = attempt->tokens;
    whole.input += optimised_tokens(&attempt->optimised);
    return cost_of_tokens(&attempt->price, &whole) -
           cost_of_tokens(&attempt->price, &attempt->tokens);
}

static int64_t saved_by_routing(const struct attempt *attempt)
{
    return (int64_t)cost_of_tokens(&attempt->reference, &attempt->tokens) -
           (int64_t)cost_of_tokens(&attempt->price, &attempt->tokens);
}

static void note_savings(struct attempt *attempt)
{
    attempt->saved_prompt_cache_nanousd = saved_by_prompt_cache(attempt);
    attempt->saved_optimising_nanousd = saved_by_optimising(attempt);
    attempt->saved_routing_nanousd = attempt->has_reference ? saved_by_routing(attempt) : 0;
}

/* ---- what was spent ---- */

/* What it has shared before, in vain, is part of what it used. */
static void add_shared(struct attempt *attempt)
{
    account_add_counts(&attempt->tokens, &attempt->shared.tokens);
    attempt->cost_nanousd = price_add(attempt->cost_nanousd, attempt->shared.cost_nanousd);
}

/* The routing that saved is that of the call which counts: what the other one cost is no loss of
 * it. */
static void charge(struct telemetry *telemetry, struct attempt *attempt)
{
    call_report_charge(&attempt->report, &attempt->price, &attempt->tokens);
    attempt->cost_nanousd = attempt->report.cost_nanousd;
    note_savings(attempt);
    hedge_account(attempt, telemetry, attempt->tokens.input);
    telemetry_usage(telemetry, attempt);
    add_shared(attempt);
}

static size_t sent_bytes(const struct attempt *attempt)
{
    size_t bytes;
    (void)attempt_body(attempt, &bytes);
    return bytes;
}

static void charge_answer(struct telemetry *telemetry, struct attempt *attempt)
{
    account_read_usage(attempt->answer, attempt->operation, sent_bytes(attempt), &attempt->tokens);
    charge(telemetry, attempt);
    json_decref(attempt->answer);
    attempt->answer = NULL;
}

/* Its share of the call that answered it is known: worker/combine/share.h. */
static void charge_share(struct telemetry *telemetry, struct attempt *attempt)
{
    attempt->tokens = attempt->shared.tokens;
    attempt->cost_nanousd = attempt->report.cost_nanousd = attempt->shared.cost_nanousd;
    note_savings(attempt);
    telemetry_usage(telemetry, attempt);
}

static enum stage_verdict account_start(void *module, struct attempt *attempt)
{
    const struct services *services = module;
    if (attempt->shared.is_answered) {
        charge_share(services->telemetry, attempt);
    } else {
        charge_answer(services->telemetry, attempt);
    }
    return STAGE_NEXT;
}

void account_unanswered(struct telemetry *telemetry, struct attempt *attempt)
{
    if (attempt->answer != NULL) {
        charge_answer(telemetry, attempt);
    } else if (call_report_is_cut(&attempt->report)) {
        account_estimate_cut(sent_bytes(attempt), attempt->report.pieces, &attempt->tokens);
        charge(telemetry, attempt);
    } else {
        hedge_account(attempt, telemetry, account_estimate_tokens(sent_bytes(attempt)));
    }
    attempt->saved_optimising_nanousd = 0; /* nobody was served */
    attempt->saved_routing_nanousd = 0;
}

struct stage account_stage(struct services *services)
{
    return (struct stage){.name = "account", .module = services, .start = account_start};
}
