#include "worker/provider/hedge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/choice.h"
#include "worker/route/router.h"
#include "worker/telemetry.h"

#define SWAP(a, b)                                                                                 \
    do {                                                                                           \
        const __typeof__(a) kept = (a);                                                            \
        (a) = (b);                                                                                 \
        (b) = kept;                                                                                \
    } while (0)

int hedge_create(struct attempt *attempt, const struct router_choice *choice,
                 struct hedge **ret_hedge)
{
    const struct config_model *model = choice->model;
    CLEANUP(hedge_destroy) struct hedge *hedge = calloc(1, sizeof(*hedge));
    if (hedge == NULL) {
        return -ENOMEM;
    }
    hedge->attempt = attempt;
    hedge->model = strdup(model->name);
    hedge->provider_model = strdup(router_provider_model(model));
    hedge->provider_name = strdup(choice->provider->name);
    hedge->price = price_of_model(model);
    hedge->max_tokens_default = model->max_tokens_default;
    if (hedge->model == NULL || hedge->provider_model == NULL || hedge->provider_name == NULL) {
        return -ENOMEM;
    }
    *ret_hedge = TAKE(hedge);
    return 0;
}

void hedge_destroy(struct hedge **hedge)
{
    struct hedge *old = TAKE(*hedge);
    if (old == NULL) {
        return;
    }
    free(old->model);
    free(old->provider_model);
    free(old->provider_name);
    free(old);
}

void hedge_explain(struct attempt *attempt, const struct hedge *hedge)
{
    char *text = NULL;
    char words[CHOICE_SECOND_BYTES];
    choice_second_words(hedge->provider_name, hedge->model, words, sizeof(words));
    if (attempt->router_reason == NULL ||
        asprintf(&text, "%s%s", attempt->router_reason, words) < 0) {
        return;
    }
    free(attempt->router_reason);
    attempt->router_reason = text;
}

bool hedge_is_running(const struct attempt *attempt)
{
    return attempt->hedge != NULL && attempt->hedge->call != NULL;
}

void hedge_change_places(struct attempt *attempt)
{
    struct hedge *hedge = attempt->hedge;
    SWAP(attempt->model, hedge->model);
    SWAP(attempt->provider_model, hedge->provider_model);
    SWAP(attempt->provider_name, hedge->provider_name);
    SWAP(attempt->price, hedge->price);
    SWAP(attempt->max_tokens_default, hedge->max_tokens_default);
    SWAP(attempt->quality_lost, hedge->quality_lost);
    SWAP(attempt->provider, hedge->provider);
    SWAP(attempt->call, hedge->call);
    SWAP(attempt->report, hedge->report);
    SWAP(attempt->token_ns, hedge->token_ns);
    hedge->has_changed_places = true;
    attempt->may_be_filled = attempt->may_be_filled && !hedge->is_stand_in;
}

/* Whoever ends a call is asked to pay for what was made by then. */
void hedge_account(struct attempt *attempt, struct telemetry *telemetry, uint64_t input_tokens)
{
    struct hedge *hedge = attempt->hedge;
    if (hedge == NULL || !call_report_is_cut(&hedge->report)) {
        return;
    }
    const struct token_counts tokens = {
        .input = input_tokens, .output = hedge->report.pieces, .is_estimated = true};
    call_report_charge(&hedge->report, &hedge->price, &tokens);
    hedge->report.tokens = tokens.input + tokens.output;
    attempt->hedge_cost_nanousd = hedge->report.cost_nanousd;
    attempt->cost_nanousd = price_add(attempt->cost_nanousd, hedge->report.cost_nanousd);
    telemetry_overtaken(telemetry, hedge->provider_name, hedge->model, &tokens,
                        hedge->report.cost_nanousd);
}
